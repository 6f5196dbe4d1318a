"""Everything that is measured of one result."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from _enhancement_data import Case, Floats, Mask, Subject
from _enhancement_lesions import new_blobs

from MedEnhanceLib.core import metrics

Row = dict[str, Any]
_MOST_DB = 99.0


def measured(subject: Subject, case: Case, result: Floats) -> Row:
    """PSNR, SSIM, blobs and real lesions."""
    reference, inside = subject.volume.voxels, subject.inside
    row: Row = {
        "psnr_image": _psnr(subject, result),
        "psnr_foreground": _psnr(subject, result, inside),
        "ssim_foreground": metrics.ssim(reference, result, subject.span, mask=inside),
    }
    if subject.lesion is not None and subject.lesion.any():
        row["lesion_contrast_kept"] = _contrast(result, subject) / _contrast(reference, subject)
    if case.planted:
        row["new_blobs_per_100_ml"] = new_blobs(subject, result)
    return row


def _psnr(subject: Subject, result: Floats, mask: Mask | None = None) -> float:
    """At most 99 dB: what is left alone to the last bit would count as infinite in a mean."""
    return min(metrics.psnr(subject.volume.voxels, result, subject.span, mask=mask), _MOST_DB)


def _contrast(voxels: npt.NDArray[Any], subject: Subject) -> float:
    """Mean of the lesions less that of the tissue 2 to 3 voxels around them."""
    from scipy.ndimage import binary_dilation

    assert subject.lesion is not None
    near = binary_dilation(subject.lesion, iterations=1)
    ring = binary_dilation(near, iterations=2) & ~near & subject.inside
    return float(voxels[subject.lesion].mean()) - float(voxels[ring].mean())
