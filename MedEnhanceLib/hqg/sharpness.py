"""Blur of unknown width: measured from the spectrum, undone as far as the noise allows.

An edge has a power spectrum that falls with the square of the frequency; blur multiplies it by a
Gaussian, and noise adds a constant. Along each axis within slices,

    log(P(f) − N) = a − β log(2 sin πf) − (2πσf)²,    β close to 2,

is linear in a, β and σ². The width found is that of scanner and blur together: 0.3 to 0.9 px in
undamaged scans, its square larger by σ² in blurred ones. Cycles per pixel are the unit of f.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.slabs import extremes, slabs
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.progress import Monitor

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

#: Slices that are measured: those with the largest contrast.
_SLICES = 24
#: Sides that are too short for a spectrum, in pixels.
_LEAST_SIDE = 24
_BINS = 40
#: Frequencies along the other axis: those with anatomy, and those with hardly more than noise.
_LOW, _HIGH = 0.15, 0.35
#: Below this frequency the shape of the body decides, not its edges.
_FIRST = 0.04
#: The exponent of edges, and how firmly it is expected.
_EXPONENT, _FIRMNESS = 2.0, 30.0
#: σ in px of undamaged scans: the middle, to which blur is undone, and the limit. 24 MR and 26 CT
#: of soft tissue reach 0.83 where the spectrum has the shape of a blur
#: (docs/decisions/0050-blind-corrections.md).
_USUAL_PX, LIMIT_PX = 0.65, 0.86
#: Root-mean-square misfit in dB from which the spectrum has another shape: that of an image
#: enlarged from a smaller matrix, which ends in a step.
_MISFIT_DB = 3.5
#: σ over contrast from which, and up to which, the limit rises, and how far, in pixels.
_STRONG_NOISE, _RISE_PX = (0.5, 0.8), 0.15
#: Power of anatomy in the plane falls with this exponent.
_PLANE_EXPONENT = 3.0
#: Noise that a denoiser leaves, as a share of what it was given; and the least, as a share of the
#: standard deviation of the voxels, which stands for what a Gaussian does not describe.
_LEFT, _LEAST_NOISE = 0.35, 0.012
#: Detail is amplified by this factor at most.
_MOST_GAIN = 12.0


@dataclass(frozen=True)
class BlurEstimate:
    """How sharp a volume is along rows and columns, and whether it was blurred.

    Attributes:
        sigma_px: σ of the point spread along rows and columns (i, j), in pixels, of scanner and
            blur together; NaN where it could not be measured.
        excess_px: σ of what is to be undone along rows and columns, in pixels: down to the usual
            sharpness of an undamaged scan; 0 where the volume is not blurred.
        is_blurred: whether both axes are less sharp than any undamaged scan that was measured.
        reason: a sentence for the report.
    """

    sigma_px: tuple[float, float]
    excess_px: tuple[float, float]
    is_blurred: bool
    reason: str


def measure_blur(
    voxels: Array,
    *,
    noise: float | None = None,
    noise_to_contrast: float = 0.0,
) -> BlurEstimate:
    """Measure the width of the point spread within slices, without a reference.

    Both axes have to be blurred, since a scan with a low resolution along one of them is none the
    less undamaged. Up to 24 slices are measured.

    Args:
        voxels: [K, J, I] in any unit.
        noise: σ in the unit of `voxels`, an upper bound of the floor of the spectrum; None takes
            the floor from the corner of the spectrum alone.
        noise_to_contrast: σ over the contrast of the tissue. Strong noise leaves the low
            frequencies alone, from which a sharp scan can look soft: the limit rises.
    Raises:
        InputError: voxels are not [K, J, I], or not finite.
    """
    if voxels.ndim != 3:
        raise InputError(f"sharpness of voxels with {voxels.ndim} axes", "Measure one frame.")
    if min(voxels.shape[1:]) < _LEAST_SIDE:
        return _unknown(f"slices of {voxels.shape[2]} × {voxels.shape[1]} pixels are too small")
    slices = _chosen(voxels)
    if not np.isfinite(slices).all():
        raise InputError("voxels hold NaN or infinity", "Replace them before enhancing.")
    if float(slices.std()) == 0:
        return _unknown("intensities are constant")
    fits = [_axis_width(planes, noise) for planes in (slices.transpose(0, 2, 1), slices)]
    found = [fit for fit in fits if fit is not None]
    if len(found) < 2:
        return _unknown("noise covers the detail")
    widths = found[0][0], found[1][0]
    misfit = max(found[0][1], found[1][1])
    sharper = min(widths)
    low, high = _STRONG_NOISE
    limit = LIMIT_PX + _RISE_PX * min(max((noise_to_contrast - low) / (high - low), 0.0), 1.0)
    is_enlarged = sharper > limit and misfit > _MISFIT_DB
    is_blurred = sharper > limit and not is_enlarged
    if is_enlarged:
        reason = "detail ends in a step, as in an image enlarged from a smaller matrix"
    elif is_blurred:
        reason = f"both axes are blurred: σ {widths[0]:.2f} and {widths[1]:.2f} px"
    elif sharper > LIMIT_PX:
        reason = f"noise is too strong to be certain of blur: σ {sharper:.2f} px, the sharper axis"
    else:
        reason = f"as sharp as undamaged scans: σ {sharper:.2f} px along the sharper axis"
    excess = (_excess(widths[0]), _excess(widths[1])) if is_blurred else (0.0, 0.0)
    return BlurEstimate(widths, excess, is_blurred, reason)


def undo_blur(
    voxels: Array,
    estimate: BlurEstimate,
    *,
    noise: float,
    denoised: Array | None = None,
    monitor: Monitor | None = None,
) -> Floats:
    """Undo the blur of an estimate by a Wiener filter within slices.

    The power of anatomy is modeled as A f⁻³, with A from the volume itself. Edges are mirrored.

    Args:
        voxels: [K, J, I] in any unit.
        estimate: of `measure_blur`; where it is not blurred, the voxels come back unchanged.
        noise: σ of the noise in `voxels`, in their unit.
        denoised: float32 [K, J, I], `voxels` without noise, which the filter begins with and writes
            over. Without them it stops where the noise begins, which gains about half as much.
        monitor: a safe point for cancelling before each slice.
    Returns:
        [K, J, I] float32, `denoised` if given; values below the least of `voxels` are set to it.
    Raises:
        InputError: voxels are not [K, J, I].
    """
    if voxels.ndim != 3:
        raise InputError(f"blur in voxels with {voxels.ndim} axes", "Sharpen one frame at a time.")
    if not estimate.is_blurred:
        return voxels.astype(np.float32)
    # In place: of a large volume there is no room for a second one.
    result = voxels.astype(np.float32) if denoised is None else denoised
    left = noise if denoised is None else _LEFT * noise
    floor = max(left, _LEAST_NOISE * _deviation(voxels)) ** 2
    rows, columns = result.shape[1:]
    fy = np.abs(np.fft.fftfreq(2 * rows))[:, None]
    fx = np.fft.rfftfreq(2 * columns)[None]
    across, down = estimate.excess_px
    transfer = np.exp(-2 * np.pi**2 * ((across * fx) ** 2 + (down * fy) ** 2))
    radius = np.maximum(np.hypot(fy, fx), 1 / (4 * max(rows, columns)))
    power = _anatomy(_chosen(result), transfer, radius, floor) * radius**-_PLANE_EXPONENT
    gain = np.minimum(transfer * power / (transfer**2 * power + floor), _MOST_GAIN)
    gain /= gain[0, 0]
    least, _ = extremes(voxels)
    for part in slabs(result):
        for plane in part:
            if monitor is not None:
                monitor.check()
            spectrum = np.fft.rfft2(_mirrored(plane))
            sharp = np.fft.irfft2(spectrum * gain, s=(2 * rows, 2 * columns))[:rows, :columns]
            plane[...] = np.maximum(sharp, least)
    return result


def _deviation(voxels: Array) -> float:
    """The standard deviation, computed slice by slice."""
    means, variances = [], []
    for part in slabs(voxels):
        means += [float(plane.mean(dtype=np.float64)) for plane in part]
        variances += [float(plane.var(dtype=np.float64)) for plane in part]
    return math.sqrt(float(np.mean(variances) + np.var(means)))


def _unknown(why: str) -> BlurEstimate:
    nothing = (math.nan, math.nan)
    return BlurEstimate(nothing, (0.0, 0.0), False, f"sharpness not measured: {why}")


def _excess(width: float) -> float:
    return math.sqrt(max(width**2 - _USUAL_PX**2, 0))


def _chosen(voxels: Array) -> Floats:
    """The slices with the largest contrast, in their order."""
    contrast = np.array(
        [float(np.std(plane, dtype=np.float64)) for part in slabs(voxels) for plane in part]
    )
    return voxels[np.sort(np.argsort(-contrast, kind="stable")[:_SLICES])].astype(np.float32)


def _mirrored(planes: Floats) -> Floats:
    """[…, J, I] → […, 2 J, 2 I] without edges at the border."""
    planes = np.concatenate([planes, planes[..., ::-1, :]], axis=-2)
    return np.concatenate([planes, planes[..., ::-1]], axis=-1)


def _axis_width(planes: Floats, noise: float | None) -> tuple[float, float] | None:
    """σ in px along axis 1 and the misfit in dB; None where noise leaves too few frequencies."""
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
    floor = float(high[-5:].min())
    if noise is not None:
        floor = min(floor, (1.1 * noise) ** 2)
    return _fitted(centers, low, floor)


def _fitted(frequency: Doubles, power: Doubles, floor: float) -> tuple[float, float] | None:
    """σ and misfit from a spectrum; see the module's docstring for the model."""
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
    wanted = np.append(np.log(signal[used]) * weights, _FIRMNESS * _EXPONENT)
    found = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    misfit = 10 / math.log(10) * float(np.std(terms @ found - np.log(signal[used])))
    return math.sqrt(max(found[2], 0.0)), misfit


def _anatomy(planes: Floats, transfer: Doubles, radius: Doubles, floor: float) -> float:
    """A of the model A f⁻³ of the unblurred power, from frequencies that blur hardly changes."""
    power = np.zeros(transfer.shape)
    for plane in planes:
        power += np.abs(np.fft.rfft2(_mirrored(plane))) ** 2 / (4 * plane.size)
    power /= len(planes)
    used = (radius > 0.03) & (radius < 0.25) & (power > 2 * floor)
    if not used.any():
        return floor
    shape = (power[used] - floor) / transfer[used] ** 2 * radius[used] ** _PLANE_EXPONENT
    return float(np.exp(np.log(shape).mean()))
