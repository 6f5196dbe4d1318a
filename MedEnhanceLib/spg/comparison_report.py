"""The report of a comparison: means over seeds, closed gaps, tables, text, curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.manifest import make_manifest
from MedEnhanceLib.io.atomic import atomic_write, write_json
from MedEnhanceLib.report.drawing import INK, MUTED, PAPER
from MedEnhanceLib.report.page import Page, Picture, Table, write_page
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.spg.comparison import ALL, ARMS, FULL, MATCHED_NETWORK, PUBLIC, RANDOM, SPG, Row
from MedEnhanceLib.spg.config import DistillConfig

#: A smaller gap, in dB, is within the spread of the seeds.
LEAST_GAP_DB = 0.3


@dataclass(frozen=True)
class Mean:
    """Mean, median and standard deviation over `count` seeds, dB."""

    mean: float
    median: float
    spread: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """The statistics of one value or more."""
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return cls(float(np.mean(values)), float(np.median(values)), spread, len(values))

    def __str__(self) -> str:
        spread = f" ± {self.spread:.2f}" if self.count > 1 else ""
        return f"{self.mean:.2f}{spread} ({self.count})"


@dataclass(frozen=True)
class Closure:
    """(value − reference) / (full − reference); None if full − reference is below 0.3 dB."""

    share: float | None
    gap_db: float

    def __str__(self) -> str:
        return "inconclusive" if self.share is None else f"{self.share:.2f}"


def mean_of(
    rows: Sequence[Row], arm: str, budget: str, network: str = MATCHED_NETWORK
) -> Mean | None:
    """The statistics over seeds; None if nothing was measured."""
    found = [
        row["psnr_db"]
        for row in rows
        if (row["arm"], row["budget"], row["network"]) == (arm, budget, network)
    ]
    return Mean.of(found) if found else None


def floor_of(rows: Sequence[Row]) -> float:
    """PSNR of the degraded images themselves, dB."""
    return float(rows[0]["floor_db"])


def closure(
    rows: Sequence[Row],
    budget: str,
    reference: str,
    arm: str = SPG,
    network: str = MATCHED_NETWORK,
    *,
    from_median: bool = False,
) -> Closure | None:
    """The share of the gap from a reference arm to full data that an arm closes.

    Args:
        rows: of the comparison.
        budget: of both arms.
        reference: "random" gives G_R, "public" G_P.
        arm: that closes the gap.
        network: that was trained.
        from_median: use the reference's median: single failed trainings weigh less.
    Returns:
        The closure; None if a part was not measured.
    """
    full = mean_of(rows, FULL, ALL.name, network)
    known = mean_of(rows, reference, budget, network)
    value = mean_of(rows, arm, budget, network)
    if full is None or known is None or value is None:
        return None
    start = known.median if from_median else known.mean
    gap = full.mean - start
    if gap < LEAST_GAP_DB:
        return Closure(None, gap)
    return Closure((value.mean - start) / gap, gap)


def kept(rows: Sequence[Row], budget: str, network: str, arm: str = SPG) -> Closure | None:
    """The share of full data's gain over the degraded images that an arm gives a network."""
    full = mean_of(rows, FULL, ALL.name, network)
    value = mean_of(rows, arm, budget, network)
    if full is None or value is None:
        return None
    floor = floor_of(rows)
    gain = full.mean - floor
    return Closure((value.mean - floor) / gain if gain >= LEAST_GAP_DB else None, gain)


REFERENCES = {"G_R": RANDOM, "G_P": PUBLIC}


_CURVE = "comparison.png"
_SIZE_IN, _DPI = (7.6, 4.6), 120
_COLORS = {
    "random": "#9aa4b2",
    "k-centre": "#c8a2ff",
    "public": "#e8762c",
    "prior": "#ffd58a",
    "statistics": "#eef04a",
    "dc-noise": "#7a5c3a",
    "dc-real": "#d95f8a",
    "dm": "#58c28a",
    SPG: "#6cb6ff",
}
#: What a reader of the tables must know.
NOTE = (
    "PSNR in dB on patients who are held out, over the pixels that show something, mean ± standard "
    "deviation over seeds (of the random coreset: over draws), whose number is in brackets. "
    "G_R = (SPG − random) / (full − random), G_P = (SPG − public prior) / (full − public prior); "
    f"inconclusive if the denominator is below {LEAST_GAP_DB} dB. Single failed trainings weigh in "
    "a mean: therefore closures from the median of seeds or draws are given, too. The random "
    "coreset and k-center are raw images of patients: they cannot be shared where raw images "
    "cannot."
)


