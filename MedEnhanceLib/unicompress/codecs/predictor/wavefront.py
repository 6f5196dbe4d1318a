"""Coding order of a block's voxels, and the neighbors that predict each.

Voxels with the same `7k + 3j + i` do not depend on each other: they are coded in one step. A place
outside the block stands for a voxel that is known by then.
"""

from __future__ import annotations

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats, Ints, Longs, Shape
from MedEnhanceLib.runtime.shared_setting import computed_once
from MedEnhanceLib.unicompress.codecs.integers import Indices

#: Slices before, rows above and below, columns left and right of a block that neighbors reach.
_BEFORE, _ABOVE, _BELOW, LEFT, RIGHT = 2, 3, 1, 3, 2
STEP = (7, 3, 1)
#: Rows by which the first slice is moved down where it stands in for those before it.
_MOVED = 2

#: Neighbors (slices, rows, columns away): of the slice itself, nearest first, then of the two
#: before. All lie in earlier steps.
IN_SLICE = (
    (0, 0, -1),
    (0, -1, 0),
    (0, -1, -1),
    (0, -1, 1),
    (0, 0, -2),
    (0, -2, 0),
    (0, -1, -2),
    (0, -1, 2),
    (0, -2, -1),
    (0, -2, 1),
    (0, 0, -3),
)
BEFORE = (
    (-1, 0, 0),
    (-1, 0, 1),
    (-1, 1, 0),
    (-1, 0, -1),
    (-1, -1, 0),
    (-1, 1, 1),
    (-1, 1, -1),
    (-1, -1, 1),
    (-1, -1, -1),
    (-1, 0, 2),
    (-1, 0, -2),
    (-2, 0, 0),
    (-2, 0, 1),
    (-2, 1, 0),
)
NEIGHBORS = IN_SLICE + BEFORE
#: Neighbors whose errors of the linear prediction are features: in the slice, and in that before.
ERRORS = (*IN_SLICE[:4], *BEFORE[:3], (-1, 1, 1))


def steps_of(shape: Shape) -> int:
    """Count the steps of a block."""
    return 1 + sum(step * (extent - 1) for step, extent in zip(STEP, shape, strict=True))


def stand_ins(places: Ints, shape: Shape) -> Ints:
    """Find the voxels that places stand for, [3, n]; k is negative where none is known yet.

    places: along k, j, i, [3, n]. The rules, one after the other, are those of docs/ucv-format.md
    (type 16, neighbors).
    """
    k, j, i = places
    j = np.minimum(np.where(k < 0, j - _MOVED, j), shape[1] - 1)
    k = np.maximum(k, 0)
    k, j = np.where(j < 0, k - 1, k), np.maximum(j, 0)
    outside = i < 0
    k, j = np.where(outside & (j == 0), k - 1, k), np.where(outside, np.maximum(j - 1, 0), j)
    return np.stack([k, j, np.clip(i, 0, shape[2] - 1)])


def neighbors_of(block: Indices, numbers: Longs) -> Floats:
    """Look up the neighbors of voxels away from the border, [25, n].

    Args:
        block: [K, J, I].
        numbers: of the n voxels, in C order.
    """
    plane, I = block[0].size, block.shape[2]  # noqa: E741 - the field's own name
    # As `stand_ins`: the first slice, moved, stands in for those before it.
    moved = numbers % plane - _MOVED * I
    slices = [np.where(numbers < n * plane, moved, numbers - n * plane) for n in range(3)]
    flat = block.reshape(-1)
    neighbors = np.empty((len(NEIGHBORS), len(numbers)), np.float32)
    for row, (before, beside, along) in zip(neighbors, NEIGHBORS, strict=True):
        row[:] = flat.take(slices[-before] + (beside * I + along), mode="clip")
    return neighbors


@computed_once
def ring_of(shape: Shape) -> tuple[int, dict[str, Array]]:
    """Lay out the cells of a block's last steps in memory, [slots, lines].

    Voxels of one step, and their neighbors, lie side by side: in an array of the whole block they
    would be spread over memory. A line is a row of the block or of the padding around it.

    Returns the number of slots, and arrays: lags, beside: of neighbors, and then errors, steps
    since they were coded, and lines from a voxel's own. padding, sources: cells outside the block,
    and the lines of the voxels that they stand for, by these voxels' steps; padding_starts: where
    each step begins in them, and its end.
    """
    offsets = np.array(NEIGHBORS + ERRORS)
    lags = -(offsets @ np.array(STEP))
    lines = np.array([lines_of_slice(shape), 1], np.int32)
    axes = np.ogrid[-_BEFORE : shape[0], -_ABOVE : shape[1] + _BELOW, -LEFT : shape[2] + RIGHT]
    in_k, in_j, in_i = ((axis >= 0) & (axis < n) for axis, n in zip(axes, shape, strict=True))
    corner = np.array([_BEFORE, _ABOVE, LEFT], np.int32)[:, None]
    padding = np.array(np.nonzero(~(in_k & in_j & in_i)), np.int32) - corner
    voxels = stand_ins(padding, shape)
    known = np.flatnonzero(voxels[0] >= 0)
    padding, voxels = padding.take(known, axis=1), voxels.take(known, axis=1)
    times, steps = (np.array(STEP, np.int32) @ part for part in (padding, voxels))
    slots = 1 + int(lags.max()) + int((times - steps).max())
    targets, sources = (lines @ (part + corner)[:2] for part in (padding, voxels))
    by_step = np.argsort(steps.astype(np.uint16), kind="stable")  # sorts short ones fast
    counts = np.bincount(steps, minlength=steps_of(shape))
    return slots, {
        "lags": lags,
        "beside": offsets[:, :2] @ lines,
        "padding": (times % slots * lines_of(shape) + targets)[by_step],
        "sources": sources[by_step],
        "padding_starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
    }


def lines_of_slice(shape: Shape) -> int:
    """Count the rows of a slice with its padding."""
    return shape[1] + _ABOVE + _BELOW


def lines_of_rows(shape: Shape) -> Longs:
    """Find the line of each row of a block, slice by slice."""
    in_slice = np.arange(shape[1]) + _ABOVE
    return np.add.outer((np.arange(shape[0]) + _BEFORE) * lines_of_slice(shape), in_slice).ravel()


def lines_of(shape: Shape) -> int:
    """Count the rows of a block with its padding."""
    return (shape[0] + _BEFORE) * lines_of_slice(shape)
