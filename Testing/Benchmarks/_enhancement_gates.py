"""The goals of enhancement, and whether they were reached."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from _common import Gate, Row, at_least, gate, least
from _enhancement_catalog import INFORMED
from _enhancement_data import CASES, CLEANED, STARVED
from _enhancement_statistics import (
    Difference,
    Pair,
    difference,
    difference_gate,
    mean_of,
)

#: The kinds of damage with noise, of which models saw others of their kind.
NOISY = {
    "MR": ("Rician 3 %", "Rician 5 %", "Rician 10 %", "Rician 15 %", "composite"),
    "CT": ("low dose 5e3", "low dose 2e4", "low dose 1e5"),
}
#: dB over BM4D that are wanted.
OVER_BM4D = {"MR": 0.5, "CT": 0.8, "composite": 0.8}
OVER_BM4D_STARVED = {"low dose 5e3": 0.3, "low dose 2e4": 7.0, "low dose 1e5": 7.0}
_NO_PEER = "BM4D is not installed"
_WHY = {
    "MR": "at weak noise in finely resolved brains BM4D, which is given the true σ, is better",
    "CT": "from 20,000 photons a ray on BM4D, which is given the spectrum, is nearly as good",
    "composite": "blur and bias field limit both: the lead over BM4D followed by N4 is smaller",
}


def gates(rows: list[Row]) -> Iterator[Gate]:
    """Goals, each with its interval where it is a difference."""
    yield _starved(rows)
    # Through a whole abdomen photons starve: it has a goal of its own, for each dose.
    rows = [row for row in rows if row["subject"] != STARVED]
    cleaned, rows = (
        [row for row in rows if row["subject"].endswith(CLEANED) is is_cleaned]
        for is_cleaned in (True, False)
    )
    ours = [row for row in rows if row["arm"] == "ours"]
    for modality in NOISY:
        cases = [pair for pair in against(modality) if pair[0] != "composite"]
        references = [rows, cleaned] if modality == "CT" and cleaned else [rows]
        gain, over = _worst(
            [_better_bm4d(of, "psnr_foreground", pair) for of in references for pair in cases]
        )
        name = f"{modality}: above {over}, PSNR, dB, least over levels of noise"
        yield _over(name, gain, OVER_BM4D[modality], _WHY[modality])
    in_brains = [row for row in ours if row["modality"] == "MR"]  # of CT: faint_lesions.py
    planted = [share for row in in_brains for share in row.get("planted_kept", ())]
    real = [mean_of(in_brains, "lesion_contrast_kept", case=case.name) for case in CASES["MR"]]
    kept = [*([float(np.mean(planted))] if planted else []), *real]
    yield _in_range(
        "MR: lesions, planted (mean) and real (C07), contrast kept, farthest kind of damage",
        [value for value in kept if value is not None],
        "the blur of the composite damage lowers their contrast; strong noise hides the smallest",
    )


def _starved(rows: list[Row]) -> Gate:
    """The abdomen, each dose by its goal over BM4D."""
    rows = [row for row in rows if row["subject"] == STARVED]
    margins = []
    for case, goal in OVER_BM4D_STARVED.items():
        gain = difference(rows, "psnr_image", [(case, "ours", "BM4D")])
        margins.append(None if gain is None else gain.mean - goal)
    goals = ", ".join(f"{goal:g}" for goal in OVER_BM4D_STARVED.values())
    return at_least(
        f"abdomen: above BM4D, PSNR, dB, least above its goal ({goals} by dose)", least(margins), 0,
        "at 5,000 photons BM4D sees noise of low frequency better",
    )  # fmt: skip


def against(modality: str) -> list[Pair]:
    """Ours and BM4D on all noisy damage; where there is shading, both with N4."""
    shaded = {case.name for case in CASES[modality] if case.shaded}
    ends = {name: " + N4" if name in shaded else "" for name in NOISY[modality]}
    return [(name, f"ours{end}", f"BM4D{end}") for name, end in ends.items()]


def _better_bm4d(rows: list[Row], figure: str, pair: Pair) -> tuple[Difference | None, str]:
    """The smaller lead: over BM4D with its estimate of σ, or, where measured, with the true σ."""
    case, arm, over = pair
    gains = {name: difference(rows, figure, [(case, arm, name)]) for name in (over, INFORMED)}
    return _worst([(entry, name) for name, entry in gains.items() if entry is not None])


def _worst(gains: list[tuple[Difference | None, str]]) -> tuple[Difference | None, str]:
    known = [(gain, name) for gain, name in gains if gain is not None]
    return min(known, key=lambda entry: entry[0].mean, default=(None, "BM4D"))


def _over(name: str, gain: Difference | None, bound: float, why: str, low: float = -np.inf) -> Gate:
    """A lead; low: of its interval, above which that has to be."""
    is_met = gain is not None and gain.mean >= bound and gain.low > low
    text = f"≥ {bound:g}" + (f", interval above {low:g}" if np.isfinite(low) else "")
    return difference_gate(name, gain, text, is_met, _NO_PEER if gain is None else why)


def _in_range(name: str, values: list[float], why: str) -> Gate:
    """Contrast kept: neither lost nor made up."""
    worst = max(values, key=lambda value: abs(value - 1), default=None)
    is_met = bool(values) and 0.92 <= min(values) <= max(values) <= 1.1
    return gate(name, worst, "0.92 to 1.1", is_met, why)
