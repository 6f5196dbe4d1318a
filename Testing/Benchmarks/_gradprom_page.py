"""The page of the gate's benchmark, and its figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from _common import gate_table, table
from _enhancement_statistics import Difference, chosen, mean_of
from _gradprom_arms import ALONE, BINARY, COLD, JOINT, MGDA_ARM, OURS, RANDOM, WEIGHTED, Settings
from _gradprom_gates import (
    ON_CLEAN,
    by_weight,
    compared,
    gates,
    harmful,
    points,
)
from _gradprom_runs import REFERENCE
from _gradprom_segmenters import SEGMENTERS

mpl.use("Agg")
import matplotlib.pyplot as plt

Row = dict[str, Any]
SECOND = "dice_of second, clean"
_COLORS = {
    ALONE: "black",
    JOINT: "#d62728",
    BINARY: "#1f77b4",
    "gate, cosine": "#17becf",
    COLD: "#98df8a",
    OURS: "#2ca02c",
    "PCGrad": "#9467bd",
    RANDOM: "#7f7f7f",
    MGDA_ARM: "#8c564b",
}


@dataclass(frozen=True)
class Results:
    """Everything that was measured.

    stories: of each run, what its training did: modality, arm, weight, seed, open fraction, …
    costs: by modality and arm.
    """

    settings: dict[str, Settings]
    weights: tuple[float, ...]
    seeds: tuple[int, ...]
    rows: list[Row]
    stories: list[Row]
    costs: dict[str, dict[str, dict[str, float]]]
    seconds: dict[str, float] = field(default_factory=dict)

    def gates(self) -> list[dict[str, Any]]:
        return gates(self.rows, self.weights, self.costs)

    def arms(self) -> tuple[str, ...]:
        present = {row["arm"] for row in self.rows}
        return tuple(arm for arm in _COLORS if arm in present)


def page(results: Results) -> str:
    parts = [_head(results), "\n## Gates\n", gate_table(results.gates()), _lost(results)]
    for modality in results.settings:
        parts += [f"\n## {modality}\n", *_modality(results, modality)]
    return "\n".join(parts)


def _head(results: Results) -> str:
    kinds = "; ".join(
        f"{name}: {len(_patients(results, name))} patients, {settings.damage.of(name)}, a run "
        f"{results.seconds[name]:.0f} CPU s"
        for name, settings in results.settings.items()
    )
    one = next(iter(results.settings.values()))
    return f"""# The gradient gate on patients with outlined tumours

An enhancer learns to remove simulated noise. A segmentation head learns beside it, by its own loss
alone, to find the tumour in what the enhancer makes. Arms differ in how the head's gradient enters
the enhancer ([what the gate is](../gradient-gate.md)). Ours is *{OURS}*, the product's default;
*{BINARY}* is the rule as published. λ is the weight of the task's gradient, and no λ is chosen by
what it does on test patients: where one figure is given, it is the mean over all λ.

![PSNR against Dice](gradprom.png)

**Data.** Soft-tissue sarcomas with manual outlines (STS, theibsi/data_sets, CC BY 3.0).
{kinds}.
CT in a window of −160 to 240 HU (its span is 1), pixels averaged 2 × 2; MR by its brightest tissue.
Used are the slices with the tumour and two beyond each end: to find out whether there is a tumour
at all is not asked of a network that trains for a minute. Patients are split for training and
testing; seeds {", ".join(map(str, results.seeds))} have other test patients and other first
weights, and every three of them test every patient once. PSNR and SSIM are taken in the body,
Dice over all used slices of a patient.

