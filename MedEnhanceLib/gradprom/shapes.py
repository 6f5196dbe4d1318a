"""Shapes of labelled structures: their largest parts, their surface, their consistency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.dependencies import require
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.geometry import Geometry

Labels = npt.NDArray[np.uint8]


def keep_largest(labels: Labels, values: Sequence[int], count: int) -> None:
    """Turn all but the `count` largest parts of each label into background, in place.

    Voxels belong together where they share a face.
    """
    sitk = require("SimpleITK", purpose="Finding connected parts")
    for value in values:
        box = _box(labels == value)
        if box is None:
            continue
        inside = labels[box]
        mask = sitk.GetImageFromArray((inside == value).astype(np.uint8))
        parts = sitk.RelabelComponent(sitk.ConnectedComponent(mask))  # the largest is 1
        inside[sitk.GetArrayViewFromImage(parts) > count] = 0


def surface_areas(labels: Labels, values: Sequence[int], geometry: Geometry) -> dict[int, float]:
    """Area in mm² of each label's surface, by the Crofton formula; 0 where there is none.

    Where a structure ends with the image the cut counts as surface.
    """
    sitk = require("SimpleITK", purpose="Measuring surfaces")
    areas = dict.fromkeys(values, 0.0)
    box = _box(labels > 0)
    if box is None:
        return areas
    image = sitk.GetImageFromArray(np.pad(labels[box], 1))
    image.SetSpacing(geometry.spacing)
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOn()
    shapes.Execute(image)
    found = shapes.GetLabels()
    return {value: float(shapes.GetPerimeter(value)) if value in found else 0.0 for value in areas}


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
