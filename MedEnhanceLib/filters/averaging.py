"""Means over blocks of voxels: a volume at a coarser resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from MedEnhanceLib.core.arrays import Floats, Voxels, let_go, parts_of
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume

#: Slices that are averaged at once, about.
_SLICES = 16


def averaged(volume: Volume, factors: Sequence[int]) -> Volume:
    """A volume of means over blocks, in float32; what fills no block at the end is left out.

    volume: a single one; of a mapped file only some slices are in memory.
    factors: voxels of a block along k, j, i.
    """
    whole = volume.shape[0] // factors[0] * factors[0]
    tall = max(1, _SLICES // factors[0]) * factors[0]
    parts = []
    for part in parts_of(0, whole, tall):
        parts.append(_means(volume.voxels[part], factors))
        let_go(volume.voxels)
    old, sizes = volume.geometry, factors[::-1]
    x, y, z, _ = (old.affine_lps @ [*((size - 1) / 2 for size in sizes), 1]).tolist()
    i, j, k = (mm * size for mm, size in zip(old.spacing, sizes, strict=True))
    geometry = Geometry((i, j, k), (x, y, z), old.direction)
    return replace(volume, voxels=np.concatenate(parts), geometry=geometry, origin=None)


def _means(voxels: Voxels, factors: Sequence[int]) -> Floats:
    """Axis by axis: several at once take numpy ten times as long."""
    means: Voxels = voxels
    for axis, factor in enumerate(factors):
        whole = means.shape[axis] // factor * factor
        places = np.arange(0, whole, factor)
        sums = np.add.reduceat(means.take(range(whole), axis), places, axis=axis, dtype=np.float64)
        means = sums / np.float64(factor)
    return means.astype(np.float32)
