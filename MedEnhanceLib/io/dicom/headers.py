"""The header of a file → its description, with its slices.

Enhanced CT, MR and PET, and legacy images converted to them, state the place of each frame in its
functional groups. Other multi-frame files are clips, and are refused.
Sources: DICOM PS3.3 A.1.4, C.7.6.16 (functional groups).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import mosaic, structure
from MedEnhanceLib.io.dicom.slices import (
    ELEMENTS,
    Fields,
    Slice,
    date,
    plain_values,
    slice_of,
    text,
    whole,
)
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN, HEAD, begins_dicom
from MedEnhanceLib.io.dicom.structure import DamagedError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.text import reason_of

if TYPE_CHECKING:
    from pydicom import Dataset

_UNIT = "MeasurementUnitsCodeSequence"
_SHARED, _EACH = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
#: Elements that are read only from functional groups: in other places they do not describe a frame.
_PLACING = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
    "RescaleIntercept",
)  # fmt: skip
#: Elements of functional groups → those of plain images with the same meaning, in the same unit.
#: If two have one meaning, the first one is used.
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
    "ExposureInmAs": "Exposure",
    "ExposureTimeInms": "ExposureTime",
    "XRayTubeCurrentInmA": "XRayTubeCurrent",
}
#: Elements that are read from every file: of its series, its images and their frames.
_ELEMENTS = (
    *ELEMENTS, _SHARED, _EACH, "ConcatenationUID", "InConcatenationTotalNumber", "SeriesNumber",
    "SeriesDescription", "StudyDescription", "SeriesDate", "SeriesTime", "StudyDate",
    "ModalityLUTSequence", "ContributingEquipmentSequence", *mosaic.ELEMENTS,
)  # fmt: skip
_UIDS_OF_SERIES = (0x0020000D, 0x0020000E)
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: Images of CT, MR and PET: single, enhanced, and legacy ones converted to enhanced.
_SINGLE = tuple(f"{_STORAGE}{end}" for end in ("2", "4", "128"))
_ENHANCED = tuple(f"{_STORAGE}{end}" for end in ("2.1", "2.2", "4.1", "4.4", "130", "128.1"))
#: Segmentations, binary ones and label maps: see segmentation.py.
SEGMENTATIONS = (f"{_STORAGE}66.4", f"{_STORAGE}66.7")
#: Contours of radiotherapy.
_STRUCTURES = f"{_STORAGE}481.3"
_ITS_IMAGES = "Give the images it belongs to."
_OTHER_READER = "Load it with 3D Slicer, and save it as NRRD."
#: Classes of objects that give no volume → reason and hint.
_REFUSED = {
    **dict.fromkeys(
        SEGMENTATIONS,
        (
            "a segmentation: labels drawn on images, not the images",
            "Give the images; or give this file alone, to load its labels.",
        ),
    ),
    f"{_STORAGE}30": ("a parametric map, which is not read", _OTHER_READER),
    f"{_STORAGE}481.2": ("an RT dose, which is not read", _OTHER_READER),
    _STRUCTURES: (
        "an RT structure set: contours drawn on images, not the images",
        "Give the images it belongs to; to view the contours, import it with 3D Slicer.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class DicomHeader:
    """A description of a DICOM file.

    Attributes:
        date: of the series, YYYY-MM-DD.
        time: SeriesTime.
        kind: the name of its class.
        slices: its image planes; empty where it gives none, for the `reason` and with the `hint`.
        is_image: whether it may hold an image, read or not: no segmentation, contours or report.
        damaged: whether it cannot be read to its end; other fields hold what could be read.
        unread: whether it is empty or cannot be opened, so that it may not be DICOM at all.
        history: earlier processing by MedEnhance. That of other programs is left out: scanners call
            much of their output derived.
    """

    file: Path
    sop_class: str = ""
    instance: str = ""
    study: str = ""
    series: str = ""
    number: str = ""
    description: str = ""
    study_description: str = ""
    modality: str = ""
    date: str = ""
    time: str = ""
    patient: str = ""
    kind: str = ""
    slices: tuple[Slice, ...] = ()
    reason: str = ""
    hint: str = ""
    is_image: bool = True
    damaged: bool = False
    unread: bool = False
    history: tuple[str, ...] = ()

    @property
    def fault(self) -> str:
        """The reason with the name of the file."""
        return f"{self.file.name}: {self.reason}"


@structure.silence()
def read_header(file: Path) -> DicomHeader | None:
    """Read the header of a file.

    Returns None for a file that is not DICOM, and for a DICOMDIR. A file that is damaged, or cannot
    be opened, gives a DicomHeader with the reason. Raises DependencyError without pydicom.
    """
    require("pydicom", purpose="Reading DICOM")
    damaged = DicomHeader(file=file, hint=COPY_AGAIN, damaged=True)
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD)
            if not head.strip(b"\0"):
                what = "it begins with zeros" if head else "it is empty"
                return replace(damaged, reason=what, unread=True)
            if not begins_dicom(head):
                return None
            has_prefix = head[128:132] == b"DICM"
            try:
                dataset = structure.read_elements(stream, _ELEMENTS)
                mapping = dataset.get("RealWorldValueMappingSequence")
                fields = plain_values(dataset)
                for item in (mapping and mapping[0], mapping and first_item(mapping[0], _UNIT)):
                    fields |= plain_values(item) if item else {}
            except structure.pydicom_failures():
                with contextlib.suppress(*structure.pydicom_failures()):
                    part = structure.read_elements(
                        stream, _UIDS_OF_SERIES, last=_UIDS_OF_SERIES[-1]
                    )
                    study, series = text(part, "StudyInstanceUID"), text(part, "SeriesInstanceUID")
                    damaged = replace(damaged, study=study, series=series)
                raise
        if not has_prefix and not (text(fields, "SOPInstanceUID") and text(fields, "Modality")):
            return None
        if text(dataset.file_meta, "MediaStorageSOPClassUID") == _MEDIA_DIRECTORY:
            return None
        return _described(dataset, fields, file)
    except InputError as cause:
        return replace(damaged, reason=cause.message, hint=cause.hint)
    except NotImplementedError as cause:
        return DicomHeader(
            file=file,
            kind=str(cause),
            reason=f"its transfer syntax is not read: {cause}",
            hint="Convert it to explicit little endian (dcmconv +te).",
        )
    except structure.pydicom_failures() as cause:
        is_ours = isinstance(cause, DamagedError)
        what = "" if is_ours else "its header cannot be read: "
        is_shut = isinstance(cause, OSError)
        return replace(damaged, reason=f"{what}{reason_of(cause)}", unread=is_shut)


def _described(dataset: Dataset, fields: Fields, file: Path) -> DicomHeader:
    sop_class, modality = text(fields, "SOPClassUID"), text(fields, "Modality")
    about = DicomHeader(
        file=file,
        sop_class=sop_class,
        instance=text(fields, "SOPInstanceUID"),
        study=text(fields, "StudyInstanceUID"),
        series=text(fields, "SeriesInstanceUID"),
        number=text(fields, "SeriesNumber"),
        description=text(fields, "SeriesDescription"),
        study_description=text(fields, "StudyDescription"),
        modality=modality,
        date=date(text(fields, "SeriesDate") or text(fields, "StudyDate")),
        time=text(fields, "SeriesTime"),
        patient=text(fields, "PatientID"),
        kind=class_name(sop_class, modality),
        is_image=sop_class not in (*SEGMENTATIONS, _STRUCTURES),
        history=tuple(
            f"DERIVED: {text(item, 'ContributionDescription').partition('. ')[0]} by MedEnhance "
            f"{text(item, 'SoftwareVersions')}, stored as DICOM; research use only"
            for item in dataset.get("ContributingEquipmentSequence") or []
            if text(item, "Manufacturer") == "MedEnhance"
        ),
    )
    if sop_class in _REFUSED:
        reason, hint = _REFUSED[sop_class]
        return replace(about, reason=reason, hint=hint)
    if not text(fields, "Rows"):
        if sop_class in (*_SINGLE, *_ENHANCED, ""):
            element = "Rows" if sop_class else "SOPClassUID"
            return replace(about, reason=f"{element} is missing", hint=COPY_AGAIN, damaged=True)
        reason = f"{about.kind}: it holds no image"
        return replace(about, reason=reason, hint=_ITS_IMAGES, is_image=False)
    return _with_slices(about, dataset, fields)


def _with_slices(about: DicomHeader, dataset: Dataset, fields: Fields) -> DicomHeader:
    syntax = structure.syntax_of(dataset)
    photometric = text(fields, "PhotometricInterpretation")
    if whole(fields, "SamplesPerPixel") > 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return replace(
            about,
            reason=f"a color image ({photometric or 'no PhotometricInterpretation'})",
            hint="Only gray images have intensities: choose another series.",
        )
    if "ModalityLUTSequence" in dataset:
        return replace(
            about,
            reason="its intensities need a lookup table (ModalityLUTSequence), which is not read",
            hint="Convert it with 3D Slicer, and give the NRRD file.",
        )
    try:
        if whole(fields, "NumberOfFrames") > 1 or about.sop_class in _ENHANCED:
            headers = frame_headers(dataset)
            slices = tuple(
                slice_of(header, about.file, syntax, frame)
                for frame, header in enumerate(headers, 1)
            )
            return replace(about, slices=slices)
        plane = slice_of(fields, about.file, syntax)
    except InputError as cause:
        is_damaged = about.sop_class in _SINGLE
        reason = cause.message if is_damaged else f"{about.kind}: {cause.message}"
        return replace(about, reason=reason, hint=cause.hint, damaged=is_damaged)
    if mosaic.is_mosaic(plane, fields):
        try:
            return replace(about, slices=mosaic.tiles_of(plane, fields))
        except InputError as cause:
            return replace(about, reason=cause.message, hint=cause.hint)
    if about.sop_class not in _SINGLE and None in (plane.position, plane.orientation):
        return replace(
            about,
            reason=f"{about.kind}: an image without a position in the patient (no "
            f"ImagePositionPatient)",
            hint="Give a tomographic series (CT, MR, PET).",
        )
    return replace(about, slices=(plane,))


@functools.cache
def class_name(sop_class: str, modality: str) -> str:
    """Return DICOM's name of a SOP class (a UID), or the modality if the class is unknown."""
    from pydicom.uid import UID

    name = str(UID(sop_class).name) if sop_class else ""
    return name if name and name != sop_class else modality or sop_class or "unknown object"


