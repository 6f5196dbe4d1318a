"""A scanner measured from two folders, and inverted, beside what is commonly done.

    python Testing/Benchmarks/scanner.py

Low field, an old spin echo with thick slices, another kernel of CT: patients behind a simulated
scanner, and others of high quality. Scans of the former with other noise and other fields are
judged against what was scanned; the method sees that nowhere. Then real pools of brains, which have
no truth: what is measured, and how much of each scan its inversion contradicts.

Figures are in tissue. MR is divided by its 99th percentile of tissue, so that each arm is on its
own scale; the best curve maps quantiles of tissue onto those of the truth, which forgives contrast.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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
    folder_of,
    most,
    run,
)  # fmt: skip
from _enhancement_data import CT_RANGE_HU, Floats, Mask
from _enhancement_lesions import contrast_kept
from _simulated_scanners import (
    SCANNERS,
    UNIT,
    central,
    lesions_in,
    pools_of,
    tissue_of,
    truth_of,
)  # fmt: skip

from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.filters.bias_field import measure_bias_field
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.io import load
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.scanner.invert import invert
from MedEnhanceLib.scanner.measure import ENOUGH, FEWEST, PASSES, measure_scanner
from MedEnhanceLib.scanner.scanner import AXES, Curve, Scanner

SCANNED, ENHANCED, N4, HISTOGRAM = "as scanned", "enhance", "and N4", "and histogram"
INVERTED, KNOWN = "inverted", "inverted, true scanner"
#: The real pools: T1 of brains with slices of 3 mm, and with voxels of 1 mm.
REAL = "real brains"
REAL_LOW, REAL_GOOD = "mr/open_ms/L*/study*_T1W.nii.gz", ("mr/open_ms/C07/T1.nii.gz",
    "mr/open_ms/C19/T1.nii.gz", "mr/studyforrest/T1.nii.gz")  # fmt: skip
#: Intensities at which the curve is judged: those that tissue of both pools has.
_INTENSITIES = np.linspace(0.2, 1, 17)
_QUANTILES = np.linspace(0, 1, 65)
_WHY_CONTRAST = ""
_WHY_MEASURED = ""


def parts() -> Iterator[Part]:
    for name in SCANNERS:
        pools = pools_of(name)
        if min(len(pools.low), len(pools.good)) < FEWEST:
            continue
        yield f"{name} measured", partial(figures_of, name)
        for volume in pools.held_out:
            yield f"{name} {volume}", partial(judged, name, volume)
    low, good = real_pools()
    if min(len(low), len(good)) >= FEWEST:
        yield f"{REAL} measured", partial(real_figures, low, good)


def seed_of(name: str, volume: str, *, held_out: bool) -> int:
    return 100 * list(SCANNERS).index(name) + 1000 * held_out + pools_of(name).low.index(volume)


@lru_cache
def measured(name: str) -> Scanner:
    """Measure a simulated scanner, once for all parts."""
    pools, scanner = pools_of(name), SCANNERS[name]
    truths = {each: truth_of(each, scanner.modality) for each in pools.low}
    low = (
        scanner.scan(truth, seed_of(name, each, held_out=False)) for each, truth in truths.items()
    )
    return kept_scanner(name, low, (truth_of(each, scanner.modality) for each in pools.good))


def kept_scanner(name: str, low: Iterator[Volume], good: Iterator[Volume]) -> Scanner:
    """Measure a scanner, or read it where an interrupted run has written it."""
    path = folder_of("scanner") / f"{name}.scanner"
    if not path.is_file():
        scanner = measure_scanner(low, good)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, overwrite=True) as part:
            part.write_text(json.dumps(scanner.to_json()), encoding="utf-8")
    return Scanner.read(path)


def figures_of(name: str) -> Iterator[Row]:
    """Compare what was measured with what was simulated."""
    simulated, scanner = SCANNERS[name], measured(name)
    noise = scanner.low_quality.noise
    yield from _stated(name, scanner, "noise", noise, simulated.noise)
    for axis, curve, transfer in zip(AXES, scanner.axes, simulated.transfers, strict=True):
        truth = replace(curve, values=tuple(transfer(np.array(curve.places)).tolist()))
        yield from _stated(name, scanner, f"MTF50, {axis}", curve.half, truth.half.value)
    if simulated.curve and scanner.contrast:
        away = scanner.contrast.at(_INTENSITIES) - simulated.curve(_INTENSITIES)
        yield {
            "scanner": name, "volumes": len(scanner.low_quality.files), "figure": "curve, most",
            "measured": float(np.abs(away).max()), "mean": float(np.abs(away).mean()),
        }  # fmt: skip


def _stated(
    name: str, scanner: Scanner, figure: str, value: Any, truth: float | None = None
) -> Iterator[Row]:
    """A figure with its interval, and the truth where it is known."""
    row = {"scanner": name, "volumes": len(scanner.low_quality.files), "figure": figure}
    row |= {"measured": value.value, "low": value.low, "high": value.high}
    yield row if truth is None else row | {"true": truth, "off": abs(value.value / truth - 1)}


def known(name: str) -> Scanner:
    """Put the true transfer and curve in place of the measured ones."""
    simulated, scanner = SCANNERS[name], measured(name)
    axes = {
        axis: _exact(curve, transfer(np.array(curve.places)))
        for axis, curve, transfer in zip(AXES, scanner.axes, simulated.transfers, strict=True)
    }
    contrast = scanner.contrast
    if contrast and simulated.curve:
        contrast = _exact(contrast, simulated.curve(np.array(contrast.places)))
    return replace(scanner, contrast=contrast, **axes)


def _exact(curve: Curve, values: Any) -> Curve:
    line = tuple(np.asarray(values).tolist())
    return Curve(places=curve.places, values=line, low=line, high=line)


def judged(name: str, path: str) -> Iterator[Row]:
    """Measure all arms on one scan."""
    simulated = SCANNERS[name]
    truth = truth_of(path, simulated.modality)
    seed = seed_of(name, path, held_out=True)
    added, lesions = lesions_in(truth, seed)
    plain, facts = arms_of(name, simulated.scan(truth, seed))
    lesion, _ = arms_of(name, simulated.scan(truth, seed, added))
    tissue, wanted = tissue_of(truth), truth.voxels
    tumor = tumor_of(path, simulated.modality)
    for arm, voxels in plain.items():
        scale = 1.0 if simulated.curve is None else _scale(wanted) / _scale(voxels)
        own = voxels * np.float32(scale)
        curve = partial(_matched, np.quantile(own[tissue], _QUANTILES), wanted, tissue)
        best = curve(own)
        through = curve(lesion[arm] * np.float32(scale))
        row = {
            "scanner": name, "volume": path, "arm": arm,
            "psnr": round(_decibels(wanted, own, tissue), 3),
            "psnr_curve": round(_decibels(wanted, best, tissue), 3),
            "ssim": round(_ssim(wanted, best, tissue), 4),
            "kept": round(median(contrast_kept(best, through, lesions)), 3) if lesions else None,
            "inconsistent": facts.get(arm),
        }  # fmt: skip
        if tumor is not None:
            row["tumor_error"] = round(
                abs(_contrast(best, tumor) / _contrast(wanted, tumor) - 1), 3
            )
        yield row


def arms_of(name: str, scan: Volume) -> tuple[dict[str, Floats], dict[str, float]]:
    """Voxels of each arm, and the share of tissue in which inversions contradict the scan."""
    result = enhance(scan, EnhanceConfig(device="cpu"))
    denoised, sigma = result.volume.voxels.astype(np.float32), result.noises[0].level
    arms = {SCANNED: scan.voxels, ENHANCED: denoised}
    if scan.modality == "MR":
        field = measure_bias_field(result.volume, passes=PASSES)[:]
        arms[N4] = denoised / field
        own = arms[N4] * np.float32(UNIT / _scale(arms[N4]))
        ends = np.quantile(own[own > 0.06 * UNIT], _QUANTILES)
        arms[HISTOGRAM] = np.interp(own, [0, *ends], [0, *_quantiles(name)]).astype(np.float32)
    facts = {}
    for arm, scanner in ((INVERTED, measured(name)), (KNOWN, known(name))):
        inversion = invert(scanner, denoised, scan, sigma)
        arms[arm], facts[arm] = inversion.voxels, inversion.facts["inconsistent"]
    return arms, facts


@lru_cache
def _quantiles(name: str) -> Floats:
    """Quantiles of tissue, averaged over the high-quality pool."""
    volumes = [truth_of(path, "MR").voxels for path in pools_of(name).good]
    return np.mean([np.quantile(v[v > 0.06 * UNIT], _QUANTILES) for v in volumes], axis=0)


def _scale(voxels: Floats) -> float:
    bound = 0.06 * np.percentile(voxels, 99)
    return float(np.percentile(voxels[voxels > bound], 99))


def _matched(ends: Floats, truth: Floats, tissue: Mask, voxels: Floats) -> Floats:
    return np.interp(voxels, ends, np.quantile(truth[tissue], _QUANTILES)).astype(np.float32)


def _peak(truth: Floats) -> float:
    return CT_RANGE_HU if truth.min() < -UNIT / 2 else UNIT


def _decibels(truth: Floats, voxels: Floats, tissue: Mask) -> float:
    return psnr(truth, voxels, _peak(truth), mask=tissue)


def _ssim(truth: Floats, voxels: Floats, tissue: Mask) -> float:
    """Structural similarity in windows of 7 × 7 pixels."""
    from scipy.ndimage import uniform_filter

    a, b = (np.asarray(each, np.float64) / _peak(truth) for each in (truth, voxels))
    mean = partial(uniform_filter, size=(1, 7, 7))
    means = mean(a), mean(b)
    variances = mean(a * a) - means[0] ** 2 + mean(b * b) - means[1] ** 2
    both = mean(a * b) - means[0] * means[1]
    top = (2 * means[0] * means[1] + 1e-4) * (2 * both + 9e-4)
    return float(
        (top / ((means[0] ** 2 + means[1] ** 2 + 1e-4) * (variances + 9e-4)))[tissue].mean()
    )


def tumor_of(path: str, modality: str) -> tuple[Mask, Mask] | None:
    """The tumor of a patient, and 3 pixels around it."""
    from scipy.ndimage import binary_dilation

    label = path.replace(".nii.gz", "_gtv.nii.gz")
    if not (SHARED_DATA / label).is_file():
        return None
    tumor = central(label, "SEG").voxels > 0
    near, far = (binary_dilation(tumor, iterations=times) for times in (1, 4))
    return tumor, far & ~near


def _contrast(voxels: Floats, tumor: tuple[Mask, Mask]) -> float:
    return float(voxels[tumor[0]].mean() - voxels[tumor[1]].mean())


def real_pools() -> tuple[list[str], list[str]]:
    """T1 with slices of 3 mm, and with voxels of 1 mm; scanners and sequences differ."""
    low = sorted(path.relative_to(SHARED_DATA).as_posix() for path in SHARED_DATA.glob(REAL_LOW))
    return low, [path for path in REAL_GOOD if (SHARED_DATA / path).is_file()]


def real_figures(low: list[str], good: list[str]) -> Iterator[Row]:
    """Measure real pools, and how much of each scan its inversion contradicts."""
    pools = ((load(SHARED_DATA / path, modality="MR") for path in pool) for pool in (low, good))
    scanner = kept_scanner(REAL, *pools)
    for figure, value in (
        ("noise", scanner.low_quality.noise), ("noise, good", scanner.high_quality.noise),
        ("field", scanner.low_quality.field), ("field, good", scanner.high_quality.field),
        *((f"MTF50, {axis}", curve.half) for axis, curve in zip(AXES, scanner.axes, strict=True)),
    ):  # fmt: skip
        yield from _stated(REAL, scanner, figure, value)
    for path in low[:1] if QUICK else low:
        scan = central(path, "MR")
        result = enhance(scan, EnhanceConfig(device="cpu"))
        denoised = result.volume.voxels.astype(np.float32)
        inversion = invert(scanner, denoised, scan, result.noises[0].level)
        yield {
            "scanner": REAL, "volume": path, "arm": INVERTED,
            "inconsistent": inversion.facts["inconsistent"],
        }  # fmt: skip


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Low field: the inversion over what `enhance` gives; figures of all pools of ten and more."""

    def of(arm: str, figure: str) -> list[float]:
        return [
            row[figure] for row in rows
            if (row["scanner"], row.get("arm")) == ("low field", arm) and figure in row
        ]  # fmt: skip

    for figure, goal, name in (
        ("psnr", 4, "dB"), ("psnr_curve", 3, "dB at the best curve"), ("ssim", 0.07, "SSIM"),
    ):  # fmt: skip
        pairs = zip(of(INVERTED, figure), of(ENHANCED, figure), strict=True)
        gain = _mean([ours - theirs for ours, theirs in pairs])
        yield at_least(f"low field, inversion over enhance, {name}", gain, goal, _WHY_CONTRAST)
    errors = of(INVERTED, "tumor_error")
    error = median(errors) if errors else None
    name = "low field, inversion: error of the contrast of tumors, median"
    yield at_most(name, error, 0.08, _WHY_CONTRAST)
    stated = [row for row in rows if row.get("volumes", 0) >= ENOUGH]
    for figure, field, bound in (
        ("noise", "off", 0.05), ("MTF50", "off", 0.07), ("curve", "measured", 0.03),
    ):  # fmt: skip
        values = [row[field] for row in stated if row["figure"].startswith(figure) and field in row]
        yield at_most(
            f"{figure}: error of what is measured, most", most(values), bound, _WHY_MEASURED
        )


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None


if __name__ == "__main__":
    run("scanner", __doc__, parts, gates_of, seeds=[0])
