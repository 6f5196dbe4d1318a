"""Layers of block matching: reference blocks, their groups, and the arrays of their computation.

`native_engine` computes them. Where only a region of slices is requested, a
crop of them is computed, bit for bit as in whole slices. Each stage of `block_matching` reads more
than it yields, so that the crop is wider than the region. A reference that no voxel of the region
depends on gets no group. All others are at the places, and in the bands, of a run over whole
slices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats, Region, widened, within
from MedEnhanceLib.native import SIDE

StageKind = Literal["grouped", "threshold"]
#: Weight of each voxel along a side of a block (Kaiser window), [4], and of all its voxels, [64].
TAPER_LINE: Floats = np.kaiser(SIDE, 2.0).astype(np.float32)
TAPER: Floats = np.einsum("i,j,k->ijk", *(3 * [TAPER_LINE])).reshape(-1).astype(np.float32)
#: Multiple of two steps between references (1 to 4), where crops begin: every second row of
#: references may be shifted.
_GRID = 2 * math.lcm(1, 2, 3, 4)


@dataclass(frozen=True, eq=False)
class LayerArrays:
    """Arrays that C computes a layer from, and adds to: float32.

    Attributes:
        noisy: the slab [window[0] + 3, ny, nx].
        pilot: the better estimate, like the slab; in the first stage it is not read.
        matched: what blocks are compared in, like the slab: the pilot, or another image.
        level: σ of the noise, like the slab, ≥ 0.
        spectrum: [64], > 0, variance of the noise in each frequency, in units of level².
        total: like the slab, sums of weighted blocks.
        weight: [window[0], ny, nx], weights of blocks by the place in which they start.
    """

    noisy: Floats
    pilot: Floats
    matched: Floats
    level: Floats
    spectrum: Floats
    total: Floats
    weight: Floats


@dataclass(frozen=True, kw_only=True)
class Round:
    """Round over all groups of blocks.

    Attributes:
        step: voxels between references, 1 to 4; the cost falls with its cube.
        keep: blocks in a group, the reference included, 1 to 64.
        damp: factor on the variance of the noise, above 1 smooths more; for the stage `threshold`
            the threshold, in σ.
        apart: least distance in voxels, along one axis, of other blocks from the reference; for
            noise that neighboring voxels share.
    """

    step: int
    keep: int = 32
    damp: float = 1.0
    apart: int = 0


@dataclass(frozen=True)
class Layer:
    """Reference blocks that start in one slice, and where their groups are searched.

    The slab of a layer is what its candidates cover: window[0] + 3 slices.

    Attributes:
        number: of the layer in the volume; every second one is shifted by half a step.
        z: slice of the slab in which the references start.
        window: starting places of candidates along slices, rows and columns.
        round: settings of the groups.
    """

    number: int
    z: int
    window: tuple[int, int, int]
    round: Round

    def rows(self, ny: int) -> int:
        """Count the rows of references in slices of ny rows."""
        return len(places(ny, self.round.step, is_shifted=bool(self.number & 1)))


def places(side: int, step: int, *, is_shifted: bool) -> list[int]:
    """List the starts of references along a side; the last possible one is always included.

    Args:
        side: voxels.
        step: from one reference to the next.
        is_shifted: whether all except the two ends are shifted by half a step.
    """
    last, shift = side - SIDE, step // 2 if is_shifted else 0
    inner = [0, *(at for at in range(step - shift, last, step) if at > 0)]
    return inner if last == 0 else [*inner, last]


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
