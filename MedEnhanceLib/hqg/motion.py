"""Motion between the slices of 2D MR: measured in magnitudes, undone where it is slight.

Such motion shifts lines of k-space in one slice, and others in the next. Slices that lie beside
each other share their anatomy but not their motion: phases and gains by which the spectrum of a
slice differs from that of its neighbors are undone. Not seen is motion in 3D acquisitions, and what
is alike in all slices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Spectrum = npt.NDArray[np.complexfloating[Any, Any]]
#: (voxels [K, J, I], σ that it is to remove, in their unit) → denoised voxels.
Denoiser = Callable[[Floats, float], Floats]

#: Slices that are measured, around the middle one, and their least side in pixels.
_SLICES, _LEAST_SIDE = 16, 32
#: Motion is measured at these frequencies, in cycles per pixel.
_BAND = (0.04, 0.20)
#: Mean angle in radians between slices, and its ratio between windows along rows and along columns:
#: anatomy that changes from slice to slice gives a ratio of 1.0 to 1.1, motion between lines more.
#: The less coherent the slices, the larger an angle is asked for; below the least nothing is known.
_MOVED, _ONE_SIDED = 0.035, 1.2
_COHERENT, _SLOPE, _LEAST_COHERENCE = 0.65, 0.6, 0.3
#: A motion of this angle cannot be undone.
_TOO_MUCH = 0.6
#: Windows in k-space over which slices are compared, as σ across lines and along them.
_WINDOW, _MEASURE_WINDOW = (2.5, 12.0), (3.0, 6.0)
#: Keeps lines that cancel themselves from being amplified without limit.
_STABILITY = 0.15
#: The denoiser's strength as a multiple of the noise, since ghosts are to go as well.
_GHOSTS = 2.0
#: Noise as a share of the standard deviation of the voxels, at least: for noise-free images.
_LEAST_NOISE = 0.01


@dataclass(frozen=True)
class MotionEstimate:
    """Whether slices moved.

    Attributes:
        axis: along which lines of k-space differ, 1 (rows) or 2 (columns) of [K, J, I].
        angle: mean angle in radians between the spectra of neighboring slices; 0 without motion.
        is_correctable: whether `undo_motion` is expected to improve the volume.
        reason: a sentence for the report.
    """

    axis: int
    angle: float
    is_correctable: bool
    reason: str


def measure_motion(volume: Volume) -> MotionEstimate:
    """Find motion between the slices of one frame, of finite voxels."""
    if volume.modality not in ("MR", "OT"):
        return _none(f"{volume.modality} is not measured by lines of k-space")
    middle = len(volume.voxels) // 2
    slices = volume.voxels[max(0, middle - _SLICES // 2) : middle + _SLICES // 2]
    slices = slices.astype(np.float32)
    if len(slices) < 3 or min(slices.shape[1:]) < _LEAST_SIDE or float(slices.std()) == 0:
        return _none("slices are too few, too small or constant")
    by_axis = [_angle(slices), _angle(slices.transpose(0, 2, 1))]
    axis = 1 if by_axis[0][0] >= by_axis[1][0] else 2
    angle, coherence = by_axis[axis - 1]
    if coherence < _LEAST_COHERENCE:
        return _none("neighboring slices differ too much to detect motion")
    needed = _MOVED + _SLOPE * max(_COHERENT - coherence, 0)
    if angle < max(needed, _ONE_SIDED * by_axis[2 - axis][0]):
        return _none("slices agree")
    is_correctable = angle <= _TOO_MUCH
    verdict = "motion" if is_correctable else "motion that cannot be corrected"
    reason = f"{verdict}: lines of neighboring slices differ by {angle:.2f} rad"
    return MotionEstimate(axis, angle, is_correctable, reason)


def undo_motion(
    voxels: npt.NDArray[Any],
    estimate: MotionEstimate,
    *,
    noise: float,
    denoise: Denoiser,
    monitor: Monitor,
) -> Floats:
    """Undo phases and gains of lines that neighboring slices do not share.

    Args:
        voxels: [K, J, I] in any unit, not negative.
        estimate: of `measure_motion`, correctable.
        noise: σ of the noise in `voxels`, in their unit.
        denoise: called twice, with twice the noise.
        monitor: progress and cancelling, before each slice.
    Returns:
        [K, J, I], denoised.
    """
    before = voxels.astype(np.float32)
    sigma = _GHOSTS * max(noise, _LEAST_NOISE * float(before.std()))
    order = (0, 1, 2) if estimate.axis == 1 else (0, 2, 1)
    monitor.progress(0.0, "comparing slices")
    near = _neighbors(denoise(before, sigma)).transpose(order)
    result = np.empty(near.shape, np.float32)
    for index, plane in enumerate(before.transpose(order)):
        monitor.progress(0.5 + 0.3 * index / len(before), "undoing motion")
        spectrum = np.fft.fft2(plane)
        shared, coherence, power = _compared(spectrum, near[index], _WINDOW)
        size = np.abs(shared)
        gain = size / np.maximum(power, 1e-12)
        gain /= max(float(gain[0, 0]), 1e-6)
        phase = shared / np.maximum(size, 1e-12)
        transfer = coherence * np.minimum(gain, 1) * phase + (1 - coherence)
        inverse = (1 + _STABILITY) * transfer.conj() / (np.abs(transfer) ** 2 + _STABILITY)
        result[index] = np.maximum(np.fft.ifft2(spectrum * inverse).real, 0)
    still = np.ascontiguousarray(result.transpose(order))
    return np.maximum(denoise(still, sigma), 0)


def _none(why: str) -> MotionEstimate:
    return MotionEstimate(1, 0.0, False, f"no motion was found: {why}")


def _angle(slices: Floats) -> tuple[float, float]:
    """Mean angle between the spectra of neighboring slices in radians, and their coherence."""
    rows, columns = (np.abs(np.fft.fftfreq(side)) for side in slices.shape[1:])
    radius = np.hypot(rows[:, None], columns)
    band = (radius > _BAND[0]) & (radius < _BAND[1])
    near = _neighbors(slices)
    angles, coherences = [], []
    for plane, reference in zip(slices[1:-1], near[1:-1], strict=True):
        shared, coherence, _ = _compared(np.fft.fft2(plane), reference, _MEASURE_WINDOW)
        weights = coherence[band]
        angles.append(float(np.average(np.abs(np.angle(shared[band])), weights=weights + 1e-12)))
        coherences.append(float(weights.mean()))
    return float(np.median(angles)), float(np.median(coherences))


def _neighbors(slices: Floats) -> Floats:
    """The mean of the slices before and after each one; at the ends the one that there is."""
    ends = np.concatenate([slices[1:2], slices, slices[-2:-1]])
    mean: Floats = (ends[:-2] + ends[2:]) / 2
    return mean


def _compared(
    spectrum: Spectrum, reference: Floats, window: tuple[float, float]
) -> tuple[Spectrum, Doubles, Doubles]:
    """Compare a slice's spectrum with that of a reference [J, I], over a Gaussian window.

    Returns the mean of spectrum · reference*, the coherence (0 to 1), and the reference's power.
    """
    other = np.fft.fft2(reference)
    rows, columns = (np.fft.fftfreq(side) * side for side in reference.shape)
    weights = np.exp(-((rows[:, None] / window[0]) ** 2 + (columns / window[1]) ** 2) / 2)
    kernel = np.fft.fft2(weights / weights.sum())
    shared = np.fft.ifft2(np.fft.fft2(spectrum * other.conj()) * kernel)
    own, power = (
        np.fft.ifft2(np.fft.fft2(np.abs(part) ** 2) * kernel).real for part in (spectrum, other)
    )
    coherence = np.clip(np.abs(shared) ** 2 / np.maximum(own * power, 1e-24), 0, 1)
    return shared, coherence, power
