"""Undersampled and moved MR: what is wrong with k-space is measured, and repaired where it can be.

Only the magnitude image is known. Its spectrum is Hermitian, so that lines k and −k show as one
pair: both measured, one of them (half the amplitude), or none. Their power is, against a smooth
curve over the frequency, about 1, 0.35 and 0.07: taking the magnitude mixes lines a little.

    measure_artifacts → ArtifactEstimate → repair(…, denoise=…)

Missing lines: `repair` alternates between a denoiser, strong at first, and the measured lines
(plug-and-play priors; Venkatakrishnan et al., IEEE GlobalSIP 2013,
doi 10.1109/GlobalSIP.2013.6737048). Motion in a 2D acquisition shifts lines of one slice and others
of the next: the spectrum of a slice is compared with that of its neighbors, which share its anatomy
but not its motion, and phases and gains that differ are undone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.progress import Monitor

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
#: (voxels [K, J, I], σ that it is to remove, in their unit) → denoised voxels.
Denoiser = Callable[[Floats, float], Floats]

#: Slices that are measured, those with the largest contrast.
_SLICES = 16
_LEAST_SIDE = 32
#: Power of a line is taken at these frequencies of the other axis; the noise beyond the second.
_LOW, _HIGH = 0.12, 0.40
#: Logarithm of a pair's power where both, one or none was measured, and its spread.
_OFFSETS, _SPREADS = np.array([0.0, -1.05, -2.7]), np.array([0.22, 0.30, 0.60])
_SHARES = np.array([1.0, 0.5, 0.0])
#: Degree of the smooth curve, in the logarithm of the frequency.
_DEGREE = 3
_ROUNDS = 40
#: Lines are visible where their neighborhood has this multiple of the noise's power.
_VISIBLE = 6.0
#: Undersampled: this much more likely per line (nats), with changes between this share of
#: neighboring lines. Undamaged volumes have one of the two at most
#: (docs/decisions/0050-blind-corrections.md).
_LEAST_GAIN, _LEAST_CHANGES = 1.0, 0.12
#: Share of visible pairs of lines that are missing, from which nothing can be completed.
_TOO_MUCH = 0.55
#: Motion is measured at these frequencies.
_MOTION_BAND = (0.04, 0.20)
#: Mean angle in radians between slices, and its ratio between windows along rows and along columns:
#: anatomy that changes from slice to slice gives a ratio of 1.0 to 1.1, motion between lines more.
#: The less coherent the slices, the larger an angle is asked for; below the least nothing is known.
_MOVED, _ONE_SIDED = 0.035, 1.2
_COHERENT, _SLOPE, _LEAST_COHERENCE = 0.65, 0.6, 0.3
#: A motion of this angle cannot be undone.
_MOVED_TOO_MUCH = 0.6
#: Windows in k-space over which slices are compared, as σ across lines and along them.
_MOTION_WINDOW, _MEASURE_WINDOW = (2.5, 12.0), (3.0, 6.0)
#: Keeps lines that cancel themselves from being amplified without limit.
_STABILITY = 0.15
#: The denoiser's strength as a multiple of the noise, since ghosts are to go as well.
_GHOSTS = 2.0
#: Noise as a share of the standard deviation of the voxels, at least: for noise-free images.
_LEAST_NOISE = 0.01
#: Rounds of completing, and the first strength of the denoiser as a multiple of the noise.
_COMPLETIONS, _STRONGEST = 10, 8.0


@dataclass(frozen=True)
class ArtifactEstimate:
    """What is wrong with the lines of k-space.

    Attributes:
        kind: "undersampling", "motion" or "none".
        axis: along which lines are missing, 1 (rows) or 2 (columns) of [K, J, I].
        lines: [n // 2 + 1] for a side of n, from frequency 0 up: 1 where both lines of a pair were
            measured, 0.5 where one, 0 where none; NaN where noise hides them. Empty without
            undersampling.
        severity: undersampling: share of visible pairs of lines that are missing, 0 to 1; motion:
            mean angle in radians between the spectra of neighboring slices.
        is_repairable: whether `repair` is expected to improve the volume.
        reason: a sentence for the report.
    """

    kind: Literal["undersampling", "motion", "none"]
    axis: int
    lines: Doubles
    severity: float
    is_repairable: bool
    reason: str


def measure_artifacts(volume: Volume) -> ArtifactEstimate:
    """Find missing lines of k-space, or motion between lines, from the magnitude image alone.

    Missing lines are seen where all slices lack the same ones, irregularly, on the grid of the
    acquisition. Not seen are patterns after interpolation, cropping or masking in the image; lines
    beyond a certain frequency that are all missing (zero-filling, partial Fourier); lines filled in
    by a parallel reconstruction. Motion is seen where slices moved independently of each other, as
    in 2D acquisitions, and their anatomy is alike; not in 3D acquisitions.

    Args:
        volume: MR, one frame; of another modality nothing is found.
    Raises:
        InputError: a sequence, or voxels that are not finite.
    """
    if volume.is_sequence:
        raise InputError("artifacts of a sequence", "Measure one frame.")
    if volume.modality not in ("MR", "OT"):
        return _nothing(f"{volume.modality} is not measured by lines of k-space")
    voxels = volume.voxels
    contrast = np.array([float(np.std(plane, dtype=np.float64)) for plane in voxels])
    chosen = np.sort(np.argsort(-contrast, kind="stable")[:_SLICES])
    slices = voxels[chosen].astype(np.float32)
    if not np.isfinite(slices).all():
        raise InputError("voxels hold NaN or infinity", "Replace them before enhancing.")
    if min(slices.shape[1:]) < _LEAST_SIDE or float(slices.std()) == 0:
        return _nothing("slices are too small, or constant")
    fits = [_fit(slices, axis) for axis in (1, 2)]
    axis = 1 if fits[0].evidence >= fits[1].evidence else 2
    fit = fits[axis - 1]
    if fit.is_undersampled:
        return _undersampled(fit, axis)
    middle = len(voxels) // 2
    near = voxels[max(0, middle - _SLICES // 2) : middle + _SLICES // 2].astype(np.float32)
    return _moved(near)


def _undersampled(fit: _Fit, axis: int) -> ArtifactEstimate:
    seen = np.isfinite(fit.lines)
    missing = int((fit.lines == 0).sum())
    severity = missing / int(seen.sum())
    is_repairable = severity <= _TOO_MUCH
    verdict = "undersampled" if is_repairable else "undersampled, cannot be repaired"
    reason = f"{verdict}: {missing} of {seen.sum()} visible pairs of lines are missing"
    return ArtifactEstimate("undersampling", axis, fit.lines, severity, is_repairable, reason)


def _moved(slices: Floats) -> ArtifactEstimate:
    """slices: adjacent, [n, J, I]."""
    if len(slices) < 3:
        return _nothing("no lines of k-space are missing; too few slices to see motion")
    found = [_angle(slices), _angle(slices.transpose(0, 2, 1))]
    axis = 1 if found[0][0] >= found[1][0] else 2
    angle, coherence = found[axis - 1]
    if coherence < _LEAST_COHERENCE:
        return _nothing("no lines of k-space are missing; slices are too unlike to see motion")
    needed = _MOVED + _SLOPE * max(_COHERENT - coherence, 0)
    if angle < max(needed, _ONE_SIDED * found[2 - axis][0]):
        return _nothing("no lines of k-space are missing, and slices agree")
    is_repairable = angle <= _MOVED_TOO_MUCH
    verdict = "motion" if is_repairable else "motion that cannot be repaired"
    reason = f"{verdict}: lines of neighboring slices differ by {angle:.2f} rad"
    return ArtifactEstimate("motion", axis, np.ones(0), angle, is_repairable, reason)


def _angle(slices: Floats) -> tuple[float, float]:
    """Mean angle between the spectra of neighboring slices in radians, and their coherence."""
    rows, columns = (np.abs(np.fft.fftfreq(side)) for side in slices.shape[1:])
    radius = np.hypot(rows[:, None], columns)
    band = (radius > _MOTION_BAND[0]) & (radius < _MOTION_BAND[1])
    near = _neighbors(slices)
    angles, coherences = [], []
    for plane, reference in zip(slices[1:-1], near[1:-1], strict=True):
        shared, coherence, _ = _compared(np.fft.fft2(plane), reference, _MEASURE_WINDOW)
        weights = coherence[band]
        angles.append(float(np.average(np.abs(np.angle(shared[band])), weights=weights + 1e-12)))
        coherences.append(float(weights.mean()))
    return float(np.median(angles)), float(np.median(coherences))


def repair(
    voxels: Array,
    estimate: ArtifactEstimate,
    *,
    noise: float,
    denoise: Denoiser,
    monitor: Monitor | None = None,
) -> Floats:
    """Complete missing lines, where measured ones are kept within their noise, or undo motion.

    Args:
        voxels: [K, J, I] in any unit, not negative.
        estimate: of `measure_artifacts`; voxels come back unchanged where it is not repairable.
        noise: σ of the noise in `voxels`, in their unit.
        denoise: called 10 times, with σ from 8 times the noise down to it; for motion twice, with
            twice the noise.
        monitor: for progress and cancelling, before each round.
    Returns:
        [K, J, I] float32, denoised.
    Raises:
        InputError: voxels do not fit the estimate, or the noise is negative or not finite.
    """
    if not (np.isfinite(noise) and noise >= 0):
        raise InputError(f"the noise is {noise}", "Give its σ in the unit of the voxels.")
    measured = voxels.astype(np.float32)
    if not estimate.is_repairable:
        return measured
    if estimate.kind == "motion":
        sigma = max(noise, _LEAST_NOISE * float(measured.std()))
        return _still(measured, sigma, estimate.axis, denoise, monitor)
    if voxels.ndim != 3 or voxels.shape[estimate.axis] // 2 + 1 != len(estimate.lines):
        raise InputError(
            f"lines for another grid than {voxels.shape}", "Measure the volume that is repaired."
        )
    sigma = max(noise, _LEAST_NOISE * float(measured.std()))
    along = estimate.axis
    spectrum = np.fft.rfft(measured, axis=along)
    form = [1, 1, 1]
    form[along] = -1
    share = np.nan_to_num(estimate.lines, nan=1.0).reshape(form)
    size = voxels.shape[along]
    filled = np.where(share > 0, spectrum / np.maximum(share, 0.5), 0)
    result = np.fft.irfft(filled, n=size, axis=along).astype(np.float32)
    for number in range(_COMPLETIONS):
        if monitor is not None:
            monitor.check()
            monitor.progress(number / _COMPLETIONS, "completing k-space")
        strength = _STRONGEST ** (1 - number / (_COMPLETIONS - 1))
        expected = np.maximum(denoise(result, strength * sigma), 0)
        if number == _COMPLETIONS - 1:
            return expected
        trust = 1 / strength**2
        guess = np.fft.rfft(expected, axis=along)
        joined = (share * spectrum + trust * guess) / (share**2 + trust)
        result = np.fft.irfft(joined, n=size, axis=along).astype(np.float32)
    return result


def _still(
    voxels: Floats, sigma: float, axis: int, denoise: Denoiser, monitor: Monitor | None
) -> Floats:
    """Undo phases and gains of lines that neighboring slices do not share."""
    order = (0, 1, 2) if axis == 1 else (0, 2, 1)
    if monitor is not None:
        monitor.progress(0.0, "comparing slices")
    near = _neighbors(denoise(voxels, _GHOSTS * sigma)).transpose(order)
    result = np.empty(near.shape, np.float32)
    for index, plane in enumerate(voxels.transpose(order)):
        if monitor is not None:
            monitor.check()
            monitor.progress(0.5 + 0.3 * index / len(voxels), "undoing motion")
        spectrum = np.fft.fft2(plane)
        shared, coherence, power = _compared(spectrum, near[index], _MOTION_WINDOW)
        size = np.abs(shared)
        gain = size / np.maximum(power, 1e-12)
        gain /= max(float(gain[0, 0]), 1e-6)
        phase = shared / np.maximum(size, 1e-12)
        transfer = coherence * np.minimum(gain, 1) * phase + (1 - coherence)
        inverse = (1 + _STABILITY) * transfer.conj() / (np.abs(transfer) ** 2 + _STABILITY)
        result[index] = np.maximum(np.fft.ifft2(spectrum * inverse).real, 0)
    still = np.ascontiguousarray(result.transpose(order))
    return np.maximum(denoise(still, _GHOSTS * sigma), 0)


def _neighbors(slices: Floats) -> Floats:
    """The mean of the slices before and after each one; at the ends the one that there is."""
    if len(slices) < 2:
        return slices
    ends = np.concatenate([slices[1:2], slices, slices[-2:-1]])
    mean: Floats = (ends[:-2] + ends[2:]) / 2
    return mean


def _compared(
    spectrum: npt.NDArray[np.complexfloating[Any, Any]],
    reference: Floats,
    window: tuple[float, float],
) -> tuple[npt.NDArray[np.complexfloating[Any, Any]], Doubles, Doubles]:
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


def _nothing(why: str) -> ArtifactEstimate:
    return ArtifactEstimate("none", 1, np.ones(0), 0.0, False, why)


@dataclass(frozen=True)
class _Fit:
    """lines as in `ArtifactEstimate`; evidence: nats per line; changes: share of neighbors."""

    lines: Doubles
    evidence: float
    changes: float

    @property
    def is_undersampled(self) -> bool:
        return self.evidence > _LEAST_GAIN and self.changes > _LEAST_CHANGES


def _fit(slices: Floats, axis: int) -> _Fit:
    """Explain the power of lines by a smooth curve and three levels, or by the curve alone."""
    power, noise = _line_power(slices, axis)
    count = len(power)
    width = max(5, count // 16)
    around = np.array(
        [np.quantile(power[max(1, at - width) : at + width + 1], 0.75) for at in range(1, count)]
    )
    hidden = np.flatnonzero(around < _VISIBLE * noise)
    last = max(int(hidden[0]) if len(hidden) else count - 1, 8)
    place = np.arange(1, last + 1)
    values = np.log(np.maximum(power[1 : last + 1] - noise, 0.3 * noise + 1e-20))
    # The center of k-space is measured nearly always, and a mistake there costs most.
    prior = np.zeros((last, 3))
    prior[place <= 0.16 * count, 1:] = -4
    prior[place <= max(4, 0.10 * count), 1:] = -10
    basis = np.vander(np.log(place + 2.0) / np.log(count + 2.0), _DEGREE + 1, increasing=True)
    flexible = np.vander(basis[:, 1], _DEGREE + 2, increasing=True)
    plain = _levels(values, flexible, prior[:, :1], quantile=0.5, rise=0.0, are_paired=False)
    trials = [
        _levels(values, basis, prior, quantile=quantile, rise=rise, are_paired=are_paired)
        for quantile, rise, are_paired in product((0.6, 0.75, 0.9), (0.0, 0.5, 1.0), (True, False))
    ]
    best = max(trials, key=lambda trial: trial.likelihood)
    lines = np.full(count, np.nan)
    lines[0] = 1
    lines[1 : last + 1] = _SHARES[best.level]
    evidence = (best.likelihood - plain.likelihood) / last
    return _Fit(lines, evidence, float((np.diff(lines[1 : last + 1]) != 0).mean()))


def _line_power(slices: Floats, axis: int) -> tuple[Doubles, float]:
    """Power of each pair of lines at low frequencies of the other axis, and the noise's."""
    planes = slices if axis == 1 else slices.transpose(0, 2, 1)
    spectrum = np.fft.fft(np.fft.rfft(planes, axis=1), axis=2)
    power = np.abs(spectrum) ** 2
    across = np.abs(np.fft.fftfreq(planes.shape[2]))
    lines = power[:, :, across <= _LOW].mean(axis=(0, 2))
    corner = power[:, :, across > _HIGH].mean(axis=0)[-max(4, power.shape[1] // 10) :]
    return lines, float(np.median(corner))


@dataclass(frozen=True)
class _Levels:
    """level: index into _SHARES of each line."""

    level: npt.NDArray[np.intp]
    likelihood: float


def _levels(
    values: Doubles,
    basis: Doubles,
    prior: Doubles,
    *,
    quantile: float,
    rise: float,
    are_paired: bool,
) -> _Levels:
    """Fit a curve and levels by expectation and maximization.

    Args:
        values: [n], log power of lines.
        basis: [n, P] of the curve.
        prior: [n, L], log probability of each level, up to a constant.
        quantile: local quantile of `values` where the curve begins.
        rise: added to it.
        are_paired: lines k and −k are measured independently with the same probability q, so that
            levels have the shares q², 2 q (1 − q), (1 − q)².
    """
    count = prior.shape[1]
    offsets, spreads = _OFFSETS[:count], _SPREADS[:count]
    width = max(4, len(values) // 12)
    begin = [
        np.quantile(values[max(0, at - width) : at + width + 1], quantile)
        for at in range(len(values))
    ]
    curve = basis @ np.linalg.lstsq(basis, np.array(begin) + rise, rcond=None)[0]
    share = np.full(count, 1 / count)
    total, belongs = 0.0, np.ones((len(values), count))
    for _ in range(_ROUNDS):
        distance = (values - curve)[:, None] - offsets
        score = -0.5 * (distance / spreads) ** 2 - np.log(spreads) + np.log(share) + prior
        top = score.max(axis=1, keepdims=True)
        each = top[:, 0] + np.log(np.exp(score - top).sum(axis=1))
        total, belongs = float(each.sum()), np.exp(score - each[:, None])
        weights = belongs / spreads**2
        weight = weights.sum(axis=1)
        wanted = (weights * (values[:, None] - offsets)).sum(axis=1) / weight
        root = np.sqrt(weight)
        curve = basis @ np.linalg.lstsq(basis * root[:, None], wanted * root, rcond=1e-6)[0]
        share = belongs.sum(axis=0) + 0.5
        share /= share.sum()
        if are_paired and count == 3:
            kept = np.clip(share[0] + share[1] / 2, 0.02, 0.98)
            share = np.array([kept**2, 2 * kept * (1 - kept), (1 - kept) ** 2])
    if count == 3 and not are_paired:
        total -= 4  # two shares instead of one, and patterns without halves are rare
    return _Levels(belongs.argmax(axis=1), total)
