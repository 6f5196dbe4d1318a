"""One file's header → what the file is, and its slices; runs in other processes too."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import multiframe
from MedEnhanceLib.io.dicom.elements import (
    HEADER_ELEMENTS,
    Elements,
    date,
    plain_values,
    text,
    whole,
)
from MedEnhanceLib.io.dicom.slices import Slice, slice_of
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN, HEAD, MEDIA_DIRECTORY, FileRef, mark_of
from MedEnhanceLib.io.dicom.structure import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    pydicom_failures,
    read_elements,
)
from MedEnhanceLib.runtime.dependencies import require

if TYPE_CHECKING:
    from pydicom import Dataset


_NAMES_OF_SERIES = (0x0020000D, 0x0020000E)
#: Bytes at the beginning: if all are 0, the file is taken for a file of zeros.
_LOOKED_AT = 1 << 16
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_IMAGES_IT_BELONGS_TO = "Give the images it belongs to."
Entry = TypeVar("Entry")
_NO_VOLUME = "Give a tomographic series (CT, MR, PET)."
_ITS_LABELS = "Give the images; or give this file alone, to load its labels."
_LET_READ = "Change its permissions, or give another folder."


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a DICOM file is.

    slices: its image planes; empty where it gives none, for the `reason` and with the `hint`.
    kind: the name of its class. date: of the series, YYYY-MM-DD. damaged: whether the reason is
    that it cannot be read; then the other fields are what could be read. unread: whether it is
    empty or cannot be opened, so that it may not be DICOM at all. notes: pydicom's warnings.
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
    """Read the header of a file.

    Returns:
        None for a file that is not DICOM, and for a DICOMDIR. A file that is damaged, or cannot be
        opened, gives a Header with the reason.
    Raises:
        DependencyError: pydicom is not installed.
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
        return Header(file=file, reason=_why_unreadable(file), hint=_LET_READ, damaged=True)
    with file.peek() as stream:
        stamp = file.stamp()  # before anything is read, so that later changes are seen
        head = stream.read(HEAD)
        mark = mark_of(head)
        if not mark:
            return None if head.strip(b"\0") else _without_content(file, stream)
        if mark == "damaged":
            raise InputError("its prefix DICM is overwritten", COPY_AGAIN)
        header, meta = _elements(stream)
        if mark == "bare" and not _has_identifiers(header):
            return None
    if text(meta, "MediaStorageSOPClassUID") == MEDIA_DIRECTORY:
        return None
    return _described(header, file, stamp, text(meta, "TransferSyntaxUID"))


def _why_unreadable(folder: FileRef) -> str:
    try:
        next(Path(folder.path).iterdir(), None)
    except OSError as cause:
        return f"the folder cannot be read: {cause.strerror}"
    return "the folder could not be read at first"


def _without_content(file: FileRef, stream: BinaryIO) -> Header | None:
    """A file that a failed copy left behind; None where the zeros are followed by something."""
    stream.seek(0)
    content = stream.read(_LOOKED_AT)
    if content.strip(b"\0"):
        return None
    reason = "it holds nothing but zeros" if content else "it is empty"
    return Header(file=file, reason=reason, hint=COPY_AGAIN, damaged=True, unread=True)


def _elements(stream: BinaryIO) -> tuple[Elements, Elements]:
    """A header, and two elements of its meta header; with items only where there are frames."""
    header = read_elements(stream, [*HEADER_ELEMENTS, *multiframe.ELEMENTS])
    meta = getattr(header, "file_meta", {})
    stated = {
        "MediaStorageSOPClassUID": text(meta, "MediaStorageSOPClassUID"),
        "TransferSyntaxUID": text(meta, "TransferSyntaxUID") or _syntax_found(header),
    }
    fields = plain_values(header)
    may_hold_many = may_hold_frames(text(fields, "SOPClassUID"))
    if not may_hold_many and text(fields, "NumberOfFrames") in ("", "1"):
        return fields, stated
    for _ in header:  # pydicom decodes an element at its first access
        pass
    return header, stated


