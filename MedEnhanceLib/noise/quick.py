"""Measures the noise of a few slices, to rank series without measuring whole volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from MedEnhanceLib.core.arrays import Array
from MedEnhanceLib.noise.estimate import measure_noise, noise_to_contrast
from MedEnhanceLib.noise.tissue_blocks import BLOCK


def quick_noise(
    voxels: Array, *, modality: str, spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> float:
    """Measure σ of the noise over the contrast of the tissue in the four middle slices.

    Args:
        voxels: [K, J, I], in any unit; HU for CT.
        modality: "CT", "MR" or another of `core.volume.MODALITIES`.
        spacing: (i, j, k) in mm, as in `Geometry`.
    Returns `noise_to_contrast`, no unit; infinite without tissue and in fewer than four slices.
    """
    if len(voxels) < BLOCK:
        return math.inf
    first = (len(voxels) - BLOCK) // 2
    layer = np.nan_to_num(np.asarray(voxels[first : first + BLOCK], np.float32))
    noise = measure_noise(layer, modality=modality, spacing=spacing)
    return noise_to_contrast(noise) or math.inf
