"""Many frames in one file: the images of a derived series as a legacy converted enhanced image.

highdicom does the conversion. It refers to the single images, which are never stored here, so its
references are replaced by those to the true sources. Frames stay in the order of the slices, along
the normal; highdicom would sort them the other way, and every reader would have to reverse them.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.errors import InputError, OutputError
from MedEnhanceLib.io.dicomout.attributes import CONTRAST, CT_IMAGE, MR_IMAGE
from MedEnhanceLib.io.dicomout.derivation import (
    PROCESSING,
    Reference,
    coded,
    fresh_uid,
    refer_to,
    with_elements,
)
from MedEnhanceLib.io.dicomout.objects import leave_patient_open
from MedEnhanceLib.io.dicomout.template import Template, copy_attributes, copy_elements
from MedEnhanceLib.runtime.dependencies import require

if TYPE_CHECKING:
    from pydicom import Dataset

#: What highdicom adds without a value, although its mere presence has a meaning.
_MADE_UP = (
    "ContrastBolusAgent", "ClinicalTrialTimePointID", "ClinicalTrialCoordinatingCenterName",
)  # fmt: skip
_OF_SERIES = (
    "SeriesDate", "SeriesTime", "SeriesDescription", "ContentDate", "ContentTime",
    "BurnedInAnnotation", "DerivationDescription", "DerivationCodeSequence",
)  # fmt: skip
_OF_NUMBERS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
_UNKNOWN = ("ReferencedImageSequence", *CONTRAST)
_OF_SIDE = ("BodyPartExamined", "Laterality")
_ANATOMY = ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence")
_TEMPORAL_POSITION_INDEX, _FRAME_CONTENT = 0x00209128, 0x00209111
_IMAGE_POSITION, _PLANE_POSITION = 0x00200032, 0x00209113


def convert(
    images: Sequence[Dataset],
    template: Template,
    *,
    between: str,
    time_points: int = 1,
    interval_s: float | None = None,
) -> Dataset:
    """Make one image of many frames from the single images of a derived series, in their order.

    Args:
        images: complete, of one class, time point by time point.
        template: the images that the series came from.
        between: mm from slice to slice, as a decimal string.
        time_points: their number.
        interval_s: seconds between time points, if known.
    Raises:
        InputError: the images do not fit into one.
        OutputError: a frame would have other intensities than its image.
    """
    require("highdicom", purpose="Writing enhanced multi-frame DICOM")
    image = _converted(images)
    first = images[0]
    image.pop("SpecificCharacterSet", None)
    template.copy_study(image)
    if "SpecificCharacterSet" in first:
        image.SpecificCharacterSet = first.SpecificCharacterSet
    for keyword in _OF_SERIES:
        if keyword in first:
            image.add(copy.deepcopy(first[keyword]))
    _restore(image, first)
    for keyword in _MADE_UP:
        if keyword in image and not image[keyword].value:
            del image[keyword]
    _refer(image, images, template)
    _tidy(image)
    for groups in (
        image.SharedFunctionalGroupsSequence[0],
        *image.PerFrameFunctionalGroupsSequence,
    ):
        for measures in groups.get("PixelMeasuresSequence") or []:
            measures.SpacingBetweenSlices = between  # highdicom's own finding: 1 for a single slice
        for values in groups.get("PixelValueTransformationSequence") or []:
            values.RescaleType = first.get("RescaleType") or "US"
        for derivation in groups.get("DerivationImageSequence") or []:
            if not derivation.get("DerivationCodeSequence"):
                derivation.DerivationCodeSequence = [coded(*PROCESSING)]
    _keep_contrast(image, first)
    _order(image, time_points, interval_s)
    _verify(image, images)
    return image


def _converted(images: Sequence[Dataset]) -> Dataset:
    from highdicom import legacy
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    first = images[0]
    make: Any = {
        CT_IMAGE: legacy.LegacyConvertedEnhancedCTImage,
        MR_IMAGE: legacy.LegacyConvertedEnhancedMRImage,
    }.get(str(first.SOPClassUID), legacy.LegacyConvertedEnhancedPETImage)
    singles = []
    for one in images:
        # Unknown: the series of the referenced images, which must be stated as well, and in which
        # frames a contrast agent shows.
        single = copy_elements(one, without=_UNKNOWN)
        single.PhotometricInterpretation = "MONOCHROME2"  # else highdicom turns the numbers round
        leave_patient_open(single)
        if not (single.get("Laterality") or single.get("ImageLaterality")):
            for keyword in (*_OF_SIDE, *_ANATOMY):  # a frame's anatomy would require the side
                single.pop(keyword, None)
        single.file_meta = FileMetaDataset()
        single.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        singles.append(single)
    with _quiet():
        try:
            image: Dataset = make(
                singles,
                series_instance_uid=first.SeriesInstanceUID,
                series_number=first.SeriesNumber,
                sop_instance_uid=fresh_uid(),
                instance_number=1,
                transfer_syntax_uid=ExplicitVRLittleEndian,
                include_dimension_index=False,
            )
        except (ValueError, TypeError, AttributeError, KeyError) as cause:
            raise InputError(
                f"the series does not fit into one enhanced image: {cause}",
                "Write single images: leave out the option for enhanced multi-frame.",
            ) from cause
    return copy_elements(image)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without highdicom's messages about elements that it moves, which no user can act on."""
    log = logging.getLogger("highdicom")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _restore(image: Dataset, first: Dataset) -> None:
    """Put back what the conversion ignores, or keeps without its meaning."""
    for what in ("", "Ratio", "Method"):
        keyword = f"LossyImageCompression{what}"
        if keyword in first:
            image.add(copy.copy(first[keyword]))
    if "FrameAnatomySequence" not in image.SharedFunctionalGroupsSequence[0]:
        for keyword in _OF_SIDE:
            if keyword in first:
                image.add(copy.copy(first[keyword]))
    image.ContributingEquipmentSequence = copy.deepcopy(first.ContributingEquipmentSequence)


