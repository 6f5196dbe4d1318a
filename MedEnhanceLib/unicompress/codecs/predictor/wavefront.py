"""Where a block's voxels lie in memory, and in which order they are coded.

A block [K, J, I] lies in a frame of padding; each cell of the padding repeats a voxel that is
known by the time it is looked at. Voxels with the same `7k + 3j + i` do not look at each other:
they are coded in one step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Shape = tuple[int, int, int]
Cells = npt.NDArray[np.int64]

#: Slices before, rows above and below, columns left and right of a block.
_BEFORE, _ABOVE, _BELOW, _LEFT, _RIGHT = 2, 3, 1, 3, 2
_STEP = (7, 3, 1)
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
#: Where the linear prediction's errors are looked at: in the slice, and in the one before.
ERRORS_IN_SLICE = ((0, 0, -1), (0, -1, 0), (0, -1, -1), (0, -1, 1))
ERRORS_BEFORE = ((-1, 0, 0), (-1, 0, 1), (-1, 1, 0), (-1, 1, 1))
ERRORS = ERRORS_IN_SLICE + ERRORS_BEFORE


#: Lines that neighbors, and then errors, lie away, and how many steps ago they were coded.
_AWAY = np.array(NEIGHBORS + ERRORS)[:, :2]
_LAGS = -(np.array(NEIGHBORS + ERRORS) @ np.array(_STEP))


@dataclass(frozen=True)
class Layout:
    """Of blocks of one shape. A line is a row of cells along i, of the block or of its padding.

    frame: cells along k, j, i with the padding. repeats, left: the line that a line of padding
    repeats, and the one whose first voxel stands left of a line; −1 where there is none. away: how
    many cells from a voxel its neighbors, and then the errors, lie. first: cells below this one
    belong to the first slice.
    """

    shape: Shape
    frame: Shape
    repeats: Cells
    left: Cells
    away: tuple[int, ...]
    first: int

    @property
    def cells(self) -> int:
        """Of one block with its padding."""
        return math.prod(self.frame)

    @property
    def lines(self) -> int:
        """Of one block with its padding."""
        return self.frame[0] * self.frame[1]

    @property
    def steps(self) -> int:
        """Steps after which all voxels are coded."""
        return steps_of(self.shape)

    def cells_of(self, numbers: Cells) -> Cells:
        """The cells of the voxels with these numbers."""
        _, J, I = self.shape  # noqa: E741 - the field's own names
        rows, i = np.divmod(numbers, I)
        k, j = np.divmod(rows, J)
        return ((k + _BEFORE) * self.frame[1] + j + _ABOVE) * self.frame[2] + i + _LEFT

    def pad(self, values: npt.NDArray[np.float32], start: float) -> npt.NDArray[np.float32]:
        """Values [K, J, I] in their frame, flat; `start` where there is nothing to repeat."""
        framed = np.full(self.frame, start, np.float32)
        self.inside(framed)[...] = values
        self.repeat(framed)
        return framed.reshape(-1)

    def repeat(self, framed: npt.NDArray[np.float32]) -> None:
        """Let the padding of a flat or framed block repeat its voxels."""
        lines = framed.reshape(self.lines, -1)
        voxels = slice(_LEFT, _LEFT + self.shape[2])
        filled = np.flatnonzero(self.repeats >= 0)
        padding = filled[self.repeats[filled] != filled]
        lines[padding, voxels] = lines[self.repeats[padding], voxels]
        lines[filled, voxels.stop :] = lines[filled, voxels.stop - 1, None]
        beside = np.flatnonzero(self.left >= 0)
        lines[beside, :_LEFT] = lines[self.left[beside], _LEFT, None]

    def inside(self, framed: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The voxels of a flat or framed block, [K, J, I], as a view."""
        _, j, i = self.shape
        cells = framed.reshape(self.frame)
        return cells[_BEFORE:, _ABOVE : _ABOVE + j, _LEFT : _LEFT + i]


