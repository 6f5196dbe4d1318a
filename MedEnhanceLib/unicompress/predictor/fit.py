"""Fits the linear prediction of a block: least squares on a sample, rounded to whole numbers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.unicompress.predictor.features import Floats, Linear
from MedEnhanceLib.unicompress.predictor.layout import IN_SLICE, NEIGHBOURS, Layout

_SAMPLES = 60_000
_FIRST_SAMPLES = 20_000
_RIDGE = 1e-4
_MOST_BITS = 12
_LARGEST_WEIGHT = (1 << 15) - 1


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
            if bits == 4:  # wild weights: take the nearest neighbour as it is
                nearest = np.zeros((2, len(NEIGHBOURS)), np.float32)
                nearest[:, 0] = 1 << bits
                return Linear(nearest, bits, top)
            bits -= 1
        else:
            return fitted


def _spread(voxels: int, count: int) -> npt.NDArray[np.int64]:
    """The numbers of about `count` of so many voxels, in no rhythm."""
    if voxels <= count:
        return np.arange(voxels)
    return np.random.default_rng(0).integers(0, voxels, count)


def _solve(cells: Floats, layout: Layout, voxels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    neighbours = cells.take(
        voxels[:, None] + np.array(layout.away.cells[: len(NEIGHBOURS)])
    ).astype(np.float64)
    nearest = neighbours[:, :1]
    steps = (neighbours - nearest)[:, 1:]
    wanted = cells[voxels] - nearest[:, 0]
    # Where it is rough a voxel's error is large whatever is done: it counts less.
    weight = 1 / (np.abs(steps[:, : len(IN_SLICE)]).mean(axis=1) + 1) ** 2
    normal = (steps * weight[:, None]).T @ steps
    normal += np.eye(len(normal)) * (_RIDGE * np.trace(normal) / len(normal) + 1e-9)
    solution = np.linalg.solve(normal, (steps * weight[:, None]).T @ wanted)
    return np.concatenate([[0.0], solution])
