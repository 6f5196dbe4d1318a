"""Derived objects without the patient: the few attributes that they then carry of their source.

An attribute is carried if it stands in a list of what describes the scan. Everything else is not:
dates, times, free text, private elements, identifiers of people, places and devices. UIDs are
replaced by a keyed hash, the same for the same UID in one run; the key is forgotten. A text that
repeats a name or number of the patient is dropped. Pixels are not looked at. Whole studies are
de-identified by tools made for that, such as dicom-anonymizer and RSNA's CTP.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.manifest import own_action
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout.attributes import SECONDARY_CAPTURE, is_of_scan
from MedEnhanceLib.io.dicomout.derivation import MANUFACTURER, NOTICE, contribution_of, values_of
from MedEnhanceLib.io.dicomout.template import Template

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

#: Numbers and defined terms; the characters of CS are checked when the header is read.
_VRS = frozenset(("CS", "DS", "FD", "FL", "IS", "SL", "SS", "UL", "US"))
#: Short texts that name machines, software, methods and codes.
_TEXTS = frozenset((
    "AttenuationCorrectionMethod", "CodeMeaning", "CodeValue", "CodingSchemeDesignator",
    "CodingSchemeVersion", "ContrastBolusAgent", "ConvolutionKernel", "FilterType",
    "ImagedNucleus", "Manufacturer", "ManufacturerModelName", "RandomsCorrectionMethod",
    "ReceiveCoilName", "ReconstructionMethod", "RescaleType", "ScatterCorrectionMethod",
    "SequenceName", "SoftwareVersions", "TransmitCoilName",
))  # fmt: skip
_SEQUENCES = frozenset((
    "AnatomicRegionSequence", "ContrastBolusAdministrationRouteSequence",
    "ContrastBolusAgentSequence", "CTDIPhantomTypeCodeSequence", "EnergyWindowRangeSequence",
    "PatientEquipmentRelationshipCodeSequence", "PatientGantryRelationshipCodeSequence",
    "PatientOrientationCodeSequence", "PatientOrientationModifierCodeSequence",
    "PrimaryAnatomicStructureSequence", "RadionuclideCodeSequence",
    "RadiopharmaceuticalCodeSequence", "RadiopharmaceuticalInformationSequence",
    "ViewCodeSequence",
))  # fmt: skip
_UIDS = frozenset((
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID",
))  # fmt: skip
#: What building needs of a header and no derived image copies.
_OF_HEADER = frozenset((
    "BitsStored", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "InstanceNumber",
    "PixelRepresentation", "PixelSpacing",
    "RescaleIntercept", "RescaleSlope", "Rows", "SeriesNumber",
))  # fmt: skip
#: Attributes whose words are looked for in the texts that stay.
_NAMING = (
    "PatientName", "PatientID", "OtherPatientNames", "AccessionNumber", "ReferringPhysicianName",
    "InstitutionName", "OperatorsName", "PerformingPhysicianName",
)  # fmt: skip
#: A shorter word, such as "MR", stands in harmless texts too.
_SHORTEST_WORD = 3
#: Modalities whose devices write into the image who lies there.
_WRITING = frozenset((
    "US", "IVUS", "SC", "XA", "RF", "ES", "OT", "XC", "GM", "OP", "OPT", "DOC", "SM", "DG",
))  # fmt: skip
_CAPTURED = ("SCREEN", "CAPTURE", "REPORT", "DOSE_INFO", "SCANNED")


def without_patient(template: Template) -> Template:
    """The template under a new pseudonym, so that nothing built on it names the patient.

    Raises:
        InputError: text may be burned into the images.
    """
    key = secrets.token_bytes(32)
    headers = [_bare(header, key) for header in template.headers]
    first, origin = headers[0], template.origin
    assert origin is not None
    renamed = iter(headers)
    instances = tuple(
        tuple(replace(one, sop_instance=str(next(renamed).SOPInstanceUID)) for one in frame)
        for frame in origin.instances
    )
    study, series = str(first.StudyInstanceUID), str(first.SeriesInstanceUID)
    return replace(
        template,
        headers=headers,
        study=_study(study, template.study),
        frame_of_reference=_new_uid(template.frame_of_reference, key),
        origin=replace(origin, study=study, series=series, instances=instances),
    )


def _study(uid: str, earlier: Dataset) -> Dataset:
    from pydicom import Dataset

    study = Dataset()
    if "SpecificCharacterSet" in earlier:
        study.add(earlier["SpecificCharacterSet"])
    study.StudyInstanceUID = uid
    study.PatientID = study.PatientName = f"ANON-{secrets.token_hex(4)}"
    study.PatientIdentityRemoved = "YES"
    study.DeidentificationMethod = f"MedEnhance {__version__}: attributes of the scan only"
    study.LongitudinalTemporalInformationModified = "REMOVED"
    return study


def _bare(header: Dataset, key: bytes) -> Dataset:
    """A header with what describes the scan; raises InputError where text may be in its pixels."""
    reason = _burned_in(header)
    if reason:
        raise InputError(
            f"text may be burned into the images: {reason}",
            "Look at the images. Clean them with a tool for that (dicom-anonymizer, RSNA's CTP), "
            "or write the result without de-identification.",
        )
    names = {
        word
        for keyword in _NAMING
        for word in re.findall(r"\w+", str(header.get(keyword) or "").casefold())
        if len(word) >= _SHORTEST_WORD
    }
    image = _carried(header, names)
    image.SOPClassUID = header.SOPClassUID
    image.ContributingEquipmentSequence = _own_steps(header)
    for keyword in _UIDS:
        if header.get(keyword):
            setattr(image, keyword, _new_uid(str(header[keyword].value), key))
    return image


def _own_steps(header: Dataset) -> list[Dataset]:
    """Earlier processing by MedEnhance, each step as its action alone."""
    steps = []
    for item in header.get("ContributingEquipmentSequence") or []:
        action = own_action(str(item.get("ContributionDescription") or ""))
        if action and item.get("Manufacturer") == MANUFACTURER:
            steps.append(contribution_of(f"{action}. {NOTICE}"))
    return steps


def _carried(source: Dataset, names: set[str], *, is_item: bool = False) -> Dataset:
    """The elements that may be carried: of a header those of the scan, of an item all numbers."""
    from pydicom import Dataset

    target = Dataset()
    for element in source:
        if not (is_item or is_of_scan(element) or element.keyword in _OF_HEADER):
            continue
        if element.VR == "SQ" and element.keyword in _SEQUENCES:
            items = [_carried(item, names, is_item=True) for item in element.value]
            setattr(target, element.keyword, items)
        elif (element.VR in _VRS or element.keyword in _TEXTS) and not _repeats(element, names):
            target.add_new(element.tag, element.VR, element.value)
    return target


def _repeats(element: DataElement, names: set[str]) -> bool:
    """Whether a text holds a word of a name or an identifier."""
    if element.VR not in ("CS", "LO", "SH") or element.keyword in ("Modality", "ImageType"):
        return False
    text = str(element.value).casefold()
    return any(name in text for name in names)


def _new_uid(uid: str, key: bytes) -> str:
    digest = hmac.new(key, uid.encode(), hashlib.sha256).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _burned_in(header: Dataset) -> str:
    """Why the pixels may show text; "" where nothing points to it or the source denies it."""
    stated = str(header.get("BurnedInAnnotation") or "").upper()
    if stated == "NO":
        return ""
    if stated == "YES":
        return "BurnedInAnnotation is YES"
    modality = str(header.get("Modality") or "").upper()
    if modality in _WRITING or header.SOPClassUID == SECONDARY_CAPTURE:
        return f"images of this kind ({modality}) often carry text"
    kinds = " ".join(map(str, values_of(header, "ImageType"))).upper()
    if any(word in kinds for word in _CAPTURED):
        return "by its ImageType it is a captured screen"
    return ""
