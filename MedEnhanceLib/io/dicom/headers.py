"""One file's header → what the file is, and its slices; runs in other processes too."""

from __future__ import annotations

import contextlib
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import kinds, multiframe
from MedEnhanceLib.io.dicom.bounded import read_elements
from MedEnhanceLib.io.dicom.elements import (
    Elements,
    acquisition_time,
    date,
    first,
    floats,
    measured,
    number,
    one,
    text,
    texts,
    whole,
)
from MedEnhanceLib.io.dicom.lossy import lossy_steps
from MedEnhanceLib.io.dicom.marks import HEAD, mark_of, pydicom_failures
from MedEnhanceLib.io.dicom.mediadir import MEDIA_DIRECTORY
from MedEnhanceLib.io.dicom.quick import quick_fields
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.io.dicom.words import COPY_AGAIN
from MedEnhanceLib.runtime.dependencies import require

if TYPE_CHECKING:
    from pydicom import Dataset

_NAMES_OF_SERIES = (0x0020000D, 0x0020000E)
#: So many zeros at the beginning are taken for a file of zeros.
_LOOKED_AT = 1 << 16
_LET_READ = "Let it be read, or give a folder that can be."
_ELEMENTS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber",
    "SeriesNumber", "SeriesDescription", "StudyDescription", "StudyDate", "SeriesDate",
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "PatientID", "Modality",
    "ImageType", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "PixelPaddingValue", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "FrameOfReferenceUID", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "Units", "ModalityLUTSequence", "AcquisitionNumber",
    "EchoNumbers", "EchoTime", "TemporalPositionIdentifier", "NumberOfTemporalPositions",
    "TemporalResolution", "TriggerTime", "FrameReferenceTime", "NominalPercentageOfCardiacPhase",
    "NominalPercentageOfRespiratoryPhase", "DiffusionBValue", "KVP", "ConvolutionKernel",
    "InversionTime", "FlipAngle", "WindowCenter", "WindowWidth", "BurnedInAnnotation",
    "BodyPartExamined",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
