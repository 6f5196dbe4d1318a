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

from MedEnhanceLib.core.arrays import Array
from MedEnhanceLib.errors import InputError


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