def _refer(image: Dataset, images: Sequence[Dataset], template: Template) -> None:
    """Replace highdicom's references to the single images by those to the stored sources."""
    for frame in image.PerFrameFunctionalGroupsSequence:
        frame.pop("ConversionSourceAttributesSequence", None)
    image.pop("ReferencedSeriesSequence", None)
    sources = {
        Reference(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)): None
        for one in images
        for item in one.get("SourceImageSequence") or []
    }
    if not sources or template.origin is None:
        return
    references, origin = [refer_to(one) for one in sources], template.origin
    image.ReferencedSeriesSequence = [
        with_elements(SeriesInstanceUID=origin.series, ReferencedInstanceSequence=references)
    ]
    evidence = with_elements(SeriesInstanceUID=origin.series, ReferencedSOPSequence=references)
    image.SourceImageEvidenceSequence = [
        with_elements(StudyInstanceUID=origin.study, ReferencedSeriesSequence=[evidence])
    ]


def _tidy(image: Dataset) -> None:
    """Remove what highdicom left empty, and copies of attributes that the image has already."""
    frames = image.PerFrameFunctionalGroupsSequence
    if not image.get("Manufacturer"):
        image.Manufacturer = "Unknown"  # required of enhanced images
    for groups in (image.SharedFunctionalGroupsSequence[0], *frames):
        window = groups.get("FrameVOILUTSequence")
        if window and "WindowCenter" not in window[0]:
            del groups["FrameVOILUTSequence"]
        for kind in ("Shared", "PerFrame"):
            keyword = f"Unassigned{kind}ConvertedAttributesSequence"
            rest = next(iter(groups.get(keyword) or []), None)
            if rest is None:
                continue
            for element in list(rest):
                if element.keyword in image or element.is_empty:
                    del rest[element.tag]
            if not len(rest):
                del groups[keyword]


def _keep_contrast(image: Dataset, first: Dataset) -> None:
    """Keep the contrast agent among the unassigned attributes."""
    from pydicom import Dataset

    agent = copy_attributes(first, CONTRAST)
    if not len(agent):
        return
    shared = image.SharedFunctionalGroupsSequence[0]
    if "UnassignedSharedConvertedAttributesSequence" not in shared:
        shared.UnassignedSharedConvertedAttributesSequence = [Dataset()]
    shared.UnassignedSharedConvertedAttributesSequence[0].update(agent)


def _verify(image: Dataset, images: Sequence[Dataset]) -> None:
    """Raise OutputError unless every frame has the numbers and the rescale of its image."""
    pixels, start = memoryview(image.PixelData), 0
    shared = image.SharedFunctionalGroupsSequence[0]
    frames = image.PerFrameFunctionalGroupsSequence
    same = len(frames) == len(images) and image.PhotometricInterpretation == "MONOCHROME2"
    for frame, single in zip(frames, images, strict=False):
        end = start + len(single.PixelData)
        same = same and pixels[start:end] == memoryview(single.PixelData)
        same = same and _rescale(frame, shared) == _rescale(single)
        start = end
    same = same and all(image[one].value == images[0][one].value for one in _OF_NUMBERS)
    if not same or len(pixels) != start:
        raise OutputError(
            "the enhanced image would hold other intensities than the single images",
            "Write single images: leave out the option for enhanced multi-frame.",
        )


def _rescale(*groups: Dataset) -> tuple[float, float]:
    """Slope and intercept, of a single image or of a frame's functional groups."""
    for group in groups:
        for values in group.get("PixelValueTransformationSequence") or [group]:
            if values.get("RescaleSlope") not in (None, ""):
                return float(values.RescaleSlope), float(values.RescaleIntercept)
    return 1.0, 0.0


def _order(image: Dataset, time_points: int, interval_s: float | None) -> None:
    """Number the frames by time point and by place along the normal; state their times."""
    from pydicom import Dataset

    frames = image.PerFrameFunctionalGroupsSequence
    slices = len(frames) // time_points
    for number, frame in enumerate(frames):
        (content,) = frame.FrameContentSequence
        time, place = number // slices + 1, number % slices + 1
        content.StackID, content.InStackPositionNumber = "1", place
        content.DimensionIndexValues = [time, place] if time_points > 1 else place
        if time_points > 1:
            content.TemporalPositionIndex = time
            if interval_s:
                offset = (time - 1) * interval_s
                frame.TemporalPositionSequence = [with_elements(TemporalPositionTimeOffset=offset)]
        # Every frame must keep some attribute of its image: its number.
        if "UnassignedPerFrameConvertedAttributesSequence" not in frame:
            frame.UnassignedPerFrameConvertedAttributesSequence = [Dataset()]
        frame.UnassignedPerFrameConvertedAttributesSequence[0].InstanceNumber = number + 1
    organization = Dataset()
    organization.DimensionOrganizationUID = fresh_uid()
    image.DimensionOrganizationSequence = [organization]
    pointers = [(_TEMPORAL_POSITION_INDEX, _FRAME_CONTENT), (_IMAGE_POSITION, _PLANE_POSITION)]
    indices = []
    for pointer, group in pointers[time_points == 1 :]:
        index = Dataset()
        index.DimensionIndexPointer, index.FunctionalGroupPointer = pointer, group
        index.DimensionOrganizationUID = organization.DimensionOrganizationUID
        indices.append(index)
    image.DimensionIndexSequence = indices
    image.DimensionOrganizationType = "3D" if time_points == 1 else "3D_TEMPORAL"
