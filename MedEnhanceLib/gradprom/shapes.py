"""Shapes of labelled structures: their largest parts, their surface, their consistency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom.crofton import surface_area
from MedEnhanceLib.runtime.dependencies import require

Labels = npt.NDArray[np.uint8]

#: Voxels that are counted at once: numpy makes 8 bytes of each.
_AT_ONCE = 2**21


def keep_largest(labels: Labels, values: Sequence[int], count: int) -> None:
    """Turn all but the `count` largest parts of each label into background, in place.

    Voxels belong together where they share a face. Of parts of one size, the first ones stay.
    """
    for value in values:
        box = _box(labels == value)
        if box is not None:
            _keep_largest_in(labels[box], value, count)


def _keep_largest_in(labels: Labels, value: int, count: int) -> None:
    """Of one label; what it takes is given back before the next: 4 bytes for each voxel."""
    sitk = require("SimpleITK", purpose="Finding connected parts")
    mask = sitk.GetImageFromArray((labels == value).view(np.uint8))
    image = sitk.ConnectedComponent(mask)
    parts = sitk.GetArrayViewFromImage(image)
    stays = _largest(voxel_counts(parts), count)
    for slab in _slabs(parts):
        labels[slab][~stays[parts[slab]]] = 0


def voxel_counts(labels: npt.NDArray[Any], minlength: int = 0) -> npt.NDArray[np.int64]:
    """How many voxels have each value, from 0 on, of [K, J, I]: numpy's bincount, slab by slab."""
    counts = np.zeros(max(minlength, int(labels.max(initial=0)) + 1), np.int64)
    for slab in _slabs(labels):
        counts += np.bincount(labels[slab].ravel(), minlength=counts.size)
    return counts


def _largest(sizes: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.bool_]:
    """Which of the numbered parts are among the largest; number 0 is what is in none."""
    order = np.argsort(-sizes[1:], kind="stable") + 1
    stays = np.zeros(sizes.size, bool)
    stays[0] = True
    stays[order[:count]] = True
    return stays


def _slabs(array: npt.NDArray[Any]) -> Iterator[slice]:
    """Places along the first axis that hold about as many voxels as are counted at once."""
    planes = max(1, _AT_ONCE // max(1, array[:1].size))
    return (slice(start, start + planes) for start in range(0, len(array), planes))


def surface_areas(labels: Labels, values: Sequence[int], geometry: Geometry) -> dict[int, float]:
    """Area in mm² of each label's surface, by the Crofton formula; 0 where there is none.

    Where a structure ends with the image the cut counts as surface.
    """
    areas = dict.fromkeys(values, 0.0)
    for value in areas:
        box = _box(labels == value)
        if box is not None:
            areas[value] = surface_area(labels[box] == value, geometry.spacing)
    return areas


def flicker(reference: Labels, labels: Labels, label: int) -> float:
    """How restless a label is from slice to slice, as a multiple of the reference's.

    Voxels that enter or leave the label between neighbouring slices of [..., K, J, I], counted in
    both: 1 is as consistent as the reference, 2 changes twice as much. It does not say whether the
    label is in the right place. Raises InputError where the reference never changes.
    """
    if reference.shape != labels.shape:
        raise InputError(
            f"labels of shape {labels.shape} are measured against {reference.shape}",
            "Measure labels of one grid.",
        )
    ours, theirs = (_changes(array, label) for array in (reference, labels))
    if not ours:
        raise InputError(
            f"label {label} of the reference is the same in all slices",
            "Measure consistency on volumes in which it begins or ends.",
        )
    return theirs / ours


def _changes(array: Labels, label: int) -> int:
    """Voxels that differ in being the label from those of the slice before."""
    if array.ndim < 3:
        return 0
    total = 0
    for index in np.ndindex(array.shape[:-3]):
        before = array[index][0] == label
        for plane in array[index][1:]:
            now = plane == label
            total += int(np.count_nonzero(now != before))
            before = now
    return total


def _box(mask: npt.NDArray[np.bool_]) -> Any:
    """Slices around everything in a mask; None where there is nothing."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        places = np.flatnonzero(mask.any(axis=others))
        if not places.size:
            return None
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)
