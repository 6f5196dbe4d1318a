"""What a derived object takes over from the images behind it: patient, study, frame, clinic."""

from __future__ import annotations

import copy
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from MedEnhanceLib.core.origin import DicomOrigin, Instance
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.lossy import LOSSY_SYNTAXES
from MedEnhanceLib.io.dicom.silence import silence
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.io.dicomout.frames import frame_as_image
from MedEnhanceLib.io.dicomout.iods import PATIENT_STUDY
from MedEnhanceLib.io.dicomout.items import fresh_uid
from MedEnhanceLib.io.dicomout.mend import mend
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset

_READ_AGAIN = "Read the series again from where its files are now."
_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
#: What a file that is gone or damaged by now makes pydicom raise.
_FAILURES = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError,
    OSError, RecursionError, TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Template:
    """The images behind a volume, without their pixels and private elements.

    headers: one dataset per slice, in the order [T × K] of `origin.instances`; a frame of a
        multi-frame file as the single image it would be. Empty for what never was DICOM.
    sources: one dataset per file, as stored, in the order of their first slice.
    study: patient and study: the attributes of those modules alone.
    modality: DICOM's Modality of the source.
    frame_of_reference: the UID that all derived objects share.
    origin: None for what never was DICOM.
    """

    headers: list[Dataset]
    study: Dataset
    modality: str
    frame_of_reference: str
    origin: DicomOrigin | None = None
    sources: list[Dataset] = field(default_factory=list)

    def copy_study(self, target: Dataset) -> None:
        """Put patient and study into `target`, over what it says of them."""
        for element in copy.deepcopy(self.study):
            target.add(element)


def read_template(origin: DicomOrigin, monitor: Monitor | None = None) -> Template:
    """Read the headers of the images that a volume came from; what is faulty in them is mended.

    Raises InputError for a file that is gone, is damaged, or holds another image by now.
    """
    monitor = monitor or Monitor()
    files = list(dict.fromkeys(one.file for frame in origin.instances for one in frame))
    if not files:
        raise InputError("the volume names no DICOM images that it came from", _READ_AGAIN)
    sources: dict[str, Dataset] = {}
    faults: dict[str, None] = {}
    for index, file in enumerate(files):
        monitor.progress(index / len(files), "reading headers")
        sources[file] = read_header(FileRef.parse(file))
        faults |= dict.fromkeys(mend(sources[file]))
    for fault in faults:
        monitor.warn(f"the source's {fault}")
    headers = [
        _one_image(sources[one.file], one, origin) for frame in origin.instances for one in frame
    ]
    first = headers[0]
    return Template(
        headers,
        study_of(first),
        str(first.get("Modality") or "OT"),
        str(first.get("FrameOfReferenceUID") or "") or fresh_uid(),
        origin,
        list(sources.values()),
    )


def new_study(
    *,
    modality: str,
    patient_id: str = "",
    patient_name: str = "",
    study_description: str = "",
) -> Template:
    """A study of its own for a volume that never was DICOM; what is unknown stays empty.

    modality: one of volume.MODALITIES; what DICOM has no image class for becomes OT.
    Raises InputError for a name or an ID that DICOM cannot hold.
    """
    pydicom = require("pydicom", purpose="Writing DICOM")
    from MedEnhanceLib.io.dicomout.derivation import now

    study: Dataset = pydicom.Dataset()
    study.SpecificCharacterSet = "ISO_IR 192"
    study.StudyInstanceUID = fresh_uid()
    study.StudyDate, study.StudyTime = now()
    study.StudyID = "1"
    study.AccessionNumber = study.ReferringPhysicianName = ""
    study.PatientBirthDate = study.PatientSex = ""
    study.PatientID = _short(patient_id, "PatientID")
    study.PatientName = _person(patient_name)
    if study_description:
        study.StudyDescription = _short(study_description, "StudyDescription")
    known = modality if modality in ("CT", "MR", "PT") else "OT"
    return Template([], study, known, fresh_uid())


def study_of(header: Dataset) -> Dataset:
    """Patient and study of an image, as a dataset of their own."""
    return copy_attributes(header, PATIENT_STUDY)


def copy_attributes(header: Dataset, keywords: Iterable[str]) -> Dataset:
    """A dataset with copies of the named elements that `header` has."""
    from pydicom import Dataset

    target = Dataset()
    for keyword in keywords:
        if keyword in header:
            target.add(copy.deepcopy(header[keyword]))
    return target


def read_header(file: FileRef) -> Dataset:
    """A file without its pixels and private elements; raises InputError where it is damaged."""
    pydicom = require("pydicom", purpose="Reading DICOM")
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        with silence(), file.open() as stream:  # odd values are mended and told of below
            header: Dataset = pydicom.dcmread(stream, stop_before_pixels=True)
            header.remove_private_tags()
            header.decode()
    except (*_FAILURES, BytesLengthException, InvalidDicomError) as cause:
        reason = " ".join(str(cause).split())[:300]
        raise InputError(
            f"{file.name}: its header cannot be read: {reason}", _READ_AGAIN
        ) from cause
    method = LOSSY_SYNTAXES.get(str(header.file_meta.get("TransferSyntaxUID", "")))
    if method and str(header.get("LossyImageCompression") or "00") != "01":
        header.LossyImageCompression, header.LossyImageCompressionMethod = "01", method
    return header


def _one_image(source: Dataset, one: Instance, origin: DicomOrigin) -> Dataset:
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    name = FileRef.parse(one.file).name
    for keyword in _IDENTITY:
        if not UID(str(source.get(keyword) or ""), IGNORE).is_valid:
            raise InputError(
                f"{name}: {keyword} is {str(source.get(keyword))!r}, which is no UID: a PACS would "
                "refuse what refers to it",
                "Give it proper ones first: medenhance deidentify does so for whole cohorts.",
            )
    told = (str(source.get("SOPInstanceUID")), str(source.get("StudyInstanceUID")))
    if told != (one.sop_instance, origin.study):
        raise InputError(f"{name} holds another image than when it was read", _READ_AGAIN)
    if one.frame is None:
        return source
    return frame_as_image(source, one.frame, name)


def _short(text: str, field: str) -> str:
    if len(text) > 64 or "\\" in text or not text.isprintable() or (text and not text.strip()):
        raise InputError(
            f"{field} is {text[:80]!r}, which DICOM cannot hold",
            "Give at most 64 characters without backslashes and line ends, and not blanks alone.",
        )
    return text.strip()


def _person(text: str) -> str:
    """A name as DICOM has it: up to three spellings of up to five parts each."""
    spellings = text.split("=")
    for one in spellings:
        _short(one, "PatientName")
    if len(spellings) > 3 or any(one.count("^") > 4 for one in spellings):
        raise InputError(
            f"PatientName is {text[:80]!r}, which DICOM cannot hold",
            "Give Family^Given^Middle^Prefix^Suffix, at most five parts.",
        )
    return text.strip()
