"""Image operations shared by methods: blur, means of blocks and of frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats, Voxels, let_go, parts_of
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume

#: The kernel of the blur ends at this many σ; 6e-5 of its area lies beyond.
_TRUNCATE = 4.0
#: About this many slices are averaged at once.
_AVERAGED_SLICES = 16


def gaussian_blur(
    voxels: Array, sigma_px: float | tuple[float, float], *, sigma_slices: float = 0.0
) -> Floats:
    """Convolve with a Gaussian; edges are mirrored, so a constant stays constant.

    Args:
        voxels: [..., J, I]; with `sigma_slices`, [..., K, J, I].
        sigma_px: σ in pixels along both axes of slices, or along each (j, i); 0 for none.
        sigma_slices: σ in slices across them; 0 keeps slices separate, as a 2D acquisition does.
    Returns float32, same shape.
    """
    result = np.array(voxels, dtype=np.float32)
    down, across = sigma_px if isinstance(sigma_px, tuple) else (sigma_px, sigma_px)
    for axis, sigma in ((-1, across), (-2, down), (-3, sigma_slices)):
        if sigma > 0:
            result = _blur_along(result, axis, sigma)
    return result


def blur_radius(sigma: float) -> int:
    """Return the radius in pixels of the kernel of a Gaussian of this σ in pixels."""
    return max(1, math.ceil(_TRUNCATE * sigma))


def _blur_along(voxels: Floats, axis: int, sigma: float) -> Floats:
    radius = blur_radius(sigma)
    taps = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    taps = (taps / (taps[0] + 2 * taps[1:].sum())).astype(np.float32)
    length = voxels.shape[axis]
    widths = [(0, 0)] * voxels.ndim
    widths[axis] = (radius, radius)
    padded = np.moveaxis(np.pad(voxels, widths, mode="symmetric"), axis, 0)

    def shifted(offset: int) -> Floats:
        return padded[radius + offset : radius + offset + length]

    total = shifted(0) * taps[0]
    for offset in range(1, radius + 1):
        total += (shifted(-offset) + shifted(offset)) * taps[offset]
    return np.ascontiguousarray(np.moveaxis(total, 0, axis))


def averaged(volume: Volume, factors: Sequence[int]) -> Volume:
    """Average a volume over blocks, as float32; incomplete blocks at the end are left out.

    volume: [K, J, I]; a mapped file is read a few slices at a time.
    factors: voxels of a block along k, j, i.
    """
    whole = volume.shape[0] // factors[0] * factors[0]
    tall = max(1, _AVERAGED_SLICES // factors[0]) * factors[0]
    parts = []
    for part in parts_of(0, whole, tall):
        parts.append(_means(volume.voxels[part], factors))
        let_go(volume.voxels)
    old, sizes = volume.geometry, factors[::-1]
    x, y, z, _ = (old.affine_lps @ [*((size - 1) / 2 for size in sizes), 1]).tolist()
    i, j, k = (mm * size for mm, size in zip(old.spacing, sizes, strict=True))
    geometry = Geometry((i, j, k), (x, y, z), old.direction)
    return replace(volume, voxels=np.concatenate(parts), geometry=geometry, dicom_origin=None)


def mean_frame(frames: Sequence[Volume]) -> Volume:
    """Average all frames in float32; a single frame is returned as it is."""
    if len(frames) == 1:
        return frames[0]
    total = np.zeros(frames[0].shape, np.float64)
    for frame in frames:
        total += frame.voxels
    return frames[0].with_voxels((total / len(frames)).astype(np.float32))


def _means(voxels: Voxels, factors: Sequence[int]) -> Floats:
    """Average axis by axis: over several axes at once NumPy takes ten times as long."""
    means: Voxels = voxels
    for axis, factor in enumerate(factors):
        whole = means.shape[axis] // factor * factor
        places = np.arange(0, whole, factor)
        sums = np.add.reduceat(means.take(range(whole), axis), places, axis=axis, dtype=np.float64)
        means = sums / np.float64(factor)
    return means.astype(np.float32)
