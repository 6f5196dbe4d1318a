"""The crop of slices in which a region of them is computed, bit for bit as in whole slices.

Each stage of `block_matching` reads more than it yields, so that a crop is wider than the region. A
reference that no voxel of the region depends on gets no group. All others are at the places, and in
the bands, of a run over whole slices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Array, Region, widened, within
from MedEnhanceLib.filters.layers import Layer
from MedEnhanceLib.native import SIDE

#: Multiple of two steps between references (1 to 4), where crops begin: every second row of
#: references may be shifted.
_GRID = 2 * math.lcm(1, 2, 3, 4)


@dataclass(frozen=True)
class RegionCrop:
    """A crop of slices, for one region.

    Attributes:
        region: rows and columns of the crop, in the slices.
        references: of each stage, first to last: where in the crop the second voxels of the
            references are that get groups.
        shape: of the slices, (rows, columns).
    """

    region: Region
    references: tuple[Region, ...]
    shape: Sequence[int]

    @classmethod
    def around(
        cls, region: Region, shape: Sequence[int], windows: Sequence[Sequence[int]]
    ) -> RegionCrop:
        """Plan the crop for a region.

        Args:
            region: rows and columns.
            shape: of the slices, (rows, columns).
            windows: starts of candidates along rows and columns, of each stage, first to last.
        """

        def around(reaches: Sequence[int], window: Sequence[int]) -> Region:
            """Widen what is needed; to the border where windows are shifted to stay in slices."""
            parts = map(widened, needed, reaches, shape)
            rows, columns = (
                slice(
                    part.start if part.start >= width + SIDE else 0,
                    part.stop if part.stop <= side - width - SIDE else side,
                )
                for part, width, side in zip(parts, window, shape, strict=True)
            )
            return rows, columns

        needed, references = region, list[Region]()
        for window in reversed(windows):
            references.insert(0, around([side // 2 + SIDE - 2 for side in window], window))
            needed = around([side // 2 * 2 + SIDE - 1 for side in window], window)
        # Wider: the outer references of a crop are not at places of the whole.
        rows, columns = (
            slice(part.start // _GRID * _GRID, part.stop) for part in around((SIDE, SIDE), (0, 0))
        )
        crop = rows, columns
        return cls(crop, tuple(within(each, crop) for each in references), shape)

    def of(self, values: Any) -> Any:
        """Crop an array, [K, J, I], or what makes its slices as they are read."""
        is_whole = all(
            part == slice(0, side) for part, side in zip(self.region, self.shape, strict=True)
        )
        return values if is_whole else _Cropped(values, self.region)

    def bands(self, layer: Layer, references: int, stage: int) -> list[range]:
        """Split the rows of references of a layer as in the whole; only bands with groups.

        Args:
            layer: whose references are split.
            references: about as many in a band.
            stage: number of its stage.
        """
        step, lines, rows = layer.round.step, self.references[stage][0], self.region[0]
        skipped, count = rows.start // step, layer.rows(rows.stop - rows.start)
        at_once = max(1, references * step // self.shape[1])
        firsts = range(-skipped, layer.rows(self.shape[0]) - skipped, at_once)
        bands = (range(max(0, first), min(first + at_once, count)) for first in firsts)
        # References are up to a step before their regular place.
        return [
            band
            for band in bands
            if band and (band[0] - 1) * step < lines.stop and band.stop * step >= lines.start
        ]


class _Cropped:
    """Rows and columns of an array, cut out as its slices are read."""

    def __init__(self, values: Any, region: Region) -> None:
        sides = [part.stop - part.start for part in region]
        self.shape = values.shape[0], *sides
        self.size = math.prod(self.shape)
        self._values, self._region = values, region

    def __getitem__(self, slices: slice) -> Array:
        return np.ascontiguousarray(self._values[slices][:, *self._region])
