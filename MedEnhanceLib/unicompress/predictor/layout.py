"""Where a block's voxels lie in memory, and in which order they are coded.

A block [K, J, I] lies in a frame of padding; each cell of the padding repeats a voxel that is
known by the time it is looked at. Voxels with the same `7k + 3j + i` do not look at each other:
they are coded in one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Shape = tuple[int, int, int]
Cells = npt.NDArray[np.int64]

#: Slices before, rows above and below, columns left and right of a block.
_BEFORE, _ABOVE, _BELOW, _LEFT, _RIGHT = 2, 3, 1, 3, 2
_STEP = (7, 3, 1)
#: The first slice stands in for those before it, moved down by so many rows.
_MOVED = 2

#: Neighbours (slices, rows, columns away): of the slice itself, nearest first, then of the two
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
NEIGHBOURS = IN_SLICE + BEFORE
#: Where the linear prediction's errors are looked at: in the slice, and in the one before.
ERRORS_IN_SLICE = ((0, 0, -1), (0, -1, 0), (0, -1, -1), (0, -1, 1))
ERRORS_BEFORE = ((-1, 0, 0), (-1, 0, 1), (-1, 1, 0), (-1, 1, 1))
ERRORS = ERRORS_IN_SLICE + ERRORS_BEFORE


@dataclass(frozen=True)
class Layout:
    """Of blocks of one shape.

    frame: cells along k, j, i with the padding. order: the cell of every voxel, step by step.
    starts: where each step begins in `order`, and its end. padding, sources: cells that repeat a
    voxel, and the voxel's cell, by the step of that voxel. padding_starts: as `starts`.
    neighbours, errors: how far away they lie, in cells. first: cells below this one belong to the
    first slice.
    """

    shape: Shape
    frame: Shape
    order: Cells
    starts: Cells
    padding: Cells
    sources: Cells
    padding_starts: Cells
    neighbours: Cells
    errors: Cells
    first: int

    @property
    def cells(self) -> int:
        """Of one block with its padding."""
        return int(np.prod(self.frame))

    @property
    def steps(self) -> int:
        """After so many all voxels are coded."""
        return len(self.starts) - 1

    def pad(self, values: npt.NDArray[np.float32], start: float) -> npt.NDArray[np.float32]:
        """Values [K, J, I] in their frame, flat; `start` where there is nothing to repeat."""
        framed = np.full(self.frame, start, np.float32)
        self.inside(framed)[...] = values
        flat = framed.reshape(-1)
        flat[self.padding] = flat[self.sources]
        return flat

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
    corner = int(np.array([_BEFORE, _ABOVE, _LEFT]) @ pitch)
    k, j, i = np.ogrid[0:K, 0:J, 0:I]
    times = (_STEP[0] * k + _STEP[1] * j + _STEP[2] * i).ravel()
    cells = (corner + k * pitch[0] + j * pitch[1] + i).ravel()
    by_time = _sorted_by(times)
    steps = steps_of(shape)
    padding, sources, source_times = _padding(shape, frame, corner, pitch)
    padding_by_time = _sorted_by(source_times)
    return Layout(
        shape=shape,
        frame=frame,
        order=cells[by_time],
        starts=_starts(times, steps),
        padding=padding[padding_by_time],
        sources=sources[padding_by_time],
        padding_starts=_starts(source_times, steps),
        neighbours=np.array(NEIGHBOURS) @ pitch,
        errors=np.array(ERRORS) @ pitch,
        first=(_BEFORE + 1) * int(pitch[0]),
    )


def _padding(shape: Shape, frame: Shape, corner: int, pitch: Cells) -> tuple[Cells, Cells, Cells]:
    """Cells of the padding, the voxels that they repeat, and those voxels' steps.

    Where there is no voxel to repeat, in the first row of the first slice, a cell is left out.
    """
    _, J, I = shape  # noqa: E741 - the field's own names
    outside = np.ones(frame, bool)
    outside[_BEFORE:, _ABOVE : _ABOVE + J, _LEFT : _LEFT + I] = False
    cells = np.flatnonzero(outside)
    k, rest = np.divmod(cells, pitch[0])
    j, i = np.divmod(rest, pitch[1])
    k, j, i = k - _BEFORE, j - _ABOVE, i - _LEFT
    j = np.where(k < 0, j - _MOVED, j)
    k = np.maximum(k, 0)
    j = np.minimum(j, J - 1)
    k, j = np.where(j < 0, k - 1, k), np.maximum(j, 0)
    at_left = i < 0
    k = np.where(at_left & (j == 0), k - 1, k)
    j = np.where(at_left, np.maximum(j - 1, 0), j)
    i = np.clip(i, 0, I - 1)
    known = k >= 0
    places = np.stack([k, j, i])[:, known]
    return cells[known], corner + pitch @ places, np.array(_STEP) @ places


def _sorted_by(times: Cells) -> Cells:
    # Sixteen bits are sorted by counting, in one pass; more would be sorted by comparing.
    narrow = times.astype(np.uint16) if times.size and int(times.max()) < 1 << 16 else times
    return np.argsort(narrow, kind="stable")


def _starts(times: Cells, steps: int) -> Cells:
    counts = np.bincount(times, minlength=steps)
    return np.concatenate([[0], np.cumsum(counts)])
