"""Similarity of an image to its reference, in float64 with numpy alone.

All functions take arrays of one shape, [..., J, I], and process them slice by slice, so a large
volume needs the memory of a few slices. Common arguments:

    mask: bool, same shape; only these voxels are measured.
    data_range: the span of intensities that the figure refers to; give it whenever figures are
        compared. None takes the reference's maximum − minimum.

All raise InputError where shapes differ or no voxel is left to measure.
"""

from __future__ import annotations

import math

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles
from MedEnhanceLib.errors import InputError

_SSIM_SIGMA = 1.5
_SSIM_RADIUS = 5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03


def psnr(
    reference: Array, image: Array, data_range: float | None = None, *, mask: Array | None = None
) -> float:
    """Measure the peak signal-to-noise ratio in dB; inf for equal images.

    Args:
        reference: any shape.
        image: same shape and unit.
        data_range: the peak; None takes the range of the reference.
        mask: voxels that count; None takes all.
    """
    _check(reference, image, mask)
    total, count = 0.0, 0
    for index in np.ndindex(reference.shape[:-2]):
        difference = image[index].astype(np.float64) - reference[index].astype(np.float64)
        difference = difference[... if mask is None else mask[index]].ravel()
        total += float(np.vdot(difference, difference))
        count += difference.size
    peak = _range_of(reference, data_range)
    error = _mean(total, count)
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def ssim(
    reference: Array,
    image: Array,
    data_range: float | None = None,
    *,
    mask: Array | None = None,
) -> float:
    """Measure structural similarity, at most 1, in a Gaussian window of 11 voxels, σ 1.5.

    The mean leaves out the outermost 5 voxels, where the window is not full.
    Source: Wang et al., IEEE Trans. Image Process. 13 (2004) 600, population covariances, as
    scikit-image computes it with `use_sample_covariance=False`.

    Args:
        reference: [..., J, I].
        image: same shape.
        data_range: see above.
        mask: see above.
    """
    _check(reference, image, mask)
    if len(reference.shape) < 2 or min(reference.shape[-2:]) <= 2 * _SSIM_RADIUS:
        raise InputError(
            f"SSIM of an image of shape {reference.shape}",
            f"Its window needs {2 * _SSIM_RADIUS + 1} voxels along 2 axes.",
        )
    peak = _range_of(reference, data_range)
    total, count = 0.0, 0
    inner = (slice(_SSIM_RADIUS, -_SSIM_RADIUS),) * 2
    for index in np.ndindex(reference.shape[:-2]):
        similarity = _ssim_map(reference[index], image[index], peak)
        similarity = similarity[... if mask is None else mask[index][inner]]
        total += float(similarity.sum())
        count += similarity.size
    return _mean(total, count)


def dice(a: Array, b: Array, label: int) -> float:
    """Measure the Dice overlap of one label, 0 to 1; 1 where neither volume has it.

    Args:
        a: label indices.
        b: label indices of the same shape.
        label: the index to compare.
    """
    _check(a, b, None)
    both, size = 0, 0
    for index in np.ndindex(a.shape[:-2]):
        in_a, in_b = a[index] == label, b[index] == label
        both += int(np.count_nonzero(in_a & in_b))
        size += int(np.count_nonzero(in_a)) + int(np.count_nonzero(in_b))
    return 2 * both / size if size else 1.0


def _ssim_map(reference: Array, image: Array, peak: float) -> Doubles:
    x, y = reference.astype(np.float64), image.astype(np.float64)
    c1, c2 = (_SSIM_K1 * peak) ** 2, (_SSIM_K2 * peak) ** 2
    mean_x, mean_y = _smooth(x), _smooth(y)
    variance_x = _smooth(x * x) - mean_x**2
    variance_y = _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    similarity: Doubles = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return similarity


def _smooth(values: Doubles) -> Doubles:
    """Smooth a slice by the Gaussian window, only where it fits."""
    taps = np.exp(-0.5 * (np.arange(_SSIM_RADIUS + 1) / _SSIM_SIGMA) ** 2)
    taps /= taps[0] + 2 * taps[1:].sum()
    for axis in (-2, -1):
        rolled = np.moveaxis(values, axis, 0)
        length = rolled.shape[0] - 2 * _SSIM_RADIUS
        total = taps[0] * rolled[_SSIM_RADIUS : _SSIM_RADIUS + length]
        for offset in range(1, _SSIM_RADIUS + 1):
            low, high = _SSIM_RADIUS - offset, _SSIM_RADIUS + offset
            total += taps[offset] * (rolled[low : low + length] + rolled[high : high + length])
        values = np.moveaxis(total, 0, axis)
    return values


def _check(reference: Array, image: Array, mask: Array | None) -> None:
    for name, other in (("image", image), ("mask", mask)):
        if other is not None and other.shape != reference.shape:
            raise InputError(
                f"the {name} has shape {other.shape}, the reference {reference.shape}",
                "Compare volumes on the same grid.",
            )


def _range_of(reference: Array, data_range: float | None) -> float:
    if data_range is None:
        data_range = float(reference.max()) - float(reference.min())
    if not 0 < data_range < math.inf:
        raise InputError(
            f"the range of intensities is {data_range}", "Give data_range as a number above 0."
        )
    return data_range


def _mean(total: float, count: int) -> float:
    if count == 0:
        raise InputError("nothing to measure: the mask is empty", "Give a mask with voxels in it.")
    return total / count
