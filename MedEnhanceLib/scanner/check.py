"""Measures a scanner, and checks whether its inversion is worth more than removing noise.

Volumes of the high-quality pool are put behind a scanner drawn within the measured intervals, and
scans of them are inverted. A step that does not gain is left out by default; so is everything where
nothing gains, or where a sign says that the model does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.behind import put_behind
from MedEnhanceLib.scanner.invert import invert
from MedEnhanceLib.scanner.measure import Examined, measure_pools, scale_of, softened, tissue_of
from MedEnhanceLib.scanner.scanner import Gain, Scanner, Step

#: Removes the noise of a scan; returns the result, float32 [K, J, I], and σ of the noise.
Denoise = Callable[[Volume], tuple[Floats, float]]
#: Share of the time that measuring takes.
_MEASURING = 0.6
#: Simulated scans, of one volume each where there are as many, and most slices, rows and columns.
_CHECKED, _PART = 6, (24, 160, 160)
#: dB that an inversion gains at least in half of the scans, and in each; a step loses the former.
_GAINS, _LOSES = 0.1, -0.5
#: Units of a simulated scan for one of the scale; tissue of CT on the scale.
_UNITS, _TISSUE_CT = np.float32(1000), -0.5


def measure_scanner(
    low_quality: Iterable[Volume],
    high_quality: Iterable[Volume],
    denoise: Denoise,
    monitor: Monitor | None = None,
) -> Scanner:
    """Measure how one source of volumes differs from another, and what its inversion gains.

    Args:
        low_quality: as `measure_pools` takes them.
        high_quality: likewise.
        denoise: removes the noise of simulated scans.
        monitor: receives progress and warnings; may cancel.
    Raises InputError as `measure_pools`.
    """
    monitor = monitor or Monitor()
    scanner, good = measure_pools(low_quality, high_quality, monitor.part(0.0, _MEASURING))
    if scanner.applies:
        scanner = checked(scanner, good, denoise, monitor.part(_MEASURING, 1.0))
    for warning in scanner.warnings:
        monitor.warn(warning)
    return scanner


def checked(
    scanner: Scanner, good: Sequence[Examined], denoise: Denoise, monitor: Monitor
) -> Scanner:
    """State what the inversion gains, and leave out what does not.

    Args:
        scanner: as measured.
        good: volumes of its high-quality pool.
        denoise: removes the noise of simulated scans.
        monitor: receives progress; may cancel.
    """
    steps = scanner.inverted
    tried = [(), *((step,) for step in steps if len(steps) > 1)]
    apart = max(1, len(good) // _CHECKED)
    numbers = [apart * place % len(good) for place in range(_CHECKED)]
    rows = list[Doubles]()
    for place, number in enumerate(numbers):
        monitor.progress(place / len(numbers), "checking the inversion")
        rows.append(_gains(scanner, good[number], tried, denoise, seed=place))
    gains = np.array(rows)
    loses = np.median(gains[:, 1:] - gains[:, :1], 0) > _GAINS
    left_out = tuple(step for step, is_left in zip(steps, loses, strict=False) if is_left)
    gained = gains[:, 0]
    if left_out:
        gained = gains[:, 1 + steps.index(left_out[0])]
        if len(left_out) > 1:
            gained = np.array([
                _gains(scanner, good[number], [left_out], denoise, seed=place)[0]
                for place, number in enumerate(numbers)
            ])  # fmt: skip
    monitor.progress(1.0, "checking the inversion")
    warnings = list(scanner.warnings)
    gain = Gain(median=float(np.median(gained)), worst=float(gained.min()), scans=len(gained))
    if gain.median < _GAINS or gain.worst < _LOSES:
        left_out = steps
        warnings.append(
            f"in {gain.scans} simulated scans of the high-quality folder inverting gains "
            f"{gain.median:+.1f} dB over enhance in the median and {gain.worst:+.1f} in the worst; "
            f"{_GAINS:+.1f} and {_LOSES:+.1f} are required, so nothing is inverted"
        )
    elif left_out:
        warnings.append(f"left out, as simulated scans are better without: {', '.join(left_out)}")
    without = (*scanner.without, *left_out)
    return replace(scanner, gain=gain, without=without, warnings=tuple(warnings))


def _gains(
    scanner: Scanner,
    truth: Examined,
    tried: Sequence[Collection[Step]],
    denoise: Denoise,
    *,
    seed: int,
) -> Doubles:
    """Simulate a scan of a volume, and return what inversions gain over the denoised scan, in dB.

    tried: steps that each leaves out.
    """
    part = tuple(
        slice((side - min(side, most)) // 2, (side + min(side, most)) // 2)
        for side, most in zip(truth.voxels.shape, _PART, strict=True)
    )
    clean, spacing = truth.voxels[part], truth.spacing[::-1]
    noisy = put_behind(scanner, clean, spacing, np.random.default_rng([seed, 3]))
    scan = Volume(_UNITS * noisy, Geometry(spacing=spacing), modality=scanner.modality)
    denoised, sigma = denoise(scan)
    is_absolute = scan.profile.is_absolute
    soft = softened(clean, truth.spacing)
    tissue = clean > _TISSUE_CT if is_absolute else tissue_of(soft)
    top = 1.0 if is_absolute else scale_of(soft)

    def decibels(voxels: Floats) -> float:
        scale = _UNITS if is_absolute else scale_of(softened(voxels, truth.spacing)) / top
        return psnr(clean, voxels / np.float32(scale), top, mask=tissue)

    results = (invert(scanner, denoised, scan, sigma, without=left_out) for left_out in tried)
    return np.array([decibels(each.voxels) for each in results]) - decibels(denoised)
