"""Regions that block matching and networks skip: constant ones, and air around the body.

Padding, masked background and other blocks of 4 × 4 × 4 equal voxels contain no measurement, and
stay as they are. A value of many blocks is padding if the steps at the borders of its regions are
above the noise: all its voxels stay, then. Where it fades into noise, as clipped air does, only the
blocks stay. Padding with large steps is replaced by the mean of nearby voxels for the computation.

In air, only the first stage of the filter removes noise, in cells of 8 × 8 voxels of a slice that
are far from all other cells. A cell is air by its mean and its largest value, and if air connects
it with the border of the slice, which leaves out lungs and bowel.

Padding values are found in the whole volume. All else depends on a few slices around, so that a
part of a volume is treated like the whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, reduce
from itertools import islice
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import WHOLE, Array, Floats, Mask, Region, extremes, let_go
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.native import SIDE
from MedEnhanceLib.noise.estimate import NoiseEstimate
from MedEnhanceLib.noise.tissue_blocks import AIR_MEAN

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/harm.py.
#: Values that are examined, in a slice and in the volume; least share of its voxels in blocks.
_VALUES, _LEAST_SHARE = 4, 5e-4
#: Most slices in which the steps around a value are measured.
_SLICES_MEASURED = 32
#: Median step around a value, in σ, above which it is padding, and above which it is replaced.
#: Gaussian noise clipped at 0 has .67, noise of magnitudes 1.18.
_STEP, _LARGE_STEP = 1.0, 4.0
#: Slices to each side whose voxels replace padding; factor on their weight from slice to slice.
_REACH, _LESS = SIDE - 1, np.float32(0.01)
#: Voxels along a side of a cell; least distance of far air from all else, in cells and in slices.
_SIDE, _CELLS_FAR, _SLICES_FAR = 8, 1, 6
#: Largest mean of a cell of air, HU: lungs are above it.
_AIR_HU = -950.0
#: Largest mean of a cell, over that of air, and largest value in σ: four and five deviations.
_MOST_OF_MEAN, _MOST_OF_VALUES = 1.25, 5.5
#: σ of air over that of tissue, above which the air may be tissue as weak as its noise.
_MOST_OF_TISSUE = 1.15
#: Number of slices in each cache.
_HELD = 64


class ConstantRegions:
    """The constant regions of a volume.

    Attributes:
        padding: values that are padding.
        neutral: the volume with padding of large steps replaced by the mean of nearby voxels, made
            slice by slice as it is read; the volume itself if there is no such padding.
    """

    def __init__(self, voxels: Array, level: float) -> None:
        """Search `voxels`, [K, J, I], finite; `level`: σ of the noise, in their unit."""
        self._voxels, self._sides = voxels, [min(SIDE, side) for side in voxels.shape]
        hold = lru_cache(_HELD)
        self.mask, self._starts = hold(self._constant), hold(self._starts_of_blocks)
        self._halves = hold(self._halved)
        self._extremes = lru_cache(2 * SIDE)(self._extremes_in_plane)
        blocks: Counter[Any] = Counter()
        slices: dict[Any, list[int]] = {}
        for z in range(len(voxels)):
            for value, count in islice(self._values(z), _VALUES):
                blocks[value] += count
                slices.setdefault(value, []).append(z)
        many = [v for v, n in blocks.most_common(_VALUES) if n > _LEAST_SHARE * voxels.size]
        steps = {value: _median_step(voxels, value, slices[value]) for value in many}
        self._is_empty = not blocks
        self._ends = [end.item() for end in extremes(voxels)] if many else []
        self.padding = [value for value in many if steps[value] > _STEP * level]
        self._replaced = [value for value in many if steps[value] > _LARGE_STEP * level]
        self.neutral: Any = voxels
        if self._replaced:
            self.neutral = _Slices(voxels.shape, lru_cache(_HELD)(self._neutral))
            # Small volumes are mirrored before they are filtered.
            self.neutral = self.neutral[:] if min(voxels.shape) < SIDE else self.neutral
        let_go(voxels)

    def level(self, noise: NoiseEstimate) -> Any:
        """Return σ, 0 at the second voxel of each constant block, so that no group starts there."""
        if self._is_empty or min(self._voxels.shape) < SIDE:
            return noise

        def level(z: int) -> Floats:
            values: Floats = noise[z : z + 1][0]
            if 1 <= z < len(self._voxels) - 2:
                whole = reduce(np.logical_and, [self.mask(k) for k in range(z - 1, z + SIDE - 1)])
                values[1:-2, 1:-2][reduce_windows(np.logical_and, whole, self._sides[1:])] = 0
            return values

        return _Slices(self._voxels.shape, level)

    def put_back(
        self, numbers: Sequence[int], out: Array, *others: Floats | None, region: Region = WHOLE
    ) -> None:
        """Restore the constant voxels of some slices in `out`; set `others` 0 there.

        Args:
            numbers: of the slices.
            out: [n, J, I], or a region of them.
            others: maps, likewise; None is skipped.
            region: rows and columns that these arrays are.
        """
        for at, z in enumerate([] if self._is_empty else numbers):
            np.copyto(out[at], self._voxels[z][region], where=self.mask(z)[region])
            for other in others:
                if other is not None:
                    other[at][self.mask(z)[region]] = 0
        let_go(self._voxels)

    def _constant(self, z: int) -> Mask:
        """Mask the constant pixels of slice z, [J, I]."""
        sides = self._sides[1:]
        firsts = range(
            max(0, z - self._sides[0] + 1), min(z, len(self._voxels) - self._sides[0]) + 1
        )
        starts = np.pad(
            reduce(np.logical_or, map(self._starts, firsts)), [(s - 1,) * 2 for s in sides]
        )
        blocks = reduce_windows(np.logical_or, starts, sides)
        return np.asarray(blocks | self._value_mask(z, self.padding, blocks))

    def _value_mask(self, z: int, values: Sequence[Any], blocks: Mask) -> Mask:
        """Mask padding values of slice z; those within the range only if connected to blocks."""
        result = np.zeros(blocks.shape, np.bool_)
        for value in values:
            is_equal = self._voxels[z] == value
            if value not in self._ends:
                is_equal = connected(is_equal, blocks)
            result |= is_equal
        return result

    def _starts_of_blocks(self, z: int) -> Mask:
        """Mask the first pixels of constant blocks in slice z, [J - 3, I - 3]."""
        low, high = zip(*map(self._extremes, range(z, z + self._sides[0])), strict=True)
        return np.asarray(reduce(np.minimum, low) == reduce(np.maximum, high))

    def _extremes_in_plane(self, z: int) -> tuple[Array, Array]:
        """Return the minimum and maximum of 4 × 4 voxels of slice z, by their first voxel."""
        plane, sides = self._voxels[z], self._sides[1:]
        return reduce_windows(np.minimum, plane, sides), reduce_windows(np.maximum, plane, sides)

    def _values(self, z: int) -> Iterator[tuple[Any, int]]:
        """Yield values with 4 × 4 equal voxels in slice z, and the number of such places."""
        if not _has_runs(self._voxels[z], self._sides[1:]):  # in most slices; much faster
            return
        low, high = self._extremes(z)
        rest = low[low == high]
        while rest.size:
            others = rest[rest != rest[0]]
            yield rest[0].item(), rest.size - others.size
            rest = others

    def _neutral(self, z: int) -> Array:
        """Return slice z with padding of large steps replaced."""
        plane: Array = self._voxels[z]
        gap = self._gap(z)
        if not gap.any():
            return plane
        nearby = range(max(0, z - _REACH), min(len(self._voxels), z + _REACH + 1))
        sums = reduce(np.add, [_LESS ** abs(k - z) * self._halves(k) for k in nearby])
        if not sums[1].any():
            return plane
        result: Array = plane.copy()
        result[gap] = restore_dtype(_means(sums, plane.shape)[gap], plane.dtype)
        return result

    def _gap(self, z: int) -> Mask:
        """Mask padding of large steps in slice z."""
        return self.mask(z) & self._value_mask(z, self._replaced, self.mask(z))

    def _halved(self, z: int) -> Floats:
        """Sum and count the voxels that are no gap over 2 × 2 voxels of slice z, [2, J/2, I/2]."""
        measured = (~self._gap(z)).astype(np.float32)
        return _fourfold(np.stack([measured * self._voxels[z].astype(np.float32), measured]))


class Air:
    """Masks of the air of a volume, made slice by slice."""

    def __init__(self, voxels: Any, mean: float, largest: float) -> None:
        """Search `voxels`, [K, J, I]; a cell is air by its `mean` and `largest` value at most."""
        self.voxels, self._mean, self._largest = voxels, mean, largest
        self._air = lru_cache(_HELD)(self._cells_of_air)
        self.far_from_tissue = lru_cache(_HELD)(self._far_from_tissue)

    @classmethod
    def of(cls, volume: Volume, noise: NoiseEstimate, voxels: Any) -> Air | None:
        """Return the air of a volume; None if its limits are not known.

        Args:
            volume: CT or MR.
            noise: measured in it.
            voxels: its voxels without padding.
        """
        if volume.profile.is_absolute:
            return cls(voxels, _AIR_HU, np.inf)
        if noise.air is None or noise.air > _MOST_OF_TISSUE * noise.level:
            return None
        return cls(voxels, _MOST_OF_MEAN * AIR_MEAN * noise.air, _MOST_OF_VALUES * noise.air)

    def _far_from_tissue(self, z: int) -> Mask:
        """Mask the air of slice z with nothing else near, [J, I]."""
        count, rows, columns = self.voxels.shape
        near = range(max(0, z - _SLICES_FAR), min(count, z + _SLICES_FAR + 1))
        air = reduce(np.logical_and, map(self._air, near))
        air = np.pad(air, _CELLS_FAR, constant_values=True)
        far = reduce_windows(np.logical_and, air, (2 * _CELLS_FAR + 1,) * 2)
        return np.asarray(far.repeat(_SIDE, 0).repeat(_SIDE, 1)[:rows, :columns])

    def _cells_of_air(self, z: int) -> Mask:
        """Mask the cells of slice z that are air and connected to the border."""
        plane = self.voxels[z : z + 1][0].astype(np.float32)
        plane = np.pad(plane, [(0, -side % _SIDE) for side in plane.shape], mode="edge")
        rows = plane.reshape(len(plane) // _SIDE, _SIDE, -1)  # along rows first: thrice as fast
        total, most = (
            f.reduce(rows, 1).reshape(len(rows), -1, _SIDE) for f in (np.add, np.maximum)
        )
        air = (total.mean(2) / _SIDE < self._mean) & (most.max(2) < self._largest)
        border = np.ones(air.shape, np.bool_)
        border[1:-1, 1:-1] = False
        return connected(air, border)


class _Slices:
    """An array, [K, J, I], whose slices are made as they are read."""

    def __init__(self, shape: tuple[int, ...], make: Callable[[int], Array]) -> None:
        self.shape, self.size, self._make = shape, int(np.prod(shape)), make

    def __getitem__(self, part: slice) -> Array:
        return np.stack([self._make(z) for z in range(*part.indices(self.shape[0]))])


def _has_runs(plane: Array, sides: Sequence[int]) -> bool:
    """Return whether all rows of any window of a plane are constant; sides: as `reduce_windows`."""
    rows, columns = sides
    equal = plane[:, 1:] == plane[:, :-1]
    return columns < 2 or bool(reduce_windows(np.logical_and, equal, (rows, columns - 1)).any())


def reduce_windows(function: np.ufunc, plane: Array, sides: Sequence[int]) -> Array:
    """Reduce each window of a plane to one value, at the place of its first pixel.

    Args:
        function: that reduces, such as np.logical_or.
        plane: [J, I].
        sides: rows and columns of a window.
    """
    for side in sides:
        given, width = plane, 1
        for digit in f"{side:b}"[1:]:  # windows of twice the width; then one wider, where it is 1
            plane, width = function(plane[:-width], plane[width:]), 2 * width
            if digit == "1":
                plane, width = function(plane[:-1], given[width:]), width + 1
        plane = plane.T  # columns become rows, and rows again
    return plane


def window_means(values: Floats, sides: Sequence[int]) -> Floats:
    """Average the windows of an array that are within it; sides: of a window, along each axis."""
    shape = [count - side + 1 for count, side in zip(values.shape, sides, strict=True)]
    total = np.zeros(shape, np.float32)
    for start in np.ndindex(*sides):
        total += values[tuple(map(slice, start, map(sum, zip(start, shape, strict=True))))]
    return total / np.float32(math.prod(sides))


def connected(mask: Mask, starts: Mask) -> Mask:
    """Return the part of a mask [J, I] that is connected to the starts in it (8 neighbors)."""
    reached, count = mask & starts, -1
    while count != (count := int(np.count_nonzero(reached))):
        reached = mask & reduce_windows(np.logical_or, np.pad(reached, 1), (3, 3))
    return reached


def _median_step(voxels: Array, value: Any, slices: Sequence[int]) -> float:
    """Measure the median difference from a value at the borders of its regions, in some slices."""
    every = -(-len(slices) // _SLICES_MEASURED)
    steps = []
    for z in slices[::every]:
        pair = voxels[max(0, z - 1) : z + 1].astype(np.float64)
        for axis, values in enumerate((pair, pair[-1:], pair[-1:])):
            is_value = values == value
            ends = np.diff(is_value, axis=axis)
            steps.append(np.abs(np.diff(values, axis=axis)[ends]))
    return float(np.median(differences)) if (differences := np.concatenate(steps)).size else 0.0


def _fourfold(sums: Floats) -> Floats:
    """Sum [2, J, I] over 2 × 2 pixels; odd sides are padded by 0."""
    sums = np.pad(sums, [(0, 0), (0, sums.shape[1] % 2), (0, sums.shape[2] % 2)])
    rows = sums[:, ::2] + sums[:, 1::2]
    return np.asarray(rows[:, :, ::2] + rows[:, :, 1::2])


def _means(sums: Floats, shape: tuple[int, ...]) -> Floats:
    """Return means over 2 × 2 voxels, or over larger squares where these have none, [J, I]."""
    total, count = sums
    mean = total / np.maximum(count, np.float32(1e-9))
    if not count.all():
        np.copyto(mean, _means(_fourfold(sums), count.shape), where=count == 0)
    return np.asarray(mean.repeat(2, 0).repeat(2, 1)[: shape[0], : shape[1]])