**Budget.** All arms: {one.alone} steps of a first stage, in which the enhancer learns from its own
L1 loss (run once for each seed), then {one.steps} steps of {one.batch} slices of {one.side} pixels
with the arm's rule, on the same batches, one thread. The head learns on one half of the training
patients' slices, enhancer and gate see the other half. Enhancer: residual U-Net of
{" ".join(map(str, one.widths))} channels on three slices; head: {" ".join(map(str, one.head))} on
one. Segmenters without an enhancer train as long, on the head's half. Sizes were
chosen in trials of segmenters that learn alone, λ around where joint training with seed 0 begins
to lose PSNR. λ, clipping and the stages' lengths were changed after looking at arms of seed 0, ours
among them, and ours closes its gate at first ({COLD} does not) after looking at seeds 0 and 1 in
CT; all these trials saw these patients. MGDA weighs both losses itself and has no λ;
PCGrad takes a part out of the enhancement's gradient too, whatever λ is. Intervals (95 %) are of
draws of patients, and of seeds within each where a patient has several. With so small networks
and so few patients this compares rules with each other. It says nothing about the shipped models
and nothing about any patient's care.
"""


def _patients(results: Results, modality: str) -> set[str]:
    return {row["subject"] for row in results.rows if row["modality"] == modality}


def _lost(results: Results) -> str:
    missed = [entry["name"] for entry in results.gates() if not entry["pass"]]
    if not missed:
        return "All gates passed."
    return "Missed:\n\n" + "\n".join(f"- {name}" for name in missed)


def _modality(results: Results, modality: str) -> Iterator[str]:
    rows = by_weight(results.rows, modality, results.weights)
    yield _border(results, rows)
    yield table(
        ("arm", "λ", "PSNR, dB", "SSIM", "Dice", "border", "Dice of the clean-trained twin",
         "Dice of the second segmenter", "same head, clean", "open", "mean cosine"),
        _arm_lines(results, rows, modality),
    )  # fmt: skip
    yield (
        "\nDice is that of the jointly trained head on enhanced images, unless stated otherwise.\n"
    )
    yield "Differences, mean over λ:\n"
    yield table(
        ("arm", f"PSNR less {ALONE}", f"Dice less {ALONE}", f"Dice less {RANDOM}",
         f"PSNR less {JOINT}", f"second segmenter's Dice less {ALONE}"),
        _difference_lines(results, rows),
    )  # fmt: skip
    yield "\nWithout an enhancer:\n"
    yield table(("segmenter", "trained on", "Dice on clean", "Dice on degraded"),
                _segmenter_lines(results, modality))  # fmt: skip
    degraded = {
        name: mean_of(results.rows, name, modality=modality, arm=REFERENCE, state="degraded")
        for name in ("psnr", "ssim")
    }
    yield f"\nDegraded images: {degraded['psnr']:.2f} dB, SSIM {degraded['ssim']:.3f}.\n"
    yield _costs(results, modality)


def _border(results: Results, rows: list[Row]) -> str:
    found = points(rows, results.arms(), results.weights)
    ours = [point for point in found if point["arm"] == OURS]
    on = [point for point in ours if point["on_border"]]
    others = sorted({p["arm"] for p in found if p["on_border"]} - {OURS})
    where = ", ".join(f"{point['weight']:g}" for point in on) or "none"
    harms = ", ".join(f"{weight:g}" for weight in harmful(rows, results.weights)) or "none"
    return (
        f"Of {len(ours)} points of ours {len(on)} lie on the upper right border (no arm and λ is "
        f"better in both PSNR and Dice): λ = {where}. Also on it: {', '.join(others) or 'none'}. "
        f"Joint training loses 0.2 dB or more at λ = {harms}. Dice of all points lies between "
        f"{min(p['dice'] for p in found):.3f} and {max(p['dice'] for p in found):.3f}: with a head "
        "that learns along, it depends little on who teaches the enhancer.\n"
    )


def _arm_lines(results: Results, rows: list[Row], modality: str) -> Iterator[tuple[str, ...]]:
    for point in points(rows, results.arms(), results.weights):
        arm, weight = point["arm"], point["weight"]
        here = chosen(rows, arm=arm, weight=weight)
        stated = chosen(results.stories, modality=modality, arm=arm, weight=weight)
        clean = chosen(rows, arm=f"{arm}, {ON_CLEAN}", weight=weight)
        yield (
            arm,
            "–" if weight is None else f"{weight:g}",
            f"{point['psnr']:.2f}",
            _number(mean_of(here, "ssim")),
            _number(point["dice"]),
            "yes" if point["on_border"] else "",
            _number(mean_of(here, "dice_of head, clean")),
            _number(mean_of(here, SECOND)),
            _number(mean_of(clean, "dice")),
            _share(mean_of(stated, "open_fraction")),
            _number(mean_of(stated, "cosine")),
        )


def _difference_lines(results: Results, rows: list[Row]) -> Iterator[tuple[str, ...]]:
    for arm in results.arms():
        if arm == ALONE:
            continue
        yield (
            arm,
            *(
                "–" if arm == other else _difference(compared(rows, figure, weights, arm, other))
                for figure, other, weights in (
                    ("psnr", ALONE, results.weights),
                    ("dice", ALONE, results.weights),
                    ("dice", RANDOM, results.weights),
                    ("psnr", JOINT, results.weights),
                    (SECOND, ALONE, results.weights),
                )
            ),
        )


def _segmenter_lines(results: Results, modality: str) -> Iterator[tuple[str, ...]]:
    for name, (kind, is_head) in SEGMENTERS.items():
        dice = [
            mean_of(results.rows, "dice", modality=modality, segmenter=name, state=state)
            for state in ("clean", "degraded")
        ]
        words = "twin of the head" if is_head else "of another architecture"
        yield words, kind, *map(_number, dice)


def _costs(results: Results, modality: str) -> str:
    lines = (
        (
            arm,
            f"{1000 * entry['step_s']:.0f}",
            f"{entry['step_s ratio']:.2f}",
            f"{entry['upper_s ratio']:.2f}",
            f"{entry['bytes'] / 2**20:.1f}",
            f"{entry['bytes ratio']:.2f}",
        )
        for arm, entry in results.costs[modality].items()
    )
    header = ("arm", "ms per step", "ratio", "ratio, enhancer's part alone", "peak MiB", "ratio")
    return (
        "A step's cost: medians of processor time, all arms in turn; the most bytes that PyTorch's "
        "allocator held (not what convolution kernels take beside it).\n\n" + table(header, lines)
    )


def draw(path: Path, results: Results) -> None:
    """PSNR against Dice: each arm a line over λ."""
    count = len(results.settings)
    figure, axes = plt.subplots(1, count, figsize=(6.4 * count, 5), squeeze=False)
    for axis, modality in zip(axes[0], results.settings, strict=True):
        found = points(
            by_weight(results.rows, modality, results.weights), results.arms(), results.weights
        )
        alone = max((p["psnr"] for p in found if p["arm"] == ALONE), default=0.0)
        for arm in results.arms():
            own = [point for point in found if point["arm"] == arm]
            style = {"lw": 2.4, "zorder": 3} if arm == OURS else {"lw": 1.2}
            marker = "o" if arm in WEIGHTED else "*"
            x, y = [p["dice"] for p in own], [p["psnr"] for p in own]
            axis.plot(x, y, marker=marker, color=_COLORS[arm], label=arm, **style)
            for point in own:
                if point["weight"] is not None and arm in (OURS, JOINT):
                    place = (point["dice"], point["psnr"])
                    axis.annotate(f"{point['weight']:g}", place, fontsize=7, color=_COLORS[arm])
        # Joint training at a large λ falls so far that all else would be one point.
        least = min((p["psnr"] for p in found), default=0.0)
        axis.set_ylim(bottom=max(least - 0.3, alone - 6))
        axis.set(title=modality, xlabel="Dice on test patients", ylabel="PSNR in the body, dB")
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"


def _difference(value: Difference | None) -> str:
    return "–" if value is None else str(value)
