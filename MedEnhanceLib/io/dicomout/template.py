"""Attributes that a derived object takes over from its sources: patient, study, equipment.

A frame of an enhanced multi-frame image becomes the single image that it would have been. Values
that break DICOM's rules are rounded or left out, with a warning.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.core.origin import DicomOrigin, Instance
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.headers import CLASSIC, items_of, read_header
from MedEnhanceLib.io.dicom.mosaic import WORDS
from MedEnhanceLib.io.dicom.slices import LOSSY_SYNTAXES, Slice
from MedEnhanceLib.io.dicom.structure import pydicom_failures, silence
from MedEnhanceLib.io.dicomout.attributes import (
    MAPPING,
    SOP_CLASSES,
    complete_items,
    copy_elements,
    is_of_study,
)
from MedEnhanceLib.io.dicomout.derivation import ds_text, fresh_uid, now, with_elements
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import reason_of

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset


_READ_AGAIN = "Read the series again from where its files are now."
_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True)
class Template:
    """The images that a volume came from, without their pixels and private elements.

    Attributes:
        headers: one dataset per slice, in the order [T × K] of `dicom_origin.instances`; a frame of
            a multi-frame file as the single image it would be. Empty if it never was DICOM.
        study: the attributes of patient and study.
        modality: DICOM's Modality of the source.
        frame_of_reference: the UID that all derived objects share.
        dicom_origin: None if it never was DICOM.
    """

    headers: list[Dataset]
    study: Dataset
    modality: str
    frame_of_reference: str
    dicom_origin: DicomOrigin | None = None

    def copy_study(self, target: Dataset) -> None:
        """Copy patient and study into `target`, replacing what it has."""
        for element in copy.deepcopy(self.study):
            target.add(element)


def read_template(origin: DicomOrigin, monitor: Monitor | None = None) -> Template:
    """Read the headers of the images that a volume came from; invalid values are corrected.

    monitor: notified of progress and of corrected values.
    Raises InputError for a file that is missing or damaged, or that now holds another image.
    """
    monitor = monitor or Monitor()
    instances = [instance for frame in origin.instances for instance in frame]
    files = list(dict.fromkeys(instance.file for instance in instances))
    if not files:
        raise InputError("the volume has no record of its DICOM source", _READ_AGAIN)
    sources: dict[str, Dataset] = {}
    faults: dict[str, None] = {}  # an ordered set
    for index, file in enumerate(files):
        monitor.progress(index / len(files), "reading headers")
        sources[file] = _read_header(Path(file))
        faults |= dict.fromkeys(correct(sources[file]))
    for fault in faults:
        monitor.warn(f"the source's {fault}")
    mosaics = {instance.file for instance in instances if instance.tile is not None}
    tiles = {file: _tiles_of(Path(file)) for file in files if file in mosaics}
    headers = [
        _one_image(sources[instance.file], instance, origin, tiles.get(instance.file, ()))
        for instance in instances
    ]
    first = headers[0]
    return Template(
        headers,
        copy_elements(first, is_of_study),
        str(first.get("Modality") or "OT"),
        str(first.get("FrameOfReferenceUID") or "") or fresh_uid(),
        origin,
    )


def new_study(
    *,
    modality: str,
    patient_id: str = "",
    patient_name: str = "",
    study_description: str = "",
) -> Template:
    """Return a new study for a volume that was not DICOM; unknown attributes stay empty.

    Args:
        modality: one of volume.MODALITIES; those without an image class in DICOM become OT.
        patient_id: at most 64 characters.
        patient_name: Family^Given^Middle^Prefix^Suffix.
        study_description: at most 64 characters.
    Raises InputError: a name or an ID that DICOM cannot hold.
    """
    pydicom = require("pydicom", purpose="Writing DICOM")

    spellings = patient_name.split("=")  # alphabetic, ideographic and phonetic
    if len(spellings) > 3 or any(spelling.count("^") > 4 for spelling in spellings):
        raise InputError(
            f"PatientName is {patient_name[:80]!r}, which DICOM cannot hold",
            "Give Family^Given^Middle^Prefix^Suffix, at most five parts.",
        )
    study: Dataset = pydicom.Dataset()
    study.SpecificCharacterSet = "ISO_IR 192"
    study.StudyInstanceUID = fresh_uid()
    study.StudyDate, study.StudyTime = now()
    study.StudyID = "1"
    study.AccessionNumber = study.ReferringPhysicianName = ""
    study.PatientBirthDate = study.PatientSex = ""
    study.PatientID = _checked(patient_id, "PatientID")
    study.PatientName = "=".join(_checked(spelling, "PatientName") for spelling in spellings)
    if study_description:
        study.StudyDescription = _checked(study_description, "StudyDescription")
    known = modality if modality in SOP_CLASSES else "OT"
    return Template([], study, known, fresh_uid())


def _checked(text: str, field: str) -> str:
    if len(text) > 64 or "\\" in text or not text.isprintable() or (text and not text.strip()):
        raise InputError(
            f"{field} is {text[:80]!r}, which DICOM cannot hold",
            "Give at most 64 characters without backslashes and line ends, and not blanks alone.",
        )
    return text.strip()


def _read_header(file: Path) -> Dataset:
    """Read a file without its pixels and private elements; raises InputError if it is damaged."""
    pydicom = require("pydicom", purpose="Reading DICOM")

    try:
        with (
            silence(),
            file.open("rb") as stream,
        ):  # invalid values are corrected below, with a warning
            header: Dataset = pydicom.dcmread(stream, stop_before_pixels=True)
            header.remove_private_tags()
            header.decode()
    except pydicom_failures() as cause:
        raise InputError(
            f"{file.name}: its header cannot be read: {reason_of(cause)}", _READ_AGAIN
        ) from cause
    method = LOSSY_SYNTAXES.get(str(header.file_meta.get("TransferSyntaxUID", "")))
    if method and str(header.get("LossyImageCompression") or "00") != "01":
        header.LossyImageCompression, header.LossyImageCompressionMethod = "01", method
    return header


def _tiles_of(file: Path) -> tuple[Slice, ...]:
    header = read_header(file)
    return header.slices if header is not None else ()


def _one_image(
    source: Dataset, instance: Instance, origin: DicomOrigin, tiles: Sequence[Slice]
) -> Dataset:
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    name = Path(instance.file).name
    for keyword in _IDENTITY:
        uid = str(source.get(keyword) or "")
        if not UID(uid, IGNORE).is_valid:
            raise InputError(
                f"{name}: {keyword} is {uid!r}, not a valid UID; derived objects have to refer "
                "to it, and a PACS would refuse them",
                "Give it valid UIDs first, for example with dicom-anonymizer; or write a file "
                "(.nii.gz, .nrrd).",
            )
    if (source.SOPInstanceUID, source.StudyInstanceUID) != (instance.sop_instance, origin.study):
        raise InputError(f"{name} has changed since it was read", _READ_AGAIN)
    if instance.tile is not None:
        if instance.tile > len(tiles):
            raise InputError(f"{name} has no slice {instance.tile}", _READ_AGAIN)
        return _tile_as_image(source, tiles[instance.tile - 1])
    if instance.frame is None:
        return source
    return frame_as_image(source, instance.frame, name)


def _tile_as_image(source: Dataset, plane: Slice) -> Dataset:
    """Return the attributes of one slice of a mosaic, as of a single image."""
    from pydicom import Dataset

    image = Dataset()
    image.update(source)  # the elements are shared; those that differ are replaced
    image.update(
        with_elements(
            Rows=plane.rows,
            Columns=plane.columns,
            ImagePositionPatient=[ds_text(str(mm)) for mm in plane.position or ()],
            ImageType=[word for word in source.ImageType if word not in WORDS],
        )
    )
    image.pop("SliceLocation", None)
    return image


#: Elements that describe all frames of a file.
_OF_FRAMES = (
    "NumberOfFrames", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
)  # fmt: skip


def frame_as_image(source: Dataset, frame: int, name: str) -> Dataset:
    """Copy the attributes of one frame of a multi-frame file, as of a single image.

    Args:
        source: the file's header.
        frame: counted from 1.
        name: of the file, for the InputError if it has fewer frames.
    """
    from pydicom import Dataset

    groups = source.get("PerFrameFunctionalGroupsSequence") or []
    if not 1 <= frame <= len(groups):
        raise InputError(f"{name} has no frame {frame}", "Read the series again.")
    shared = source.get("SharedFunctionalGroupsSequence") or []
    image = Dataset()
    _take(source, image)
    for functional_groups in (*shared[:1], groups[frame - 1]):
        for item in items_of(functional_groups):
            _take(item, image)
        if MAPPING in functional_groups:  # whole: its items say nothing on their own
            image[MAPPING] = functional_groups[MAPPING]
    image.InstanceNumber = frame
    return image


def _take(item: Dataset, image: Dataset) -> None:
    """Copy elements into an image under their classic names, in their form."""
    from pydicom.datadict import dictionary_VM, dictionary_VR

    for element in item:
        if element.keyword in CLASSIC:
            if element.VM:
                name = CLASSIC[element.keyword]
                digits = ".0f" if dictionary_VR(name) == "IS" else ".10g"
                values = [format(value, digits) if isinstance(value, float) else value
                          for value in _values(element)]  # fmt: skip
                setattr(image, name, values[0] if dictionary_VM(name) == "1" else values)
        elif element.keyword not in _OF_FRAMES:
            image.add(copy.deepcopy(element))


#: Directions that some scanners write as zeros, or as angles.
_UNIT_VECTORS, _UNIT_ERROR = ("SlabOrientation", "VelocityEncodingDirection"), 0.01
#: Elements that are never corrected: they identify the patient and the image.
_IDENTIFYING = ("PatientID", "PatientName", "SOPClassUID", "FrameOfReferenceUID", *_IDENTITY)


def correct(header: Dataset) -> list[str]:
    """Correct invalid values of an image's header, in place; returns a sentence for each.

    Numbers that are too long, as some scanners write them, are rounded; other values are removed.
    """
    corrections = list(complete_items(header))
    for element in list(header.iterall()):
        if element.keyword in _IDENTIFYING or _is_valid(element):
            continue
        values = _values(element)
        if element.VR == "DS" and all(
            isinstance(value, (float, Decimal)) and isfinite(value) for value in values
        ):
            element.value = [ds_text(_as_written(value)) for value in values]
            corrections.append(f"{element.keyword} was rounded to the 16 characters allowed")
        else:
            element.value = None
            corrections.append(
                f"{element.keyword} is left empty, as its value is not valid DICOM ({element.VR})"
            )
    states_method = any(
        header.get(f"DeidentificationMethod{form}") for form in ("", "CodeSequence")
    )
    if header.get("PatientIdentityRemoved") == "YES" and not states_method:
        header.DeidentificationMethod = "Not stated by the source"
        corrections.append("PatientIdentityRemoved has no method; it is now recorded as not stated")
    return corrections


def _is_valid(element: DataElement) -> bool:
    from pydicom.config import RAISE
    from pydicom.valuerep import STR_VR, validate_value

    if element.keyword in _UNIT_VECTORS and not element.is_empty:
        return bool(abs(np.linalg.norm(element.value) - 1) < _UNIT_ERROR)
    if element.VR not in STR_VR or element.VM == 0:
        return True
    try:
        for value in _values(element):
            validate_value(element.VR, _as_written(value), RAISE)
    except (ValueError, TypeError):
        return False
    return True


def _values(element: DataElement) -> list[Any]:
    return list(element.value) if element.VM > 1 else [element.value]


def _as_written(value: Any) -> Any:
    """Return the text in the file, which pydicom keeps with numbers, dates and times."""
    original = getattr(value, "original_string", None)
    if isinstance(original, str):
        return original
    return value if isinstance(value, (str, bytes)) or hasattr(value, "components") else str(value)
