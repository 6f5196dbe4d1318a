"""One file: read, cleaned, written, read back and searched. No value gets into a message."""

from __future__ import annotations

import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from MedEnhanceLib.errors import InputError, MedEnhanceError
from MedEnhanceLib.io.deidentify.clean import Deidentifier, UnfitError
from MedEnhanceLib.io.deidentify.leaks import Identities, find_leak
from MedEnhanceLib.io.deidentify.patients import NOBODY, Person, person_of
from MedEnhanceLib.io.deidentify.pixel_data import (
    DIRECTORY,
    PIXELS,
    burned_in,
    shows_face,
    tidy_pixels,
)
from MedEnhanceLib.io.deidentify.rules import Change
from MedEnhanceLib.io.dicom.sources import HEAD, FileRef, mark_of
from MedEnhanceLib.io.dicom.structure import pydicom_failures, silence

if TYPE_CHECKING:
    from pydicom import Dataset

Status = Literal["written", "left out", "failed"]
_HEADER = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "PatientName",
    "PatientBirthDate", "IssuerOfPatientID",
]  # fmt: skip
_DAMAGED = "damaged, or no whole DICOM file"


@dataclass(frozen=True)
class Outcome:
    """What was done with a file.

    Attributes:
        source: the file.
        status: "written", "left out" or "failed".
        output: path below the folder of results; "" if nothing was written.
        reason: why nothing was written.
        changes: what was removed.
        notes: warnings about a written file (text in pixels, faces).
    """

    source: str
    status: Status
    output: str = ""
    reason: str = ""
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A file before it is cleaned: its patient and object, or why it is not processed."""

    file: FileRef
    person: Person = NOBODY
    study: str = ""
    instance: str = ""
    status: Status = "written"
    reason: str = ""


def look(file: FileRef) -> Found:
    """Read which patient and object a file is of."""
    try:
        with silence():
            header = _read(file, header_only=True)
            study, instance = (
                str(header.get(keyword) or "") for keyword in ("StudyInstanceUID", "SOPInstanceUID")
            )
            return Found(file, person_of(header), study, instance)
    except UnfitError as error:
        return Found(file, status="left out", reason=error.message)
    except InputError as error:
        return Found(file, status="failed", reason=error.message)
    except pydicom_failures() as cause:
        return Found(file, status="failed", reason=f"{_DAMAGED} ({type(cause).__name__})")


def treat(file: FileRef, by: Deidentifier, folder: Path) -> Outcome:
    """De-identify one file.

    Args:
        file: the file.
        by: the profile with its options.
        folder: the output goes below it.
    Returns:
        The outcome; it also reports what is wrong with the file.
    Raises:
        OSError, MemoryError, MedEnhanceError: what concerns all files, such as a full disk.
    """
    try:
        with silence():
            return _treat(file, by, folder)
    except UnfitError as error:
        return Outcome(str(file), "left out", reason=error.message)
    except InputError as error:
        return Outcome(str(file), "failed", reason=str(error).removesuffix("."))
    except MedEnhanceError:
        raise
    except pydicom_failures() as cause:
        if isinstance(cause, (OSError, MemoryError)) and not isinstance(cause, EOFError):
            raise
        return Outcome(str(file), "failed", reason=f"{_DAMAGED} ({type(cause).__name__})")


def _treat(file: FileRef, by: Deidentifier, folder: Path) -> Outcome:
    try:
        dataset = _read(file)
    except OSError as cause:
        reason = cause.strerror or "it is cut short"
        raise InputError(f"cannot be read: {reason}", "Copy the file again.") from None
    notes = _notes(dataset)
    changes = tidy_pixels(dataset)
    _agree_on_encoding(dataset)
    cleaned, identities = by.clean(dataset)
    relative = _place(dataset)
    target = folder / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("xb") as stream:
            dataset.save_as(stream, enforce_file_format=True)
            stream.flush()
            os.fsync(stream.fileno())
        _verify(target, dataset, identities)
    except FileExistsError:
        return Outcome(str(file), "left out", reason="another file holds the same object")
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return Outcome(str(file), "written", relative, changes=(*cleaned, *changes), notes=tuple(notes))


def _read(file: FileRef, *, header_only: bool = False) -> Dataset:
    import pydicom

    with file.peek() if header_only else file.open() as stream:
        mark = mark_of(stream.read(HEAD))
        if not mark:
            raise UnfitError("no DICOM file")
        if mark == "damaged":
            raise InputError("the mark of DICOM is damaged")
        stream.seek(0)
        dataset: Dataset = pydicom.dcmread(
            stream,
            force=mark == "bare",
            stop_before_pixels=header_only,
            specific_tags=list(_HEADER) if header_only else None,
        )
        if mark == "bare" and not header_only:
            _name_encoding(dataset)
    if not dataset.get("SOPInstanceUID") or not dataset.get("SOPClassUID"):
        sop_class = str(dataset.file_meta.get("MediaStorageSOPClassUID") or "")
        raise (
            UnfitError("a DICOMDIR names its patients; make a new one for the result")
            if sop_class == DIRECTORY
            else InputError("it does not say which object it is (SOPClassUID, SOPInstanceUID)")
        )
    return dataset


def _name_encoding(dataset: Dataset) -> None:
    """Add the transfer syntax to a file without meta information."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" in dataset.file_meta:
        return
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _agree_on_encoding(dataset: Dataset) -> None:
    """Decode elements whose encoding contradicts the transfer syntax, to write them as it says."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    claims = [dataset.get_item(tag).VR is not None for tag in list(dataset.keys())]
    if syntax is not None and not syntax.is_implicit_VR and not all(claims):
        for _ in dataset.iterall():
            pass


def _notes(dataset: Dataset) -> list[str]:
    _, reason = burned_in(dataset)
    notes = [f"text may be burned into pixels: {reason}"] if reason else []
    if reason := shows_face(dataset):
        notes.append(f"faces are not removed: {reason}")
    return notes


def _place(dataset: Dataset) -> str:
    """Its path below the folder of results: pseudonym and hashes, the same in every run."""
    names = [
        hashlib.sha256(str(dataset.get(keyword) or "").encode()).hexdigest()[:length]
        for keyword, length in (
            ("StudyInstanceUID", 12),
            ("SeriesInstanceUID", 12),
            ("SOPInstanceUID", 20),
        )
    ]
    return "/".join([str(dataset.PatientID), *names]) + ".dcm"


def _verify(path: Path, meant: Dataset, identities: Identities) -> None:
    """Read the file back; InputError if pixels changed or something private or removed is in it."""
    import pydicom

    read = pydicom.dcmread(path)
    for keyword in PIXELS:
        if read.get(keyword) != meant.get(keyword):
            raise InputError(
                f"{keyword} came back changed from what was written",
                "The header contradicts itself, or the disk is failing.",
            )
    if where := find_leak(read, _head_bytes(path, read), identities):
        raise InputError(
            f"a removed value still stands in {where}, so the file was not written",
            "De-identify it by hand.",
        )


def _head_bytes(path: Path, read: Dataset) -> bytes:
    """All bytes before the pixels, inflated if the file is deflated."""
    import pydicom

    if getattr(read.file_meta.TransferSyntaxUID, "is_deflated", False):
        with path.open("rb") as stream:
            pydicom.filereader.read_preamble(stream, force=False)
            pydicom.filereader._read_file_meta_info(stream)
            start = stream.tell()
            stream.seek(0)
            return stream.read(start) + zlib.decompress(stream.read(), -zlib.MAX_WBITS)
    with path.open("rb") as stream:
        pydicom.dcmread(stream, stop_before_pixels=True)
        length = stream.tell()
        stream.seek(0)
        return stream.read(length)
