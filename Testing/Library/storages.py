"""The storages of a volume: its voxel axes in any order, each in either direction."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume

#: Order of the stored axes [K, J, I], and steps along them.
Storage = tuple[tuple[int, ...], tuple[int, ...]]
STORAGES: list[Storage] = list(
    product(permutations(range(3)), product((1, -1), repeat=3)),
)
#: Each order of axes, with other flips; one is left-handed by flips alone.
SOME = [STORAGES[at] for at in (1, 14, 20, 31, 37, 46)]


def stored(volume: Volume, storage: Storage) -> Volume:
    """Store the same anatomy in another way."""
    order, steps = storage
    voxels = volume.voxels[..., :: steps[0], :: steps[1], :: steps[2]]
    last = np.array(volume.shape[-3:]) - 1
    corner = [*((last * (np.array(steps) < 0))[::-1]), 1]
    origin = (volume.geometry.affine_lps @ corner)[:3]
    ijk = [2 - axis for axis in reversed(order)]
    direction = np.asarray(volume.geometry.direction) * steps[::-1]
    geometry = Geometry(np.take(volume.geometry.spacing, ijk), origin, direction[:, ijk])  # type: ignore[arg-type]
    first = volume.voxels.ndim - 3
    axes = (*range(first), *(first + axis for axis in order))
    return replace(volume, voxels=np.ascontiguousarray(voxels.transpose(axes)), geometry=geometry)


def restored(voxels: Voxels, storage: Storage) -> Voxels:
    """Bring stored voxels back to their first order."""
    order, steps = storage
    first = voxels.ndim - 3
    axes = (*range(first), *(first + int(axis) for axis in np.argsort(order)))
    return voxels.transpose(axes)[..., :: steps[0], :: steps[1], :: steps[2]]
