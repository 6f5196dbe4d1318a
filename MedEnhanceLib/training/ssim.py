"""Structural similarity of images to their references, as MONAI computes it."""

from __future__ import annotations

import numpy as np

from MedEnhanceLib.core.arrays import Array
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.dependencies import require

#: Pixels of the window's sides, its σ, and how far it reaches.
_SIDE, _SIGMA = 11, 1.5
_REACH = _SIDE // 2


def ssim(
    reference: Array, image: Array, data_range: float | None = None, *, mask: Array | None = None
) -> float:
    """Measure structural similarity in slices, at most 1; the mean leaves out 5 pixels of the rim.

    Source: Wang et al., IEEE Trans. Image Process. 13 (2004) 600, population covariances.

    Args:
        reference: [..., J, I].
        image: same shape and unit.
        data_range: the span of intensities; None takes the range of the reference.
        mask: voxels that count; None takes all.
    Raises InputError for slices that the window does not fit into, and for no voxel that counts.
    """
    if min(reference.shape[-2:]) < _SIDE:
        text = f"SSIM of an image of shape {reference.shape}"
        raise InputError(text, f"Its window needs {_SIDE} voxels along 2 axes.")
    regression = require("monai.metrics.regression", purpose="Measuring SSIM")
    torch = require("torch", purpose="Measuring SSIM")
    # MONAI computes in single precision: intensities are shares of their range.
    peak = float(np.ptp(reference)) if data_range is None else data_range
    inner, values = (slice(_REACH, -_REACH),) * 2, []
    for index in np.ndindex(reference.shape[:-2]):
        pair = [
            torch.from_numpy((each[index] / np.float64(peak)).astype(np.float32))[None, None]
            for each in (image, reference)
        ]
        of_slice, _ = regression.compute_ssim_and_cs(*pair, 2, (_SIDE, _SIDE), (_SIGMA, _SIGMA))
        of_slice = of_slice[0, 0].numpy()
        values.append(of_slice[... if mask is None else mask[index][inner]].ravel())
    if not sum(map(len, values)):
        raise InputError("nothing to measure: the mask is empty", "Give a mask with voxels in it.")
    return float(np.concatenate(values).mean(dtype=np.float64))
