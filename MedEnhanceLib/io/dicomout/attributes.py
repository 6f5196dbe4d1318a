"""The attributes of a derived image: which are kept of its source, and which must be there.

For each IOD there is a list of attributes that may be kept. A list of those that may not would let
through whatever was not considered: private elements, signatures of pixels that are no longer
there, overlays, lookup tables, the smallest and largest value of other voxels. The attributes are
those that PS3.3 gives the modules of each IOD, less what the derivation makes untrue. Of the
performed procedure step only the request is kept: the step that made the source did not make this
series. What the standard requires is filled in if missing and corrected if wrong: a PACS that took
a faulty source may refuse its copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from MedEnhanceLib.io.dicomout.derivation import coded, values_of

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.sr.coding import Code


CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
PET_IMAGE = "1.2.840.10008.5.1.4.1.1.128"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: The class that is written for a volume, by its modality.
SOP_CLASSES = {"CT": CT_IMAGE, "MR": MR_IMAGE, "PT": PET_IMAGE}

#: What a PET image must state of its intensities; it cannot be derived from anything else.
REQUIRED_OF_PET = (
    "Units", "CountsSource", "DecayCorrection", "FrameReferenceTime", "SeriesType", "DecayFactor",
)  # fmt: skip
#: DICOM's terms for the units of PET that we have names for.
PET_UNITS = {"SUV": "GML", "Bq/ml": "BQML", "counts": "CNTS"}

#: The modules of patient and study: whose images they are.
PATIENT_STUDY = _words("""
    PatientName PatientID IssuerOfPatientID TypeOfPatientID IssuerOfPatientIDQualifiersSequence
    SourcePatientGroupIdentificationSequence GroupOfPatientsIdentificationSequence
    PatientBirthDate PatientBirthTime PatientBirthDateInAlternativeCalendar
    PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar PatientSex
    QualityControlSubject StrainDescription StrainNomenclature StrainStockSequence
    StrainAdditionalInformation StrainCodeSequence GeneticModificationsSequence OtherPatientNames
    OtherPatientIDsSequence EthnicGroupCodeSequence PatientSpeciesDescription
    PatientSpeciesCodeSequence PatientBreedDescription PatientBreedCodeSequence
    BreedRegistrationSequence ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization
    PatientComments PatientIdentityRemoved DeidentificationMethod
    DeidentificationMethodCodeSequence
    ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName
    IssuerOfClinicalTrialProtocolID OtherClinicalTrialProtocolIDsSequence ClinicalTrialSiteID
    ClinicalTrialSiteName IssuerOfClinicalTrialSiteID ClinicalTrialSubjectID
    IssuerOfClinicalTrialSubjectID ClinicalTrialSubjectReadingID
    IssuerOfClinicalTrialSubjectReadingID ClinicalTrialProtocolEthicsCommitteeName
    ClinicalTrialProtocolEthicsCommitteeApprovalNumber
    StudyInstanceUID StudyDate StudyTime AccessionNumber IssuerOfAccessionNumberSequence
    ReferringPhysicianName ReferringPhysicianIdentificationSequence ConsultingPhysicianName
    ConsultingPhysicianIdentificationSequence StudyDescription ProcedureCodeSequence
    PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence NameOfPhysiciansReadingStudy
    PhysiciansReadingStudyIdentificationSequence ReferencedStudySequence StudyID
    RequestingService RequestingServiceCodeSequence ReasonForPerformedProcedureCodeSequence
    AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence PatientAge PatientSize
    PatientSizeCodeSequence PatientBodyMassIndex MeasuredAPDimension MeasuredLateralDimension
    PatientWeight MedicalAlerts Allergies Occupation SmokingStatus AdditionalPatientHistory
    PregnancyStatus LastMenstrualDate PatientSexNeutered ReasonForVisit
    ReasonForVisitCodeSequence AdmissionID IssuerOfAdmissionIDSequence ServiceEpisodeID
    ServiceEpisodeDescription IssuerOfServiceEpisodeIDSequence PatientState
    ClinicalTrialTimePointID ClinicalTrialTimePointDescription
    LongitudinalTemporalOffsetFromEvent LongitudinalTemporalEventType
    ClinicalTrialTimePointTypeCodeSequence IssuerOfClinicalTrialTimePointID
    ConsentForClinicalTrialUseSequence
    SpecificCharacterSet TimezoneOffsetFromUTC LongitudinalTemporalInformationModified
    """)

#: Series, frame of reference, equipment, acquisition and image, as every IOD here has them.
_EVERY_IMAGE = PATIENT_STUDY | _words("""
    Modality SeriesDate SeriesTime SeriesDescription SeriesNumber PerformingPhysicianName
    PerformingPhysicianIdentificationSequence OperatorsName OperatorIdentificationSequence
    AnatomicalOrientationType BodyPartExamined ProtocolName PatientPosition Laterality
    RequestAttributesSequence TreatmentSessionUID
    ClinicalTrialCoordinatingCenterName ClinicalTrialSeriesID ClinicalTrialSeriesDescription
    IssuerOfClinicalTrialSeriesID
    FrameOfReferenceUID PositionReferenceIndicator
    TriggerSourceOrType SynchronizationTrigger SynchronizationChannel AcquisitionTimeSynchronized
    TimeSource TimeDistributionProtocol NTPSourceAddress SynchronizationFrameOfReferenceUID
    Manufacturer InstitutionName InstitutionAddress StationName InstitutionalDepartmentName
    InstitutionalDepartmentTypeCodeSequence ManufacturerModelName DeviceSerialNumber DeviceUID
    GantryID UDISequence ManufacturerDeviceClassUID SoftwareVersions SpatialResolution
    DateOfLastCalibration TimeOfLastCalibration DateOfManufacture DateOfInstallation
    AcquisitionUID AcquisitionDate AcquisitionDateTime AcquisitionTime IrradiationEventUID
    AcquisitionDuration AcquisitionNumber ImagesInAcquisition
    ImageType AnatomicRegionSequence PrimaryAnatomicStructureSequence PatientOrientation
    ImageLaterality ImageComments QualityControlImage BurnedInAnnotation
    RecognizableVisualFeatures LossyImageCompression LossyImageCompressionRatio
    LossyImageCompressionMethod PresentationLUTShape ReferencedImageSequence
    SliceThickness SpacingBetweenSlices SliceLocation PhotometricInterpretation
    WindowCenter WindowWidth WindowCenterWidthExplanation VOILUTFunction
    RescaleType ContributingEquipmentSequence CodingSchemeIdentificationSequence
    DeviceSequence ViewCodeSequence SliceProgressionDirection
    ContainerIdentifier IssuerOfTheContainerIdentifierSequence
    AlternateContainerIdentifierSequence ContainerTypeCodeSequence ContainerDescription
    ContainerComponentSequence SpecimenDescriptionSequence
    """)

#: The contrast agent, as classic CT and MR images describe it.
CONTRAST = _words("""
    ContrastBolusAgent ContrastBolusAgentSequence ContrastBolusAdministrationRouteSequence
    ContrastBolusRoute ContrastBolusVolume ContrastBolusStartTime ContrastBolusStopTime
    ContrastBolusTotalDose ContrastFlowRate ContrastFlowDuration ContrastBolusIngredient
    ContrastBolusIngredientConcentration
    """)

_EQUIPMENT_FRAME = _words("""
    IsocenterPosition EquipmentFrameOfReferenceUID PatientTreatmentPreparationSequence
    PatientToEquipmentRelationshipSequence
    ImagingEquipmentToTreatmentDeliveryDeviceRelationshipSequence ReferencedRTPlanSequence
    """)

_CT = _words("""
    PatientOrientationCodeSequence PatientEquipmentRelationshipCodeSequence
    ScanOptions KVP DataCollectionDiameter ReconstructionDiameter DistanceSourceToDetector
    DistanceSourceToPatient GantryDetectorTilt TableHeight RotationDirection ExposureTime
    XRayTubeCurrent Exposure ExposureInuAs ImageAndFluoroscopyAreaDoseProduct FilterType
    GeneratorPower FocalSpots ConvolutionKernel WaterEquivalentDiameter
    WaterEquivalentDiameterCalculationMethodCodeSequence FilterMaterial RevolutionTime
    SingleCollimationWidth TotalCollimationWidth TableSpeed TableFeedPerRotation
    SpiralPitchFactor DataCollectionCenterPatient ReconstructionTargetCenterPatient
    ExposureModulationType CTDIvol CTDIPhantomTypeCodeSequence CalciumScoringMassFactorPatient
    CalciumScoringMassFactorDevice EnergyWeightingFactor CTAdditionalXRaySourceSequence
    MultienergyCTAcquisition MultienergyCTAcquisitionSequence MultienergyCTProcessingSequence
    MultienergyCTCharacteristicsSequence ScanStartPositionSequence ScanStopPositionSequence
    ScanArcType DetectorPositioningType
    """)

#: The last line is not of the MR Image IOD, but distinguishes the parts of a diffusion series.
_MR = _words("""
    PatientOrientationCodeSequence PatientEquipmentRelationshipCodeSequence
    ScanningSequence SequenceVariant ScanOptions MRAcquisitionType SequenceName AngioFlag
    RepetitionTime EchoTime InversionTime NumberOfAverages ImagingFrequency ImagedNucleus
    EchoNumbers MagneticFieldStrength NumberOfPhaseEncodingSteps EchoTrainLength PercentSampling
    PercentPhaseFieldOfView PixelBandwidth TriggerTime NominalInterval BeatRejectionFlag
    LowRRValue HighRRValue IntervalsAcquired IntervalsRejected PVCRejection SkipBeats HeartRate
    CardiacNumberOfImages TriggerWindow ReconstructionDiameter ReceiveCoilName TransmitCoilName
    AcquisitionMatrix InPlanePhaseEncodingDirection FlipAngle VariableFlipAngleFlag SAR dBdt
    B1rms TemporalPositionIdentifier NumberOfTemporalPositions TemporalResolution
    DiffusionBValue DiffusionGradientOrientation
    """)

_PET = _words("""
    AcquisitionTerminationCondition AcquisitionStartCondition AcquisitionStartConditionData
    AcquisitionTerminationConditionData ReconstructionDiameter GantryDetectorTilt
    GantryDetectorSlew FieldOfViewShape FieldOfViewDimensions CollimatorGridName CollimatorType
    ConvolutionKernel CorrectedImage EnergyWindowRangeSequence NumberOfRRIntervals
    NumberOfTimeSlots NumberOfSlices NumberOfTimeSlices TypeOfDetectorMotion
    ScanProgressionDirection SeriesType Units CountsSource ReprojectionMethod SUVType
    RandomsCorrectionMethod AttenuationCorrectionMethod DecayCorrection ReconstructionMethod
    DetectorLinesOfResponseUsed ScatterCorrectionMethod AxialAcceptance AxialMash TransverseMash
    DetectorElementSize CoincidenceWindowWidth SecondaryCountsType
    InterventionDrugInformationSequence RadiopharmaceuticalInformationSequence
    CardiacFramingType BeatRejectionFlag PVCRejection SkipBeats HeartRate
    PatientOrientationCodeSequence PatientGantryRelationshipCodeSequence
    TriggerTime NominalInterval FrameTime LowRRValue HighRRValue IntervalsAcquired
    IntervalsRejected ActualFrameDuration FrameReferenceTime PrimaryPromptsCountsAccumulated
    SecondaryCountsAccumulated SliceSensitivityFactor DecayFactor DoseCalibrationFactor
    ScatterFractionFactor DeadTimeFactor ImageIndex AcquisitionContextSequence
    AcquisitionContextDescription
    """)

#: Parts of the body (PS3.16) that exist once; of the others the side must be stated.
UNPAIRED = _words("""
    ABDOMEN ABDOMENPELVIS AORTA BACK BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN
    CHESTABDPELVIS CIRCLEOFWILLIS COCCYX COLON CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS
    FACE GALLBLADDER HEAD HEADNECK HEART ILEUM ILIUM JAW JEJUNUM LARYNX LIVER LSPINE LSSPINE
    MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE PANCREAS
    PELVIS PENIS PHARYNX PROSTATE RECTUM SCALP SKULL SPINE SPLEEN SSPINE STERNUM STOMACH THYMUS
    THYROID TLSPINE TONGUE TRACHEA TSPINE URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY
    """)

#: What identifies a frame of a sequence, whatever its modality was, and the units of PET.
_CAPTURE = _words("""
    PatientOrientationCodeSequence PatientEquipmentRelationshipCodeSequence
    TemporalPositionIdentifier NumberOfTemporalPositions Units
    """)

_KEPT = {
    CT_IMAGE: _EVERY_IMAGE | CONTRAST | _EQUIPMENT_FRAME | _CT,
    MR_IMAGE: _EVERY_IMAGE | CONTRAST | _EQUIPMENT_FRAME | _MR,
    PET_IMAGE: _EVERY_IMAGE | _EQUIPMENT_FRAME | _PET,
    SECONDARY_CAPTURE: _EVERY_IMAGE | _CAPTURE,
}


def kept_attributes(sop_class: str) -> frozenset[str]:
    """Keywords that a derived image of this class takes over from its source, if present."""
    return _KEPT[sop_class]


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
#: PET elements of one kind of series alone, by value 1 of SeriesType.
_OF_SERIES_TYPE = {
    "NumberOfRRIntervals": ("GATED",), "NumberOfTimeSlots": ("GATED",), "FrameTime": ("GATED",),
    "LowRRValue": ("GATED",), "HighRRValue": ("GATED",), "TriggerTime": ("GATED",),
    "CardiacFramingType": ("GATED",), "NumberOfTimeSlices": ("DYNAMIC",),
}  # fmt: skip


def complete(image: Dataset, sop_class: str) -> None:
    """Fill in what the standard requires of an image, and correct what is wrong, in place.

    Args:
        image: with its pixels, place and intensities.
        sop_class: CT_IMAGE, MR_IMAGE, PET_IMAGE or SECONDARY_CAPTURE.
    """
    for keyword in (*_EMPTY, *_EMPTY_OF[sop_class]):
        if keyword not in image:
            setattr(image, keyword, [] if keyword.endswith("Sequence") else None)
    _set_position(image, sop_class)
    _set_side(image)
    if sop_class == MR_IMAGE:
        _correct_mr(image)
    if sop_class == PET_IMAGE:
        _correct_pet(image)
    if sop_class == SECONDARY_CAPTURE:
        image.ConversionType = "WSD"  # made on a workstation
        image.PatientOrientation = _orientation(image.ImageOrientationPatient)


def _set_position(image: Dataset, sop_class: str) -> None:
    """State the patient's position either as PatientPosition or as codes, never as both."""
    if sop_class == PET_IMAGE and not image.get("PatientOrientationCodeSequence"):
        _set_position_codes(image)
    if image.get("PatientOrientationCodeSequence") or sop_class == PET_IMAGE:
        if sop_class == PET_IMAGE or not image.get("PatientPosition"):
            image.pop("PatientPosition", None)
            return
        for keyword in (
            "PatientOrientationCodeSequence",
            "PatientEquipmentRelationshipCodeSequence",
        ):
            image.pop(keyword, None)
    elif "PatientPosition" not in image and sop_class != SECONDARY_CAPTURE:
        image.PatientPosition = None