def _has_identifiers(header: Elements) -> bool:
    """Whether a file without the prefix is DICOM nevertheless: it has all identifiers."""
    return text(header, "SOPClassUID").startswith("1.2.840.10008.5.1.4.") and bool(
        text(header, "SOPInstanceUID") and text(header, "Modality")
    )


def _with_series(damaged: Header, failures: tuple[type[Exception], ...]) -> Header:
    """Add the series that a damaged file belongs to, where that can be read."""
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
        kind=class_name(sop_class, modality),
    )
    reason = not_an_image(sop_class)
    if reason is None and not text(header, "Rows"):
        if not sop_class:
            return replace(about, reason="SOPClassUID is missing", hint=COPY_AGAIN, damaged=True)
        if text(header, "ImagePositionPatient") or is_image(sop_class):
            return replace(about, reason="Rows is missing", hint=COPY_AGAIN, damaged=True)
        reason = Reason("an object without pixels")
    if reason is not None:
        return replace(about, reason=reason.what, hint=reason.hint)
    try:
        common = slice_of(header, file, stamp, syntax)
    except InputError as cause:
        return replace(about, reason=cause.message, hint=cause.hint, damaged=True)
    return _with_slices(about, header, common)


def _with_slices(about: Header, header: Elements, common: Slice) -> Header:
    if whole(header, "NumberOfFrames") > 1 or may_hold_frames(about.sop_class):
        try:
            frames = multiframe.frames_of(cast("Dataset", header), about.file, common)
            return replace(about, slices=tuple(frames))
        except InputError as cause:
            return replace(about, reason=cause.message, hint=cause.hint)
    if "MOSAIC" in common.image_type:
        return replace(
            about,
            reason="a mosaic: the slices of a volume side by side in one image",
            hint="Convert it with dcm2niix, and give the NIfTI file.",
        )
    reason = not_a_plane(about.sop_class)
    if reason is not None and (common.position is None or common.orientation is None):
        return replace(about, reason=reason.what, hint=reason.hint)
    return replace(about, slices=(common,))


def _syntax_found(header: Dataset) -> str:
    """The transfer syntax that pydicom found, where the file names none."""
    is_implicit, is_little = header.original_encoding
    if is_implicit:
        return IMPLICIT
    return EXPLICIT if is_little else BIG_ENDIAN


@dataclass(frozen=True)
class Reason:
    """Why an object gives no volume (`what`), and the remedy (`hint`)."""

    what: str
    hint: str = _IMAGES_IT_BELONGS_TO


