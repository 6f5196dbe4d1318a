"""What segmentations and parametric maps have in common; both are made with highdicom.

highdicom refuses faults that are common in hospitals' data, gaps, and sources of several kinds. So
it gets placeholders for the source images, which are replaced by the true ones afterwards.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from MedEnhanceLib._version import __version__
from MedEnhanceLib.io.dicomout.derivation import (
    MANUFACTURER,
    NOTICE,
    Derivation,
    fresh_uid,
    now,
    refer_to,
    series_number,
    with_elements,
)
from MedEnhanceLib.io.dicomout.placement import Grid
from MedEnhanceLib.io.dicomout.template import Template

if TYPE_CHECKING:
    from pydicom import Dataset

#: What an object takes over from the images behind it.
_OF_IMAGE = (
    "BodyPartExamined",
    "LossyImageCompression",
    "LossyImageCompressionMethod",
    "LossyImageCompressionRatio",
)
_STAND_IN = "2.25.1"
#: What highdicom reads of a source's patient and study.
_OF_PATIENT = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


def stand_ins(grid: Grid, shape: tuple[int, int]) -> list[Dataset]:
    """Placeholders for source images: one for each slice, without anything of a patient.

    The last part of an instance's UID is the number of the slice, from 1.

    Args:
        grid: where the slices lie.
        shape: rows and columns.
    """
    from pydicom import Dataset

    study, series = fresh_uid(), fresh_uid()
    images = []
    for number, position in enumerate(grid.positions, 1):
        image = Dataset()
        image.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture
        image.SOPInstanceUID = f"{_STAND_IN}.{number}"
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.FrameOfReferenceUID = grid.frame_of_reference
        image.PositionReferenceIndicator = ""
        image.Modality = "OT"
        leave_patient_open(image)
        image.Rows, image.Columns = shape
        image.ImagePositionPatient = list(position)
        image.ImageOrientationPatient = list(grid.orientation)
        image.PixelSpacing = list(grid.spacing)
        image.SliceThickness = grid.thickness
        image.SpacingBetweenSlices = grid.between
        images.append(image)
    return images


def refer(dataset: Dataset, grid: Grid, *, derivation: Any, purpose: Any) -> None:
    """Record for every frame, and for the object, which images it came from.

    Args:
        dataset: made from `stand_ins(grid)`; changed in place.
        grid: where the slices lie, and the images behind them.
        derivation: code of how a frame was derived.
        purpose: code of why an image is referenced.
    """
    series = [
        with_elements(
            SeriesInstanceUID=uid, ReferencedInstanceSequence=[refer_to(one) for one in of]
        )
        for uid, of in grid.series.items()
    ]
    dataset.ReferencedSeriesSequence = series
    dataset.SourceImageSequence = [refer_to(one) for of in grid.series.values() for one in of]
    if not series:  # made from nothing that is stored
        del dataset.ReferencedSeriesSequence, dataset.SourceImageSequence
    known = any(grid.references)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        stand_in = frame.DerivationImageSequence[0].SourceImageSequence[0]
        number = int(stand_in.ReferencedSOPInstanceUID.rpartition(".")[2])
        behind = grid.references[number - 1]
        if not known:
            del frame.DerivationImageSequence
            continue
        frame.DerivationImageSequence = [
            with_elements(
                DerivationCodeSequence=[derivation],
                SourceImageSequence=[
                    refer_to(
                        one,
                        SpatialLocationsPreserved="YES",
                        PurposeOfReferenceCodeSequence=[purpose],
                    )
                    for one in behind
                ],
            )
        ][: len(behind)]  # where no image lies: an empty sequence, as all frames must have one


def identity(template: Template, derivation: Derivation, *, kind: str) -> dict[str, Any]:
    """Arguments that all of highdicom's classes have: UIDs, series number, manufacturer.

    Args:
        template: the images that the object came from.
        derivation: what was done.
        kind: "segmentation" or "uncertainty".
    """
    header = template.headers[0] if template.headers else None
    return {
        "series_number": series_number(derivation, header, kind),
        "series_instance_uid": fresh_uid(),
        "sop_instance_uid": fresh_uid(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": __version__,
        "device_serial_number": "none",  # required, but software has none
    }


def leave_patient_open(dataset: Dataset) -> None:
    """Set the elements of patient and study that highdicom reads, without a value."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _OF_PATIENT:
        setattr(dataset, keyword, None)


def sign(dataset: Dataset, template: Template, derivation: Derivation, *, kind: str) -> None:
    """Record in an object its patient, its `kind` ("segmentation"), and how it was made."""
    from pydicom import Dataset

    template.copy_study(dataset)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    first = template.headers[0] if template.headers else Dataset()
    named = replace(derivation, action=kind)
    dataset.SeriesDescription = named.series_text(str(first.get("SeriesDescription") or ""))
    date, time = now(str(dataset.get("TimezoneOffsetFromUTC") or ""))
    dataset.SeriesDate = dataset.ContentDate = dataset.InstanceCreationDate = date
    dataset.SeriesTime = dataset.ContentTime = dataset.InstanceCreationTime = time
    earlier = copy.deepcopy(list(first.get("ContributingEquipmentSequence") or []))
    dataset.ContributingEquipmentSequence = [
        *earlier,
        *(dataset.get("ContributingEquipmentSequence") or []),
    ]
    dataset.ContentDescription = NOTICE
    for keyword in _OF_IMAGE:
        if first.get(keyword):
            dataset.add(copy.deepcopy(first[keyword]))
    derivation.apply(dataset)
