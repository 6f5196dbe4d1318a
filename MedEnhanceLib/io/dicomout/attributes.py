"""The attributes of a derived image: those kept from its source, and those that are required.

The kept attributes are listed: whole groups that describe patient, trial, acquisition and isotope,
and attributes of other groups by name. A list of attributes to remove would let through those that
nobody considered: signatures of replaced pixels, overlays, lookup tables, the smallest and largest
value of other voxels. Of the performed procedure step only the request is kept: the step that made
the source did not make this series. What the standard requires is filled in if missing and
corrected if wrong: a PACS that accepted a faulty source may refuse its copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.io.dicomout.derivation import cut, values_of

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset


CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
PET_IMAGE = "1.2.840.10008.5.1.4.1.1.128"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

#: The class that is written for a volume, by its modality.
SOP_CLASSES = {"CT": CT_IMAGE, "MR": MR_IMAGE, "PT": PET_IMAGE}

#: Elements that a PET image must have, and that cannot be derived from others.
REQUIRED_OF_PET = (
    "Units", "CountsSource", "DecayCorrection", "FrameReferenceTime", "SeriesType", "DecayFactor",
)  # fmt: skip
#: Units of PET volumes → DICOM's terms.
PET_UNITS = {"SUV": "GML", "Bq/ml": "BQML", "counts": "CNTS"}

#: Patient, clinical trial and visit.
_STUDY_GROUPS = (0x0010, 0x0012, 0x0038)
_OF_STUDY = frozenset((
    "AccessionNumber", "AdmittingDiagnosesCodeSequence", "AdmittingDiagnosesDescription",
    "ConsultingPhysicianName", "IssuerOfAccessionNumberSequence",
    "LongitudinalTemporalInformationModified", "NameOfPhysiciansReadingStudy",
    "PhysiciansOfRecord", "ProcedureCodeSequence", "ReasonForPerformedProcedureCodeSequence",
    "ReferencedStudySequence", "ReferringPhysicianName", "RequestingService",
    "SpecificCharacterSet", "StudyDate", "StudyDescription", "StudyID", "StudyInstanceUID",
    "StudyTime", "TimezoneOffsetFromUTC",
))  # fmt: skip
#: Acquisition and equipment, and nuclear medicine.
_SCAN_GROUPS = (0x0018, 0x0054)
_OF_SCAN = frozenset((
    "AcquisitionContextSequence", "AcquisitionDate", "AcquisitionDateTime", "AcquisitionNumber",
    "AcquisitionTime", "AnatomicRegionSequence", "BurnedInAnnotation",
    "CodingSchemeIdentificationSequence", "CorrectedImage", "FrameOfReferenceUID",
    "ImageComments", "ImageLaterality", "ImageType", "InstitutionAddress",
    "InstitutionalDepartmentName", "InstitutionName", "IrradiationEventUID", "Laterality",
    "LossyImageCompression", "LossyImageCompressionMethod", "LossyImageCompressionRatio",
    "Manufacturer", "ManufacturerModelName", "Modality", "NumberOfTemporalPositions",
    "OperatorsName", "PatientOrientation", "PerformingPhysicianName", "PhotometricInterpretation",
    "PositionReferenceIndicator", "PresentationLUTShape", "PrimaryAnatomicStructureSequence",
    "QualityControlImage", "RecognizableVisualFeatures", "ReferencedImageSequence",
    "RequestAttributesSequence", "RescaleType", "SeriesDate", "SeriesDescription", "SeriesNumber",
    "SeriesTime", "SliceLocation", "StationName", "SynchronizationFrameOfReferenceUID",
    "TemporalPositionIdentifier", "TemporalResolution", "VOILUTFunction", "WindowCenter",
    "WindowCenterWidthExplanation", "WindowWidth",
))  # fmt: skip
#: In a group above, but not true of a result of research software.
_UNTRUE = "ContentQualification"
#: True of the source's grid only.
OF_GRID = (
    "SliceLocation", "GantryDetectorTilt", "ReconstructionDiameter", "PatientOrientation",
    "ReconstructionFieldOfView", "ReconstructionPixelSpacing", "ReconstructionTargetCenterPatient",
)  # fmt: skip
#: Mapping of stored numbers to quantities, and the elements of its items that are stored numbers.
MAPPING = "RealWorldValueMappingSequence"
MAPPED_RANGE = ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped")

#: Terms that single images may have, and those that enhanced ones have in their place.
_TERMS = {
    "AngioFlag": ("Y", "N"), "BeatRejectionFlag": ("Y", "N"), "VariableFlipAngleFlag": ("Y", "N"),
    "InPlanePhaseEncodingDirection": ("ROW", "COL"), "MRAcquisitionType": ("2D", "3D"),
    "RotationDirection": ("CW", "CC"),
}  # fmt: skip
_TERMS_OF_ENHANCED = {"COLUMN": "COL", "YES": "Y", "NO": "N"}
#: Element and term of an enhanced MR image → the same in ScanningSequence.
_SEQUENCES = {
    ("EchoPulseSequence", "SPIN"): ("SE",), ("EchoPulseSequence", "GRADIENT"): ("GR",),
    ("EchoPulseSequence", "BOTH"): ("SE", "GR"), ("InversionRecovery", "YES"): ("IR",),
    ("EchoPlanarPulseSequence", "YES"): ("EP",),
}  # fmt: skip

#: Parts of the body (PS3.16) that exist once; of the others the side must be stated.
UNPAIRED = frozenset((
    "ABDOMEN", "ABDOMENPELVIS", "AORTA", "BACK", "BLADDER", "BRAIN", "CEREBELLUM", "CERVIX",
    "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "CIRCLEOFWILLIS", "COCCYX", "COLON",
    "CORONARYARTERY", "CSPINE", "CTSPINE", "DUODENUM", "ESOPHAGUS", "FACE", "GALLBLADDER", "HEAD",
    "HEADNECK", "HEART", "ILEUM", "ILIUM", "JAW", "JEJUNUM", "LARYNX", "LIVER", "LSPINE",
    "LSSPINE", "MAXILLA", "MEDIASTINUM", "MOUTH", "NECK", "NECKCHEST", "NECKCHESTABDOMEN",
    "NECKCHESTABDPELV", "NOSE", "PANCREAS", "PELVIS", "PENIS", "PHARYNX", "PROSTATE", "RECTUM",
    "SCALP", "SKULL", "SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH", "THYMUS", "THYROID",
    "TLSPINE", "TONGUE", "TRACHEA", "TSPINE", "URETER", "URETHRA", "UTERUS", "VAGINA", "VULVA",
    "WHOLEBODY",
))  # fmt: skip


def is_of_study(element: DataElement) -> bool:
    """Return whether an element describes the patient or the study."""
    return element.tag.group in _STUDY_GROUPS or element.keyword in _OF_STUDY


def is_of_scan(element: DataElement) -> bool:
    """Return whether an element describes the acquisition, and is true of a derived image too."""
    if element.keyword == _UNTRUE:
        return False
    return element.tag.group in _SCAN_GROUPS or element.keyword in _OF_SCAN


def copy_elements(header: Dataset, is_kept: Callable[[DataElement], bool]) -> Dataset:
    """Return a dataset with copies of the elements for which `is_kept` is true."""
    from pydicom import Dataset

    target = Dataset()
    for element in header:
        if is_kept(element):
            target.add(copy.deepcopy(element))
    return target


_REFERENCE = ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID")
_CODE = ("CodeValue|LongCodeValue|URNCodeValue", "CodingSchemeDesignator|URNCodeValue")
#: Elements that an item of a sequence must have, or one of several.
_REQUIRED = {
    "AcquisitionContextSequence": ("ValueType", "ConceptNameCodeSequence"),
    "CodingSchemeIdentificationSequence": ("CodingSchemeDesignator",),
    "ContributingEquipmentSequence": ("PurposeOfReferenceCodeSequence", "Manufacturer"),
    "IssuerOfAccessionNumberSequence": ("LocalNamespaceEntityID|UniversalEntityID",),
    "OtherPatientIDsSequence": ("PatientID", "TypeOfPatientID"),
    "ReferencedImageSequence": _REFERENCE, "ReferencedStudySequence": _REFERENCE,
    MAPPING: ("MeasurementUnitsCodeSequence", "LUTLabel|LUTExplanation"),
    **dict.fromkeys((
        "AnatomicRegionSequence", "ContrastBolusAdministrationRouteSequence",
        "ContrastBolusAgentSequence", "PrimaryAnatomicStructureSequence",
    ), _CODE),
}  # fmt: skip


def complete_items(dataset: Dataset) -> Iterator[str]:
    """Complete the items of sequences as the standard requires, in place, or leave them out.

    Yields a sentence for each sequence of a derived object that loses items.
    """
    for element in [element for element in dataset if element.VR == "SQ"]:
        name, items = element.keyword, list(element.value)
        required = _CODE if name.endswith("CodeSequence") else _REQUIRED.get(name, ())
        for item in items:
            yield from complete_items(item)
            if required is _CODE and not item.get("CodeMeaning"):
                item.CodeMeaning = cut(_first(item, _CODE[0]))
            elif name == MAPPING:
                item.LUTLabel = cut(_first(item, "LUTLabel|LUTExplanation"), 16)
                item.LUTExplanation = _first(item, "LUTExplanation|LUTLabel")
        element.value = [item for item in items if all(_first(item, names) for names in required)]
        missing = [names for names in required if not all(_first(item, names) for item in items)]
        if missing and (name == MAPPING or is_of_scan(element) or is_of_study(element)):
            lacking = " and ".join(missing).replace("|", " or ")
            yield f"{name} has items without {lacking}; they are left out"
        if not element.value:
            del dataset[element.tag]


def _first(item: Dataset, keywords: str) -> Any:
    """Return the first value of elements whose keywords are joined by |; "" if none has any."""
    return next(filter(None, map(item.get, keywords.split("|"))), "")


#: Elements that must be present, empty if unknown (type 2).
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber", "Manufacturer",
    "PositionReferenceIndicator", "SliceThickness",
)  # fmt: skip
_EMPTY_OF = {
    CT_IMAGE: ("KVP", "AcquisitionNumber"),
    MR_IMAGE: ("ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength"),
    PET_IMAGE: ("AcquisitionDate", "AcquisitionTime", "ActualFrameDuration", "CollimatorType",
                "CorrectedImage", "RadiopharmaceuticalInformationSequence",
                "PatientOrientationCodeSequence", "PatientGantryRelationshipCodeSequence"),
    SECONDARY_CAPTURE: (),
}  # fmt: skip


def complete(image: Dataset, sop_class: str) -> None:
    """Fill in required attributes of an image, and correct wrong ones, in place.

    image: with its pixels, position and rescale.
    sop_class: one of `_EMPTY_OF`.
    """
    for keyword in (*_EMPTY, *_EMPTY_OF[sop_class]):
        if keyword not in image:
            setattr(image, keyword, [] if keyword.endswith("Sequence") else None)
    for keyword in filter(image.__contains__, _TERMS):
        stated = str(image[keyword].value)
        term = _TERMS_OF_ENHANCED.get(stated, stated)
        image[keyword].value = term if term in _TERMS[keyword] else None
    _set_position(image, sop_class)
    set_side(image)
    if sop_class == MR_IMAGE:
        _correct_mr(image)
    if sop_class == PET_IMAGE:
        for agent in image.get("RadiopharmaceuticalInformationSequence") or []:
            if "RadionuclideCodeSequence" not in agent:
                agent.RadionuclideCodeSequence = []
    if sop_class == SECONDARY_CAPTURE:
        image.ConversionType = "WSD"  # made on a workstation
        image.PatientOrientation = None  # its cosines say more


def _set_position(image: Dataset, sop_class: str) -> None:
    """State the patient's position either as PatientPosition or as codes (PET), never as both."""
    if sop_class == PET_IMAGE:
        image.pop("PatientPosition", None)
    elif image.get("PatientPosition"):
        image.pop("PatientOrientationCodeSequence", None)
        image.pop("PatientEquipmentRelationshipCodeSequence", None)
    elif sop_class != SECONDARY_CAPTURE and not image.get("PatientOrientationCodeSequence"):
        image.PatientPosition = None


