"""Volumes as images: axial, of one size, one pixel spacing and one intensity window."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.image import robust_max
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.describe import refuse_too_large
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.spg.config import CT_WINDOW, ImageConfig

Floats = npt.NDArray[np.float32]
#: Pixel spacings whose ratio differs from 1 by less count as equal: resampling would only blur.
_SAME_SPACING = 0.05
#: An image is kept if more than this share of it lies above the level of tissue.
_LEAST_SHOWN = 0.05
_TISSUE_MR, _TISSUE_HU = 0.05, -500.0


def axial_slices(volume: Volume, config: ImageConfig) -> Floats:
    """Turn a volume into axial images, float32 [N, size, size] in [0, 1], from foot to head.

    The volume is reoriented, resampled in the plane where its pixels have another size, windowed,
    and cropped or mirrored outwards around its center. Slices that show hardly anything are left
    out. Raises InputError where hardly any intensity is positive (MR). Source: reconstructed.
    """
    window = _window_of(volume)
    voxels = _resampled(volume, config.spacing_mm)
    scaled = (voxels - np.float32(window[0])) / np.float32(window[1] - window[0])
    images = _framed(np.clip(scaled, 0, 1), config.size)
    is_shown = shown(images, volume.modality).mean(axis=(1, 2)) > _LEAST_SHOWN
    kept: Floats = images[is_shown]
    return kept


def _window_of(volume: Volume) -> tuple[float, float]:
    """Choose the intensities that become 0 and 1, in the volume's unit; may raise InputError."""
    if volume.modality == "CT":
        return CT_WINDOW
    top = robust_max(volume.voxels)
    if not (math.isfinite(top) and top > 0):
        raise InputError(
            f"{volume.source or 'volume'}: hardly any intensity is positive",
            "Use magnitude images, before any normalization to zero mean.",
        )
    return 0.0, top


def shown(images: Floats, modality: str) -> npt.NDArray[np.bool_]:
    """Mark pixels of images in [0, 1] above the level of tissue; bool, of their shape."""
    if modality != "CT":
        return images > _TISSUE_MR
    low, high = CT_WINDOW
    return images > (_TISSUE_HU - low) / (high - low)


def spread_over(images: Floats, count: int) -> Floats:
    """Pick `count` images at equal quantiles of their order; repeated if there are fewer.

    Source: design, spg part 3.
    """
    places = (np.arange(count) + 0.5) / count * len(images)
    return images[np.minimum(places.astype(np.intp), len(images) - 1)]


def data_sha256(arrays: Iterable[Floats]) -> str:
    """Hash all images in order: any change changes it."""
    digest = hashlib.sha256()
    for images in arrays:
        digest.update(repr(images.shape).encode())
        digest.update(np.ascontiguousarray(images, dtype="<f4").tobytes())
    return digest.hexdigest()


def _resampled(volume: Volume, spacing_mm: float) -> Floats:
    """Resample to axial slices from foot to head, float32 [K, J, I], pixels of spacing_mm."""
    refuse_too_large(volume)
    sitk: Any = require("SimpleITK", purpose="Preparing a cohort")
    image = sitk.DICOMOrient(volume.to_sitk(), "LPS")
    voxels: Floats = sitk.GetArrayFromImage(image).astype(np.float32)
    column_mm, row_mm, _ = image.GetSpacing()
    scales = row_mm / spacing_mm, column_mm / spacing_mm
    if all(abs(scale - 1) <= _SAME_SPACING for scale in scales):
        return voxels
    import torch
    from torch.nn import functional as F  # noqa: N812 - the field's own short name

    rows, columns = (
        max(1, round(size * scale)) for size, scale in zip(voxels.shape[1:], scales, strict=True)
    )
    resampled: Floats = F.interpolate(
        torch.from_numpy(voxels)[None], (rows, columns), mode="bicubic", antialias=True
    )[0].numpy()
    return resampled


def _framed(images: Floats, size: int) -> Floats:
    """Crop, or mirror outwards, around the center to [N, size, size].

    With zero padding the border of a small field of view would be the sharpest edge of the image,
    and its restoration outweigh all tissue in super-resolution (measured).
    """
    cropped = [slice(max(0, n - size) // 2, max(0, n - size) // 2 + size) for n in images.shape[1:]]
    inside = images[:, cropped[0], cropped[1]]
    missing = [size - n for n in inside.shape[1:]]
    sides = [(short // 2, short - short // 2) for short in missing]
    framed: Floats = np.pad(inside, [(0, 0), *sides], mode="symmetric")
    return framed
