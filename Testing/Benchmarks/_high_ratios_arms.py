"""Ways to a small volume: shrunk by means, enlarged by splines, evaluated from the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.unicompress.codecs.implicit import codec
from MedEnhanceLib.unicompress.codecs.implicit.entropy import decode_codes
from MedEnhanceLib.unicompress.codecs.implicit.integer import FINE
from MedEnhanceLib.unicompress.container import Container
from MedEnhanceLib.unicompress.header import Header
from MedEnhanceLib.unicompress.models import DecodeContext

_AT_ONCE = 8192


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


def evaluated(path: Path, shape: Sequence[int]) -> tuple[Voxels, int]:
    """The network's first layer at the centers of a coarser grid, and the bytes that it takes.

    The bytes are of the file up to its end. The network gives values at points, not means.
    """
    end = 0
    with Container(path) as container:
        header = Header.from_json(container.header, path.name)
        context = DecodeContext.of(container, header)
        reader = codec.reader_of(context.models.get(codec.ROLE))
        centers = [(np.arange(m) + 0.5) * n / m for n, m in zip(header.shape, shape, strict=True)]
        found = np.empty(shape, header.dtype)
        for chunk in (one for one in container.chunks if one.layer == 0):
            end = max(end, chunk.offset + chunk.length)
            box, data = header.grid.box(chunk.block), container.read(chunk)
            flags, offset, scale = codec._HEAD.unpack_from(data)
            grid = codec.grid_of(box.shape, thick=bool(flags))
            codes = decode_codes(reader.entropy, [data[codec._HEAD.size :]], grid)
            ends = (box.k, box.j, box.i)
            inside = [(c >= a) & (c < b) for c, (a, b) in zip(centers, ends, strict=True)]
            units = (FINE * (2 if flags else 1), FINE, FINE)
            axes = [
                torch.from_numpy(((c[own] - a) * unit).astype(np.int64))
                for c, own, (a, _), unit in zip(centers, inside, ends, units, strict=True)
            ]
            places = torch.cartesian_prod(*axes)
            latents = reader.decoder.latents(codes, 1)
            with torch.inference_mode():
                parts = [reader.decoder.decode_at(latents, p) for p in places.split(_AT_ONCE)]
            values = torch.cat(parts).to(torch.int64).numpy().reshape([len(one) for one in axes])
            found[np.ix_(*inside)] = codec.to_voxels(values, offset, scale, context)
    return found, end
