"""What a derived object takes over from the images behind it: patient, study, frame, clinic.

A frame of an enhanced multi-frame image becomes the single image that it would have been. Values
that break DICOM's rules are shortened or left out, with a warning.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.core.origin import DicomOrigin, Instance
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.elements import LOSSY_SYNTAXES
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.io.dicom.structure import pydicom_failures, silence
from MedEnhanceLib.io.dicomout.attributes import copy_elements, is_of_study
from MedEnhanceLib.io.dicomout.derivation import ds_text, fresh_uid, now
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset


_READ_AGAIN = "Read the series again from where its files are now."
_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True)
class Template:
    """The images that a volume came from, without their pixels and private elements.

    Attributes:
        headers: one dataset per slice, in the order [T × K] of `origin.instances`; a frame of a
            multi-frame file as the single image it would be. Empty if it never was DICOM.
        study: the attributes of patient and study.
        modality: DICOM's Modality of the source.
        frame_of_reference: the UID that all derived objects share.
        origin: None if it never was DICOM.
    """

    headers: list[Dataset]
    study: Dataset
    modality: str
    frame_of_reference: str
    origin: DicomOrigin | None = None

    def copy_study(self, target: Dataset) -> None:
        """Copy patient and study into `target`, replacing what it has."""
        for element in copy.deepcopy(self.study):
            target.add(element)


def read_template(origin: DicomOrigin, monitor: Monitor | None = None) -> Template:
    """Read the headers of the images that a volume came from; invalid values are corrected.

    Args:
        origin: the images.
        monitor: notified of progress and of corrected values.
    Raises:
        InputError: a file that is missing or damaged, or that holds another image by now.
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
        faults |= dict.fromkeys(correct(sources[file]))
    for fault in faults:
        monitor.warn(f"the source's {fault}")
    headers = [
        _one_image(sources[one.file], one, origin) for frame in origin.instances for one in frame
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
    """A new study for a volume that never was DICOM; unknown attributes stay empty.

    Args:
        modality: one of volume.MODALITIES; those without an image class in DICOM become OT.
        patient_id: at most 64 characters.
        patient_name: Family^Given^Middle^Prefix^Suffix.
        study_description: at most 64 characters.
    Raises:
        InputError: a name or an ID that DICOM cannot hold.
    """
    pydicom = require("pydicom", purpose="Writing DICOM")

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


def read_header(file: FileRef) -> Dataset:
    """A file without its pixels and private elements; raises InputError if it is damaged."""
    pydicom = require("pydicom", purpose="Reading DICOM")

    try:
        with silence(), file.open() as stream:  # invalid values are corrected below, with a warning
            header: Dataset = pydicom.dcmread(stream, stop_before_pixels=True)
            header.remove_private_tags()
            header.decode()
    except pydicom_failures() as cause:
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
        if not source.get(keyword):
            raise InputError(
                f"{name} has no {keyword}, which DICOM objects that refer to it have to name",
                "Export the series again, with its identifiers; or write a file (.nii.gz, .nrrd).",
            )
        if not UID(str(source[keyword].value), IGNORE).is_valid:
            raise InputError(
                f"{name}: {keyword} is {str(source.get(keyword))!r}, which is no UID: a PACS would "
                "refuse what refers to it",
                "Give it valid UIDs first, for example with dicom-anonymizer.",
            )
    found = (str(source.get("SOPInstanceUID")), str(source.get("StudyInstanceUID")))
    if found != (one.sop_instance, origin.study):
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
#: What describes all frames of a file.
_OF_FRAMES = {
    "NumberOfFrames", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
}  # fmt: skip
#: Functional groups whose items are sequences of the classic image as well.
_WHOLE_GROUPS = {"ReferencedImageSequence", "DerivationImageSequence", "FrameAnatomySequence"}


def frame_as_image(source: Dataset, frame: int, name: str) -> Dataset:
    """The attributes of one frame of a multi-frame file as the single image it would be.

    Args:
        source: the file's header.
        frame: counted from 1.
        name: of the file, for the error.
    Raises:
        InputError: the file has fewer frames.
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
    image = copy_elements(source, lambda element: element.keyword not in _OF_FRAMES)
    for enhanced in _RENAMED:
        if enhanced in source:
            _take(source, enhanced, image)
    return image


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
                elif element.keyword:
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
    """Store an element under its classic name, rounded if that one holds whole numbers."""
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


#: The most characters of texts that may be cut. Identifiers of people may not.
_LENGTHS = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240}
_KEPT = {
    "PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
    "SOPClassUID", "FrameOfReferenceUID",
}  # fmt: skip

#: Texts in the character set of the dataset.
_TEXTS = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}
_METHODS = ("", "CodeSequence")


def correct(header: Dataset) -> list[str]:
    """Correct invalid values of an image's header, in place; returns a sentence for each."""
    done = _correct_values(header)
    removed = str(header.get("PatientIdentityRemoved") or "") == "YES"
    if removed and not any(header.get(f"DeidentificationMethod{kind}") for kind in _METHODS):
        header.DeidentificationMethod = "Not stated by the source"
        done.append("PatientIdentityRemoved does not say by which method; that is stated now")
    if not header.get("SpecificCharacterSet") and not _is_ascii(header):
        header.SpecificCharacterSet = "ISO_IR 100"
        done.append("SpecificCharacterSet is missing; Western European letters are assumed")
    if len(str(header.get("PatientID") or "")) > _LENGTHS["LO"]:
        done.append(
            "PatientID is longer than the 64 characters allowed; identifiers are not cut, but a "
            "PACS may refuse it"
        )
    return done


def _is_ascii(dataset: Dataset) -> bool:
    return all(
        str(value).isascii()
        for element in dataset.iterall()
        if element.VR in _TEXTS and element.VM
        for value in _values(element)
    )


def _correct_values(header: Dataset) -> list[str]:
    """Shorten or empty values that are invalid for their VR, in items of sequences too."""
    done: list[str] = []
    for element in list(header):
        if element.VR == "SQ":
            for item in element.value:
                done += _correct_values(item)
        elif element.keyword not in _KEPT and not _is_valid(element):
            done.append(_correct(element))
    return done


def _is_valid(element: DataElement) -> bool:
    from pydicom.config import RAISE
    from pydicom.valuerep import STR_VR, validate_value

    if element.VR not in STR_VR or element.VM == 0:
        return True
    try:
        for value in _values(element):
            validate_value(element.VR, _as_written(value), RAISE)
    except (ValueError, TypeError):
        return False
    return True


def _correct(element: DataElement) -> str:
    if element.VR == "DS" and (decimals := _shorter(_values(element))):
        element.value = decimals if len(decimals) > 1 else decimals[0]
        return f"{element.keyword} was rounded to the 16 characters allowed"
    length = _LENGTHS.get(element.VR)
    if length is not None and all(isinstance(value, str) for value in _values(element)):
        short = [value[:length].rstrip() for value in _values(element)]
        before, element.value = element.value, short if len(short) > 1 else short[0]
        if _is_valid(element):
            return f"{element.keyword} {before!r} was cut to the {length} characters allowed"
    element.value = None
    return f"{element.keyword} was left empty: DICOM does not allow its value"


def _shorter(values: list[Any]) -> list[str]:
    """Numbers with too many digits, as some scanners write positions; none if one is no number."""
    if not all(isinstance(value, (float, Decimal)) and isfinite(value) for value in values):
        return []
    return [ds_text(_as_written(value)) for value in values]


def _values(element: DataElement) -> list[Any]:
    return list(element.value) if element.VM > 1 else [element.value]


def _as_written(value: Any) -> Any:
    """The text in the file, which pydicom keeps with numbers, dates and times."""
    original = getattr(value, "original_string", None)
    if isinstance(original, str):
        return original
    return value if isinstance(value, (str, bytes)) or hasattr(value, "components") else str(value)
