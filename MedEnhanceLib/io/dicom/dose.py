"""A grid of radiation dose → image planes, by its offsets and its scaling.

Source: DICOM PS3.3 C.8.8.3 (RT dose).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.elements import Elements, floats, one, text
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.words import COPY_AGAIN

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.481.2"
#: What of a header tells of a dose.
ELEMENTS = ("GridFrameOffsetVector", "DoseGridScaling", "DoseUnits", "DoseType")
_UNITS = {"GY": "Gy", "RELATIVE": "relative"}
_EXPORT_AGAIN = "Export the dose again."
_ABSOLUTE_MM = 0.01


def dose_planes(header: Elements, common: Slice, count: int) -> list[Slice]:
    """The planes of a grid in its order, in Gy or whatever else DoseUnits says.

    common: what all planes share, with the place of the first. count: of the frames.
    Raises InputError for what is no dose (DoseType ERROR), and for planes without a scaling or a
    place.
    """
    if text(header, "DoseType").upper() == "ERROR":
        raise InputError(
            "DoseType is ERROR: its numbers are differences between doses, not a dose",
            "Give the dose itself.",
        )
    common = replace(
        common,
        slope=_scaling(header, common),
        intercept=0.0,
        units=_units(text(header, "DoseUnits")),
    )
    position, orientation = common.position, common.orientation
    if position is None or orientation is None:
        return [replace(common, frame=index) for index in range(1, count + 1)]
    offsets = _offsets(header, count, position, orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    return [
        replace(
            common,
            frame=index,
            position=tuple((np.asarray(position) + offset * normal).tolist()),
        )
        for index, offset in enumerate(offsets, 1)
    ]


def _units(told: str) -> str:
    return _UNITS.get(told.upper(), told)


def _scaling(header: Elements, common: Slice) -> float:
    if common.has_lut:
        raise InputError(
            "it holds both a ModalityLUTSequence and DoseGridScaling: which one gives the dose is "
            "unclear",
            _EXPORT_AGAIN,
        )
    scaling = one(header, "DoseGridScaling")
    if scaling is None or scaling <= 0:
        raise InputError(
            f"DoseGridScaling is {'missing' if scaling is None else scaling}, so that the stored "
            "numbers give no dose",
            _EXPORT_AGAIN,
        )
    return scaling


def _offsets(
    header: Elements, count: int, position: tuple[float, ...], orientation: tuple[float, ...]
) -> tuple[float, ...]:
    """Mm of each plane from the first, along the normal."""
    if count == 1 and not header.get("GridFrameOffsetVector"):
        return (0.0,)
    offsets = (
        floats(header, "GridFrameOffsetVector", count)
        if count > 1
        else (one(header, "GridFrameOffsetVector") or 0.0,)
    )
    if offsets is None:
        raise InputError(
            "GridFrameOffsetVector is missing, so that its planes have no place", COPY_AGAIN
        )
    if offsets[0] == 0:
        return offsets
    # Then they are places along z, and the first is that of ImagePositionPatient.
    upright = abs(abs(orientation[0]) - 1) < 1e-4 and abs(abs(orientation[4]) - 1) < 1e-4
    if not upright or abs(offsets[0] - position[2]) > _ABSOLUTE_MM:
        raise InputError(
            f"GridFrameOffsetVector begins with {offsets[0]:g}, neither 0 nor the z of "
            "ImagePositionPatient",
            "Correct the header.",
        )
    up = orientation[0] * orientation[4]
    return tuple((offset - offsets[0]) * up for offset in offsets)
