"""Shared parts of segmentations and parametric maps; both are made with highdicom.

highdicom refuses faults that are common in hospital data, gaps, and sources of several kinds. So it
gets placeholders for the source images, which are replaced by references to the real ones later.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.origin import Instance
from MedEnhanceLib.io.dicomout.attributes import SECONDARY_CAPTURE
from MedEnhanceLib.io.dicomout.derivation import (
    MANUFACTURER,
    NOTICE,
    Derivation,
    coded,
    fresh_uid,
    now,
    refer_to,
    refer_to_source,
    series_number,
    with_elements,
)
from MedEnhanceLib.io.dicomout.placement import FrameGrid
from MedEnhanceLib.io.dicomout.template import Template

if TYPE_CHECKING:
    from pydicom import Dataset

#: Elements that an object takes over from the images behind it.
_OF_IMAGE = (
    "BodyPartExamined",
    "LossyImageCompression",
    "LossyImageCompressionMethod",
    "LossyImageCompressionRatio",
)
_STAND_IN = "2.25.1"
#: Elements of patient and study that highdicom reads from a source.
_OF_PATIENT = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


def stand_ins(grid: FrameGrid, shape: tuple[int, int], template: Template) -> list[Dataset]:
    """Make placeholders for source images: one for each slice, without patient data.

    The last part of an instance's UID is the number of the slice, from 1.

    Args:
        grid: of the object.
        shape: rows and columns.
        template: of the object.
    """
    series = fresh_uid()
    return [
        with_elements(
            SpecificCharacterSet="ISO_IR 192",
            SOPClassUID=SECONDARY_CAPTURE,
            SOPInstanceUID=f"{_STAND_IN}.{number}",
            StudyInstanceUID=template.study.StudyInstanceUID,
            SeriesInstanceUID=series,
            FrameOfReferenceUID=template.frame_of_reference,
            PositionReferenceIndicator="",
            Modality="OT",
            Rows=shape[0],
            Columns=shape[1],
            ImagePositionPatient=list(position),
            ImageOrientationPatient=list(grid.orientation),
            PixelSpacing=list(grid.spacing),
            SliceThickness=grid.thickness,
            SpacingBetweenSlices=grid.between,
            **dict.fromkeys(_OF_PATIENT),
        )
        for number, position in enumerate(grid.positions, 1)
    ]


def identity(template: Template, *, kind: str) -> dict[str, Any]:
    """Return arguments that highdicom's classes share: UIDs, series number, manufacturer.

    kind: "segmentation" or "uncertainty".
    """
    return {
        "series_number": series_number(template.headers[0] if template.headers else None, kind),
        "series_instance_uid": fresh_uid(),
        "sop_instance_uid": fresh_uid(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": __version__,
        "device_serial_number": "none",  # required, but software has none
        "content_label": kind.upper(),
        "content_creator_name": f"{MANUFACTURER}^",
    }


def refer(dataset: Dataset, grid: FrameGrid, derivation: tuple[str, str]) -> None:
    """Record the source images of every frame and of the object.

    Args:
        dataset: made from `stand_ins` of the grid; changed in place.
        grid: with the images behind each frame.
        derivation: value and meaning of DICOM's code for the derivation of a frame.
    """
    by_series: dict[str, dict[Instance, None]] = {}  # each image once, without its frames or tiles
    for plane in grid.planes:
        by_series.setdefault(str(plane.header.SeriesInstanceUID), {})[
            replace(plane.reference, frame=None, tile=None)
        ] = None
    for keyword in ("ReferencedSeriesSequence", "SourceImageSequence"):
        dataset.pop(keyword, None)
    if by_series:  # else no source is stored
        items = {uid: [refer_to(image) for image in images] for uid, images in by_series.items()}
        dataset.ReferencedSeriesSequence = [
            with_elements(SeriesInstanceUID=uid, ReferencedInstanceSequence=referenced)
            for uid, referenced in items.items()
        ]
        dataset.SourceImageSequence = [
            refer_to(image) for images in by_series.values() for image in images
        ]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        stand_in = frame.DerivationImageSequence[0].SourceImageSequence[0]
        number = int(stand_in.ReferencedSOPInstanceUID.rpartition(".")[2])
        sources = [
            refer_to_source(plane.reference, same_place=True) for plane in grid.behind[number - 1]
        ]
        if not any(grid.behind):
            del frame.DerivationImageSequence
        elif not sources:
            frame.DerivationImageSequence = []  # all frames of an object must have one
        else:
            frame.DerivationImageSequence = [
                with_elements(
                    DerivationCodeSequence=[coded(*derivation)], SourceImageSequence=sources
                )
            ]


def sign(dataset: Dataset, template: Template, derivation: Derivation, *, kind: str) -> None:
    """Record patient, study, kind and derivation in an object.

    Args:
        dataset: changed in place.
        template: its patient, study and first header are used.
        derivation: of the object.
        kind: "segmentation" or "uncertainty"; names the series.
    """
    from pydicom import Dataset

    template.copy_study(dataset)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    first = template.headers[0] if template.headers else Dataset()
    named = replace(derivation, action=kind)
    dataset.SeriesDescription = named.series_text(str(first.get("SeriesDescription") or ""))
    date, time = now(str(dataset.get("TimezoneOffsetFromUTC") or ""))
    dataset.SeriesDate = dataset.ContentDate = dataset.InstanceCreationDate = date
    dataset.SeriesTime = dataset.ContentTime = dataset.InstanceCreationTime = time
    dataset.ContentDescription = NOTICE
    for keyword in _OF_IMAGE:
        if first.get(keyword):
            dataset.add(copy.deepcopy(first[keyword]))
    earlier = copy.deepcopy(list(first.get("ContributingEquipmentSequence") or []))
    dataset.ContributingEquipmentSequence = [*earlier, *dataset.ContributingEquipmentSequence]
    derivation.apply(dataset)
