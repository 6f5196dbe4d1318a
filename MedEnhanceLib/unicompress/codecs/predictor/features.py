"""The linear prediction of a voxel, and what the network sees of its neighbors.

Integers in float32, exact: every product and sum stays below 2²⁴, every scale is a power of two,
rounding is floor. Any machine and number of threads gives the same integers. Blocks are coded in C
(native/predictor.c), which follows this step by step; here are what it is given and what networks
learn from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.unicompress.codecs.predictor.wavefront import (
    BEFORE,
    ERRORS,
    ERRORS_BEFORE,
    ERRORS_IN_SLICE,
    IN_SLICE,
    NEIGHBORS,
    Layout,
)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

#: Predictions are in sixteenths of an index.
FINE = 16
#: Differences beyond this, in sixteenths, look all the same.
_FARTHEST = np.float32(1 << 17)
#: Predictions are kept within the range of the indices and this times it to either side.
_BEYOND = 1
#: Differences are thus below this times the largest index.
_REACH_OF_TOP = (1 + _BEYOND) * FINE
#: Normalized features are in sixteenths of the local scale, and end at eight of it.
_NORM = np.float32(127)
#: Added to the sums of differences: an eighth of an index.
_FLOOR = np.float32(128)
#: Weights of the four sums of differences add to about this.
_WEIGHTS = 64
#: Logarithms are in 1/16 octave; this is the one of a sum of 1.
_LOG_SHIFT = np.int32(19)
_LOG_ONE = np.int32(127 << 4)
#: The logarithm that the network sees as 0.
_LOG_MIDDLE = np.int32(12 << 4)
LOG_STEPS = 16
#: Parts of the local scale that normalized features are counted in.
FEATURE = 16

#: Cells that are looked at.
SEEN = len(NEIGHBORS) + len(ERRORS)
#: Features; the last one is always 1: it carries the bias.
COUNT = SEEN + 7
#: 256 / (1 + fraction) and 1 + fraction for the sixteen fractions of an octave, at their middle.
_MANTISSA_DOWN = np.array([(2 * 256 * 32 + 33 + 2 * j) // (2 * (33 + 2 * j)) for j in range(16)])
_MANTISSA_UP = np.array([33 + 2 * j for j in range(16)])
_SAMPLES = 40_000
_FIRST_SAMPLES = 10_000
_RIDGE = 1e-4
_MOST_BITS = 12
_LARGEST_WEIGHT = (1 << 15) - 1


def _sums() -> Floats:
    """Local scale, and three of its parts: [4, neighbors and errors]."""
    near, far = len(IN_SLICE), len(BEFORE)
    errors, before = len(ERRORS_IN_SLICE), len(ERRORS_BEFORE)
    rows = [
        [2] * near + [1] * far + [5] * errors + [3] * before,
        [11] * 6 + [0] * (near - 6 + far + errors + before),
        [0] * (near + far) + [16] * errors + [0] * before,
        [0] * (near + far + errors) + [16] * before,
    ]
    return np.array(rows, np.float32)


_SUMS = _sums()


def _scales(length: int = 24 * LOG_STEPS) -> tuple[Floats, Floats]:
    """By the local scale's logarithm: what a difference is multiplied by, and its inverse."""
    octave, fraction = np.divmod(np.arange(length), LOG_STEPS)
    down = np.ldexp(_MANTISSA_DOWN[fraction].astype(np.float32), 2 - octave)
    up = np.ldexp(_MANTISSA_UP[fraction].astype(np.float32), octave - 5)
    return down.astype(np.float32), up.astype(np.float32)


#: down: FINE · _WEIGHTS / sum, with eight bits; up: the sum itself, with six.
DOWN, UP = _scales()


@dataclass(frozen=True)
class Features:
    """Of n voxels.

    values: [COUNT, n], integers within ±127. linear: the linear prediction, in sixteenths of an
    index. log: of the local scale, 1/16 octave.
    """

    values: Floats
    linear: Floats
    log: Ints


def scale_of(log: Ints) -> Floats:
    """The local scale of a logarithm, in sixteenths of an index."""
    scale: Floats = UP[log] * np.float32(1 / _WEIGHTS)
    return scale


