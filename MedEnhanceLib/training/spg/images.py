"""Volumes in one intensity window, and their slices as images of one size."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.arrays import Floats, Mask, robust_max
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.training.spg.config import CT_WINDOW

# Chosen by hand; no table isolates them.
#: A slice counts if more than this share of it lies above the level of tissue.
_LEAST_SHOWN = 0.05
_TISSUE_MR, _TISSUE_HU = 0.05, -500.0


def windowed(volume: Volume) -> Floats:
    """Scale voxels [K, J, I] to [0, 1]: CT by its window, MR by its robust maximum.

    Raises InputError where hardly any intensity is positive (MR).
    """
    low, high = CT_WINDOW
    if not volume.profile.is_absolute:
        low, high = 0.0, robust_max(volume.voxels)
        if not (math.isfinite(high) and high > 0):
            raise InputError(
                f"{volume.source or 'volume'}: hardly any intensity is positive",
                "Use magnitude images, before any normalization to zero mean.",
            )
    scaled = (volume.voxels.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0, 1, out=scaled)


def shown(images: Floats, modality: str) -> Mask:
    """Mark pixels of images in [0, 1] above the level of tissue; bool, of their shape."""
    if not profile_of(modality).is_absolute:
        return images > _TISSUE_MR
    low, high = CT_WINDOW
    return images > (_TISSUE_HU - low) / (high - low)


def with_tissue(images: Floats, modality: str) -> Floats:
    """Select the slices [N, H, W] of which at least a few per cent show tissue."""
    selected: Floats = images[shown(images, modality).mean(axis=(1, 2)) > _LEAST_SHOWN]
    return selected


def framed(images: Floats, side: int) -> Floats:
    """Crop, or pad by mirroring, about the center to [N, side, side]."""
    cropped = [slice(max(0, n - side) // 2, max(0, n - side) // 2 + side) for n in images.shape[1:]]
    inside = images[:, cropped[0], cropped[1]]
    missing = [side - n for n in inside.shape[1:]]
    sides = [(short // 2, short - short // 2) for short in missing]
    result: Floats = np.pad(inside, [(0, 0), *sides], mode="symmetric")
    return result


def data_sha256(arrays: Iterable[npt.NDArray[np.generic]]) -> str:
    """Hash all arrays in order: any change changes it."""
    digest = hashlib.sha256()
    for values in arrays:
        digest.update(repr(values.shape).encode())
        digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return digest.hexdigest()
