"""Gaussian blur: the loss of resolution of a smaller matrix or of a soft kernel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
#: The kernel ends at this many σ, where 6e-5 of it is left.
_TRUNCATE = 4.0


def gaussian_blur(
    voxels: npt.NDArray[Any], sigma_px: float, *, sigma_slices: float = 0.0
) -> Floats:
    """Convolve with a Gaussian; edges are mirrored, so that a constant stays what it is.

    voxels: [..., J, I]; with `sigma_slices`, [..., K, J, I].
    sigma_px: σ in pixels along rows and columns. sigma_slices: σ in slices across them; 0, the
    default, leaves slices apart, as a 2D acquisition does.
    Returns float32 of the same shape; σ = 0 returns the values as they are.
    """
    result = np.array(voxels, dtype=np.float32)
    for axis, sigma in ((-1, sigma_px), (-2, sigma_px), (-3, sigma_slices)):
        if sigma > 0:
            result = _blur_along(result, axis, sigma)
    return result


def _blur_along(voxels: Floats, axis: int, sigma: float) -> Floats:
    radius = max(1, math.ceil(_TRUNCATE * sigma))
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