def _set_position_codes(image: Dataset) -> None:
    """PatientPosition as the codes that PET has for it, if these are empty."""
    from pydicom.sr.codedict import codes

    position = str(image.get("PatientPosition") or "")
    lying = {
        "S": codes.cid20.Supine, "P": codes.cid20.Prone,
        "DL": codes.cid20.LeftLateralDecubitus, "DR": codes.cid20.RightLateralDecubitus,
    }.get(position[2:])  # fmt: skip
    into = {"HF": codes.cid21.Headfirst, "FF": codes.cid21.FeetFirst}.get(position[:2])
    if lying is None or into is None:
        return
    recumbent = _item(codes.cid19.Recumbent)
    recumbent.PatientOrientationModifierCodeSequence = [_item(lying)]
    image.PatientOrientationCodeSequence = [recumbent]
    image.PatientGantryRelationshipCodeSequence = [_item(into)]


def _item(code: Code) -> Dataset:
    return coded(code.value, code.meaning, code.scheme_designator)


def _set_side(image: Dataset) -> None:
    """Laterality: required of paired parts, empty if unknown; not allowed for others."""
    if image.get("ImageLaterality"):
        image.pop("Laterality", None)
    elif not image.get("Laterality"):
        image.pop("Laterality", None)
        if str(image.get("BodyPartExamined") or "").upper() not in UNPAIRED:
            image.Laterality = None


