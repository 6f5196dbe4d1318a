"""Which attributes of a source go into what is derived from it: a list of what may, by IOD.

A list of what must not would let everything through that nobody thought of: private elements,
signatures of pixels that are no longer there, overlays, lookup tables, the smallest and largest
value of other voxels. The attributes are those that PS3.3 gives the modules of each IOD, less
what the derivation makes untrue. Of the performed procedure step only the request is kept: the
step that made the source did not make this series.
"""

from __future__ import annotations

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
PET_IMAGE = "1.2.840.10008.5.1.4.1.1.128"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: The class that is written for a volume, by its modality.
SOP_CLASSES = {"CT": CT_IMAGE, "MR": MR_IMAGE, "PT": PET_IMAGE}

#: What a PET image must tell of its intensities, which nobody knows who was not there.
TOLD_BY_PET = (
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

#: The contrast agent, as the classic CT and MR images tell it.
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

#: The last line is beyond the MR Image IOD, but tells the parts of a diffusion series apart.
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

#: Of PS3.16's parts of the body those that there is one of: for the others it matters which.
UNPAIRED = _words("""
    ABDOMEN ABDOMENPELVIS AORTA BACK BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN
    CHESTABDPELVIS CIRCLEOFWILLIS COCCYX COLON CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS
    FACE GALLBLADDER HEAD HEADNECK HEART ILEUM ILIUM JAW JEJUNUM LARYNX LIVER LSPINE LSSPINE
    MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE PANCREAS
    PELVIS PENIS PHARYNX PROSTATE RECTUM SCALP SKULL SPINE SPLEEN SSPINE STERNUM STOMACH THYMUS
    THYROID TLSPINE TONGUE TRACHEA TSPINE URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY
    """)

#: What a frame of a sequence is told by, of whatever modality it was, and the units of PET.
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
    """Keywords that a derived image of this class takes over from its source, where it has them."""
    return _KEPT[sop_class]
