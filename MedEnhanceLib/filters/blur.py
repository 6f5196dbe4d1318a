"""Blur of unknown width: measured from the spectrum, corrected as far as the noise allows.

The power spectrum of an edge falls with the square of the frequency; blur multiplies it by a
Gaussian, and noise adds a constant. Along each axis within slices,

    log(P(f) − N) = a − β log(2 sin πf) − (2πσf)²,    β close to 2, f in cycles per pixel,

is linear in a, β and σ². The measured width is that of scanner and blur together: σ of 0.3 to 0.9
px in undamaged scans; blur adds the square of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, extremes, slabs
from MedEnhanceLib.runtime.progress import Monitor

# Limits tuned on undamaged scans, the rest by hand (decision 0050): Benchmarks/enhancement.py.
# Halved or doubled on 16 blurred crops (gain 2.1 dB): _REMAINING −.5, +.2 dB, _PLANE_EXPONENT −.5,
# −.2, _FIRST ±0, +.2, _LEAST_NOISE, _FIRMNESS and _MOST_GAIN up to .15; half of _MISFIT_DB misses
# one crop.
#: Slices that are measured: those with the largest contrast.
_SLICES = 24
#: Shortest side of a slice that has a spectrum, in pixels.
_LEAST_SIDE = 24
_BINS = 40
#: Frequencies along the other axis: below the first is anatomy, above the second almost only noise.
_LOW, _HIGH = 0.15, 0.35
#: Below this frequency the shape of the body counts, not its edges.
_FIRST = 0.04
#: The exponent of edges, and the weight of this expectation in the fit.
_EXPONENT, _FIRMNESS = 2.0, 30.0
#: σ in px of undamaged scans: the usual one, to which blur is corrected, and the limit. 24 MR and
#: 26 CT of soft tissue have up to 0.83 where the spectrum has the shape of a blur.
_USUAL_PX, LIMIT_PX = 0.65, 0.86
#: Root-mean-square misfit in dB from which the spectrum has another shape: that of an image
#: enlarged from a smaller matrix, which ends in a step.
_MISFIT_DB = 3.5
#: Range of σ over contrast in which the limit rises, and its rise in pixels.
_STRONG_NOISE, _RISE_PX = (0.5, 0.8), 0.15
#: The power of anatomy in the plane falls with this exponent.
_PLANE_EXPONENT = 3.0
#: Noise that denoising leaves, as a share of that before; and the least noise, as a share of the
#: standard deviation of the voxels, which covers deviations of the blur from a Gaussian.
_REMAINING, _LEAST_NOISE = 0.35, 0.012
#: Largest amplification of detail.
_MOST_GAIN = 12.0


@dataclass(frozen=True)
class BlurEstimate:
    """Measured sharpness of a volume along rows and columns, and whether it was blurred.

    Attributes:
        sigma_px: σ of the point spread along rows and columns (i, j), in pixels, of scanner and
            blur together; NaN where it could not be measured.
        is_blurred: whether both axes are less sharp than any undamaged scan that was measured.
        reason: for that verdict, or for having none, in words.
    """

    sigma_px: tuple[float, float]
    is_blurred: bool
    reason: str


def measure_blur(
    voxels: Array, *, noise: float = math.inf, noise_to_contrast: float = 0.0
) -> BlurEstimate:
    """Measure the width of the point spread within slices, without a reference.

    Both axes have to be blurred: an undamaged scan can have a low resolution along one of them.

    Args:
        voxels: [K, J, I] in any unit, finite; the 24 slices of the largest contrast are measured.
        noise: σ in the unit of `voxels`, an upper bound of the floor of the spectrum.
        noise_to_contrast: σ over the contrast of the tissue. In strong noise only low frequencies
            can be measured, in which a sharp scan can look blurred: the limit rises.
    """
    if min(voxels.shape[1:]) < _LEAST_SIDE:
        return _unknown(f"slices of {voxels.shape[2]} × {voxels.shape[1]} pixels are too small")
    slices = _high_contrast(voxels)
    if float(slices.std()) == 0:
        return _unknown("intensities are constant")
    rows, columns = (_axis_width(planes, noise) for planes in (slices.transpose(0, 2, 1), slices))
    if rows is None or columns is None:
        return _unknown("noise covers the detail")
    widths, misfit = (rows[0], columns[0]), max(rows[1], columns[1])
    sharper = min(widths)
    low, high = _STRONG_NOISE
    limit = LIMIT_PX + _RISE_PX * min(max((noise_to_contrast - low) / (high - low), 0.0), 1.0)
    is_enlarged = sharper > limit and misfit > _MISFIT_DB
    is_blurred = sharper > limit and not is_enlarged
    if is_enlarged:
        reason = "it was enlarged from a smaller matrix, which cannot be undone"
    elif is_blurred:
        both = f"{widths[0]:.2f} and {widths[1]:.2f} pixels (1 SD) along rows and columns"
        reason = f"found: {both}; a sharp scan has {_USUAL_PX}"
    elif sharper > LIMIT_PX:
        reason = f"too noisy to tell whether it is blurred: {sharper:.2f} pixels (1 SD)"
    else:
        reason = f"it is as sharp as undamaged scans: {sharper:.2f} pixels (1 SD)"
    return BlurEstimate(widths, is_blurred, reason)


def undo_blur(
    voxels: Array,
    estimate: BlurEstimate,
    *,
    noise: float,
    denoised: Floats,
    monitor: Monitor,
) -> None:
    """Correct the measured blur by a Wiener filter within slices, to the usual sharpness of a scan.

    The power of anatomy is modeled as A f⁻³, with A from the volume itself. Edges are mirrored.

    Args:
        voxels: [K, J, I] in any unit.
        estimate: of the same volume.
        noise: σ of the noise in `voxels`, in their unit.
        denoised: float32 [K, J, I], `voxels` without noise. Overwritten with the result, to save
            memory; no value is below the minimum of `voxels`.
        monitor: progress and cancellation.
    """
    floor = max(_REMAINING * noise, _LEAST_NOISE * _deviation(voxels)) ** 2
    rows, columns = denoised.shape[1:]
    fy = np.abs(np.fft.fftfreq(2 * rows))[:, None]
    fx = np.fft.rfftfreq(2 * columns)[None]
    across, down = (math.sqrt(max(width**2 - _USUAL_PX**2, 0)) for width in estimate.sigma_px)
    transfer = np.exp(-2 * np.pi**2 * ((across * fx) ** 2 + (down * fy) ** 2))
    radius = np.maximum(np.hypot(fy, fx), 1 / (4 * max(rows, columns)))
    power = _anatomy(_high_contrast(denoised), transfer, radius, floor) * radius**-_PLANE_EXPONENT
    gain = np.minimum(transfer * power / (transfer**2 * power + floor), _MOST_GAIN)
    gain /= gain[0, 0]
    least, _ = extremes(voxels)
    for part in slabs(denoised):
        for plane in part:
            monitor.check()
            spectrum = np.fft.rfft2(_mirrored(plane))
            sharp = np.fft.irfft2(spectrum * gain, s=(2 * rows, 2 * columns))[:rows, :columns]
            plane[...] = np.maximum(sharp, least)


def _deviation(voxels: Array) -> float:
    """Compute the standard deviation slice by slice."""
    means, variances = [], []
    for part in slabs(voxels):
        means += [float(plane.mean(dtype=np.float64)) for plane in part]
        variances += [float(plane.var(dtype=np.float64)) for plane in part]
    return math.sqrt(float(np.mean(variances) + np.var(means)))


def _unknown(why: str) -> BlurEstimate:
    return BlurEstimate((math.nan, math.nan), False, f"it was not measured, as {why}")


def _high_contrast(voxels: Array) -> Floats:
    """Select the slices with the largest contrast, in their order."""
    contrast = np.array(
        [float(np.std(plane, dtype=np.float64)) for part in slabs(voxels) for plane in part]
    )
    return voxels[np.sort(np.argsort(-contrast, kind="stable")[:_SLICES])].astype(np.float32)


def _mirrored(planes: Floats) -> Floats:
    """Mirror slices, […, J, I] → […, 2 J, 2 I], so that no edge is at the border."""
    planes = np.concatenate([planes, planes[..., ::-1, :]], axis=-2)
    return np.concatenate([planes, planes[..., ::-1]], axis=-1)


def _axis_width(planes: Floats, noise: float) -> tuple[float, float] | None:
    """Measure σ in px along axis 1, and the misfit in dB; None if noise covers most frequencies."""
    low, high = np.zeros(_BINS), np.zeros(_BINS)
    doubled = 2 * planes.shape[1]
    frequency = np.fft.rfftfreq(doubled)
    across = np.abs(np.fft.fftfreq(2 * planes.shape[2]))
    where = np.clip((frequency * 2 * _BINS).astype(int), 0, _BINS - 1)
    for plane in planes:
        spectrum = np.fft.fft(np.fft.rfft(_mirrored(plane), axis=0), axis=1)
        power = np.abs(spectrum) ** 2 / (4 * plane.size)
        low += np.bincount(where, power[:, across < _LOW].mean(axis=1), _BINS)
        high += np.bincount(where, power[:, across > _HIGH].mean(axis=1), _BINS)
    counts = np.bincount(where, minlength=_BINS) * len(planes)
    has = counts > 0
    centers = ((np.arange(_BINS) + 0.5) / (2 * _BINS))[has]
    low, high = low[has] / counts[has], high[has] / counts[has]
    floor = min(float(high[-5:].min()), (1.1 * noise) ** 2)
    return _fitted(centers, low, floor)


def _fitted(frequency: Doubles, power: Doubles, floor: float) -> tuple[float, float] | None:
    """Fit σ to a spectrum by the model in the module's docstring; returns σ and the misfit."""
    signal = power - floor
    clear = (signal > 0.7 * floor) & (signal > 1e-8 * power.max())
    hidden = np.flatnonzero((frequency > _FIRST) & ~clear)
    last = hidden[0] if len(hidden) else len(frequency)
    used = (frequency > _FIRST) & (np.arange(len(frequency)) < last)
    if used.sum() < 5:
        return None
    f = frequency[used]
    terms = np.stack([np.ones_like(f), -np.log(2 * np.sin(np.pi * f)), -((2 * np.pi * f) ** 2)], 1)
    weights = 1 / np.sqrt(f)  # octaves count the same
    matrix = np.vstack([terms * weights[:, None], [0, _FIRMNESS, 0]])
    logs = np.log(signal[used])
    right = np.append(logs * weights, _FIRMNESS * _EXPONENT)
    solution = np.linalg.lstsq(matrix, right, rcond=None)[0]
    misfit = 10 / math.log(10) * float(np.std(terms @ solution - logs))
    return math.sqrt(max(solution[2], 0.0)), misfit


def _anatomy(planes: Floats, transfer: Doubles, radius: Doubles, floor: float) -> float:
    """Fit A of the model A f⁻³ of the unblurred power, at frequencies that blur hardly changes."""
    power = np.zeros(transfer.shape)
    for plane in planes:
        power += np.abs(np.fft.rfft2(_mirrored(plane))) ** 2 / (4 * plane.size)
    power /= len(planes)
    used = (radius > 0.03) & (radius < 0.25) & (power > 2 * floor)
    if not used.any():
        return floor
    shape = (power[used] - floor) / transfer[used] ** 2 * radius[used] ** _PLANE_EXPONENT
    return float(np.exp(np.log(shape).mean()))