#: Objects without a volume, by the end of the SOP class or of its family.
_NO_IMAGES = {
    "66.4": Reason("a segmentation: labels drawn on images, not the images", _ITS_LABELS),
    "66.7": Reason("a label map segmentation: labels drawn on images, not the images", _ITS_LABELS),
    "66.5": Reason("a surface segmentation: meshes, not images"),
    "66.6": Reason("tractography results: tracks, not images"),
    "66.8": Reason("a height map segmentation, not an image"),
    "66.1": Reason("a spatial registration: a transform between images, not an image"),
    "66.2": Reason("spatial fiducials: points on images, not an image"),
    "66.3": Reason("a deformable registration: a transform between images, not an image"),
    "66": Reason(
        "raw data of a scanner: no image was reconstructed in it",
        "Export the reconstructed images.",
    ),
    "67": Reason("a real-world value mapping: a scale for images, not an image"),
    "68.1": Reason("a surface scan: a mesh, not an image"),
    "68.2": Reason("a surface scan: a mesh, not an image"),
    "30": Reason(
        "a parametric map, which is not read",
        "Load it with Slicer's DICOM module (extension QuantitativeReporting), and save it as "
        "NRRD.",
    ),
    "481.3": Reason(
        "an RT structure set (RTSTRUCT): contours drawn on images, not the images",
        "Give the images it belongs to; to view the contours, import it with Slicer (extension "
        "SlicerRT).",
    ),
    "481.5": Reason("an RT plan: how to irradiate, not an image"),
    "481.8": Reason("an RT ion plan: how to irradiate, not an image"),
    **dict.fromkeys(
        ("481.4", "481.6", "481.7", "481.9"), Reason("a record of irradiation, not an image")
    ),
    "88.59": Reason("a key object selection: it marks images, and holds none"),
    "88": Reason("a structured report (SR): findings in words and numbers, not an image"),
    "11": Reason("a presentation state: how to show images, not an image"),
    "9": Reason("a waveform (ECG, pressure, sound), not an image"),
    "104": Reason("an encapsulated document (PDF, CDA, STL), not an image"),
    "4.2": Reason("MR spectroscopy: spectra, not an image"),
    "79.1": Reason("macular measurements: numbers, not an image"),
    "80.1": Reason("a surface of the cornea, not an image"),
    "90.1": Reason("an assessment of content, not an image"),
    "131": Reason("a basic structured display, not an image"),
    "200": Reason("a procedure protocol of CT or MR, not an image"),
    "201": Reason("an inventory, not an image"),
    **dict.fromkeys(
        ("77.1.1.1", "77.1.2.1", "77.1.4.1"), Reason("a video, not a volume", _NO_VOLUME)
    ),
    "77.1.5.4": Reason("optical tomography of the eye, which is not read", _NO_VOLUME),
    "77.1.6": Reason("a whole-slide microscopy image: tiles at several scales", _NO_VOLUME),
    "77.1": Reason("visible light: a photograph of colors, not a volume", _NO_VOLUME),
}
#: Images that are slices only with a place in the patient.
_PROJECTIONS = {
    "481.1": "an RT image: a projection",
    "1.1": "a digital X-ray: a projection through the body",
    "1.2": "a mammogram: a projection through the breast",
    "1.3": "an intra-oral X-ray: a projection",
    "1": "a computed radiograph: a projection through the body",
    "12": "X-ray angiography or fluoroscopy: projections through the body",
    "7": "a secondary capture: a screenshot or a scan of film",
    "6": "ultrasound",
    "3": "an ultrasound clip",
}
_SLICES = ("2", "4", "128")
_ENHANCED = ("2.1", "2.2", "4.1", "4.3", "4.4", "130", "128.1", "481.2", "6.2", "20")
_RESULTS = "1.2.840.10008.5.1.4."


def not_an_image(sop_class: str) -> Reason | None:
    """Why objects of a class never give a volume; None for images and for unknown classes."""
    if not sop_class.startswith(_STORAGE):
        other = sop_class.startswith("1.2.840.10008.") and not sop_class.startswith(_RESULTS + "1")
        return Reason("an object of administration, not an image") if other else None
    return None if may_hold_frames(sop_class) else _longest(_NO_IMAGES, sop_class)


def not_a_plane(sop_class: str) -> Reason | None:
    """Why images of a class are no slices if they have no place in the patient."""
    what = _longest(_PROJECTIONS, sop_class)
    if what is None:
        return None
    return Reason(f"{what}, without a place in the patient (no ImagePositionPatient)", _NO_VOLUME)


def is_image(sop_class: str) -> bool:
    """Whether objects of the class always hold images of CT, MR, PET, NM or a dose."""
    held = (*_SLICES, *_ENHANCED)
    return sop_class.startswith(_STORAGE) and sop_class.removeprefix(_STORAGE) in held


def may_hold_frames(sop_class: str) -> bool:
    """Whether files of the class may hold many frames."""
    return sop_class.startswith(_STORAGE) and sop_class.removeprefix(_STORAGE) in _ENHANCED


@functools.cache
def class_name(sop_class: str, modality: str = "") -> str:
    """DICOM's name of a class; of an unknown class, the modality."""
    from pydicom.uid import UID

    name = str(UID(sop_class).name) if sop_class else ""
    return name if name and name != sop_class else modality or sop_class or "unknown object"


def _longest(table: Mapping[str, Entry], sop_class: str) -> Entry | None:
    """The entry of a class, or of the smallest family that it belongs to."""
    parts = sop_class.removeprefix(_STORAGE).split(".") if sop_class.startswith(_STORAGE) else []
    for length in range(len(parts), 0, -1):
        found = table.get(".".join(parts[:length]))
        if found is not None:
            return found
    return None
