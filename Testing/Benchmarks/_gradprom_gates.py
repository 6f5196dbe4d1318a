"""The goals of the gate, and whether they were reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from _common import gate
from _enhancement_statistics import (
    Difference,
    Gate,
    difference,
    difference_gate,
)
from _gradprom_arms import ALONE, JOINT, OURS, RANDOM
from _gradprom_costs import PLAIN
from _gradprom_runs import REFERENCE

Row = dict[str, Any]
ON_CLEAN, TWIN, CLEAN_TWIN = "same head, clean", "head, degraded", "head, clean"
_HARM_DB, _ALLOWED_DB, _NEAR = 0.2, 0.05, 0.03
_MOST_TIME, _MOST_MEMORY = 1.6, 1.3


def name_of(weight: float) -> str:
    return f"λ = {weight:g}"


def by_weight(rows: list[Row], modality: str, weights: Iterable[float]) -> list[Row]:
    """Rows as comparisons want them: a case for each λ; what has no λ stands in every one.

    A joint head on clean images, and segmenters without an enhancer, come as arms of their own.
    """
    found = []
    for row in rows:
        if row["modality"] != modality:
            continue
        arm = row["arm"]
        if arm == REFERENCE:
            if row["state"] != "degraded":
                continue
            arm = row.get("segmenter", "degraded")
        for weight in weights if row["weight"] is None else (row["weight"],):
            base = row | {"arm": arm, "case": name_of(weight)}
            found.append(base)
            if "dice_on_clean" in row:
                found.append(base | {"arm": f"{arm}, {ON_CLEAN}", "dice": row["dice_on_clean"]})
    return found


def compared(
    rows: list[Row], figure: str, weights: Iterable[float], arm: str, other: str
) -> Difference | None:
    """Arm less other arm, mean over λ: no λ is chosen by what it does on the test patients."""
    return difference(rows, figure, [(name_of(weight), arm, other) for weight in weights])


def gates(
    rows: list[Row],
    weights: tuple[float, ...],
    costs: dict[str, dict[str, dict[str, float]]],
) -> list[Gate]:
    found: list[Gate] = []
    for modality, entries in costs.items():
        own = by_weight(rows, modality, weights)
        found += _fidelity(own, modality, weights)
        found += _segmentation(own, modality, weights)
        found += _costs(entries[OURS], modality)
    return found


def harmful(rows: list[Row], weights: tuple[float, ...]) -> list[float]:
    """Every λ at which joint training loses PSNR that matters."""
    lost = {weight: compared(rows, "psnr", (weight,), JOINT, ALONE) for weight in weights}
    return [weight for weight, entry in lost.items() if entry and entry.mean <= -_HARM_DB]


def _fidelity(rows: list[Row], modality: str, weights: tuple[float, ...]) -> Iterator[Gate]:
    def worst(over: str, where: Iterable[float]) -> Difference | None:
        known = [compared(rows, "psnr", (weight,), OURS, over) for weight in where]
        return min((entry for entry in known if entry), key=lambda e: e.mean, default=None)

    least = worst(ALONE, weights)
    yield difference_gate(
        f"{modality}: PSNR of ours less {ALONE}, worst λ, dB",
        least,
        f"≥ −{_ALLOWED_DB}",
        least is not None and least.mean >= -_ALLOWED_DB,
    )
    where = harmful(rows, weights)
    least = worst(JOINT, where)
    named = ", ".join(f"{weight:g}" for weight in where) or "none"
    yield difference_gate(
        f"{modality}: PSNR of ours less {JOINT}, worst λ of those at which {JOINT} "
        f"loses {_HARM_DB} dB ({named}), dB",
        least,
        "> 0",
        least is not None and least.mean > 0,
    )


def _segmentation(rows: list[Row], modality: str, weights: tuple[float, ...]) -> Iterator[Gate]:
    for other in (ALONE, RANDOM):
        found = compared(rows, "dice", weights, OURS, other)
        passed = found is not None and found.low > 0
        name = f"{modality}: Dice of ours less {other}, mean over λ"
        yield difference_gate(name, found, "> 0, interval too", passed)
    found = compared(rows, "dice", weights, OURS, f"{OURS}, {ON_CLEAN}")
    yield difference_gate(
        f"{modality}: Dice of ours on enhanced less the same head on clean, mean over λ",
        found,
        f"≥ −{_NEAR}",
        found is not None and found.mean >= -_NEAR,
    )
    for other, words in (
        (CLEAN_TWIN, "its twin trained on clean images"),
        (TWIN, "its twin trained on degraded images"),
    ):
        found = compared(rows, "dice", weights, OURS, other)
        yield difference_gate(
            f"{modality}: Dice of ours on enhanced less {words}, on degraded, mean over λ",
            found,
            "> 0",
            found is not None and found.mean > 0,
        )


def _costs(entry: dict[str, float], modality: str) -> list[Gate]:
    """`PLAIN` is what both ratios are held to."""
    return [
        gate(
            f"{modality}: {words} of a step of ours as a ratio to {PLAIN}",
            entry[f"{figure} ratio"],
            f"≤ {bound}",
            entry[f"{figure} ratio"] <= bound,
        )
        for figure, words, bound in (
            ("step_s", "seconds", _MOST_TIME),
            ("bytes", "peak bytes", _MOST_MEMORY),
        )
    ]
