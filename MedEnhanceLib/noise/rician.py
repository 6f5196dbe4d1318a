"""Adds Rician noise to magnitudes, and corrects the bias of their mean.

In magnitude images the noise of both channels raises the mean by about σ²/2A in tissue of amplitude
A and to 1.25 σ in air, so a denoised image, which shows the mean, is above the truth.
Source: Koay & Basser, J. Magn. Reson. 179 (2006) 317; the ramp towards air is ours.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats
from MedEnhanceLib.noise.tissue_blocks import AIR_MEAN

# Chosen by hand; no table isolates it. Measured as a whole by Benchmarks/enhancement.py.
#: Means in σ: above the first the mean is inverted; from the second up to it, where the inverse is
#: infinitely steep, a ramp is used.
_RAMP_END, _RAMP_START = 1.7, 1.2
#: Range of the table in σ, and its entries for each σ; beyond, a series is used.
_FAR, _PER_SIGMA = 8.0, 64
#: Angles of half a circle over which its means are summed, exact to rounding.
_ANGLES = 64


def rician_noise(voxels: Array, sigma: float, rng: np.random.Generator) -> Floats:
    """Add the noise of magnitude MR: Rician in tissue, Rayleigh in air.

    Source: Gudbjartsson and Patz, Magn. Reson. Med. 34 (1995) 910.

    Args:
        voxels: any shape, any unit; values below 0 (undershoot of an interpolation) count as 0.
        sigma: standard deviation in each channel of the complex signal, in the unit of `voxels`.
        rng: two numbers per voxel are drawn from it.
    Returns √((x + n₁)² + n₂²), float32, same shape.
    """
    real = rng.standard_normal(voxels.shape, dtype=np.float32)
    real *= sigma
    real += np.maximum(voxels, 0)
    imaginary = rng.standard_normal(voxels.shape, dtype=np.float32)
    imaginary *= sigma
    return np.hypot(real, imaginary, out=real)


def amplitude(mean: Floats, sigma: Floats) -> Floats:
    """Return the noise-free magnitudes of Rician means, for a known σ > 0 of each channel.

    mean, sigma: float32; shapes broadcast. Negative means are returned unchanged.
    """
    ratio, table = mean / sigma, _inverse_table()
    place = np.clip(ratio * np.float32(_PER_SIGMA), 0, np.float32(len(table) - 1))
    below = np.minimum(np.nan_to_num(place).astype(np.int64), len(table) - 2)  # NaN stays NaN
    near = table[below] + (place - below.astype(np.float32)) * (table[below + 1] - table[below])
    far = ratio - np.float32(0.5) / np.maximum(ratio, np.float32(1))
    truth = np.where(ratio < _FAR, near, far)
    return np.where(mean > 0, sigma * truth, mean)


def bias_of(mean: Floats) -> Floats:
    """Return the bias of Rician means, both in σ."""
    return mean - amplitude(mean, np.ones_like(mean))


def _means_of(amplitudes: Doubles) -> Doubles:
    """Compute the means of Rician values, σ = 1: Bessel functions, as integrals over the angle."""
    quarter = amplitudes[:, None] ** 2 / 4
    cosine = np.cos((np.arange(_ANGLES) + 0.5) * np.pi / _ANGLES)
    values = np.exp(quarter * (cosine - 1)) * (1 + 2 * quarter * (1 + cosine))
    means: Doubles = AIR_MEAN * values.mean(1)
    return means


@cache
def _inverse_table() -> Floats:
    """Tabulate amplitudes for the means 0, 1/_PER_SIGMA, …, _FAR; σ = 1."""
    amplitudes = np.linspace(0, 2 * _FAR, 20_001)
    means = _means_of(amplitudes)
    places = np.arange(int(_FAR * _PER_SIGMA) + 1) / _PER_SIGMA
    inverse = amplitudes[np.minimum(np.searchsorted(means, places), len(means) - 1)]
    end = inverse[int(_RAMP_END * _PER_SIGMA)]
    ramp = end * (places - _RAMP_START) / (int(_RAMP_END * _PER_SIGMA) / _PER_SIGMA - _RAMP_START)
    return np.where(places < _RAMP_END, np.maximum(ramp, 0), inverse).astype(np.float32)
