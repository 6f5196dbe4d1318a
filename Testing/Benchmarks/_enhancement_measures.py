"""Everything that is measured of one result."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from _enhancement_data import Case, Floats, Mask, Subject
from _enhancement_lesions import new_blobs

from MedEnhanceLib.core import metrics

Row = dict[str, Any]
_MOST_DB = 99.0


def measured(subject: Subject, case: Case, result: Floats) -> Row:
    """PSNR, SSIM, agreement of slices, blobs and real lesions."""
    reference = subject.volume.voxels
    row: Row = {
        "psnr_image": _psnr(subject, result),
        "slice_ratio": _roughness(result, subject) / _roughness(reference, subject),
    }
    similarity = _similarity(reference, result, subject.span)
    row["ssim_image"] = float(similarity[:, 5:-5, 5:-5].mean())
    inside = subject.inside
    row["psnr_foreground"] = _psnr(subject, result, inside)
    row["ssim_foreground"] = float(similarity[:, 5:-5, 5:-5][inside[:, 5:-5, 5:-5]].mean())
    if subject.lesion is not None and subject.lesion.any():
        row["lesion_contrast_kept"] = _contrast(result, subject) / _contrast(reference, subject)
    if case.planted:
        row["new_blobs_per_100_ml"] = new_blobs(subject, result)
    return row


def _psnr(subject: Subject, result: Floats, mask: Mask | None = None) -> float:
    """At most 99 dB: what is left alone to the last bit would count as infinite in a mean."""
    return min(metrics.psnr(subject.volume.voxels, result, subject.span, mask=mask), _MOST_DB)


def _similarity(reference: npt.NDArray[Any], result: Floats, span: float) -> Floats:
    """SSIM at every pixel, with the window of `metrics.ssim`."""
    from skimage.metrics import structural_similarity

    maps = [
        structural_similarity(
            truth.astype(np.float32),
            plane,
            data_range=span,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )[1]
        for truth, plane in zip(reference, result, strict=True)
    ]
    return np.stack(maps)


def _roughness(voxels: npt.NDArray[Any], subject: Subject) -> float:
    """Mean absolute second difference through the slices, in the foreground."""
    values = voxels.astype(np.float32)
    second = np.abs(values[2:] - 2 * values[1:-1] + values[:-2])
    return float(second[subject.inside[1:-1]].mean())


def _contrast(voxels: npt.NDArray[Any], subject: Subject) -> float:
    """Mean of the lesions less that of the tissue 2 to 3 voxels around them."""
    from scipy.ndimage import binary_dilation

    assert subject.lesion is not None
    near = binary_dilation(subject.lesion, iterations=1)
    ring = binary_dilation(near, iterations=2) & ~near & subject.inside
    return float(voxels[subject.lesion].mean()) - float(voxels[ring].mean())