def set_side(image: Dataset) -> None:
    """Set Laterality: required for paired parts, empty if unknown; not allowed for others."""
    side = str(image.get("Laterality") or "")
    image.pop("Laterality", None)
    is_paired = str(image.get("BodyPartExamined") or "").upper() not in UNPAIRED
    if is_paired and not image.get("ImageLaterality"):
        image.Laterality = side if side in ("L", "R") else None


def _correct_mr(image: Dataset) -> None:
    if not image.get("ScanningSequence"):
        parts = [_SEQUENCES[item] for item in _SEQUENCES if image.get(item[0]) == item[1]]
        image.ScanningSequence = [*chain(*parts)] or "RM"  # research mode: it is unknown
    if not image.get("SequenceVariant"):
        image.SequenceVariant = "NONE"
    sequence, variant, options = (
        set(map(str, values_of(image, keyword)))
        for keyword in ("ScanningSequence", "SequenceVariant", "ScanOptions")
    )
    if "IR" not in sequence:
        image.pop("InversionTime", None)
    elif "InversionTime" not in image:
        image.InversionTime = None
    if not {"CG", "PPG", "CT"} & options:
        image.pop("TriggerTime", None)
    if ("EP" not in sequence or "SK" in variant) and "RepetitionTime" not in image:
        image.RepetitionTime = None
