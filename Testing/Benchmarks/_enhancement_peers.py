"""Classical denoisers at settings a careful user would choose, with σ estimated from the input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.degrade import gaussian_blur, robust_max
from MedEnhanceLib.volume import Volume

Floats = npt.NDArray[np.float32]
_MAD_TO_SIGMA = 1 / 0.6745
#: CT noise is correlated, so that diagonal differences see less of it; measured on STS_012.
_CT_DIAGONAL_SHARE = 0.65


def nlm_mr(volume: Volume) -> Volume:
    """3D non-local means, then the Rician bias of the mean undone."""
    noisy = volume.voxels.astype(np.float32)
    sigma = noise_in_tissue(noisy)
    smooth = _non_local_means(noisy, 0.4 * sigma, sigma)
    return volume.with_voxels(undo_rician_bias(smooth, sigma))


def nlm_ct(volume: Volume) -> Volume:
    """3D non-local means; σ is the noise between slices, or, of a single slice, within it."""
    noisy = volume.voxels.astype(np.float32)
    body = gaussian_blur(noisy, 2.0) > -300
    if len(noisy) > 1:
        sigma = noise_between_slices(noisy, body)
    else:
        sigma = _diagonal_noise(noisy, body) / _CT_DIAGONAL_SHARE
    return volume.with_voxels(_non_local_means(noisy, 0.3 * sigma, sigma))


def bm4d_mr(volume: Volume) -> Volume:
    """BM4D of a copy scaled to 1, then the Rician bias of the mean undone."""
    import bm4d

    noisy = volume.voxels.astype(np.float32)
    sigma, top = noise_in_tissue(noisy), robust_max(noisy)
    smooth = np.asarray(bm4d.bm4d(noisy / top, sigma / top), dtype=np.float32) * top
    return volume.with_voxels(undo_rician_bias(smooth, sigma))


def noise_in_tissue(voxels: Floats) -> float:
    """σ from diagonal differences of 2 × 2 pixels in the foreground, where noise is Gaussian."""
    smooth = gaussian_blur(voxels, 1.0)
    return _diagonal_noise(voxels, smooth > 0.25 * robust_max(smooth))


def _diagonal_noise(voxels: Floats, where: npt.NDArray[np.bool_]) -> float:
    rows, columns = (size // 2 * 2 for size in voxels.shape[1:])
    corner = [voxels[:, j:rows:2, i:columns:2] for j in (0, 1) for i in (0, 1)]
    detail = (corner[0] - corner[1] - corner[2] + corner[3]) / 2
    return float(np.median(np.abs(detail[where[:, :rows:2, :columns:2]]))) * _MAD_TO_SIGMA


def noise_between_slices(voxels: npt.NDArray[Any], where: npt.NDArray[np.bool_]) -> float:
    """σ from differences of neighbouring slices, which share anatomy but no noise."""
    difference = voxels[1:].astype(np.float32) - voxels[:-1]
    both = where[1:] & where[:-1]
    return float(np.median(np.abs(difference[both]))) * _MAD_TO_SIGMA / 2**0.5


def undo_rician_bias(mean: Floats, sigma: float) -> Floats:
    """The amplitude whose Rician mean is `mean`; what lies at or below the floor becomes 0.

    Source: Koay and Basser, J. Magn. Reson. 179 (2006) 317, by a table of the mean.
    """
    from scipy.special import ive

    amplitude = np.linspace(0, 60, 6001)
    x = amplitude**2 / 2
    expected = np.sqrt(np.pi / 2) * ((1 + x) * ive(0, x / 2) + x * ive(1, x / 2))
    corrected = np.interp(mean / sigma, expected, amplitude) * sigma
    return np.where(mean > expected[-1] * sigma, mean, corrected).astype(np.float32)


def _non_local_means(voxels: Floats, h: float, sigma: float) -> Floats:
    from skimage.restoration import denoise_nl_means

    result = denoise_nl_means(
        voxels, patch_size=5, patch_distance=5, h=h, sigma=sigma, fast_mode=True
    )
    return np.asarray(result, dtype=np.float32).reshape(voxels.shape)  # it drops an axis of one