@dataclass(frozen=True)
class Linear:
    """weights: [2, neighbors], of the first slice and of all others, whole numbers.

    bits: how many of them are behind the point. top: the largest index.
    """

    weights: Floats
    bits: int
    top: int

    def predict(self, neighbors: Floats, first: npt.NDArray[np.bool_]) -> Floats:
        """In sixteenths of an index, floor. neighbors: [neighbors, n]; first: [n]."""
        sums = self.weights @ neighbors
        moved = sums[1]
        np.copyto(moved, sums[0], where=first)
        moved *= np.float32(FINE / (1 << self.bits))
        linear: Floats = np.floor(moved, out=moved)
        reach = np.float32(FINE * self.top)
        np.minimum(linear, reach * np.float32(1 + _BEYOND), out=linear)
        return np.maximum(linear, reach * np.float32(-_BEYOND), out=linear)

    def check(self) -> None:
        """Raise ValueError unless every sum over indices of 0 to `top` is exact."""
        largest = float(np.abs(self.weights).sum(axis=1).max()) * max(self.top, 1)
        if not (4 <= self.bits <= 16 and largest < 1 << 23):
            raise ValueError("weights of the linear prediction that would not be exact")


def features_of(
    values: Floats, first: npt.NDArray[np.bool_], predicted: Floats, top: int
) -> Features:
    """What the network sees, made in place of what it is made of.

    values: [COUNT, n]; its first rows hold the neighbors' indices, then the errors, in
    sixteenths. first: [n], whether a voxel lies in the first slice; predicted: [n], what
    `Linear.predict` gave; top: largest index.
    """
    neighbors, steps = values[: len(NEIGHBORS)], values[:SEEN]
    neighbors *= np.float32(FINE)
    neighbors -= predicted
    if top * _REACH_OF_TOP > _FARTHEST:
        np.clip(steps, -_FARTHEST, _FARTHEST, out=steps)
    sums: Floats = _SUMS @ np.abs(steps)
    sums += _FLOOR
    logs = (sums.view(np.int32) >> _LOG_SHIFT) - _LOG_ONE
    log = logs[0]
    down = DOWN.take(log)
    steps *= down
    parts = values[SEEN:-1]
    parts[0] = log - _LOG_MIDDLE
    np.subtract(logs[1:], log, out=parts[1:4], casting="unsafe")
    np.minimum(predicted, _FARTHEST, out=parts[4])
    parts[4] *= down
    np.multiply(first, np.float32(64), out=parts[5])
    np.floor(values[:-1], out=values[:-1])
    np.clip(values[:-1], -_NORM, _NORM, out=values[:-1])
    values[-1] = 1
    return Features(values, predicted, log)


def fit_linear(cells: Floats, layout: Layout, top: int) -> Linear:
    """Weights for the first slice and for all others. cells: of a block, padded."""
    first, voxels = math.prod(layout.shape[1:]), math.prod(layout.shape)
    inside = across = _solve(cells, layout, layout.cells_of(_spread(first, _FIRST_SAMPLES)))
    if voxels > first:
        numbers = first + _spread(voxels - first, _SAMPLES)
        across = _solve(cells, layout, layout.cells_of(numbers))
    exact = np.stack([inside, across])
    bits = _MOST_BITS
    while True:
        whole = np.rint(exact * 2.0**bits)
        # What is flat stays flat: the weights add up to one.
        whole[:, 0] += 2.0**bits - whole.sum(axis=1)
        whole = np.clip(whole, -_LARGEST_WEIGHT, _LARGEST_WEIGHT)
        fitted = Linear(whole.astype(np.float32), bits, top)
        try:
            fitted.check()
        except ValueError:
            if bits == 4:  # wild weights: take the nearest neighbor as it is
                nearest = np.zeros((2, len(NEIGHBORS)), np.float32)
                nearest[:, 0] = 1 << bits
                return Linear(nearest, bits, top)
            bits -= 1
        else:
            return fitted


def _spread(voxels: int, count: int) -> npt.NDArray[np.int64]:
    """The numbers of about `count` of `voxels` voxels, in no rhythm."""
    if voxels <= count:
        return np.arange(voxels)
    return np.random.default_rng(0).integers(0, voxels, count)


def _solve(cells: Floats, layout: Layout, voxels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    seen = np.array([0, *layout.away[: len(NEIGHBORS)]])
    wanted, nearest, *others = cells.take(voxels + seen[:, None])
    steps = np.stack(others)
    steps -= nearest
    # Where it is rough a voxel's error is large whatever is done: it counts less.
    weight = 1 / (np.abs(steps[: len(IN_SLICE)]).mean(axis=0) + 1)
    steps *= weight
    exact = steps.astype(np.float64)
    normal = exact @ exact.T
    normal += np.eye(len(normal)) * (_RIDGE * np.trace(normal) / len(normal) + 1e-9)
    solution = np.linalg.solve(normal, exact @ ((wanted - nearest) * weight).astype(np.float64))
    return np.concatenate([[0.0], solution])
