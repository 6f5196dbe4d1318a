"""Acquisition of MR, simulated in k-space.

    magnitudes × smooth phase × sensitivity of each coil
       → k-space of the acquired matrix: partial Fourier, elliptical coverage, T2* decay
       → + noise of the coils → filter, zero filling to the displayed matrix → × g-factor (noise)
       → root sum of squares over coils → the file's integers

All simplifications: partial Fourier is zero-filled; a combination of coils by their sensitivities
(SENSE, adaptive) is a single coil whose noise is scaled by the map of the g-factor; no
off-resonance except the ghost of EPI, no motion, no cross-talk between slices.

Ranges of `MRScanner.draw`: matrix, partial Fourier, parallel imaging, combination of coils and
duration of the echo train (12 to 145 ms; T2* of 30 to 60 ms) from the headers of 356 public
series of Canon, GE, Philips, Siemens and UIH scanners (Acquisition Matrix (0018,1310) beside Rows,
Percent Sampling (0018,0093), PartialFourier and CoilCombinationMethod of private headers). How
often each occurs is rounded, and what no header states is assumed: strengths of the filters (names
as in k-space Filtering (0018,9064) of DICOM), ghost, phase, correlation, steps.
Source of the noise: noncentral χ, Constantinides et al., Magn. Reson. Med. 38 (1997) 852; g-factor
and correlated channels, Pruessmann et al., Magn. Reson. Med. 42 (1999) 952.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask, cosine_matrix, cubic_spline
from MedEnhanceLib.core.options import LARGEST_SEED, About, Options
from MedEnhanceLib.native import SIDE

Complex = npt.NDArray[np.complexfloating[Any, Any]]
ScanKind = Literal["epi", "2d", "3d"]
SCAN_KINDS: tuple[ScanKind, ...] = get_args(ScanKind)
FilterKind = Literal["none", "hamming", "tukey"]
_FILTERS: tuple[FilterKind, ...] = get_args(FilterKind)
#: Least number of voxels that join the end of an axis to its start, which the discrete transform
#: takes for neighbors; lengths become multiples of the second number, for fast transforms.
_JOINT, _MULTIPLE = 12, 8
#: σ of a coil's sensitivity and its least distance from the center; steepest slope of its phase.
_COIL_MM, _RAD_PER_MM = 100.0, 0.02
#: Least samples of an axis; ranges of the signal-to-noise ratio, drawn uniformly in its logarithm.
_LEAST_SAMPLES, _EPI_SNR, _SNR = 8, (2.0, 60.0), (5.0, 100.0)
#: Distance of the bias field's control points: sensitivities of head coils vary over such lengths.
_KNOT_MM = 100.0


@dataclass(frozen=True, eq=False)
class Acquired:
    """One simulated scan; [K, J, I] in the unit of the object.

    Attributes:
        noisy: the image, float32, not negative.
        clean: the same without noise and rounding: with the scanner's blur, ringing and ghost.
        mean: of the magnitudes over all noise: `clean` and the bias of magnitudes.
        sigma: standard deviation of the noise in phase with the signal, which is that of the
            magnitude where the signal is strong.
        spectrum: [4, 4, 4] along k, j, i: variance of each coefficient of the orthonormal cosine
            transform of blocks of noise in phase with the signal, relative to their mean.
    """

    noisy: Floats
    clean: Floats
    mean: Floats
    sigma: Floats
    spectrum: Floats


@dataclass(frozen=True, kw_only=True)
class MRScanner(Options):
    """Parameters of an acquisition but its noise level, no unit where none is stated.

    Attributes:
        kind: "epi" (slices one by one, one echo train each), "2d" (slices one by one) or "3d"
            (noise and zero filling across slices, too).
        phase_axis: along which phase is encoded, "j" or "i".
        phase_share, read_share, slice_share: acquired samples of the displayed matrix along phase,
            readout and, in "3d", slices; 0.25 to 1.
        partial_fourier: acquired share of the matrix along phase; 0.5 (none of one half) to 1.
        elliptical: whether the corners of k-space are left out: of its two phase directions in
            "3d", else of the plane.
        filter: of k-space: none, Hamming or Tukey.
        taper: Hamming: weight that the outermost samples lose (0.92 is Hamming's own, 1 that of
            Hann); Tukey: share of the samples whose weight falls to 0; 0 to 1.
        decay: duration of the echo train over T2*, which weights the samples along phase; 0 to 4.
        ghost: amplitude of EPI's ghost, half a field of view away, as a share; 0 to 0.2.
        coils: whose root sum of squares is displayed; 1 for a combination by sensitivities.
        correlation: of the noise of any two of the coils; 0 to 0.9.
        g_factor: ln of the largest factor by which noise differs from its mean square; 0 to 1.5.
        phase_rad: by which the object's phase varies, radians at most; 0 to 10.
        steps: steps of the file's integers to a σ; 0 for values that are not rounded.
        snr: mean of the foreground over σ, for those who do not state σ; 1 to 1000.
        seed: of phase, g-factor and sensitivities.
    """

    kind: ScanKind = "2d"
    phase_axis: Literal["j", "i"] = "j"
    phase_share: Annotated[float, About(low=0.25, high=1)] = 1.0
    read_share: Annotated[float, About(low=0.25, high=1)] = 1.0
    slice_share: Annotated[float, About(low=0.25, high=1)] = 1.0
    partial_fourier: Annotated[float, About(low=0.5, high=1)] = 1.0
    elliptical: bool = False
    filter: FilterKind = "none"
    taper: Annotated[float, About(low=0, high=1)] = 0.0
    decay: Annotated[float, About(low=0, high=4)] = 0.0
    ghost: Annotated[float, About(low=0, high=0.2)] = 0.0
    coils: Annotated[int, About(low=1, high=64)] = 1
    correlation: Annotated[float, About(low=0, high=0.9)] = 0.0
    g_factor: Annotated[float, About(low=0, high=1.5)] = 0.0
    phase_rad: Annotated[float, About(low=0, high=10)] = 2.0
    steps: Annotated[float, About(low=0, high=1e6)] = 0.0
    snr: Annotated[float, About(low=1, high=1000)] = 20.0
    seed: Annotated[int, About(low=0, high=LARGEST_SEED)] = 0

    @classmethod
    def draw(cls, rng: np.random.Generator, kind: ScanKind) -> Self:
        """Draw the parameters of a scan of this kind from the ranges that headers show."""

        def either(share: float, value: float, other: float) -> float:
            return value if rng.random() < share else other

        is_epi, is_3d = kind == "epi", kind == "3d"
        zoom = either(0.4, float(rng.choice([0.5, 0.625, 0.75, 0.89])), 1.0)
        partial = float(rng.choice([0.625, 0.75, 0.875], p=[0.1, 0.6, 0.3]))
        return cls(
            kind=kind,
            phase_axis="j" if rng.random() < 0.5 else "i",
            phase_share=zoom * either(0.3 if is_epi else 0.5, rng.uniform(0.62, 1), 1.0),
            read_share=zoom * either(0.2, rng.uniform(0.75, 1), 1.0),
            slice_share=either(0.5, rng.uniform(0.5, 0.95), 1.0) if is_3d else 1.0,
            partial_fourier=either(0.5 if is_epi else 0.25, partial, 1.0),
            elliptical=bool(rng.random() < (0.4 if is_3d else 0.2)),
            filter=_FILTERS[int(rng.integers(len(_FILTERS)))],
            taper=rng.uniform(0.4, 1.0) if is_epi else rng.uniform(0.2, 0.9),
            decay=rng.uniform(0.2, 2.0) if is_epi else 0.0,
            ghost=either(0.4, rng.uniform(0, 0.03), 0.0) if is_epi else 0.0,
            coils=int(rng.choice([1, 4, 8], p=[0.5, 0.3, 0.2])),
            correlation=rng.uniform(0, 0.3),
            g_factor=either(0.6, rng.uniform(0, 0.4), 0.0),
            phase_rad=rng.uniform(0.3, 3.0),
            steps=either(0.85, float(np.exp(rng.uniform(0, math.log(60)))), 0.0),
            snr=float(np.exp(rng.uniform(*np.log(_EPI_SNR if is_epi else _SNR)))),
            seed=int(rng.integers(2**31)),
        )

    def acquire(
        self,
        voxels: Array,
        sigma: float,
        spacing_mm: Sequence[float],
        rng: np.random.Generator,
    ) -> Acquired:
        """Scan an object.

        Args:
            voxels: [K, J, I], magnitudes in any unit; values below 0 count as 0.
            sigma: standard deviation of the noise in each channel of the image, root of the mean
                square over the volume, in the unit of `voxels`; above 0.
            spacing_mm: along i, j, k, as in `Geometry`.
            rng: of the noise; the number of draws does not depend on the voxels.
        """
        axes = (0, 1, 2) if self.kind == "3d" else (1, 2)
        inside = tuple(map(slice, voxels.shape))
        image = np.maximum(voxels, 0).astype(np.float32)
        for axis in axes:
            image = _joined(image, axis)
        fields = np.random.default_rng(self.seed)

        def smooth(peak: float) -> Floats:
            return np.log(bias_field(image.shape, math.expm1(peak), fields, spacing_mm=spacing_mm))

        image = image * np.exp(1j * smooth(self.phase_rad))
        g = np.exp(smooth(self.g_factor))
        channel = g * np.float32(sigma / math.sqrt(np.mean(g**2)))
        coils = _sensitivities(self.coils, image.shape, spacing_mm, fields)
        weights, signal_weights = self._weights(image.shape, axes)
        level = channel / math.sqrt(np.mean(weights**2))
        shared = self.correlation if len(coils) > 1 else 0.0
        common = _white(image.shape, rng) * math.sqrt(shared) if shared else 0
        to_image = partial(np.fft.ifftn, axes=axes, norm="ortho")
        clean, noisy = np.zeros((2, *image.shape), np.float32)
        for coil in coils:
            samples = np.fft.fftn(image * coil, axes=axes, norm="ortho")
            signal = to_image(samples * signal_weights)
            if self.ghost:
                signal += self.ghost * np.roll(signal, image.shape[self._phase] // 2, self._phase)
            noise = _white(image.shape, rng) * math.sqrt(1 - shared) + common
            clean += np.abs(signal) ** 2
            noisy += np.abs(signal + to_image(noise * weights) * level) ** 2
        clean, noisy = np.sqrt(clean), np.sqrt(noisy)
        in_phase = channel * np.sqrt(1 - shared + shared * np.abs(sum(coils[1:], coils[0])) ** 2)
        mean = _mean_magnitude(clean, channel, in_phase, len(coils), shared)
        if self.steps:
            noisy = np.round(noisy * (self.steps / sigma)) * (sigma / self.steps)
        images = (noisy, clean, mean, in_phase)
        noisy, clean, mean, in_phase = (image[inside].astype(np.float32) for image in images)
        return Acquired(noisy, clean, mean, in_phase, _spectrum(weights))

    @property
    def _phase(self) -> int:
        """Index of the axis along which phase is encoded."""
        return "kji".index(self.phase_axis)

    def _weights(self, shape: tuple[int, ...], axes: Sequence[int]) -> tuple[Floats, Floats]:
        """Return the k-space weights of the noise, and of the signal, which decays as well."""
        shares = [self.slice_share, self.read_share, self.read_share]
        shares[self._phase] = self.phase_share
        lines = [np.zeros(1, np.float32)] * 3
        for axis in axes:
            side = shape[axis]
            count = min(side, max(_LEAST_SAMPLES, shares[axis] * side))
            # The outermost acquired samples are at ± 0.5.
            lines[axis] = np.asarray(np.fft.fftfreq(side, 1 / side) / count, np.float32)
        places = np.meshgrid(*lines, indexing="ij", sparse=True)
        k, j, i = (self._filter(2 * np.abs(place)) for place in places)
        phase = places[self._phase]
        weights = k * j * i * (phase >= 0.5 - self.partial_fourier)
        if self.elliptical:
            first, second = (0, self._phase) if self.kind == "3d" else (1, 2)
            weights *= places[first] ** 2 + places[second] ** 2 <= 0.25
        return weights, weights * np.exp(-self.decay * phase)

    def _filter(self, distance: Floats) -> Floats:
        """Return weights by the distance from the center of k-space; outermost samples are at 1."""
        is_hamming, is_tukey = self.filter == "hamming", self.filter == "tukey" and self.taper > 0
        ramp = np.clip(1 - (1 - distance) / self.taper, 0, 1) if is_tukey else distance
        depth = self.taper if is_hamming else float(is_tukey)
        return np.asarray((distance <= 1) * (1 - depth * 0.5 * (1 - np.cos(np.pi * ramp))))


def _sensitivities(
    count: int, shape: tuple[int, ...], spacing: Sequence[float], rng: np.random.Generator
) -> list[Complex]:
    """Draw sensitivities of coils around the volume; their squares add up to 1 in each voxel."""
    if count == 1:
        return [np.ones((1, 1, 1), np.complex64)]
    places = [(np.arange(n) - n / 2) * mm for n, mm in zip(shape, spacing[::-1], strict=True)]
    away = max(_COIL_MM, *(float(place[-1]) for place in places))
    coils: list[Complex] = []
    for _ in range(count):
        center, turns = rng.standard_normal(3), rng.uniform(-_RAD_PER_MM, _RAD_PER_MM, 3)
        center *= away / np.linalg.norm(center)
        lines = [
            np.exp(-0.5 * ((place - at) / _COIL_MM) ** 2 + 1j * turn * place)
            for place, at, turn in zip(places, center, turns, strict=True)
        ]
        coils.append(np.einsum("k,j,i->kji", *lines).astype(np.complex64))
    total = np.sqrt(sum(np.abs(coil) ** 2 for coil in coils))
    for coil in coils:
        coil /= total
    return coils


def _joined(voxels: Floats, axis: int) -> Floats:
    """Append mirrored voxels that lead smoothly from the end of an axis to its beginning."""
    side = voxels.shape[axis]
    more = _JOINT + -(side + _JOINT) % _MULTIPLE
    widths = [(0, 0)] * 3
    widths[axis] = (more, more)
    mirrored = np.moveaxis(np.pad(voxels, widths, mode="symmetric"), axis, -1)
    share = ((np.arange(more) + 0.5) / more).astype(np.float32)
    joint: Floats = (1 - share) * mirrored[..., -more:] + share * mirrored[..., :more]
    return np.concatenate([voxels, np.moveaxis(joint, -1, axis)], axis=axis)


def _white(shape: tuple[int, ...], rng: np.random.Generator) -> Complex:
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]


def _mean_magnitude(
    clean: Floats, channel: Floats, in_phase: Floats, coils: int, shared: float
) -> Floats:
    """Approximate the mean of a root sum of squares, to 1.5 %, by mean and variance of the sum."""
    total = clean**2 + 2 * coils * channel**2
    variance = 4 * (clean * in_phase) ** 2
    variance += 4 * coils * (1 + (coils - 1) * shared**2) * channel**4
    return np.asarray(np.sqrt(total) * (1 - variance / (8 * total**2)))


def _spectrum(weights: Floats) -> Floats:
    """Compute the relative variance of cosine coefficients of noise so weighted, [4, 4, 4]."""
    correlation = np.fft.ifftn(weights.astype(np.float64) ** 2).real
    near = np.zeros((SIDE,) * 3)
    part = correlation[:SIDE, :SIDE, :SIDE]
    near[tuple(map(slice, part.shape))] = part / correlation[0, 0, 0]
    # The variance of a sum of samples is the sum of correlations over all pairs, by distance.
    cosines, distance = cosine_matrix(SIDE), np.abs(np.subtract.outer(*2 * [np.arange(SIDE)]))
    pairs = np.einsum("ax,ay,xyd->ad", cosines, cosines, np.eye(SIDE)[distance])
    spectrum = np.einsum("kji,ak,bj,ci->abc", near, *3 * [pairs])
    return np.asarray(np.maximum(spectrum, 0), np.float32)


def bias_field(
    shape: tuple[int, ...],
    strength: float,
    rng: np.random.Generator,
    *,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    within: Mask | None = None,
) -> Floats:
    """Draw a bias field like that of receive coils.

    The logarithm of the field has mean 0 and is a cubic B-spline with control points 100 mm apart:
    over the same extent in mm the same draw gives the same field, whatever the voxel size.

    Args:
        shape: (K, J, I).
        strength: 0.3 gives a field that multiplies or divides by 1.3 at most.
        rng: of the control points.
        spacing_mm: along i, j, k, as in `Geometry`.
        within: [K, J, I], where the mean is 0 and the strength holds; None: the whole volume.
    Returns float32 [K, J, I], positive, no unit.
    """
    bases = [
        _spline_basis(count, spacing)
        for count, spacing in zip(shape, reversed(tuple(spacing_mm)), strict=True)
    ]
    log_field = rng.standard_normal([basis.shape[1] for basis in bases])
    for basis in bases:
        # Each contracts the first axis and appends the new one: after three, the order is K, J, I.
        log_field = np.tensordot(log_field, basis, axes=(0, 1))
    log_field -= log_field.mean(where=True if within is None else within)
    peak = float(np.abs(log_field if within is None else log_field[within]).max())
    if peak > 0:
        log_field *= math.log1p(strength) / peak
    return np.exp(log_field).astype(np.float32)


def _spline_basis(count: int, spacing_mm: float) -> Doubles:
    """Return [count, control points]: weights of the cubic B-spline at voxel centers."""
    spans = max(1, math.ceil(count * spacing_mm / _KNOT_MM - 1e-9))
    position = (np.arange(count) + 0.5) / count * spans
    return cubic_spline(position[:, None] - (np.arange(spans + 3) - 1))
