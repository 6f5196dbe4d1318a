"""Acquisition of MR: what a scanner makes of an object, simulated in k-space.

    magnitudes × smooth phase × sensitivity of each coil
       → k-space of the acquired matrix: partial Fourier, elliptical coverage, T2* decay
       → + noise of the coils → filter, zero filling to the displayed matrix → × g-factor (noise)
       → root sum of squares over coils → the file's integers

All simplifications: partial Fourier is filled with zeros; a combination of coils by their
sensitivities (SENSE, adaptive) counts as a single coil, whose noise has the map of the g-factor; no
off-resonance but the ghost of EPI, no motion, no cross-talk of slices.

Ranges of `Scanner.draw`: matrix, partial Fourier, parallel imaging, combination of coils and
duration of the echo train (0.01 to 0.15 s; T2* of 0.03 to 0.06 s) from the headers of 356 public
series of Canon, GE, Philips, Siemens and UIH scanners (Acquisition Matrix (0018,1310) beside Rows,
Percent Sampling (0018,0093), PartialFourier and CoilCombinationMethod of private headers). Filters
are those of k-space Filtering (0018,9064) in DICOM PS3.3 C.8.13.4; no header states their strength.
Source of the noise: noncentral χ, Constantinides et al., Magn. Reson. Med. 38 (1997) 852; g-factor
and correlated channels, Pruessmann et al., Magn. Reson. Med. 42 (1999) 952.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.cosines import cosine_matrix
from MedEnhanceLib.core.options import About, Options
from MedEnhanceLib.degradation.image import bias_field

Floats = npt.NDArray[np.float32]
Complex = npt.NDArray[np.complexfloating[Any, Any]]
ScanKind = Literal["epi", "2d", "3d"]
#: Side of the blocks whose spectrum is computed.
_BLOCK = 4
#: Voxels that join the last of an axis to its first, which are neighbors in a discrete transform;
#: lengths become multiples of the second number, which transforms are fast for.
_JOINT, _MULTIPLE = 12, 8
#: ln of the magnitude and radians of the phase by which coils' sensitivities vary, at most.
_SENSITIVITY, _COIL_PHASE = 0.8, 2.0
#: Least samples of an axis.
_LEAST_SAMPLES = 8


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
class Scanner(Options):
    """Parameters of an acquisition but its noise level, no unit where none is stated.

    Args:
        kind: "epi" (slices one by one, one echo train each), "2d" (slices one by one) or "3d"
            (noise and zero filling across slices, too).
        phase_axis: along which phase is encoded, "j" or "i".
        phase_share, read_share, slice_share: acquired samples of the displayed matrix along phase,
            readout and, in "3d", slices; 0.25 to 1.
        partial_fourier: acquired share of the matrix along phase; 0.5 (none of one half) to 1.
        elliptical: whether corners of the two phase directions (of slices: of the plane) are
            left out.
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
        seed: of sensitivities, phase and g-factor.
    """

    kind: ScanKind = "2d"
    phase_axis: Literal["j", "i"] = "j"
    phase_share: Annotated[float, About(low=0.25, high=1)] = 1.0
    read_share: Annotated[float, About(low=0.25, high=1)] = 1.0
    slice_share: Annotated[float, About(low=0.25, high=1)] = 1.0
    partial_fourier: Annotated[float, About(low=0.5, high=1)] = 1.0
    elliptical: bool = False
    filter: Literal["none", "hamming", "tukey"] = "none"
    taper: Annotated[float, About(low=0, high=1)] = 0.0
    decay: Annotated[float, About(low=0, high=4)] = 0.0
    ghost: Annotated[float, About(low=0, high=0.2)] = 0.0
    coils: Annotated[int, About(low=1, high=64)] = 1
    correlation: Annotated[float, About(low=0, high=0.9)] = 0.0
    g_factor: Annotated[float, About(low=0, high=1.5)] = 0.0
    phase_rad: Annotated[float, About(low=0, high=10)] = 2.0
    steps: Annotated[float, About(low=0, high=1e6)] = 0.0
    seed: Annotated[int, About(low=0)] = 0

    @classmethod
    def draw(cls, rng: np.random.Generator, kind: ScanKind) -> Self:
        """Draw the parameters of a scan of this kind from the ranges that headers show."""

        def either(share: float, value: float, other: float) -> float:
            return value if rng.random() < share else other

        is_epi, is_3d = kind == "epi", kind == "3d"
        # Half of the matrix to all of it, displayed larger by a round factor or not at all.
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
            filter=str(rng.choice(["none", "hamming", "tukey"])),  # type: ignore[arg-type]
            taper=rng.uniform(0.4, 1.0) if is_epi else rng.uniform(0.2, 0.9),
            decay=rng.uniform(0.2, 2.0) if is_epi else 0.0,
            ghost=either(0.4, rng.uniform(0, 0.03), 0.0) if is_epi else 0.0,
            coils=int(rng.choice([1, 4, 8], p=[0.5, 0.3, 0.2])),
            correlation=rng.uniform(0, 0.3),
            g_factor=either(0.6, rng.uniform(0, 0.4), 0.0),
            phase_rad=rng.uniform(0.3, 3.0),
            steps=either(0.85, float(np.exp(rng.uniform(0, math.log(60)))), 0.0),
            seed=int(rng.integers(2**31)),
        )

    def acquire(
        self,
        voxels: npt.NDArray[Any],
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
            rng: of the noise: the same number of draws whatever the object shows.
        """
        image, spacing = np.maximum(voxels, 0).astype(np.float32), list(spacing_mm)
        if self.phase_axis == "i":
            image, spacing = image.swapaxes(1, 2), [spacing[1], spacing[0], spacing[2]]
        inside = tuple(slice(side) for side in image.shape)
        axes = (0, 1, 2) if self.kind == "3d" else (1, 2)
        for axis in axes:
            image = _joined(image, axis)
        fields = np.random.default_rng(self.seed)
        image = image * np.exp(1j * _smooth(image.shape, self.phase_rad, spacing, fields))
        coils = self._sensitivities(image.shape, spacing, fields)
        g = np.exp(_smooth(image.shape, self.g_factor, spacing, fields))
        channel = np.broadcast_to(g * np.float32(sigma / math.sqrt(np.mean(g**2))), image.shape)
        noise_weights, signal_weights = self._weights(image.shape, axes)
        level = channel / math.sqrt(np.mean(noise_weights**2))
        shared = self.correlation if len(coils) > 1 else 0.0
        common = _white(image.shape, rng) * math.sqrt(shared) if shared else 0

        def displayed(samples: Complex) -> Complex:
            return np.fft.ifftn(samples, axes=axes, norm="ortho").astype(np.complex64)

        clean, noisy = np.zeros((2, *image.shape), np.float32)
        for coil in coils:
            samples = np.fft.fftn(image * coil, axes=axes, norm="ortho")
            signal = displayed(samples * signal_weights)
            if self.ghost:
                signal += self.ghost * np.roll(signal, image.shape[1] // 2, axis=1)
            noise = _white(image.shape, rng) * math.sqrt(1 - shared) + common
            clean += np.abs(signal) ** 2
            noisy += np.abs(signal + displayed(noise * noise_weights) * level) ** 2
        clean, noisy = np.sqrt(clean), np.sqrt(noisy)
        in_phase = channel * np.sqrt(1 - shared + shared * np.abs(sum(coils)) ** 2)
        mean = _mean_magnitude(clean, channel, in_phase, len(coils), shared)
        if self.steps:
            step = np.float32(sigma / self.steps)
            noisy = np.round(noisy / step) * step
        images = [part[inside] for part in (noisy, clean, mean, in_phase)]
        images.append(_spectrum(noise_weights))
        if self.phase_axis == "i":
            images = [part.swapaxes(1, 2) for part in images]
        return Acquired(*(np.ascontiguousarray(part, np.float32) for part in images))

    def _weights(self, shape: tuple[int, ...], axes: Sequence[int]) -> tuple[Floats, Floats]:
        """Weights of the samples of noise and of the signal, which decays, by frequency."""
        weights, decay, radius = np.ones((1, 1, 1)), np.ones((1, 1, 1)), np.zeros((1, 1, 1))
        for axis in axes:
            side = shape[axis]
            share = (self.slice_share, self.phase_share, self.read_share)[axis]
            count = min(side, max(_LEAST_SAMPLES, share * side))
            line = [1, 1, 1]
            line[axis] = side
            place = np.fft.fftfreq(side, 1 / side).reshape(line) / count
            weights = weights * self._filter(2 * np.abs(place)) * (np.abs(place) <= 0.5)
            if axis == 1:
                weights = weights * (place >= 0.5 - self.partial_fourier)
                decay = np.exp(-self.decay * place)
            if axis in axes[:2]:  # phase is encoded along both, or the plane is what is seen
                radius = radius + (2 * place) ** 2
        if self.elliptical:
            weights = weights * (radius <= 1)
        return weights.astype(np.float32), (weights * decay).astype(np.float32)

    def _filter(self, distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Weights at a distance from the center of k-space, 1 that of the outermost samples."""
        if self.filter == "none" or not self.taper:
            return np.ones_like(distance)
        is_hamming = self.filter == "hamming"
        ramp = distance if is_hamming else np.clip(1 - (1 - distance) / self.taper, 0, 1)
        return 1 - (self.taper if is_hamming else 1) * 0.5 * (1 - np.cos(np.pi * ramp))

    def _sensitivities(
        self, shape: tuple[int, ...], spacing: Sequence[float], rng: np.random.Generator
    ) -> list[Complex]:
        """Sensitivities of the coils, whose squares add up to 1."""
        if self.coils == 1:
            return [np.ones((1, 1, 1), np.complex64)]
        coils: list[Complex] = []
        for _ in range(self.coils):
            strength = np.exp(_smooth(shape, _SENSITIVITY, spacing, rng))
            coils.append(strength * np.exp(1j * _smooth(shape, _COIL_PHASE, spacing, rng)))
        total = np.sqrt(sum(np.abs(coil) ** 2 for coil in coils))
        return [coil / total for coil in coils]


def _joined(voxels: Floats, axis: int) -> Floats:
    """Append mirrored voxels that lead smoothly from the end of an axis to its beginning."""
    side = voxels.shape[axis]
    more = _JOINT + -(side + _JOINT) % _MULTIPLE
    widths = [(0, 0)] * 3
    widths[axis] = (more, more)
    mirrored = np.moveaxis(np.pad(voxels, widths, mode="symmetric"), axis, -1)
    share = ((np.arange(more) + 0.5) / more).astype(np.float32)
    joint = (1 - share) * mirrored[..., -more:] + share * mirrored[..., :more]
    return np.concatenate([voxels, np.moveaxis(joint, -1, axis)], axis=axis)


def _smooth(
    shape: tuple[int, ...], peak: float, spacing: Sequence[float], rng: np.random.Generator
) -> Floats:
    """A smooth field of mean 0 between ± `peak`."""
    if not peak:
        return np.zeros((1, 1, 1), np.float32)
    field: Floats = np.log(bias_field(shape, math.expm1(peak), rng, spacing_mm=spacing))
    return field


def _white(shape: tuple[int, ...], rng: np.random.Generator) -> Complex:
    """Complex white noise, of variance 1 in each channel."""
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]


def _mean_magnitude(
    clean: Floats, channel: Floats, in_phase: Floats, coils: int, shared: float
) -> Floats:
    """The mean of a root sum of squares, to 1.5 %, by mean and variance of the sum.

    For a single coil √(S² + 2σ²) (1 − …), the Rician mean.
    """
    total = clean**2 + 2 * coils * channel**2
    variance = 4 * (clean * in_phase) ** 2
    variance += 4 * coils * (1 + (coils - 1) * shared**2) * channel**4
    mean: Floats = np.sqrt(total) * (1 - variance / (8 * total**2))
    return mean


def _spectrum(weights: Floats) -> Floats:
    """Relative variance of the cosine coefficients of noise with these weights, [4, 4, 4]."""
    correlation = np.fft.ifftn(weights.astype(np.float64) ** 2).real
    near = np.zeros((_BLOCK,) * 3)
    part = correlation[:_BLOCK, :_BLOCK, :_BLOCK]
    near[tuple(map(slice, part.shape))] = part / correlation[0, 0, 0]
    # Of a sum of n samples the variance is a sum over distances of their correlation.
    cosines = cosine_matrix(_BLOCK)
    pairs = np.empty((_BLOCK, _BLOCK))
    for distance in range(_BLOCK):
        both = (cosines[:, : _BLOCK - distance] * cosines[:, distance:]).sum(axis=1)
        pairs[:, distance] = both * (2 if distance else 1)
    spectrum: Floats = np.einsum("kji,ak,bj,ci->abc", near, *3 * [pairs]).astype(np.float32)
    return spectrum
