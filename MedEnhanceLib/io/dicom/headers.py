"""One file's header → what the file is, and its slices."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import multiframe
from MedEnhanceLib.io.dicom.elements import Fields, date, plain_values, text, whole
from MedEnhanceLib.io.dicom.slices import ELEMENTS, Slice, slice_of
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN, HEAD, begins_dicom
from MedEnhanceLib.io.dicom.structure import (
    DamagedError,
    pydicom_failures,
    read_elements,
    reason_of,
    silence,
    syntax_of,
)
from MedEnhanceLib.runtime.dependencies import require

if TYPE_CHECKING:
    from pydicom import Dataset

#: What is read of every file: of its series, its images and their frames.
_ELEMENTS = (
    *ELEMENTS, *multiframe.ELEMENTS, "SeriesNumber", "SeriesDescription", "StudyDescription",
    "SeriesDate", "StudyDate", "ModalityLUTSequence",
)  # fmt: skip
_UIDS_OF_SERIES = (0x0020000D, 0x0020000E)
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: Images of CT, MR and PET: single, enhanced, and legacy ones converted to enhanced.
_SINGLE = tuple(f"{_STORAGE}{end}" for end in ("2", "4", "128"))
_ENHANCED = tuple(f"{_STORAGE}{end}" for end in ("2.1", "2.2", "4.1", "4.4", "130", "128.1"))
#: Segmentations, binary ones and label maps: see segmentation.py.
SEGMENTATIONS = (f"{_STORAGE}66.4", f"{_STORAGE}66.7")
_ITS_IMAGES = "Give the images it belongs to."
_OTHER_READER = "Load it with 3D Slicer, and save it as NRRD."
#: Objects with rows and columns, or with a better hint than others: why they give no volume.
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
    f"{_STORAGE}481.3": (
        "an RT structure set: contours drawn on images, not the images",
        "Give the images it belongs to; to view the contours, import it with 3D Slicer.",
    ),
    f"{_STORAGE}4.2": ("MR spectroscopy: spectra, not an image", _ITS_IMAGES),
    f"{_STORAGE}66": (
        "raw data of a scanner: no image was reconstructed in it",
        "Export the reconstructed images.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a DICOM file is.

    slices: its image planes; empty where it gives none, for the `reason` and with the `hint`.
    kind: the name of its class. date: of the series, YYYY-MM-DD. damaged: whether the reason is
    that it cannot be read; then the other fields are what could be read. unread: whether it is
    empty or cannot be opened, so that it may not be DICOM at all.
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
    patient: str = ""
    kind: str = ""
    slices: tuple[Slice, ...] = ()
    reason: str = ""
    hint: str = ""
    damaged: bool = False
    unread: bool = False


@silence()
def read_header(file: Path) -> Header | None:
    """Read the header of a file.

    Returns:
        None for a file that is not DICOM, and for a DICOMDIR. A file that is damaged, or cannot be
        opened, gives a Header with the reason.
    Raises:
        DependencyError: pydicom is not installed.
    """
    require("pydicom", purpose="Reading DICOM")
    damaged = Header(file=file, hint=COPY_AGAIN, damaged=True)
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
                dataset = read_elements(stream, _ELEMENTS)
                fields = plain_values(dataset)
            except pydicom_failures():
                with contextlib.suppress(*pydicom_failures()):
                    part = read_elements(stream, _UIDS_OF_SERIES, last=_UIDS_OF_SERIES[-1])
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
        return Header(
            file=file,
            kind=str(cause),
            reason=f"its transfer syntax is not read: {cause}",
            hint="Convert it to explicit little endian (dcmconv +te).",
        )
    except pydicom_failures() as cause:
        is_ours = isinstance(cause, DamagedError)
        what = "" if is_ours else "its header cannot be read: "
        is_shut = isinstance(cause, OSError)
        return replace(damaged, reason=f"{what}{reason_of(cause)}", unread=is_shut)


def _described(dataset: Dataset, fields: Fields, file: Path) -> Header:
    sop_class, modality = text(fields, "SOPClassUID"), text(fields, "Modality")
    about = Header(
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
        patient=text(fields, "PatientID"),
        kind=class_name(sop_class, modality),
    )
    if sop_class in _REFUSED:
        reason, hint = _REFUSED[sop_class]
        return replace(about, reason=reason, hint=hint)
    if not text(fields, "Rows"):
        if sop_class in (*_SINGLE, *_ENHANCED, ""):
            element = "Rows" if sop_class else "SOPClassUID"
            return replace(about, reason=f"{element} is missing", hint=COPY_AGAIN, damaged=True)
        return replace(about, reason=f"{about.kind}: it holds no image", hint=_ITS_IMAGES)
    return _with_slices(about, dataset, fields)


def _with_slices(about: Header, dataset: Dataset, fields: Fields) -> Header:
    syntax = syntax_of(dataset)
    if "ModalityLUTSequence" in dataset:
        return replace(
            about,
            reason="its intensities need a lookup table (ModalityLUTSequence), which is not read",
            hint="Convert it with 3D Slicer, and give the NRRD file.",
        )
    try:
        if whole(fields, "NumberOfFrames") > 1 or about.sop_class in _ENHANCED:
            headers = multiframe.frame_headers(dataset)
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
    if "MOSAIC" in plane.image_type:
        return replace(
            about,
            reason="a mosaic: the slices of a volume side by side in one image",
            hint="Convert it with dcm2niix, and give the NIfTI file.",
        )
    if about.sop_class not in _SINGLE and None in (plane.position, plane.orientation):
        return replace(
            about,
            reason=f"{about.kind}: a picture without a place in the patient (no "
            "ImagePositionPatient)",
            hint="Give a tomographic series (CT, MR, PET).",
        )
    return replace(about, slices=(plane,))


@functools.cache
def class_name(sop_class: str, modality: str = "") -> str:
    """DICOM's name of a class; of an unknown class, the modality."""
    from pydicom.uid import UID

    name = str(UID(sop_class).name) if sop_class else ""
    return name if name and name != sop_class else modality or sop_class or "unknown object"
