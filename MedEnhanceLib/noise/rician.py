"""Adds Rician noise to magnitudes, and corrects the bias of their mean.

In magnitude images the noise of both channels raises the mean by about σ²/2A in tissue of amplitude
A and to 1.25 σ in air, so a denoised image, which shows the mean, is above the truth.
Source: Koay & Basser, J. Magn. Reson. 179 (2006) 317; the ramp towards air is ours.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats
from MedEnhanceLib.noise.tissue_blocks import AIR_MEAN

if TYPE_CHECKING:
    from torch import Tensor

# Chosen by hand; no table isolates it. Measured as a whole by Benchmarks/denoising.py.
#: Means in σ: above the first the mean is inverted; from the second up to it, where the inverse is
#: infinitely steep, a ramp is used.
_RAMP_END, _RAMP_START = 1.7, 1.2
#: Range of the table in σ, and its entries for each σ; beyond, a series is used.
_FAR, _PER_SIGMA = 8.0, 64


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


def amplitude(mean: Tensor, sigma: Tensor) -> Tensor:
    """Return the noise-free magnitudes of Rician means, for a known σ > 0 of each channel.

    mean, sigma: float32 on the CPU; shapes broadcast. Negative means are returned unchanged.
    """
    import torch

    ratio, table = mean / sigma, _inverse_table()
    place = (ratio * _PER_SIGMA).clamp(0, len(table) - 1)
    below = place.nan_to_num().long().clamp_max(len(table) - 2)  # NaN stays NaN
    near = table[below] + (place - below) * (table[below + 1] - table[below])
    truth = torch.where(ratio < _FAR, near, ratio - 0.5 / ratio.clamp_min(1.0))
    return torch.where(mean > 0, sigma * truth, mean)


def mean_magnitude(amplitude: Tensor, sigma: Tensor) -> Tensor:
    """Return the Rician mean of magnitudes, the inverse of `amplitude`; shapes broadcast."""
    return sigma * _mean_of(amplitude / sigma)


def _mean_of(amplitude: Tensor) -> Tensor:
    """Compute the mean of Rician values, σ = 1."""
    import torch

    quarter = amplitude.square() / 4
    mean: Tensor = AIR_MEAN * (
        (1 + 2 * quarter) * torch.special.i0e(quarter) + 2 * quarter * torch.special.i1e(quarter)
    )
    return mean


@cache
def _inverse_table() -> Tensor:
    """Tabulate amplitudes for the means 0, 1/_PER_SIGMA, …, _FAR; σ = 1."""
    import torch

    amplitudes = torch.linspace(0, 2 * _FAR, 20_001, dtype=torch.float64)
    means = _mean_of(amplitudes)
    places = torch.arange(int(_FAR * _PER_SIGMA) + 1, dtype=torch.float64) / _PER_SIGMA
    inverse = amplitudes[torch.searchsorted(means, places).clamp_max(len(means) - 1)]
    end = inverse[int(_RAMP_END * _PER_SIGMA)]
    ramp = end * (places - _RAMP_START) / (int(_RAMP_END * _PER_SIGMA) / _PER_SIGMA - _RAMP_START)
    return torch.where(places < _RAMP_END, ramp.clamp_min(0), inverse).float()
