"""Ways to a small volume: shrunk by means, enlarged by splines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
from scipy import ndimage

from MedEnhanceLib.core.volume import Volume, Voxels


def like(volume: Volume, voxels: Voxels) -> Volume:
    """The voxels, of the same kind as `volume`."""
    return Volume(np.ascontiguousarray(voxels), volume.geometry, modality=volume.modality)


def shrunk(volume: Volume, shape: Sequence[int]) -> Volume:
    """Means over what each voxel of `shape` covers; one frame alone becomes a volume."""
    voxels = resized(volume.voxels, volume.voxels, shape, means)
    return like(volume, voxels[0] if len(shape) == 4 and shape[0] == 1 else voxels)


def resized(
    voxels: Voxels, like: Voxels, shape: Sequence[int], weights: Callable[[int, int], Voxels]
) -> Voxels:
    """Axis by axis, in the type and range of `like`."""
    source = voxels.reshape(*([1] * (len(shape) - voxels.ndim)), *voxels.shape)

    def along(x: Voxels, axis: int) -> Voxels:
        some = weights(x.shape[axis], shape[axis]).astype(np.float32)
        return np.moveaxis(np.tensordot(some, x, (1, axis)), 0, axis)

    values = reduce(along, range(len(shape)), source.astype(np.float32))
    return np.clip(np.rint(values), like.min(), like.max()).astype(like.dtype)


def means(many: int, few: int) -> Voxels:
    """Of the voxels that each of the few covers, or of their parts that it covers."""
    edges, voxels = np.arange(few + 1) * many / few, np.arange(many)
    covered = np.minimum.outer(edges[1:], voxels + 1) - np.maximum.outer(edges[:-1], voxels)
    return np.maximum(covered, 0) * few / many


def cubic(few: int, many: int) -> Voxels:
    """Splines through the centers of the few, at those of the many: `zoom` on an axis at a time."""
    zoom = (many / few, 1)
    return np.asarray(ndimage.zoom(np.eye(few), zoom, order=3, mode="nearest", grid_mode=True))
