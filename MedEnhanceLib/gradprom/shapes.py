"""Shapes of labelled structures: their largest parts, and their surface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.dependencies import require
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
