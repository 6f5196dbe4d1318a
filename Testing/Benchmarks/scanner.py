"""A scanner measured from two folders, and inverted, beside what is commonly done.

    python Testing/Benchmarks/scanner.py

Low field, an old spin echo with thick slices, another kernel of CT: patients behind a simulated
scanner, and others of high quality. Scans of the former with other noise and other fields are
judged against what was scanned; the method never sees that. Then scanners drawn at random, half of
which have a fault that the model of a scanner does not hold: what is refused, whether the interval
of MTF50 holds the truth, and what the product does to patients of neither pool. Then real pools of
brains, which have no truth: what is measured, and how much of each scan its inversion contradicts.

Figures are in tissue. MR is divided by its 99th percentile of tissue, so that each arm is on its
own scale; the best curve maps quantiles of tissue onto those of the truth, which forgives contrast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from statistics import fmean, median
from typing import Any

import numpy as np
from _common import (
    QUICK,
    SHARED_DATA,
    Gate,
    Part,
    Row,
    at_least,
    at_most,
    most,
    run,
)
from _enhancement_data import CT_RANGE_HU, Floats, Mask
from _enhancement_lesions import contrast_kept
from _simulated_scanners import (
    DRAWN_SLAB,
    SCANNERS,
    UNIT,
    Draw,
    draws,
    found,
    lesions_in,
    pools_of,
    slab,
    tissue_of,
    truth_of,
)

from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.filters.bias_field import measure_bias_field
from MedEnhanceLib.io import load
from MedEnhanceLib.jobs.kinds.measure_scanner import without_noise
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.check import checked, measure_scanner
from MedEnhanceLib.scanner.invert import Inversion, contradictions, invert
from MedEnhanceLib.scanner.measure import ENOUGH, FEWEST, PASSES, Examined, compare, examine
from MedEnhanceLib.scanner.scanner import AXES, Curve, Measured, Scanner

ENHANCED, INVERTED, KNOWN = "enhance", "inverted", "inverted, true scanner"
#: What `enhance --scanner` does: steps that do not gain are left out, a fault refuses all.
PRODUCT = "product"
#: T1 with slices of 3 mm, beside T1 with voxels of 1 mm of other scanners and sequences.
REAL = "real brains"
REAL_LOW, REAL_GOOD = (
    "mr/open_ms/L*/study*_T1W.nii.gz",
    ("mr/open_ms/C*/T1.nii.gz", "mr/studyf*/T1*"),
)
HELD_OUT = 1 if QUICK else 4
#: Voxels of each arm, the inversions among them, and the σ that was found.
Arms = tuple[dict[str, Floats], dict[str, Inversion], float]
ArmsOf = Callable[[Volume], Arms]
#: Intensities at which the curve is judged: tissue of both pools has them.
_INTENSITIES = np.linspace(0.2, 1, 17)
_QUANTILES = np.linspace(0, 1, 65)
_WHY_NOISE = (
    "σ alone is within 2 %: the 99th percentile of tissue, by which it is divided, is 9 % lower "
    "behind thick slices"
)
_WHY_REFUSED = (
    "a fold in the middle of the contrast changes few voxels, pools of three or four brains differ "
    "as much by chance, and noise that varied less than 1.35 times harmed nothing"
)
_WHY_CURVE = (
    "patients differ, and rests of fields: with the same patients in both pools .032 and .025"
)


def parts() -> Iterator[Part]:
    for name in SCANNERS:
        low, good = pools_of(name)
        if min(len(low), len(good)) >= FEWEST:
            yield f"{name} measured", partial(compared, name)
            for place, path in enumerate(low[:HELD_OUT]):
                yield f"{name} {path}", partial(judged, name, path, seed=1000 + place)
    for draw in draws(QUICK):
        if len(draw.low) >= FEWEST:
            yield draw.name, partial(drawn, draw)
    if len(found(REAL_LOW)) >= FEWEST:
        yield REAL, real


@lru_cache
def measured(name: str) -> Scanner:
    """Measure a simulated scanner, once for all parts."""
    low, good = pools_of(name)
    scans = (_scanned(name, path, seed) for seed, path in enumerate(low))
    goods = (truth_of(path, SCANNERS[name].modality) for path in good)
    return measure_scanner(scans, goods, without_noise)


def _scanned(name: str, path: str, seed: int) -> Volume:
    simulated = SCANNERS[name]
    return simulated.scan(truth_of(path, simulated.modality), seed)


def known(name: str) -> Scanner:
    """Put the true transfer and the true curve in the place of those that were measured."""
    simulated, scanner = SCANNERS[name], measured(name)
    curves = dict(zip(AXES, simulated.transfers, strict=True))
    curves |= {"contrast": simulated.curve} if simulated.curve else {}
    exact = {}
    for field, function in curves.items():
        curve = getattr(scanner, field)
        exact[field] = replace(curve, values=tuple(function(np.array(curve.places)).tolist()))
    return replace(scanner, without=(), **exact)


def compared(name: str) -> Iterator[Row]:
    """Compare what was measured with what was simulated."""
    scanner, true = measured(name), known(name)
    stated = partial(row_of, name, scanner)
    yield stated("noise", scanner.low_quality.noise, SCANNERS[name].noise)
    for axis, ours, truth in zip(AXES, scanner.axes, true.axes, strict=True):
        if truth.values[-1] < 0.5:
            yield stated(f"MTF50, {axis}", ours.half, truth.half.value)
    if scanner.contrast and true.contrast:
        away = np.abs(scanner.contrast.at(_INTENSITIES) - true.contrast.at(_INTENSITIES))
        row = {"scanner": name, "volumes": len(scanner.low_quality.files), "figure": "curve"}
        yield row | {"off": float(away.max()), "off_mean": float(away.mean())}


def row_of(
    name: str, scanner: Scanner, figure: str, value: Measured, truth: float | None = None
) -> Row:
    """State a figure with its interval, and the truth where it is known."""
    row = {"scanner": name, "volumes": len(scanner.low_quality.files), "figure": figure}
    row |= {"measured": value.value, "low": value.low, "high": value.high}
    return row if truth is None else row | {"true": truth, "off": abs(value.value / truth - 1)}


def judged(name: str, path: str, seed: int, arms: ArmsOf | None = None) -> Iterator[Row]:
    """Measure arms on one scan, and on the same scan with lesions."""
    arms = arms or partial(arms_of, name)
    simulated = SCANNERS[name]
    truth = truth_of(path, simulated.modality)
    added, lesions = lesions_in(truth, seed)
    scan = simulated.scan(truth, seed)
    plain, inversions, sigma = arms(scan)
    planted, _, _ = arms(simulated.scan(truth, seed, added))
    tissue, wanted, peak = tissue_of(truth), truth.voxels, UNIT if simulated.curve else CT_RANGE_HU
    ends = np.quantile(wanted[tissue], _QUANTILES)
    for arm, voxels in plain.items():
        scale = np.float32(_scale(wanted) / _scale(voxels) if simulated.curve else 1)
        own, own_planted = scale * voxels, scale * planted[arm]
        curve = np.quantile(own[tissue], _QUANTILES)
        best, best_planted = (
            np.interp(each, curve, ends).astype(np.float32) for each in (own, own_planted)
        )
        kept = median(contrast_kept(best, best_planted, lesions)) if lesions else None
        row = {
            "scanner": name, "volume": path, "arm": arm,
            "psnr": psnr(wanted, own, peak, mask=tissue),
            "psnr_curve": psnr(wanted, best, peak, mask=tissue),
            "ssim": _ssim(wanted / peak, best / peak, tissue),
            "lesions": kept, "lesions_off": None if kept is None else abs(kept - 1),
        }  # fmt: skip
        if arm in inversions:
            inversion = inversions[arm]
            row["inconsistent"] = inversion.facts["inconsistent"]
            false = replace(inversion, voxels=inversion.voxels + added / scale)
            row["invented_found"] = float(contradictions(false, scan, sigma)[0][added != 0].mean())
        yield row


def arms_of(name: str, scan: Volume) -> Arms:
    """Return the voxels of each arm, the inversions among them, and the σ that was found."""
    result = enhance(scan, EnhanceConfig(denoiser="block-matching", device="cpu"))
    denoised, sigma = result.volume.voxels.astype(np.float32), result.noises[0].level
    arms = {"as scanned": scan.voxels, ENHANCED: denoised}
    if scan.modality == "MR":
        even = denoised / measure_bias_field(result.volume, passes=PASSES)[:]
        own = even * np.float32(UNIT / _scale(even))
        ends = np.quantile(own[own > 0.06 * UNIT], _QUANTILES)
        matched = np.interp(own, [0, *ends], [0, *_quantiles(name)]).astype(np.float32)
        arms |= {"and N4": even, "and histogram": matched}
    scanners = {INVERTED: replace(measured(name), without=()), KNOWN: known(name)}
    scanners |= {PRODUCT: measured(name)} if measured(name).applies else {}
    inversions = {arm: invert(each, denoised, scan, sigma) for arm, each in scanners.items()}
    arms |= {} if PRODUCT in inversions else {PRODUCT: denoised}
    return arms | {arm: each.voxels for arm, each in inversions.items()}, inversions, sigma


@lru_cache
def _quantiles(name: str) -> Any:
    """Average the quantiles of tissue over the high-quality pool."""
    volumes = [truth_of(path, "MR") for path in pools_of(name)[1]]
    return np.mean([np.quantile(v.voxels[tissue_of(v)], _QUANTILES) for v in volumes], axis=0)


def _scale(voxels: Floats) -> float:
    return float(np.percentile(voxels[voxels > 0.06 * np.percentile(voxels, 99)], 99))


def _ssim(a: Floats, b: Floats, tissue: Mask) -> float:
    """Measure the structural similarity in windows of 7 × 7 pixels; the peak is 1."""
    from scipy.ndimage import uniform_filter

    a, b, mean = a.astype(float), b.astype(float), partial(uniform_filter, size=(1, 7, 7))
    squares, product = mean(a) ** 2 + mean(b) ** 2, mean(a) * mean(b)
    spread, common = mean(a * a) + mean(b * b) - squares, mean(a * b) - product
    share = (2 * product + 1e-4) * (2 * common + 9e-4) / (squares + 1e-4) / (spread + 9e-4)
    return float(share[tissue].mean())


@lru_cache(40)
def _examined(path: str) -> Examined:
    return examine(truth_of(path, "MR", DRAWN_SLAB), Monitor())


def drawn(draw: Draw) -> Iterator[Row]:
    """Measure a drawn scanner, and judge what the product does to a patient of neither pool."""
    scanner_of, monitor = draw.scanner, Monitor()
    scans = [scanner_of.scan(_truth(path), seed) for seed, path in enumerate(draw.low)]
    goods = [_examined(path) for path in draw.good]
    scanner = compare([examine(each, monitor) for each in scans], goods, "MR", monitor)
    row: Row = {"scanner": draw.name, "kind": draw.kind, "anatomy": draw.anatomy}
    yield row | {"figure": "refusal", "is_refused": not scanner.applies,
                 "warnings": list(scanner.warnings)}  # fmt: skip
    if draw.kind == "none":
        for axis, curve, transfer in zip(AXES, scanner.axes, scanner_of.transfers, strict=True):
            places = np.linspace(0, 2, 20001)
            below = places[transfer(places) < 0.5]
            if len(below):
                yield row | {"figure": "drawn MTF50", "axis": axis} | _covered(curve, below[0])
    if not draw.is_judged:
        return
    all_steps = replace(scanner, without=())
    product = checked(scanner, goods, without_noise, monitor) if scanner.applies else scanner
    for place, path in enumerate(draw.rest):
        truth, scan = _truth(path), scanner_of.scan(_truth(path), 100 + place)
        truth = scanner_of.on_grid_of_scans(truth)
        denoised, sigma = without_noise(scan)
        inverted = invert(all_steps, denoised, scan, sigma).voxels
        applied = invert(product, denoised, scan, sigma).voxels if product.applies else denoised
        for arm, voxels in (
            ("as scanned", scan.voxels), (ENHANCED, denoised), (INVERTED, inverted),
            (PRODUCT, applied),
        ):  # fmt: skip
            own = np.float32(_scale(truth.voxels) / _scale(voxels)) * voxels
            tissue = tissue_of(truth)
            yield row | {
                "volume": path, "arm": arm,
                "drawn_psnr": psnr(truth.voxels, own, UNIT, mask=tissue),
            }  # fmt: skip


def _truth(path: str) -> Volume:
    return truth_of(path, "MR", DRAWN_SLAB)


def _covered(curve: Curve, truth: float) -> Row:
    """State MTF50 with its interval, and whether the truth is in it."""
    half, last = curve.half, curve.places[-1]
    is_open, is_low = half.high >= last, half.low <= curve.places[0]
    return {
        "true": float(truth), "measured": half.value, "low": half.low, "high": half.high,
        "is_open": is_open, "is_measurable": not (is_open and is_low),
        "is_covered": bool((is_low or half.low <= truth) and (is_open or truth <= half.high)),
        "width": None if is_open or is_low else half.high / half.low,
    }  # fmt: skip


def real() -> Iterator[Row]:
    """Measure real pools, and how much of each scan its inversion contradicts."""
    low, good = found(REAL_LOW), [path for pattern in REAL_GOOD for path in found(pattern)]
    pools = ((load(SHARED_DATA / path, modality="MR") for path in pool) for pool in (low, good))
    scanner = measure_scanner(*pools, without_noise)
    yield {"scanner": REAL, "is_refused": not scanner.applies, "without": list(scanner.without)}
    for name, pool in (("low", scanner.low_quality), ("good", scanner.high_quality)):
        yield row_of(REAL, scanner, f"noise, {name}", pool.noise)
        yield row_of(REAL, scanner, f"field, {name}", pool.field)
    for axis, curve in zip(AXES, scanner.axes, strict=True):
        yield row_of(REAL, scanner, f"MTF50, {axis}", curve.half)
    for path in low[:HELD_OUT]:
        scan = slab(path, "MR")
        denoised, sigma = without_noise(scan)
        result = invert(replace(scanner, without=()), denoised, scan, sigma)
        share = result.facts["inconsistent"]
        yield {"scanner": REAL, "volume": path, "arm": INVERTED, "inconsistent": share}


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Low field: the inversion beside `enhance`; what is measured of pools of ten and more."""

    def mean(arm: str, figure: str) -> float | None:
        values = [
            row[figure] for row in rows
            if (row["scanner"], row.get("arm")) == ("low field", arm) and row[figure] is not None
        ]  # fmt: skip
        return fmean(values) if values else None

    ours, plain = mean(PRODUCT, "psnr"), mean(ENHANCED, "psnr")
    gain = None if ours is None or plain is None else ours - plain
    yield at_least("low field, inversion over enhance: psnr", gain, 4)
    for figure, bound, why in (
        ("noise", 0.05, _WHY_NOISE), ("curve", 0.03, _WHY_CURVE)
    ):  # fmt: skip
        off = [
            row["off"] for row in rows
            if row.get("volumes", 0) >= ENOUGH and row["figure"].startswith(figure) and "off" in row
        ]  # fmt: skip
        yield at_most(f"{figure} of a scanner, beside the true one, most", most(off), bound, why)
    covered = [row["is_covered"] for row in rows if row.get("is_measurable")]
    share = fmean(covered) if covered else None
    yield at_least("drawn scanners: share of intervals of MTF50 that hold the truth", share, 0.9)
    refused = {
        is_plain: [
            row["is_refused"] for row in rows
            if row.get("figure") == "refusal" and (row["kind"] in ("none", "warp")) == is_plain
        ]
        for is_plain in (True, False)
    }  # fmt: skip
    for is_plain, judge, bound in ((True, at_most, 0.05), (False, at_least, 0.9)):
        share = fmean(refused[is_plain]) if refused[is_plain] else None
        name = "without a fault that can be seen" if is_plain else "with a fault"
        yield judge(f"drawn scanners {name}: share that is refused", share, bound, _WHY_REFUSED)
    pairs = {
        (row["scanner"], row["volume"], row["arm"]): row["drawn_psnr"]
        for row in rows if "drawn_psnr" in row
    }  # fmt: skip
    gains = [
        value - pairs[*place, ENHANCED] for (*place, arm), value in pairs.items() if arm == PRODUCT
    ]
    yield at_least("drawn scanners: product over enhance, dB, least", min(gains, default=None), 0)


if __name__ == "__main__":
    run("scanner", __doc__, parts, gates_of, seeds=[0])
