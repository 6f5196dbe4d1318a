"""Files of many frames: functional groups → a header for each frame.

Enhanced CT, MR and PET, and legacy images converted to them, state the place of each frame in its
functional groups. Other files of many frames are clips, and are refused.
Sources: DICOM PS3.3 A.1.4, C.7.6.16 (functional groups).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.slices import Fields, plain_values, text, whole
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN

if TYPE_CHECKING:
    from pydicom import Dataset

_SHARED, _EACH = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
#: Elements that `frame_headers` reads, besides those of plain slices.
ELEMENTS = (_SHARED, _EACH, "ConcatenationUID", "InConcatenationTotalNumber")
#: What only the groups may state: elsewhere it is no frame's.
_PLACING = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
    "RescaleIntercept",
)  # fmt: skip
#: Elements of functional groups → those of plain images with the same meaning, in the same unit.
#: Of two with one meaning the first counts.
CLASSIC = {
    "FrameType": "ImageType",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
    "FrameReferenceDateTime": "AcquisitionDateTime",
    "FrameComments": "ImageComments",
    "FrameLaterality": "ImageLaterality",
    "TemporalPositionIndex": "TemporalPositionIdentifier",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
    "EffectiveEchoTime": "EchoTime",
    "InversionTimes": "InversionTime",
    "RFEchoTrainLength": "EchoTrainLength",
    "PulseSequenceName": "SequenceName",
    "TransmitterFrequency": "ImagingFrequency",
    "ResonantNucleus": "ImagedNucleus",
}


def frame_headers(header: Dataset) -> Iterator[Fields]:
    """The header of each frame in the order of the file: of all frames, then of its own groups.

    Args:
        header: a header with ELEMENTS and those of plain slices.
    Raises:
        InputError: frames have no place in the patient, are not as many as stated, or are spread
            over several files.
    """
    common = plain_values(header)
    count = whole(common, "NumberOfFrames") or 1
    if text(common, "ConcatenationUID") and whole(common, "InConcatenationTotalNumber") != 1:
        raise InputError(
            "its frames are spread over several files (a concatenation), which is not read",
            "Join them with the program that wrote them, or export single images.",
        )
    frames = header.get(_EACH)
    if not frames:
        raise InputError(
            f"{count} frames in one file, and none states its position in the patient",
            "Give a tomographic series, or convert it with 3D Slicer and give the NRRD file.",
        )
    if len(frames) != count:
        raise InputError(
            f"NumberOfFrames is {count}, but {len(frames)} frames are described", COPY_AGAIN
        )
    for keyword in _PLACING:
        common.pop(keyword, None)
    for groups in (header.get(_SHARED) or [])[:1]:
        common |= _fields_of(groups)
    return (common | _fields_of(groups) for groups in frames)


def first_item(dataset: Dataset, keyword: str) -> Any:
    """The first item of a sequence; None where there is none."""
    items = dataset.get(keyword)
    return items[0] if items else None


def items_of(groups: Dataset) -> Iterator[Dataset]:
    """The items of functional groups; of diffusion its direction too, which lies a level deeper."""
    for group in groups:
        if group.VR != "SQ" or not group.value:
            continue
        yield group.value[0]
        gradient = first_item(group.value[0], "DiffusionGradientDirectionSequence")
        if gradient is not None:
            yield gradient


def _fields_of(groups: Dataset) -> Fields:
    """What functional groups state, by the keywords of plain images; not what they leave empty."""
    fields: Fields = {}
    for item in items_of(groups):
        fields |= plain_values(item)
    stated = {name: value for name, value in fields.items() if value not in (None, "")}
    return stated | {
        plain: stated[own] for own, plain in reversed(CLASSIC.items()) if own in stated
    }
