"""What is measured of one coded volume."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from _compression_volumes import CT_WINDOW_HU

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Volume

Row = dict[str, Any]
Voxels = npt.NDArray[Any]
#: Slices that the window of the 3D SSIM needs.
_SSIM_SLICES = 11


def size_row(volume: Volume, size: int) -> Row:
    """Bytes, bits per voxel, and the ratio to the bytes of the voxels as they are stored."""
    return {
        "bytes": size,
        "bits_per_voxel": 8 * size / volume.voxels.size,
        "ratio": volume.nbytes / size,
    }


def quality_row(volume: Volume, decoded: Voxels) -> Row:
    """PSNR against the full range (and in the window of CT), 3D SSIM, MAE, the largest error.

    None stands for a PSNR without any error. The SSIM has a Gaussian window of 11 × 11 × 11 with
    σ 1.5 voxels and the full range for its constants.
    """
    source = volume.voxels
    row: Row = {
        "psnr_db": _finite(metrics.psnr(source, decoded)),
        "mae": metrics.mae(source, decoded),
        "max_error": metrics.max_error(source, decoded),
    }
    if volume.modality == "CT":
        width = float(CT_WINDOW_HU[1] - CT_WINDOW_HU[0])
        clipped = (np.clip(voxels, *CT_WINDOW_HU) for voxels in (source, decoded))
        row["psnr_window_db"] = _finite(metrics.psnr(*clipped, data_range=width))
    if len(source) >= _SSIM_SLICES:
        row["ssim_3d"] = metrics.ssim(source, decoded, volumetric=True)
    return row


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