# ------------------------------------------------------------ files of many frames


def frame_headers(header: Dataset) -> Iterator[Fields]:
    """Yield the header of each frame in the order of the file: common elements, then its groups'.

    header: with `_ELEMENTS`.
    Raises InputError if frames have no place in the patient, are not as many as stated, or are
    spread over several files.
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
    common = {
        keyword: value
        for keyword, value in common.items()
        if keyword not in _PLACING and isinstance(keyword, str)
    }
    for groups in (header.get(_SHARED) or [])[:1]:
        common |= _fields_of(groups)
    return (common | _fields_of(groups) for groups in frames)


def first_item(dataset: Dataset, keyword: str) -> Any:
    """Return the first item of a sequence; None if there is none."""
    items = dataset.get(keyword)
    return items[0] if items else None


def items_of(groups: Dataset) -> Iterator[Dataset]:
    """Yield the items of functional groups, and diffusion direction and unit nested in them.

    Private sequences are skipped: manufacturers repeat public elements in them, with other values.
    """
    for group in groups:
        if group.VR != "SQ" or not group.value or group.tag.is_private:
            continue
        yield group.value[0]
        for nested in ("DiffusionGradientDirectionSequence", _UNIT):
            if (item := first_item(group.value[0], nested)) is not None:
                yield item


def _fields_of(groups: Dataset) -> Fields:
    """Return the elements of functional groups by keywords of plain images, without empty ones."""
    fields: Fields = {}
    for item in items_of(groups):
        fields |= plain_values(item)
    stated = {name: value for name, value in fields.items() if value not in (None, "")}
    return stated | {
        plain: stated[keyword] for keyword, plain in reversed(CLASSIC.items()) if keyword in stated
    }
