"""Cuts a volume into blocks of tissue and transforms them, for the measurement of its noise.

Blocks of padding, clipped or constant values and of air are left out. In magnitude MR, blocks of
air show the noise directly: their values are Rayleigh distributed, with a mean of 1.25 σ and a
standard deviation of .655 σ, so that mean over deviation is 1.91.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import (
    Array,
    Doubles,
    Floats,
    Mask,
    Numbers,
    cosine_matrix,
    let_go,
    robust_max,
    slabs,
)
from MedEnhanceLib.core.modality import profile_of

#: Side of a block in voxels.
BLOCK = 4
# Tuned with the constants of `estimate`. Measured again by Benchmarks/noise.py.
#: Least number of blocks in a cell of the map along k, j, i, and its least side in mm.
_CELL, _CELL_MM = (2, 6, 6), 20.0
#: Most voxels that are measured; of larger volumes every n-th layer of blocks.
_MOST_VOXELS = 12_000_000
#: Minimum and maximum are padding or clipped values if more than this share of the voxels has them.
_PADDING = 1e-3
#: Least number of blocks for the correlation of their means.
_ENOUGH_BLOCKS = 150
#: CT: tissue from this mean on, without voxels below the second number, HU.
CT_TISSUE, CT_AIR = -300.0, -900.0
#: Mean over spread of air in magnitude images (Rayleigh), and its mean, in σ.
_RAYLEIGH = math.sqrt(math.pi / (4 - math.pi))
AIR_MEAN = math.sqrt(math.pi / 2)
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of tissue, n of them with f = 64 coefficients (16 in fewer than four slices).

    Attributes:
        power: [n, f], squared coefficients; that of the constant one is 0.
        mean: [n], of a block's voxels.
        cell: [n], index of the cell in the flat map.
        cells: shape of the map.
        depth: slices in a block, 4 or 1.
        size: voxels in a cell.
        air: σ from the background, None if it shows nothing.
        magnitude: whether values are magnitudes of MR.
        step: between values that were rounded; 0 if they were not.
        share: of the blocks of tissue among all blocks.
    """

    power: Floats
    mean: Floats
    cell: Numbers
    cells: tuple[int, int, int]
    depth: int
    size: tuple[float, float, float]
    air: float | None
    magnitude: bool
    step: float
    share: float

    @property
    def count(self) -> int:
        """Number of blocks."""
        return len(self.power)

    @property
    def per_cell(self) -> Numbers:
        """Number of blocks in each cell of the flat map."""
        return np.bincount(self.cell, minlength=math.prod(self.cells))

    @cached_property
    def folds(self) -> list[tuple[Numbers, Floats]]:
        """Frequencies that add up to an even and to an odd number, and the power in them."""
        index = np.indices((self.depth, BLOCK, BLOCK)).reshape(3, -1).sum(axis=0)
        index[0] = -2  # the constant one is in none
        folds = [np.flatnonzero((index >= 0) & (index % 2 == odd)) for odd in (0, 1)]
        return [(fold, self.power[:, fold]) for fold in folds]

    @cached_property
    def quiet_power(self) -> Floats:
        """Squares of each coefficient, [f], that a tenth of the blocks stay below."""
        sample = self.power[:: max(1, self.count // 20_000)]
        return np.asarray(np.quantile(sample, 0.1, axis=0))

    def mean_by_cell(self, value: Array, use: Mask) -> Doubles:
        """Average the values [n] of some blocks by cell; 0 in cells without any."""
        cells = math.prod(self.cells)
        count = np.bincount(self.cell[use], minlength=cells)
        total = np.bincount(self.cell[use], weights=value[use], minlength=cells)
        return total / np.maximum(count, 1)

    @classmethod
    def of(
        cls,
        voxels: Array,
        modality: str,
        spacing: Sequence[float],
        *,
        lowest: float = CT_AIR,
    ) -> Blocks:
        """Cut a volume into blocks, keep those of tissue, and transform them by cosines.

        Air, padding and constant blocks are left out. A cell of the map is about 20 mm wide.

        Args:
            voxels: [K, J, I], finite; of a large volume only every n-th layer of blocks is cut.
            modality: decides what is tissue, and whether values are magnitudes.
            spacing: (i, j, k) in mm; the size of cells follows it.
            lowest: HU below which a voxel of CT is of air, whose blocks are left out.
        """
        depth = BLOCK if voxels.shape[0] >= BLOCK else 1
        layers = _layers_of(voxels, depth)
        wide = cell_blocks(spacing, (depth * layers.step, BLOCK, BLOCK))
        counts = len(layers), voxels.shape[1] // BLOCK, voxels.shape[2] // BLOCK
        cells = tuple(max(1, -(-n // m)) for n, m in zip(counts, wide, strict=True))
        parts = _cut(voxels, layers, depth)
        magnitude = profile_of(modality).is_magnitude and float(voxels.min()) >= 0
        padding, air = _padding(voxels), None
        figures = np.concatenate([_figures(part, padding) for part in parts], axis=1)
        if profile_of(modality).is_absolute:
            is_tissue = _is_ct_tissue(figures, lowest)
        else:
            top = robust_max(voxels[:: max(1, len(voxels) // 40)])
            air = _air(figures, top) if magnitude and figures.size else None
            is_tissue = _is_tissue(figures, top, air, magnitude)
        keep = np.flatnonzero(is_tissue)
        # Layer by layer: the rounding of a product depends on its size.
        masks = np.split(is_tissue, len(parts))
        transform = cosines(depth).T
        squares = [np.square(p[use] @ transform) for p, use in zip(parts, masks, strict=True)]
        del parts  # as large as what follows
        power = np.concatenate(squares)
        power[:, 0] = 0
        places = np.unravel_index(keep, counts) if keep.size else 3 * (keep,)
        at = [place // blocks for place, blocks in zip(places, wide, strict=True)]
        return cls(
            power=power,
            mean=figures[0, keep],
            cell=np.ravel_multi_index(at, cells) if keep.size else keep,
            cells=(cells[0], cells[1], cells[2]),
            depth=depth,
            size=(wide[0] * depth * layers.step, wide[1] * BLOCK, wide[2] * BLOCK),
            air=air,
            magnitude=magnitude,
            step=quantum(voxels),
            share=float(is_tissue.mean()) if is_tissue.size else 0.0,
        )


def _layers_of(voxels: Array, depth: int) -> range:
    """Return the numbers of the layers of blocks that are measured; none without a block."""
    grid = voxels.shape[0] // depth, voxels.shape[1] // BLOCK, voxels.shape[2] // BLOCK
    stride = max(1, math.ceil(math.prod(grid) * depth * BLOCK**2 / _MOST_VOXELS))
    return range(0, grid[0] if min(grid) else 0, stride)


def _cut(voxels: Array, layers: Sequence[int], depth: int) -> list[Floats]:
    """Cut the blocks of some layers, [n, voxels] each; views of one array."""
    rows, columns = voxels.shape[1] // BLOCK, voxels.shape[2] // BLOCK
    values = np.empty((len(layers) * rows * columns, depth * BLOCK**2), np.float32)
    parts = np.split(values, max(1, len(layers)))
    for part, layer in zip(parts, layers, strict=False):
        part[...] = blocks_of_layer(voxels, layer * depth, depth)
    return parts


def cell_blocks(spacing: Sequence[float], block: tuple[int, int, int]) -> list[int]:
    """Return the number of blocks in a cell of the map along k, j, i.

    spacing: (i, j, k) in mm. block: its voxels along k, j, i.
    """
    # 0.66666663 mm in a file and 0.66667 in a call are one spacing, and at half a block.
    sides = zip(_CELL, block, (round(mm, 3) for mm in reversed(tuple(spacing))), strict=True)
    return [max(least, round(_CELL_MM / (side * mm))) for least, side, mm in sides]


def blocks_of_layer(voxels: Array, start: int, depth: int) -> Floats:
    """Return the blocks of a layer of slices as [n, voxels].

    Args:
        voxels: [K, J, I].
        start: first slice of the layer.
        depth: number of slices, which is also the depth of its blocks.
    """
    rows, columns = voxels.shape[1] // BLOCK, voxels.shape[2] // BLOCK
    layer = voxels[start : start + depth, : rows * BLOCK, : columns * BLOCK]
    split = layer.reshape(depth, rows, BLOCK, columns, BLOCK).transpose(1, 3, 0, 2, 4)
    return np.asarray(split.reshape(rows * columns, depth * BLOCK**2), np.float32)


def structure_of(voxels: Array) -> float:
    """Correlate the means of blocks two apart within slices, -1 to 1, in the measured layers.

    voxels: [K, J, I]. Returns 1 where blocks are too few, or all have one mean.
    """
    if min(voxels.shape[1:]) < 3 * BLOCK:
        return 1.0
    depth = min(BLOCK, len(voxels))
    grid = voxels.shape[1] // BLOCK, voxels.shape[2] // BLOCK
    means = np.stack(
        [
            blocks_of_layer(voxels, layer * depth, depth).mean(axis=1, dtype=np.float64)
            for layer in _layers_of(voxels, depth)
        ]
    ).reshape(-1, *grid)
    let_go(voxels)
    down, across = (means[:, :-2], means[:, 2:]), (means[:, :, :-2], means[:, :, 2:])
    pairs = zip(down, across, strict=True)
    first, second = (np.concatenate([j.ravel(), i.ravel()]) for j, i in pairs)
    if means.size < _ENOUGH_BLOCKS or first.std() == 0 or second.std() == 0:
        return 1.0
    return float(np.corrcoef(first, second)[0, 1])


def _figures(values: Floats, padding: Sequence[float]) -> Floats:
    """Compute mean, spread, minimum, maximum, share of padding of blocks [n, voxels]: [5, n]."""
    touched = np.zeros(len(values), np.float32)
    for value in padding:
        touched += (values == np.float32(value)).mean(axis=1, dtype=np.float32)
    mean = values.mean(axis=1)
    around = values - mean[:, None]
    spread = np.sqrt(np.einsum("nv,nv->n", around, around) / (values.shape[1] - 1))
    return np.stack([mean, spread, values.min(axis=1), values.max(axis=1), touched])


def _is_ct_tissue(figures: Floats, lowest: float) -> Mask:
    mean, _, low, high, touched = figures
    varies = (low < high) & (touched == 0)
    return np.asarray(varies & (mean > CT_TISSUE) & (low > lowest))


def _is_tissue(figures: Floats, top: float, air: float | None, magnitude: bool) -> Mask:
    mean, spread, low, high, touched = figures
    keep = (low < high) & (touched == 0) & (mean > 0.1 * top)
    if magnitude:
        # In air and in tissue as weak, the mean is small compared with the spread.
        keep &= mean > 2.3 * spread
        if air is not None:
            keep &= mean > 1.6 * air
    return np.asarray(keep)


def _air(figures: Floats, top: float) -> float | None:
    """Measure σ of a Rayleigh background; None where there is none."""
    mean, spread, lowest, highest, touched = figures
    usable = (lowest < highest) & (touched < 0.25) & (mean < 0.6 * top)
    ratio = mean / np.maximum(spread, TINY) / _RAYLEIGH
    like = usable & (ratio > 0.8) & (ratio < 1.3)
    if like.sum() < max(20, 0.02 * usable.size):
        return None
    low = float(np.quantile(mean[like], 0.25))
    center = float(np.median(mean[like & (mean < 1.25 * low)]))
    near = usable & (mean > 0.8 * center) & (mean < 1.25 * center)
    if like[near].mean() < 0.6:
        return None
    return center / AIR_MEAN


def _padding(voxels: Array) -> list[float]:
    """Return the minimum and the maximum, each if many voxels have it."""
    most = _PADDING * voxels.size

    def count(value: Any) -> int:
        return sum(int(np.count_nonzero(part == value)) for part in slabs(voxels))

    return [float(value) for value in (voxels.min(), voxels.max()) if count(value) > most]


def quantum(voxels: Array) -> float:
    """Return the step between rounded values, 0 where they are not rounded."""
    every = max(1, voxels.size // 100_000)
    sample = voxels.reshape(-1)[::every] if voxels.flags.c_contiguous else voxels.ravel()[::every]
    values = np.unique(sample)
    if values.size < 3 or values.size > sample.size / 4:
        return 0.0
    return float(np.diff(values.astype(np.float64)).min())


def cosines(depth: int) -> Floats:
    """Build the orthonormal cosine transform of a block, [f, voxels]."""
    within = np.kron(cosine_matrix(BLOCK), cosine_matrix(BLOCK))
    return np.kron(cosine_matrix(depth), within).astype(np.float32)