def steps_of(shape: Shape) -> int:
    """How many steps a block takes."""
    return 1 + sum(step * (extent - 1) for step, extent in zip(_STEP, shape, strict=True))


@lru_cache(maxsize=8)
def layout_of(shape: Shape) -> Layout:
    """The layout of blocks of `shape`; the last few are kept."""
    K, J, I = shape  # noqa: E741 - the field's own names
    frame = (K + _BEFORE, J + _ABOVE + _BELOW, I + _LEFT + _RIGHT)
    pitch = np.array([frame[1] * frame[2], frame[2], 1])
    k, j = np.divmod(np.arange(frame[0] * frame[1]), frame[1])
    k, j = k - _BEFORE, j - _ABOVE
    # What lies outside repeats a voxel that is known by then.
    j = np.minimum(np.where(k < 0, j - _MOVED, j), J - 1)
    k = np.maximum(k, 0)
    k, j = np.where(j < 0, k - 1, k), np.maximum(j, 0)
    return Layout(
        shape=shape,
        frame=frame,
        repeats=_line(frame, k, j),
        left=_line(frame, np.where((j == 0) & (k >= 0), k - 1, k), np.maximum(j - 1, 0)),
        away=tuple((np.array(NEIGHBORS + ERRORS) @ pitch).tolist()),
        first=(_BEFORE + 1) * int(pitch[0]),
    )


def _line(frame: Shape, k: Cells, j: Cells) -> Cells:
    """The line of rows of voxels; −1 for those of slices that are not known."""
    return np.where(k < 0, -1, (k + _BEFORE) * frame[1] + j + _ABOVE)


@lru_cache(maxsize=8)
def ring_of(shape: Shape) -> tuple[int, dict[str, Cells]]:
    """Where the cells of a block's last steps lie in memory, [slots, lines].

    Voxels of one step, and the neighbors of each, lie side by side: a whole block's frame would
    have every one of them in another part of memory.

    Returns the number of slots, and arrays: lags, beside: of neighbors, and then errors, steps
    since they were coded, and lines from a voxel's own. padding, sources: cells that repeat a
    voxel, and the lines of the voxels, by these voxels' steps; padding_starts: where each step
    begins in them, and its end.
    """
    layout = layout_of(shape)
    targets, times, sources, steps = _repetitions(layout)
    slots = 1 + int(_LAGS.max()) + int((times - steps).max())
    by_step = np.argsort(steps, kind="stable")
    return slots, {
        "lags": _LAGS,
        "beside": _AWAY @ np.array([layout.frame[1], 1]),
        "padding": (times % slots * layout.lines + targets)[by_step],
        "sources": sources[by_step],
        "padding_starts": np.concatenate(
            [[0], np.cumsum(np.bincount(steps, minlength=layout.steps))]
        ),
    }


def _repetitions(layout: Layout) -> tuple[Cells, ...]:
    """Of each cell of the padding its line and the step that it would be coded in, and the line
    and the step of the voxel that it repeats.
    """
    columns = layout.shape[2]
    k, j = np.divmod(np.arange(layout.lines), layout.frame[1])
    begins = _STEP[0] * (k - _BEFORE) + _STEP[1] * (j - _ABOVE)
    filled = np.flatnonzero(layout.repeats >= 0)
    padding = filled[layout.repeats[filled] != filled]
    beside = np.flatnonzero(layout.left >= 0)
    parts = []
    for lines, voxels, repeated, sources in (
        (padding, np.arange(columns), np.arange(columns), layout.repeats),
        (filled, np.arange(columns, columns + _RIGHT), np.array([columns - 1]), layout.repeats),
        (beside, np.arange(-_LEFT, 0), np.array([0]), layout.left),
    ):
        rows = lines[:, None], begins[lines, None] + voxels
        known = sources[lines, None], begins[sources[lines], None] + repeated
        parts.append([part.ravel() for part in np.broadcast_arrays(*rows, *known)])
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
