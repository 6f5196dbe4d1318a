"""The goals of enhancement, and whether they were reached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from _common import gate
from _enhancement_catalog import INFORMED
from _enhancement_data import CASES, CLEAN, STARVED
from _enhancement_statistics import (
    Difference,
    Gate,
    Pair,
    difference,
    difference_gate,
    mean_of,
    values_of,
)

Row = dict[str, Any]
FIGURES = (("psnr", "PSNR, dB"), ("ssim", "SSIM"))
#: The kinds of damage with noise, of which models saw others of their kind.
NOISY = {
    "MR": ("Rician 3 %", "Rician 5 %", "Rician 10 %", "Rician 15 %", "composite"),
    "CT": ("low dose 5e3", "low dose 2e4", "low dose 1e5"),
}


def gates(rows: list[Row]) -> list[Gate]:
    """Each with value, interval where it is a difference, bound and pass."""
    # Through a whole abdomen the lowest doses leave nothing to see: its rows stand on the page.
    rows = [row for row in rows if row["subject"] != STARVED]
    present = {row["modality"] for row in rows}
    found = list(_composite(rows)) if "MR" in present else []
    for modality in sorted(present, reverse=True):
        own = [row for row in rows if row["modality"] == modality]
        found += [*_harmless(own, modality), *_peers(own, modality)]
    return found


def worse_region(rows: list[Row], figure: str, pairs: list[Pair]) -> Difference | None:
    """Of the whole image and the foreground, where the arm does worse."""
    found = [difference(rows, f"{figure}_{region}", pairs) for region in ("image", "foreground")]
    known = [entry for entry in found if entry is not None]
    return min(known, key=lambda entry: entry.mean) if len(known) == 2 else None


def against(over: str, modality: str, arm: str = "ours") -> list[Pair]:
    """Pairs on all noisy damage; where there is shading, both arms with N4."""
    cases = {case.name: case for case in CASES[modality]}
    pairs = []
    for name in NOISY[modality]:
        corrected = " + N4" if cases[name].shaded else ""
        pairs.append((name, arm + corrected, over + corrected))
    return pairs


def _composite(rows: list[Row]) -> Iterator[Gate]:
    arm = "ours + N4"
    for over in ("input", "BM4D + N4"):
        for figure, unit in FIGURES:
            found = worse_region(rows, figure, [("composite", arm, over)])
            yield _interval(f"composite: {arm} above {over}, {unit}", found, "> 0, interval too")


def _harmless(rows: list[Row], modality: str) -> Iterator[Gate]:
    """Undamaged input, lesions, slices."""
    own = [row for row in rows if row["arm"] == "ours"]
    left = [
        value
        for region in ("image", "foreground")
        for value in values_of(own, f"psnr_{region}", case=CLEAN)
    ]
    mean = float(np.mean(left)) if left else None
    yield gate(
        f"{modality}: undamaged input left alone, mean PSNR, dB",
        mean,
        "≥ 42",
        mean is not None and mean >= 42,
    )
    kept = [value for row in own for value in row.get("planted_kept", ())]
    mean = float(np.mean(kept)) if kept else None
    lost = float(np.mean(np.array(kept) < 0.5)) if kept else None
    yield gate(
        f"{modality}: planted lesions, mean contrast kept",
        mean,
        "0.92 to 1.1",
        mean is not None and 0.92 <= mean <= 1.1,
    )
    yield gate(
        f"{modality}: planted lesions, share lost (less than half kept)",
        lost,
        "≤ 0.05",
        lost is not None and lost <= 0.05,
    )
    blobs = max(values_of(own, "new_blobs_per_100_ml"), default=None)
    yield gate(
        f"{modality}: lesion-free input, new blobs per 100 mL, most",
        blobs,
        "0",
        blobs is not None and blobs == 0,
    )
    if modality == "MR":
        names = [case.name for case in CASES["MR"] if case.family]
        real = [mean_of(own, "lesion_contrast_kept", case=name) for name in names]
        known = [value for value in real if value is not None]
        for word, value in (
            ("least", min(known, default=None)),
            ("most", max(known, default=None)),
        ):
            passed = value is not None and 0.92 <= value <= 1.1
            name = f"MR: real lesions (C07), contrast kept, {word} over kinds of damage"
            yield gate(name, value, "0.92 to 1.1", passed)
    names = [case.name for case in CASES[modality] if case.family]
    ratios = [value for name in names for value in values_of(own, "slice_ratio", case=name)]
    worst = max(ratios, default=None)
    yield gate(
        f"{modality}: second difference through slices as a share of the clean one's, worst",
        worst,
        "≤ 1.1",
        worst is not None and worst <= 1.1,
    )


def _peers(rows: list[Row], modality: str) -> Iterator[Gate]:
    for figure, unit in FIGURES:
        found = worse_region(rows, figure, against("NLM", modality))
        if figure == "psnr":
            yield _mean(f"{modality}: above NLM, {unit}", found, 1.5)
    for pair in against("BM4D", modality):
        bar = 0.8 if modality == "CT" or pair[0] == "composite" else 0.5
        for figure, unit in FIGURES:
            found, over = _better_bm4d(rows, f"{figure}_foreground", pair)
            least = bar if figure == "psnr" else 0.005
            yield _mean(f"{modality}, {pair[0]}: {pair[1]} above {over}, {unit}", found, least)
    ratio = _time_ratio(rows, against("BM4D", modality))
    yield gate(
        f"{modality}: CPU time as a share of BM4D's",
        ratio,
        "≤ 0.05",
        ratio is not None and ratio <= 0.05,
    )


def _better_bm4d(rows: list[Row], figure: str, pair: Pair) -> tuple[Difference | None, str]:
    """The smaller lead: over BM4D with its estimate of σ, or, where measured, with the true σ."""
    case, arm, over = pair
    found = {name: difference(rows, figure, [(case, arm, name)]) for name in (over, INFORMED)}
    known = {name: entry for name, entry in found.items() if entry is not None}
    best = min(known, key=lambda name: known[name].mean, default=over)
    return known.get(best), best


def _time_ratio(rows: list[Row], pairs: list[Pair]) -> float | None:
    ours = [mean_of(rows, "cpu_s_per_mvoxel", case=case, arm=arm) for case, arm, _ in pairs]
    theirs = [mean_of(rows, "cpu_s_per_mvoxel", case=case, arm=over) for case, _, over in pairs]
    known = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    return sum(a for a, _ in known) / sum(b for _, b in known) if known else None


def _interval(name: str, found: Difference | None, bound: str) -> Gate:
    return difference_gate(name, found, bound, found is not None and found.low > 0)


def _mean(name: str, found: Difference | None, bound: float) -> Gate:
    return difference_gate(name, found, f"≥ {bound:g}", found is not None and found.mean >= bound)