def budgets_of(rows: Sequence[Row]) -> list[str]:
    """The names of the budgets, from the fewest pixels to the most."""
    pixels: dict[str, int] = {}
    for row in rows:
        if row["budget"] != ALL.name:
            pixels[row["budget"]] = max(pixels.get(row["budget"], 0), row["pixels"])
    return sorted(pixels, key=lambda name: pixels[name])


def quality_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: arms by budgets, for the matched network."""
    budgets = budgets_of(rows)
    lines = [["degraded images", *[f"{floor_of(rows):.2f}"] * len(budgets)]]
    full = mean_of(rows, FULL, ALL.name)
    for arm, words in ARMS.items():
        found = [mean_of(rows, arm, budget) for budget in budgets]
        if arm == FULL and full is not None:
            lines.append([words, *[str(full)] * len(budgets)])
        elif any(found):
            lines.append([words, *("–" if one is None else str(one) for one in found)])
    return ["arm", *budgets], lines


def closure_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: G_R and G_P by budgets."""
    budgets = budgets_of(rows)
    lines = []
    for name, reference in REFERENCES.items():
        for is_median in (False, True):
            found = [closure(rows, budget, reference, from_median=is_median) for budget in budgets]
            row = f"{name}, from the median" if is_median else name
            lines.append([row, *("–" if one is None else str(one) for one in found)])
            gaps = ("–" if one is None else f"{one.gap_db:.2f}" for one in found)
            lines.append(["its gap, dB", *gaps])
    return ["closure", *budgets], lines


