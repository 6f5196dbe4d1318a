"""The table of volumes and surfaces as a DICOM structured report: TID 1500, a group per label."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from MedEnhanceLib._version import __version__
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout.derivation import MANUFACTURER, Derivation
from MedEnhanceLib.io.dicomout.items import short_text, with_elements
from MedEnhanceLib.io.dicomout.objects import identity, leave_patient_open, sign
from MedEnhanceLib.io.dicomout.template import Template
from MedEnhanceLib.runtime.dependencies import require

if TYPE_CHECKING:
    from pydicom import Dataset

#: DICOM's Modality → what was done to the patient, as DICOM's list of imaging procedures has it.
_PROCEDURES = {
    "CT": "CTUnspecifiedBodyRegion",
    "MR": "MRIUnspecifiedBodyRegion",
    "PT": "PETUnspecifiedBodyRegion",
}
#: The scheme of our own codes, which PS3.16 wants to begin with 99.
_OUR_SCHEME = "99MEDENHANCE"


def build_measurements(
    table: Sequence[Mapping[str, Any]],
    meanings: Sequence[Mapping[str, Any]],
    *,
    template: Template,
    derivation: Derivation,
    segmentation: Dataset,
) -> Dataset:
    """A Comprehensive 3D SR: volume in mL and surface in mm² of each segment of a Segmentation.

    table: rows of `label` and `volume_ml`, with `surface_mm2` where it was measured, and with
    `value` where two labels share a name.
    meanings: as `build_segmentation` had them. segmentation: what that gave.

    It is complete, preliminary and unverified: nobody has looked at it.
    Raises InputError where a row has no segment, no volume, or a size that is no number.
    """
    hd = require("highdicom", purpose="Writing DICOM")
    from pydicom.sr.codedict import codes

    if not table:
        raise InputError("the table of measurements is empty", "Give a row for each label.")
    segments = {int(item.SegmentNumber): item for item in segmentation.SegmentSequence}
    groups = [
        _group(row, segments[_segment_number(row, meanings, segments)], segmentation, derivation)
        for row in table
    ]
    procedure = _PROCEDURES.get(template.modality, "ImagingProcedure")
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=_observer()),
        procedure_reported=getattr(codes.cid100, procedure),
        imaging_measurements=groups,
    )
    content[0].ContentSequence.append(
        hd.sr.TextContentItem(
            name=codes.DCM.Comment,
            value=derivation.text(),
            relationship_type="CONTAINS",
        )
    )
    dataset: Dataset = hd.sr.Comprehensive3DSR(
        evidence=_evidence(segmentation),
        content=content,
        is_complete=True,
        **identity(template, derivation, kind="measurements"),
    )
    sign(dataset, template, derivation, kind="measurements")
    dataset.CodingSchemeIdentificationSequence = [
        with_elements(
            CodingSchemeDesignator=_OUR_SCHEME,
            CodingSchemeName="Codes of MedEnhance",
            CodingSchemeResponsibleOrganization=MANUFACTURER,
        )
    ]
    return dataset


def _segment_number(
    row: Mapping[str, Any], meanings: Sequence[Mapping[str, Any]], segments: Mapping[int, Dataset]
) -> int:
    """The segment that a row tells of; the order of the meanings is that of the segments."""
    named = [meaning for meaning in meanings if int(meaning["value"]) != 0]
    name = short_text(row.get("label"))
    for number, meaning in enumerate(named, 1):
        same = row.get("value", meaning["value"]) == meaning["value"]
        if same and short_text(meaning.get("name")) == name:
            if number in segments and segments[number].SegmentLabel == name:
                return number
            break
    raise InputError(
        f"the segmentation has no segment for the measurement of {name!r}",
        "Give the table, the meanings and the segmentation of one run.",
    )


def _group(
    row: Mapping[str, Any], segment: Dataset, segmentation: Dataset, derivation: Derivation
) -> Any:
    hd = require("highdicom", purpose="Writing DICOM")
    model = derivation.model
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=segment.TrackingUID, identifier=segment.TrackingID
        ),
        referenced_segment=_referenced(segment, segmentation),
        finding_category=_code(segment.SegmentedPropertyCategoryCodeSequence[0]),
        finding_type=_code(segment.SegmentedPropertyTypeCodeSequence[0]),
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=short_text(model.get("name")) or "unnamed",
            version=short_text(model.get("version")) or "unknown",
            parameters=[f"sha256={model['sha256']}"] if model.get("sha256") else None,
        )
        if model
        else None,
        measurements=_measurements(row),
    )


def _measurements(row: Mapping[str, Any]) -> list[Any]:
    """The volume, and the surface where the row tells of it."""
    hd = require("highdicom", purpose="Writing DICOM")
    from pydicom.sr.codedict import codes

    volume = hd.sr.Measurement(
        name=codes.SCT.Volume,
        value=_size(row, "volume", "volume_ml", "mL"),
        unit=hd.sr.CodedConcept("mL", "UCUM", "milliliter"),
        method=codes.DCM.SumOfSegmentedVoxelMethodForVolume,
    )
    if row.get("surface_mm2") is None:
        return [volume]
    # The one code for the surface of a body among DICOM's areas (CID 7471); SNOMED CT's "Area" and
    # "Area of defined region" there may be of a section. By name it is of a mesh and ours is not,
    # so the method is told; DICOM lists none that fits (CID 7473).
    surface = hd.sr.Measurement(
        name=codes.IBSI.SurfaceAreaOfMesh,
        value=_size(row, "surface", "surface_mm2", "mm²"),
        unit=codes.UCUM.SquareMillimeter,
        method=hd.sr.CodedConcept("CROFTON", _OUR_SCHEME, "Crofton formula over segmented voxels"),
    )
    return [volume, surface]


def _size(row: Mapping[str, Any], name: str, field: str, unit: str) -> float:
    value = float(row[field])
    if not math.isfinite(value) or value < 0:
        raise InputError(f"the {name} of {row['label']!r} is {value} {unit}", "Measure again.")
    return value


def _referenced(segment: Dataset, segmentation: Dataset) -> Any:
    """The segment with the series it was drawn on; without, where that was never DICOM."""
    hd = require("highdicom", purpose="Writing DICOM")
    series = segmentation.get("ReferencedSeriesSequence")
    drawn_on = series[0].SeriesInstanceUID if series else segmentation.SeriesInstanceUID
    reference = hd.sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=int(segment.SegmentNumber),
        source_series=hd.sr.SourceSeriesForSegmentation(drawn_on),
    )
    if not series:
        del reference[1]
    return reference


def _code(item: Dataset) -> Any:
    hd = require("highdicom", purpose="Writing DICOM")
    return hd.sr.CodedConcept.from_dataset(item)


def _observer() -> Any:
    """MedEnhance in its version, as the device that measured."""
    hd = require("highdicom", purpose="Writing DICOM")
    from pydicom.sr.codedict import codes

    name = f"MedEnhance {__version__}"
    return hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}",
            name=name,
            manufacturer_name="MedEnhance",
            model_name=name,
        ),
    )


def _evidence(segmentation: Dataset) -> list[Dataset]:
    """The segmentation and the images behind it, without what is the patient's."""
    from pydicom import Dataset

    told = [
        (segmentation.SOPClassUID, segmentation.SOPInstanceUID, segmentation.SeriesInstanceUID),
        *(
            (image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID, series.SeriesInstanceUID)
            for series in segmentation.get("ReferencedSeriesSequence") or []
            for image in series.ReferencedInstanceSequence
        ),
    ]
    evidence = []
    for sop_class, instance, series in told:
        item = Dataset()
        item.SOPClassUID, item.SOPInstanceUID, item.SeriesInstanceUID = sop_class, instance, series
        item.StudyInstanceUID = segmentation.StudyInstanceUID
        leave_patient_open(item)
        evidence.append(item)
    return evidence
