"""A frame of an enhanced multi-frame image as the single image that it would have been."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import TYPE_CHECKING

from MedEnhanceLib.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

#: The enhanced form's name of an attribute → the classic one's, in the same unit.
_RENAMED = {
    "EffectiveEchoTime": "EchoTime",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "TemporalPositionIndex": "TemporalPositionIdentifier",
    "FrameComments": "ImageComments",
    "FrameLaterality": "ImageLaterality",
    "FrameType": "ImageType",
    "ExposureTimeInms": "ExposureTime",
    "XRayTubeCurrentInmA": "XRayTubeCurrent",
    "ExposureInmAs": "Exposure",
    "RFEchoTrainLength": "EchoTrainLength",
    "PulseSequenceName": "SequenceName",
    "TransmitterFrequency": "ImagingFrequency",
    "ResonantNucleus": "ImagedNucleus",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
}
#: Classic elements with whole numbers, where the enhanced form has fractions.
_WHOLE = {"ExposureTime", "XRayTubeCurrent", "Exposure", "EchoTrainLength", "TriggerTime"}
#: Of a frame, but with no place in a single image or with another meaning there.
_SKIPPED = {"ImageType", "NumberOfFrames", "PerFrameFunctionalGroupsSequence",
            "SharedFunctionalGroupsSequence", "ParallelReductionFactorInPlane"}  # fmt: skip
#: Functional groups whose items are sequences of the classic image as well.
_WHOLE_GROUPS = {"ReferencedImageSequence", "DerivationImageSequence", "FrameAnatomySequence"}


def frame_as_image(source: Dataset, frame: int, name: str) -> Dataset:
    """The attributes of one frame, counted from 1, as a single image has them.

    Raises InputError where the file has fewer frames.
    """
    groups = source.get("PerFrameFunctionalGroupsSequence")
    count = int(source.get("NumberOfFrames") or 1)
    if not 1 <= frame <= count or (groups is not None and frame > len(groups)):
        raise InputError(f"{name} has no frame {frame}", "Read the series again.")
    image = _common(source)
    shared = source.get("SharedFunctionalGroupsSequence") or []
    for functional_groups in (*shared[:1], *((groups or [])[frame - 1 : frame])):
        _flatten(functional_groups, image)
    _date_from(image)
    image.InstanceNumber = frame
    return image


def _common(source: Dataset) -> Dataset:
    """The image without what describes all of its frames."""
    image = copy_elements(source, without=_SKIPPED - {"ImageType"})
    for enhanced in _RENAMED:
        if enhanced in source:
            _take(source, enhanced, image)
    return image


def copy_elements(source: Dataset, *, without: Collection[str] = ()) -> Dataset:
    """A dataset with elements of its own whose values, pixels too, are shared with the source.

    copy.copy would share the elements as well: what is set in one is then set in the other.
    """
    from pydicom import Dataset

    target = Dataset()
    for element in source:
        if element.keyword not in without:
            target.add(copy.copy(element))
    return target


def _flatten(functional_groups: Dataset, image: Dataset) -> None:
    for group in functional_groups:
        if group.VR != "SQ":
            continue
        if group.keyword in _WHOLE_GROUPS:
            _take_group(group.keyword, group.value, image)
            continue
        for item in group.value[:1]:
            for element in item:
                if element.keyword in _RENAMED:
                    _take(item, element.keyword, image)
                elif element.VR == "SQ" and element.keyword.startswith("MRDiffusion"):
                    _flatten(item, image)
                elif element.keyword and element.keyword not in _SKIPPED:
                    image.add(copy.deepcopy(element))


def _take_group(keyword: str, items: list[Dataset], image: Dataset) -> None:
    if keyword == "ReferencedImageSequence":
        image.ReferencedImageSequence = copy.deepcopy(items)
    if keyword == "FrameAnatomySequence" and items:
        for element in ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence"):
            if element in items[0]:
                image.add(copy.deepcopy(items[0][element]))
        if items[0].get("FrameLaterality") in ("L", "R", "B", "U"):
            image.ImageLaterality = items[0].FrameLaterality


def _take(item: Dataset, keyword: str, image: Dataset) -> None:
    """Put a renamed element under its classic name, rounded where that holds whole numbers."""
    name, value = _RENAMED[keyword], item[keyword].value
    if value is None or value == "":
        return
    if name in _WHOLE:
        value = round(float(value))
    elif isinstance(value, float):
        value = format(value, ".10g")
    setattr(image, name, value)


def _date_from(image: Dataset) -> None:
    """AcquisitionDate and -Time out of the one element of the enhanced form."""
    moment = str(image.get("FrameAcquisitionDateTime") or image.get("AcquisitionDateTime") or "")
    if len(moment) >= 8 and moment[:8].isdigit():
        image.AcquisitionDate = moment[:8]
        time = moment[8:].split("+")[0].split("-")[0]
        if time:
            image.AcquisitionTime = time
