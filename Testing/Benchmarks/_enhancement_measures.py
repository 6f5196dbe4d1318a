"""Everything that is measured of one result."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from _enhancement_data import Case, Floats, Mask, Subject
from _enhancement_lesions import new_blobs
from _enhancement_peers import noise_between_slices, noise_in_tissue
from _enhancement_texture import compare_spectra, edge_slope

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import robust_max

Row = dict[str, Any]
_MOST_DB = 99.0
#: Heights of edges: shares of the range in MR, HU in CT.
EDGES = {
    "MR": {"strong": (0.3, 1.0), "soft": (0.1, 0.3)},
    "CT": {"strong": (300.0, 2000.0), "soft": (60.0, 200.0)},
}


def measure(subject: Subject, case: Case, degraded: Volume, result: Floats) -> Row:
    """PSNR, SSIM, gradients, agreement of slices, edges, spectrum, blobs and real lesions."""
    reference = subject.volume.voxels
    row: Row = {
        "psnr_image": _psnr(subject, result),
        "slice_ratio": _roughness(result, subject) / _roughness(reference, subject),
    }
    similarity = _similarity(reference, result, subject.span)
    row["ssim_image"] = float(similarity[:, 5:-5, 5:-5].mean())
    for region, mask in subject.regions.items():
        row[f"psnr_{region}"] = _psnr(subject, result, mask)
        row[f"ssim_{region}"] = float(similarity[:, 5:-5, 5:-5][mask[:, 5:-5, 5:-5]].mean())
    scale = subject.span if subject.modality == "MR" else 1.0
    for kind, (low, high) in EDGES[subject.modality].items():
        step = low * scale, high * scale
        slope = edge_slope(reference, result, subject.inside, step)
        if slope is not None:
            row[f"edge_slope_{kind}"] = slope
    if subject.lesion is not None and subject.lesion.any():
        row["lesion_contrast_kept"] = _contrast(result, subject) / _contrast(reference, subject)
    if case.planted:
        row["new_blobs_per_100_ml"] = new_blobs(subject, result)
    if "flat" in subject.regions:
        flat = subject.regions["flat"]
        error, noise = result - reference, degraded.voxels - reference
        if case.name != "undamaged":
            pixel = subject.volume.geometry.spacing[0]
            row |= compare_spectra(error, noise, flat, pixel)
        row["native_noise_hu"] = noise_between_slices(reference, flat)
        row["added_noise_hu"] = float(noise[flat].std())
    return row


def measure_real(scan: Volume, result: Floats) -> Row:
    """Without a reference: how much noise went, and whether edges of the scan stayed sharp."""
    top = robust_max(scan.voxels)
    inside = scan.voxels > 0.1 * top
    row: Row = {"noise_left": noise_in_tissue(result) / noise_in_tissue(scan.voxels)}
    slope = edge_slope(scan.voxels, result, inside, (0.3 * top, top))
    if slope is not None:
        row["edge_slope_strong"] = slope
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
