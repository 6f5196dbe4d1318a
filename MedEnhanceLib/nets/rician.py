"""Undoes the bias that noise gives to the mean of magnitudes.

Magnitude images are Rician: noise of both channels adds σ²/2A to the mean on tissue and 1.25 σ on
air, so a denoised mean is above the truth.
Source: Koay & Basser, J. Magn. Reson. 179 (2006) 317; the ramp towards air is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from MedEnhanceLib.nets.noise_blocks import AIR_MEAN
from MedEnhanceLib.nets.precision import constant

#: From this mean on, in σ, its inverse is used; below, where it is infinitely steep, a ramp.
_RAMP_END = 1.7
_RAMP_START = 1.2
#: Range of the table in σ, and its entries for each σ; beyond, a series is used.
_FAR, _PER_SIGMA = 8.0, 64


def amplitude(mean: Tensor, sigma: Tensor) -> Tensor:
    """The magnitudes whose Rician means these are, for a known σ > 0 of each channel's noise.

    mean, sigma: of shapes that fit each other. Negative values, which no magnitude has, stay.
    """
    known = mean / sigma
    truth = torch.where(known < _FAR, _inverse(known), known - 0.5 / known.clamp_min(1.0))
    return torch.where(mean > 0, sigma * truth, mean)


def mean_magnitude(amplitude: Tensor, sigma: Tensor) -> Tensor:
    """The Rician mean of magnitudes, the inverse of `amplitude`; of shapes that fit each other."""
    return sigma * _mean_of(amplitude / sigma)


def _inverse(mean: Tensor) -> Tensor:
    """The amplitude that has this mean; σ = 1. Linear between the entries of the table."""
    place = (mean * _PER_SIGMA).clamp(0, len(_INVERSE) - 1)
    below = place.detach().nan_to_num().long().clamp_max(len(_INVERSE) - 2)  # NaN stays NaN
    table = constant(_INVERSE, mean.device, mean.dtype)
    first = table[below]
    return first + (place - below) * (table[below + 1] - first)


def _mean_of(amplitude: Tensor) -> Tensor:
    """The mean of Rician values, σ = 1."""
    quarter = amplitude.square() / 4
    mean: Tensor = AIR_MEAN * (
        (1 + 2 * quarter) * torch.special.i0e(quarter) + 2 * quarter * torch.special.i1e(quarter)
    )
    return mean


def _table() -> Tensor:
    """Amplitudes for the means 0, 1/_PER_SIGMA, …, _FAR."""
    amplitudes = torch.linspace(0, 2 * _FAR, 20_001, dtype=torch.float64)
    means = _mean_of(amplitudes)
    places = torch.arange(int(_FAR * _PER_SIGMA) + 1, dtype=torch.float64) / _PER_SIGMA
    inverse = amplitudes[torch.searchsorted(means, places).clamp_max(len(means) - 1)]
    end = inverse[int(_RAMP_END * _PER_SIGMA)]
    ramp = end * (places - _RAMP_START) / (int(_RAMP_END * _PER_SIGMA) / _PER_SIGMA - _RAMP_START)
    return torch.where(places < _RAMP_END, ramp.clamp_min(0), inverse).float()


_INVERSE = _table()
