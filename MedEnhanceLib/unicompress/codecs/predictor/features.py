"""The linear prediction of a voxel, and the scaling of the network's input.

Features themselves are made in C (native/predictor.c) alone. All are integers in float32, exact:
every product and sum stays below 2²⁴, every scale is a power of two, rounding is floor. Any
machine and number of threads gives the same integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, Floats, Ints
from MedEnhanceLib.unicompress.codecs.integers import Indices
from MedEnhanceLib.unicompress.codecs.predictor.wavefront import (
    ERRORS,
    IN_SLICE,
    LEFT,
    NEIGHBORS,
    RIGHT,
    neighbors_of,
)

#: Predictions are in sixteenths of an index.
FINE = 16
#: Approximate sum of the weights of the four sums of differences.
_WEIGHTS = 64
LOG_STEPS = 16
#: Normalized features are in units of the local scale divided by this.
FEATURE = 16
#: Numbers of the network's input: neighbors, errors, and six of their scales.
COUNT = len(NEIGHBORS) + len(ERRORS) + 6
#: 256 / (1 + fraction) and 1 + fraction for the sixteen fractions of an octave, at their middle.
_MANTISSA_DOWN = np.array([(2 * 256 * 32 + 33 + 2 * j) // (2 * (33 + 2 * j)) for j in range(16)])
_MANTISSA_UP = np.array([33 + 2 * j for j in range(16)])
# Tuned on open CT, MR and EM (decision 0071). Measured again by Benchmarks/compression.py.
# Halved or doubled, _SAMPLES and _RIDGE change files of a CT and two MR by .04 % at most.
#: Voxels that are drawn, and that weights are fitted to: more gain next to nothing.
_DRAWN, _SAMPLES = 36_000, 12_000
_RIDGE = 1e-4
_MOST_BITS = 12
_LARGEST_WEIGHT = (1 << 15) - 1


def _scales() -> tuple[Floats, Floats]:
    """Tabulate by the local scale's logarithm the factor of a difference, and its inverse."""
    octave, fraction = np.divmod(np.arange(24 * LOG_STEPS), LOG_STEPS)
    down = np.ldexp(_MANTISSA_DOWN[fraction].astype(np.float32), 2 - octave)
    up = np.ldexp(_MANTISSA_UP[fraction].astype(np.float32), octave - 5)
    return down.astype(np.float32), up.astype(np.float32)


#: down: FINE · _WEIGHTS / sum, with eight bits; up: the sum itself, with six.
DOWN, UP = _scales()


def scale_of(log: Ints) -> Floats:
    """Convert a logarithm in 1/16 octave to the local scale, in sixteenths of an index."""
    scale: Floats = UP[log] * np.float32(1 / _WEIGHTS)
    return scale


@dataclass(frozen=True)
class Linear:
    """Linear prediction by the causal neighbors.

    Attributes:
        weights: [2, neighbors], of the first slice and of all others.
        bits: how many of these whole numbers are behind the point.
        top: the largest index.
    """

    weights: Floats
    bits: int
    top: int

    @property
    def is_exact(self) -> bool:
        """Whether every sum over indices of 0 to `top` is exact."""
        largest = float(np.abs(self.weights).sum(axis=1).max()) * max(self.top, 1)
        return 4 <= self.bits <= 16 and largest < 1 << 23


def fit_linear(block: Indices) -> Linear:
    """Fit weights for the first slice and for all others of a block [K, J, I]."""
    first, voxels = math.prod(block.shape[1:]), block.size
    inside = across = _solve(block, 0, first)
    if voxels > first:
        across = _solve(block, first, voxels)
    exact, top = np.stack([inside, across]), int(block.max())
    for bits in range(_MOST_BITS, 3, -1):
        whole = np.rint(exact * 2.0**bits)
        # Constant regions are predicted exactly: the weights add up to one.
        whole[:, 0] += 2.0**bits - whole.sum(axis=1)
        whole = np.clip(whole, -_LARGEST_WEIGHT, _LARGEST_WEIGHT)
        fitted = Linear(whole.astype(np.float32), bits, top)
        if fitted.is_exact:
            return fitted
    nearest = np.zeros((2, len(NEIGHBORS)), np.float32)  # no weights are exact
    nearest[:, 0] = 1 << bits
    return Linear(nearest, bits, top)


def _solve(block: Indices, start: int, stop: int) -> Doubles:
    """Fit differences to the nearest neighbor by least squares, of voxels `start` to `stop`."""
    flat = block.reshape(-1)
    numbers = np.sort(np.random.default_rng(0).integers(start, stop, min(_DRAWN, stop - start)))
    # Background of one value teaches nothing.
    column = numbers % block.shape[2]
    inside = (column >= LEFT) & (column < block.shape[2] - RIGHT)
    numbers = numbers[(flat[numbers - 1] != 0) & inside]
    numbers = numbers[:: 1 + len(numbers) // _SAMPLES]
    nearest, *others = neighbors_of(block, numbers)
    steps = np.stack(others)
    steps -= nearest
    # In rough places errors are large with any weights: their voxels count less.
    weight = 1 / (np.abs(steps[: len(IN_SLICE)]).mean(axis=0) + 1)
    steps *= weight
    exact = steps.astype(np.float64)
    normal = exact @ exact.T
    normal += np.eye(len(normal)) * (_RIDGE * np.trace(normal) / len(normal) + 1e-9)
    target = flat[numbers].astype(np.float32)
    solution = np.linalg.solve(normal, exact @ ((target - nearest) * weight).astype(np.float64))
    return np.concatenate([[0.0], solution])
