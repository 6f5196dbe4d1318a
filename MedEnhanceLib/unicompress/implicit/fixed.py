"""The number formats of the integer decoder, and training with them.

Every quantity is an integer times a power of two. Rounding is floor(x + ½), which shifts do
exactly on integers: the decoder (integer.py) computes in these formats and nothing else; training
imitates the coarse ones, so that the network learns to live with them.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Bits after the point, and the largest integer, of each quantity.
LATENT_BITS, LATENT_TOP = 7, 1023
KEY_BITS, KEY_TOP = 4, 127
VALUE_BITS, VALUE_TOP = 6, 511
SINE_BITS, SINE_TOP = 10, 1023
FEATURE_BITS, FEATURE_TOP = 7, 127
#: Phases, in turns: as sums, as what a scale is applied to, and as an index of the sine table.
PHASE_BITS, WAVE_BITS, WAVE_TOP, TURN_BITS = 14, 11, 16383, 10
SCALE_BITS, SCALE_TOP = 8, 255
#: What the last sines are weighed with; and the sines that come of it.
GAIN_TOP, GAINED_TOP = 511, 2047
OUT_BITS = 12
COSINE_BITS, COSINE_TOP = 8, 256
#: Between two centres the weight goes over in the middle 1 / SHARPNESS of the way.
SHARPNESS = 4
#: Weights are of one byte, with a power of two for each row.
WEIGHT_TOP = 127
#: Steps of a halving in the table of powers of two; beyond its end they are nothing.
POWER_STEPS, POWER_BITS, POWER_OCTAVES = 64, 10, 10
#: Levels of the linear weights between cells, for each axis.
BLEND_LEVELS = 16
SHARE_BITS = 8


def on_grid(x: Tensor, bits: int, top: int, *, fixed: bool) -> Tensor:
    """X within ±top · 2^−bits and, if fixed, rounded to multiples of 2^−bits; gradients pass."""
    step = 2.0**-bits
    x = x.clamp(-top * step, top * step)
    if not fixed:
        return x
    return x + (torch.floor(x / step + 0.5) * step - x).detach()


def row_exponents(weight: Tensor) -> Tensor:
    """For each row of [rows, columns] the largest e such that its weights · 2^e fit a byte."""
    largest = weight.detach().abs().amax(dim=1).clamp_min(2.0**-20)
    return torch.floor(torch.log2((WEIGHT_TOP + 0.49) / largest)).clamp(-8, 18)


def on_weight_grid(weight: Tensor, *, fixed: bool) -> Tensor:
    """A matrix as the bytes of the decoder hold it, if fixed; gradients pass."""
    if not fixed:
        return weight
    step = torch.exp2(-row_exponents(weight))[:, None]
    rounded = torch.floor(weight / step + 0.5).clamp(-WEIGHT_TOP, WEIGHT_TOP) * step
    return weight + (rounded - weight).detach()