def network_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: other networks than the matched one, full data against SPG."""
    names = list(dict.fromkeys(row["network"] for row in rows))
    lines = []
    for name in names:
        full = mean_of(rows, FULL, ALL.name, name)
        for budget in budgets_of(rows):
            value, share = mean_of(rows, SPG, budget, name), kept(rows, budget, name)
            if value is not None and full is not None:
                seen = "matched" if name == MATCHED_NETWORK else "not seen"
                lines.append([f"{name} ({seen})", budget, str(full), str(value), str(share)])
    return ["network", "budget", "full data", "SPG", "share of the gain kept"], lines


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def summary_of(rows: Sequence[Row]) -> list[str]:
    """The result in sentences, the most important one first."""
    budgets = budgets_of(rows)
    if not budgets:
        return ["Full data alone were measured."]
    last = budgets[-1]
    found = []
    full, ours = mean_of(rows, FULL, ALL.name), mean_of(rows, SPG, last)
    best, cheap = mean_of(rows, "random", last), mean_of(rows, "statistics", last)
    if full and full.mean <= floor_of(rows):
        return [
            f"No conclusion: networks that learned from all images reach {full.mean:.2f} dB, "
            f"no more than the degraded images ({floor_of(rows):.2f} dB). Train longer (--steps)."
        ]
    if full and ours:
        found.append(
            f"With {last}, distilled images reach {ours.mean:.2f} dB; all images reach "
            f"{full.mean:.2f} dB, and the degraded images are at {floor_of(rows):.2f} dB."
        )
    for name, reference in REFERENCES.items():
        share = closure(rows, last, reference)
        if share is not None:
            against = "random raw images" if reference == "random" else "the public prior alone"
            closed = (
                f"is inconclusive: the gap is {share.gap_db:.2f} dB"
                if share.share is None
                else f"is {share.share:.2f} of {share.gap_db:.2f} dB"
            )
            found.append(
                f"The closed share of the gap from {against} to all images {closed} ({name})."
            )
    if cheap and ours:
        found.append(
            f"The prior with the cohort's statistics, where matching starts, reaches "
            f"{cheap.mean:.2f} dB: matching adds {ours.mean - cheap.mean:+.2f} dB to it."
        )
    if best and ours and best.mean >= ours.mean:
        found.append("As many random raw images do as well or better: share those where you may.")
    return found


def draw_curve(path: Path, rows: Sequence[Row], title: str, *, overwrite: bool = True) -> None:
    """Draw PSNR over budgets, with the degraded images and full data as lines, as a PNG."""
    require("matplotlib", purpose="Drawing the comparison")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_IN, dpi=_DPI, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw_on(axes, rows, title)
    with atomic_write(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, format="png")


def draw_on(axes: Any, rows: Sequence[Row], title: str) -> None:
    """Draw the curve on axes of matplotlib."""
    axes.set_facecolor(PAPER)
    budgets = budgets_of(rows)
    floor, full = floor_of(rows), mean_of(rows, FULL, ALL.name)
    axes.axhline(floor, color=MUTED, linestyle=":", linewidth=1)
    axes.text(0, floor, " degraded", color=MUTED, fontsize=8, va="bottom")
    if full is not None:
        axes.axhline(full.mean, color=INK, linestyle="--", linewidth=1)
        axes.text(0, full.mean, " all images", color=INK, fontsize=8, va="bottom")
    for arm, color in _COLORS.items():
        found = [(x, mean_of(rows, arm, budget)) for x, budget in enumerate(budgets)]
        points = [(x, one) for x, one in found if one is not None]
        if points:
            axes.errorbar(
                [x for x, _ in points],
                [one.mean for _, one in points],
                [one.spread for _, one in points],
                color=color,
                marker="o",
                markersize=4,
                linewidth=2.4 if arm == SPG else 1.2,
                elinewidth=0.8,
                capsize=2,
                label=arm,
            )
    axes.set_xticks(range(len(budgets)), budgets)
    axes.set_ylabel("PSNR on held-out patients, dB", color=INK)
    axes.set_title(title, color=INK, fontsize=10)
    axes.tick_params(colors=MUTED, labelsize=8)
    for side in axes.spines.values():
        side.set_color(MUTED)
    if budgets:
        axes.legend(fontsize=7, labelcolor=INK, facecolor=PAPER, edgecolor=MUTED, ncol=2)


def write_comparison(
    out: Path,
    rows: Sequence[Row],
    modality: str,
    distill: DistillConfig,
    asked: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Write comparison.md, comparison.png, index.html and comparison.json.

    Args:
        out: the folder; files are replaced.
        rows: of the comparison.
        modality: "CT" or "MR".
        distill: the configuration.
        asked: patients, held_out, steps, seeds, draws, … of the comparison.
        seconds: duration.
    Returns:
        The results in comparison.json: summary, rows and asked.
    """
    title = f"Distillation compared: {modality} {distill.task}"
    tables = {
        "Quality": quality_table(rows),
        "Gaps closed": closure_table(rows),
        "Other networks": network_table(rows),
    }
    summary = summary_of(rows)
    draw_curve(out / _CURVE, rows, title)
    how = (
        f"{asked['patients']} patients were learned from, {asked['held_out']} held out. Trainings "
        f"of {asked['steps']} steps, {asked['seeds']} seeds of each arm, {asked['draws']} draws of "
        f"raw images; {distill.loop.outer} × {distill.loop.inner} matches. Fewer steps, seeds or "
        "matches than the defaults say little."
    )
    parts = [f"# {title}", "\n".join(summary), how, NOTE, f"![Quality over budgets]({_CURVE})"]
    parts += [f"## {name}\n\n{markdown_table(*table)}" for name, table in tables.items()]
    with atomic_write(out / "comparison.md", overwrite=True) as temporary:
        temporary.write_text("\n\n".join(parts), encoding="utf-8")
    page = Page(
        title,
        about=[("task", distill.task), ("modality", modality)],
        summary=summary,
        tables=[Table(name, tuple(head), lines) for name, (head, lines) in tables.items()],
        pictures=[Picture(_CURVE, "Quality over budgets", "PSNR of each arm over budgets")],
        notes=[how, NOTE],
    )
    write_page(out, page, overwrite=True)
    results = {"summary": summary, "rows": rows, "asked": asked}
    manifest = make_manifest(
        "compared",
        config=distill.record(),
        inputs={},
        device="cpu",
        seconds=seconds,
        results=results,
    )
    write_json(out / "comparison.json", manifest, overwrite=True)
    return results