#: What else makes another image of the same anatomy, and what a message calls it.
_SETTINGS = {
    "ConvolutionKernel": "kernel",
    "KVP": "kV",
    "InversionTime": "inversion time",
    "FlipAngle": "flip angle",
}
#: Where makers keep the b-value: element, creator's element, creator, which of its values.
_PRIVATE_B_VALUES = (
    (0x0019100C, 0x00190010, "SIEMENS MR HEADER"),
    (0x00431039, 0x00430010, "GEMS_PARM_01"),
    (0x20011003, 0x20010010, "Philips Imaging DD 001"),
)
_PRIVATE = tuple(tag for row in _PRIVATE_B_VALUES for tag in row[:2])
#: GE adds this to a b-value, once or more.
_GE_OFFSET = 1e9


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a DICOM file is.

    slices: its image planes; empty where it gives none, and then `reason` and `hint` say why.
    kind: its class in words. date: of the series, YYYY-MM-DD. damaged: whether its reason is that
    it cannot be read; then the other fields are what could be read, "" where nothing could.
    unread: whether nothing of it even tells that it is DICOM: it is empty, or cannot be opened.
    notes: what pydicom warned of.
    """

    file: FileRef
    sop_class: str = ""
    instance: str = ""
    study: str = ""
    series: str = ""
    number: str = ""
    description: str = ""
    study_description: str = ""
    modality: str = ""
    date: str = ""
    patient: str = ""
    kind: str = ""
    slices: tuple[Slice, ...] = ()
    reason: str = ""
    hint: str = ""
    damaged: bool = False
    unread: bool = False
    notes: tuple[str, ...] = ()


def read_header(file: FileRef) -> Header | None:
    """The header of a file; None for one that is no DICOM, and for the directory of a medium.

    A file that is damaged, or that cannot be opened, is a Header that says so: never an error.
    Raises DependencyError where pydicom is missing.
    """
    require("pydicom", purpose="Reading DICOM")
    failures = pydicom_failures()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = _read(file)
        except InputError as cause:
            found = Header(file=file, reason=cause.message, hint=cause.hint, damaged=True)
        except failures as cause:
            reason = getattr(cause, "strerror", None) or " ".join(str(cause).split())
            found = Header(
                file=file,
                reason=f"its header cannot be read: {(reason or type(cause).__name__)[:300]}",
                hint=COPY_AGAIN,
                damaged=True,
                unread=isinstance(cause, OSError),
            )
        if found is not None and found.damaged and not found.series:
            found = _with_series(found, (InputError, *failures))
    notes = tuple(dict.fromkeys(str(entry.message) for entry in caught))
    return found if found is None or not notes else replace(found, notes=notes)


def _read(file: FileRef) -> Header | None:
    if file.is_folder:
        return Header(file=file, reason=_why_shut(file), hint=_LET_READ, damaged=True)
    with file.peek() as stream:
        stamp = file.stamp()  # before anything is read: what changes later shows
        head = stream.read(HEAD)
        mark = mark_of(head)
        if not mark:
            return None if head.strip(b"\0") else _without_content(file, stream)
        if mark == "damaged":
            raise InputError("its mark DICM is overwritten", COPY_AGAIN)
        stream.seek(0)
        header = meta = _ordinary(stream) if mark == "whole" else None
        if header is None or meta is None:
            stream.seek(0)
            header, meta = _any_header(stream)
        if mark == "bare" and not _is_beyond_doubt(header):
            return None
    if text(meta, "MediaStorageSOPClassUID") == MEDIA_DIRECTORY:
        return None
    return _described(header, file, stamp, text(meta, "TransferSyntaxUID"))


def _why_shut(folder: FileRef) -> str:
    try:
        next(Path(folder.path).iterdir(), None)
    except OSError as cause:
        return f"the folder cannot be looked through: {cause.strerror}"
    return "the folder could not be looked through at first"


def _without_content(file: FileRef, stream: BinaryIO) -> Header | None:
    """What copies that failed leave behind; None where something comes after the zeros."""
    stream.seek(0)
    content = stream.read(_LOOKED_AT)
    if content.strip(b"\0"):
        return None
    reason = "it holds nothing but zeros" if content else "it is empty"
    return Header(file=file, reason=reason, hint=COPY_AGAIN, damaged=True, unread=True)


def _ordinary(stream: BinaryIO) -> Elements | None:
    """The header of a plain image; None where pydicom must read it."""
    fields = quick_fields(stream)
    if fields is None or text(fields, "NumberOfFrames") not in ("", "1"):
        return None
    return None if kinds.may_hold_frames(text(fields, "SOPClassUID")) else fields


def _any_header(stream: BinaryIO) -> tuple[Dataset, Elements]:
    """By pydicom, which knows every encoding; and the two elements of the meta header."""
    header = read_elements(stream, [*_ELEMENTS, *_PRIVATE, *multiframe.ELEMENTS])
    for _ in header:  # pydicom decodes an element when it is first looked at
        pass
    meta = getattr(header, "file_meta", {})
    return header, {
        "MediaStorageSOPClassUID": text(meta, "MediaStorageSOPClassUID"),
        "TransferSyntaxUID": text(meta, "TransferSyntaxUID") or _syntax_found(header),
    }


def _is_beyond_doubt(header: Elements) -> bool:
    """Whether what has no mark is DICOM all the same: its identifiers are all there."""
    return text(header, "SOPClassUID").startswith("1.2.840.10008.5.1.4.") and bool(
        text(header, "SOPInstanceUID") and text(header, "Modality")
    )


def _with_series(damaged: Header, failures: tuple[type[Exception], ...]) -> Header:
    """As much as tells which series a damaged file belongs to, where that much is readable."""
    try:
        with damaged.file.peek() as stream:
            part = read_elements(stream, _NAMES_OF_SERIES, last=_NAMES_OF_SERIES[-1])
        return replace(
            damaged, study=text(part, "StudyInstanceUID"), series=text(part, "SeriesInstanceUID")
        )
    except failures:
        return damaged


def _described(header: Elements, file: FileRef, stamp: tuple[int, int], syntax: str) -> Header:
    sop_class, modality = text(header, "SOPClassUID"), text(header, "Modality")
    about = Header(
        file=file,
        sop_class=sop_class,
        instance=text(header, "SOPInstanceUID"),
        study=text(header, "StudyInstanceUID"),
        series=text(header, "SeriesInstanceUID"),
        number=text(header, "SeriesNumber"),
        description=text(header, "SeriesDescription"),
        study_description=text(header, "StudyDescription"),
        modality=modality,
        date=date(text(header, "SeriesDate") or text(header, "StudyDate")),
        patient=text(header, "PatientID"),
        kind=kinds.class_name(sop_class, modality),
    )
    reason = kinds.not_an_image(sop_class)
    if reason is None and not text(header, "Rows"):
        if not sop_class:
            return replace(about, reason="SOPClassUID is missing", hint=COPY_AGAIN, damaged=True)
        if text(header, "ImagePositionPatient") or kinds.is_image(sop_class):
            return replace(about, reason="Rows is missing", hint=COPY_AGAIN, damaged=True)
        reason = kinds.Reason("an object without pixels")
    if reason is not None:
        return replace(about, reason=reason.what, hint=reason.hint)
    try:
        common = _slice(header, file, about, stamp, syntax)
    except InputError as cause:
        return replace(about, reason=cause.message, hint=cause.hint, damaged=True)
    return _with_slices(about, header, common)


def _with_slices(about: Header, header: Elements, common: Slice) -> Header:
    if whole(header, "NumberOfFrames") > 1 or kinds.may_hold_frames(about.sop_class):
        try:
            frames = multiframe.frames_of(cast("Dataset", header), about.file, common)
            return replace(about, slices=tuple(frames))
        except InputError as cause:
            return replace(about, reason=cause.message, hint=cause.hint)
    if "MOSAIC" in common.image_type:
        return replace(
            about,
            reason="a mosaic: the slices of a volume side by side in one picture",
            hint="Convert it with dcm2niix, and give the NIfTI file.",
        )
    reason = kinds.not_a_plane(about.sop_class)
    if reason is not None and (common.position is None or common.orientation is None):
        return replace(about, reason=reason.what, hint=reason.hint)
    return replace(about, slices=(common,))


def _slice(
    header: Elements, file: FileRef, about: Header, stamp: tuple[int, int], syntax: str
) -> Slice:
    rows, columns = whole(header, "Rows"), whole(header, "Columns")
    bits = whole(header, "BitsAllocated") or 16
    samples = whole(header, "SamplesPerPixel") or 1
    frames = whole(header, "NumberOfFrames") or 1
    size = 0 if file.member else stamp[0]
    return Slice(
        file=file,
        sop_class=about.sop_class,
        instance=about.instance,
        study=about.study,
        series=about.series,
        patient=about.patient,
        modality=about.modality,
        number=number(header, "InstanceNumber"),
        rows=rows,
        columns=columns,
        samples=samples,
        bits_allocated=bits,
        bits_stored=whole(header, "BitsStored") or bits,
        signed=whole(header, "PixelRepresentation") == 1,
        photometric=text(header, "PhotometricInterpretation"),
        transfer_syntax=syntax,
        position=floats(header, "ImagePositionPatient", 3),
        orientation=floats(header, "ImageOrientationPatient", 6),
        pixel_spacing=floats(header, "PixelSpacing", 2),
        thickness=one(header, "SliceThickness"),
        between=one(header, "SpacingBetweenSlices"),
        slope=one(header, "RescaleSlope"),
        intercept=one(header, "RescaleIntercept"),
        rescale_type=text(header, "RescaleType"),
        units=text(header, "Units"),
        has_lut="ModalityLUTSequence" in header,
        padding=one(header, "PixelPaddingValue"),
        frame_of_reference=text(header, "FrameOfReferenceUID"),
        acquisition=text(header, "AcquisitionNumber"),
        echo=text(header, "EchoNumbers"),
        echo_ms=text(header, "EchoTime"),
        b_value=_b_value(header),
        image_type=texts(header, "ImageType"),
        settings=_settings(header),
        temporal_index=number(header, "TemporalPositionIdentifier"),
        trigger_ms=measured(header, "TriggerTime"),
        heart_percent=measured(header, "NominalPercentageOfCardiacPhase"),
        breath_percent=measured(header, "NominalPercentageOfRespiratoryPhase"),
        time_s=acquisition_time(header),
        reference_ms=measured(header, "FrameReferenceTime"),
        interval_ms=measured(header, "TemporalResolution"),
        lossy=lossy_steps(header, syntax, rows * columns * samples * frames * bits / 8, size),
        stamp=stamp,
        window=_window(header),
        burned_in=text(header, "BurnedInAnnotation"),
        body_part=text(header, "BodyPartExamined"),
    )


# ------------------------------------------------------------ what elements mean


def _syntax_found(header: Dataset) -> str:
    """Where a file does not tell its transfer syntax, as it turned out to be encoded."""
    is_implicit, is_little = header.original_encoding
    if is_implicit:
        return "1.2.840.10008.1.2"
    return "1.2.840.10008.1.2.1" if is_little else "1.2.840.10008.1.2.2"


def _settings(header: Elements) -> tuple[tuple[str, str], ...]:
    pairs = ((name, "\\".join(texts(header, field))) for field, name in _SETTINGS.items())
    return tuple(pair for pair in pairs if pair[1])


def _b_value(header: Elements) -> str:
    """In s/mm²: the standard element, else the private one of a maker who named itself."""
    value = number(header, "DiffusionBValue")
    if value is not None:
        return f"{value}"
    for tag, creator_tag, creator in _PRIVATE_B_VALUES:
        if text(header, creator_tag) == creator:
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                return f"{int(float(first(header, tag)) % _GE_OFFSET)}"
    return ""


def _window(header: Elements) -> tuple[float, float] | None:
    pair = []
    for field in "WindowCenter", "WindowWidth":
        try:
            pair.append(float(first(header, field)))
        except (TypeError, ValueError):
            return None
    return (pair[0], pair[1]) if all(map(math.isfinite, pair)) and pair[1] > 0 else None