def _orientation(cosines: Sequence[float]) -> list[str]:
    """The directions of rows and columns in letters, the nearest direction of the body first."""
    letters = []
    for axis in (cosines[:3], cosines[3:]):
        parts = [(abs(float(value)), number, value > 0) for number, value in enumerate(axis)]
        shown = [part for part in sorted(parts, reverse=True) if part[0] > 1e-3]
        letters.append("".join("RAF"[n] if not up else "LPH"[n] for _, n, up in shown))
    return letters


def _correct_mr(image: Dataset) -> None:
    if not image.get("ScanningSequence"):
        image.ScanningSequence = "RM"  # research mode: the sequence is unknown
    if not image.get("SequenceVariant"):
        image.SequenceVariant = "NONE"
    sequence, options = (_values(image, keyword) for keyword in ("ScanningSequence", "ScanOptions"))
    if "IR" in sequence and "InversionTime" not in image:
        image.InversionTime = None
    if "IR" not in sequence:
        image.pop("InversionTime", None)
    if not {"CG", "PPG", "CT"} & options:
        image.pop("TriggerTime", None)
    if ("EP" not in sequence or "SK" in _values(image, "SequenceVariant")) and (
        "RepetitionTime" not in image
    ):
        image.RepetitionTime = None


def _correct_pet(image: Dataset) -> None:
    kind = str((values_of(image, "SeriesType") or [""])[0])
    for keyword, kinds in _OF_SERIES_TYPE.items():
        if keyword in image and kind not in kinds:
            del image[keyword]
    for agent in image.get("RadiopharmaceuticalInformationSequence") or []:
        if "RadionuclideCodeSequence" not in agent:
            agent.RadionuclideCodeSequence = []


def _values(image: Dataset, keyword: str) -> set[str]:
    return set(map(str, values_of(image, keyword)))
