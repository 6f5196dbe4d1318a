"""What the standard demands of an image: filled in where it is missing, mended where it is wrong.

A source's faults are not passed on: a PACS that took the source may refuse its copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from MedEnhanceLib.io.dicomout.iods import (
    CT_IMAGE,
    MR_IMAGE,
    PET_IMAGE,
    SECONDARY_CAPTURE,
    UNPAIRED,
)
from MedEnhanceLib.io.dicomout.items import coded, values_of

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.sr.coding import Code

#: Elements that have to be there, empty where nobody knows (type 2).
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber", "Manufacturer",
    "PositionReferenceIndicator", "SliceThickness",
)  # fmt: skip
_EMPTY_OF = {
    CT_IMAGE: ("KVP", "AcquisitionNumber"),
    MR_IMAGE: ("ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength"),
    PET_IMAGE: ("AcquisitionDate", "AcquisitionTime", "ActualFrameDuration", "CollimatorType",
                "CorrectedImage", "RadiopharmaceuticalInformationSequence",
                "PatientOrientationCodeSequence", "PatientGantryRelationshipCodeSequence"),
    SECONDARY_CAPTURE: (),
}  # fmt: skip
#: PET elements that belong to a kind of series, by value 1 of SeriesType.
_OF_SERIES_TYPE = {
    "NumberOfRRIntervals": ("GATED",), "NumberOfTimeSlots": ("GATED",), "FrameTime": ("GATED",),
    "LowRRValue": ("GATED",), "HighRRValue": ("GATED",), "TriggerTime": ("GATED",),
    "CardiacFramingType": ("GATED",), "NumberOfTimeSlices": ("DYNAMIC",),
}  # fmt: skip


def complete(image: Dataset, sop_class: str) -> None:
    """Fill in and mend an image of one of the classes of `iods`, in place."""
    for keyword in (*_EMPTY, *_EMPTY_OF[sop_class]):
        if keyword not in image:
            setattr(image, keyword, [] if keyword.endswith("Sequence") else None)
    _tell_position(image, sop_class)
    _tell_side(image)
    if sop_class == MR_IMAGE:
        _mend_mr(image)
    if sop_class == PET_IMAGE:
        _mend_pet(image)
    if sop_class == SECONDARY_CAPTURE:
        image.ConversionType = "WSD"  # made on a workstation
        image.PatientOrientation = _orientation(image.ImageOrientationPatient)


def _tell_position(image: Dataset, sop_class: str) -> None:
    """How the patient lay, in one of two ways, never in both."""
    if sop_class == PET_IMAGE and not image.get("PatientOrientationCodeSequence"):
        _tell_position_in_codes(image)
    if image.get("PatientOrientationCodeSequence") or sop_class == PET_IMAGE:
        if sop_class == PET_IMAGE or not image.get("PatientPosition"):
            image.pop("PatientPosition", None)
            return
        for keyword in (
            "PatientOrientationCodeSequence",
            "PatientEquipmentRelationshipCodeSequence",
        ):
            image.pop(keyword, None)
    elif "PatientPosition" not in image and sop_class != SECONDARY_CAPTURE:
        image.PatientPosition = None


def _tell_position_in_codes(image: Dataset) -> None:
    """PatientPosition in the codes that PET has for it, where these are empty."""
    from pydicom.sr.codedict import codes

    position = str(image.get("PatientPosition") or "")
    lying = {
        "S": codes.cid20.Supine, "P": codes.cid20.Prone,
        "DL": codes.cid20.LeftLateralDecubitus, "DR": codes.cid20.RightLateralDecubitus,
    }.get(position[2:])  # fmt: skip
    into = {"HF": codes.cid21.Headfirst, "FF": codes.cid21.FeetFirst}.get(position[:2])
    if lying is None or into is None:
        return
    recumbent = _item(codes.cid19.Recumbent)
    recumbent.PatientOrientationModifierCodeSequence = [_item(lying)]
    image.PatientOrientationCodeSequence = [recumbent]
    image.PatientGantryRelationshipCodeSequence = [_item(into)]


def _item(code: Code) -> Dataset:
    return coded(code.value, code.meaning, code.scheme_designator)


def _tell_side(image: Dataset) -> None:
    """Laterality: demanded of paired parts, empty where unknown; out of place with others."""
    if image.get("ImageLaterality"):
        image.pop("Laterality", None)
    elif not image.get("Laterality"):
        image.pop("Laterality", None)
        if str(image.get("BodyPartExamined") or "").upper() not in UNPAIRED:
            image.Laterality = None


def _orientation(cosines: Sequence[float]) -> list[str]:
    """Where rows and columns run to, in letters, the nearest direction of the body first."""
    letters = []
    for axis in (cosines[:3], cosines[3:]):
        parts = [(abs(float(value)), number, value > 0) for number, value in enumerate(axis)]
        told = [part for part in sorted(parts, reverse=True) if part[0] > 1e-3]
        letters.append("".join("RAF"[n] if not up else "LPH"[n] for _, n, up in told))
    return letters


def _mend_mr(image: Dataset) -> None:
    if not image.get("ScanningSequence"):
        image.ScanningSequence = "RM"  # research mode: nothing else is known
    if not image.get("SequenceVariant"):
        image.SequenceVariant = "NONE"
    sequence, options = (_values(image, keyword) for keyword in ("ScanningSequence", "ScanOptions"))
    if "IR" in sequence and "InversionTime" not in image:
        image.InversionTime = None
    if "IR" not in sequence:
        image.pop("InversionTime", None)
    if not {"CG", "PPG", "CT"} & options:
        image.pop("TriggerTime", None)
    if ("EP" not in sequence or "SK" in _values(image, "SequenceVariant")) and (
        "RepetitionTime" not in image
    ):
        image.RepetitionTime = None


def _mend_pet(image: Dataset) -> None:
    kind = str((values_of(image, "SeriesType") or [""])[0])
    for keyword, kinds in _OF_SERIES_TYPE.items():
        if keyword in image and kind not in kinds:
            del image[keyword]
    for agent in image.get("RadiopharmaceuticalInformationSequence") or []:
        if "RadionuclideCodeSequence" not in agent:
            agent.RadionuclideCodeSequence = []


def _values(image: Dataset, keyword: str) -> set[str]:
    return set(map(str, values_of(image, keyword)))
