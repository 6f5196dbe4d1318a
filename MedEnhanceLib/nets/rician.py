"""Undoes what noise adds to the mean of magnitude images: σ²/2A on tissue, 1.25 σ on air.

Magnitudes are Rician: noise of both channels can only add to nothing. A denoiser finds the mean,
which is above the truth. Source: Koay & Basser, J. Magn. Reson. 179 (2006) 317; the ramp towards
air is ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.nets.normalisation import at_pixels

#: The mean of air, in σ.
_AIR = math.sqrt(math.pi / 2)
#: From this mean on, in σ, its inverse is used; below, where it is infinitely steep, a ramp.
_RAMP_END = 1.7
_RAMP_START = 1.2
#: What a cell's mean over its spread is taken for, as a share: the spread that is measured of air
#: varies by 4 %, and less noise than there is leaves more of air than more of it takes from tissue.
_TOWARDS_AIR = 0.95
#: Tables reach so far, in σ, with so many steps a unit; beyond, a series does.
_FAR, _STEPS = 8.0, 64
#: Side of a cell in which it is judged how much of it is air, in pixels of half the resolution:
#: the noise map's cells, which tiles and whole slices share.
_CELL = 16


def without_bias(mean: Tensor, level: Tensor) -> Tensor:
    """The magnitudes whose Rician means these are.

    mean: denoised magnitudes, [B, D, H, W], sides even; level: their local spread before that, at
    half the side, [B, D, H/2, W/2]. Negative values, which no magnitude has, stay.
    """
    with torch.no_grad():
        half = F.avg_pool2d(mean.flatten(0, 1)[:, None], 2)
        cells = F.avg_pool2d(half, _CELL, ceil_mode=True, count_include_pad=False)
        around = at_pixels(cells, half, _CELL).expand_as(half).reshape(level.shape)
        # Air spreads less than the noise that it is made of.
        sigma = level / _spread(_TOWARDS_AIR * around / level.clamp_min(1e-6))
        sigma = F.interpolate(sigma, scale_factor=2, mode="nearest").clamp_min(1e-6)
    known = mean / sigma
    truth = torch.where(known < _FAR, _inverse(known), known - 0.5 / known.clamp_min(1.0))
    return torch.where(mean > 0, sigma * truth, mean)


def _moments(amplitude: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of Rician values, σ = 1."""
    quarter = amplitude.square() / 4
    mean = _AIR * (
        (1 + 2 * quarter) * torch.special.i0e(quarter) + 2 * quarter * torch.special.i1e(quarter)
    )
    return mean, (2 + 4 * quarter - mean.square()).clamp_min(0).sqrt()


def _looked_up(table: Tensor, at: Tensor) -> Tensor:
    """Linear between the values of a table at 0, 1/_STEPS, …, _FAR."""
    place = (at * _STEPS).clamp(0, len(table) - 1.001)
    below = place.detach().nan_to_num().long()  # what is no number comes out as such
    table = table.to(at)
    first = table[below]
    return first + (place - below) * (table[below + 1] - first)


def _inverse(mean: Tensor) -> Tensor:
    """The amplitude that has this mean; σ = 1."""
    return _looked_up(_INVERSE, mean)


def _spread(ratio: Tensor) -> Tensor:
    """The standard deviation where the mean is so many of it; σ = 1."""
    return _looked_up(_SPREAD, ratio)


def _tables() -> tuple[Tensor, Tensor]:
    """Amplitudes by mean, and spreads by mean over spread, at the places of `_looked_up`."""
    amplitudes = torch.linspace(0, 2 * _FAR, 20_001, dtype=torch.float64)
    means, spreads = _moments(amplitudes)
    places = torch.arange(int(_FAR * _STEPS) + 1, dtype=torch.float64) / _STEPS

    def at(known: Tensor, wanted: Tensor) -> Tensor:
        return wanted[torch.searchsorted(known, places).clamp_max(len(known) - 1)]

    inverse = at(means, amplitudes)
    end = inverse[int(_RAMP_END * _STEPS)]
    ramp = end * (places - _RAMP_START) / (int(_RAMP_END * _STEPS) / _STEPS - _RAMP_START)
    inverse = torch.where(places < _RAMP_END, ramp.clamp_min(0), inverse)
    return inverse.float(), at(means / spreads, spreads).float()


_INVERSE, _SPREAD = _tables()
