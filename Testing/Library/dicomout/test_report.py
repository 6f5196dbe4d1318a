"""The table of volumes and surfaces as a structured report: a group per label, of its segment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from Library.dicomout.writing import write_measurements, write_segmentation
from pydicom import Dataset

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout import Derivation, new_study
from MedEnhanceLib.io.dicomout.segments import build_measurements, build_segmentation
from MedEnhanceLib.runtime.progress import Monitor

Examine = Callable[[Path], list[str]]
Rows = list[dict[str, Any]]


@pytest.fixture
def table() -> Rows:
    return [
        {"label": "Gray matter", "value": 1, "voxels": 12, "volume_ml": 0.012, "surface_mm2": 31.4},
        {"label": "Läsion", "value": 7, "voxels": 9, "volume_ml": 1234.5, "surface_mm2": 98765.4},
        {"label": "Absent", "value": 3, "voxels": 0, "volume_ml": 0.0, "surface_mm2": 0.0},
    ]


def read_back(built: Dataset, folder: Path) -> Any:
    """The measurement groups of a report that was written to a file."""
    import highdicom

    built.save_as(folder / "report.dcm")
    report = highdicom.sr.srread(folder / "report.dcm")
    return report.content.get_volumetric_roi_measurement_groups()


@pytest.fixture
def segmentation(study: Any, labels: Volume, meanings: Rows, derivation: Derivation) -> Dataset:
    return build_segmentation(
        labels, meanings, template=study.template, derivation=derivation, monitor=Monitor()
    )


@pytest.fixture
def built(
    study: Any, table: Rows, meanings: Rows, derivation: Derivation, segmentation: Dataset
) -> Dataset:
    return build_measurements(
        table,
        meanings,
        template=study.template,
        derivation=derivation,
        segmentation=segmentation,
    )


def texts(items: Any) -> list[str]:
    """All texts of a report, from its root down."""
    found = []
    for item in items:
        if item.ValueType == "TEXT":
            found.append(item.TextValue)
        found += texts(item.get("ContentSequence") or [])
    return found


def test_the_report_gives_back_each_size_with_its_label(
    tmp_path: Path, built: Dataset, segmentation: Dataset, table: Rows
) -> None:
    groups = read_back(built, tmp_path)
    assert len(groups) == 3
    for group, segment, row in zip(groups, segmentation.SegmentSequence, table, strict=True):
        assert [
            (size.name.scheme_designator, size.name.value, size.value, size.unit.value)
            for size in group.get_measurements()
        ] == [
            ("SCT", "118565006", row["volume_ml"], "mL"),
            ("IBSI", "C0JK", row["surface_mm2"], "mm2"),
        ]
        assert {size.unit.scheme_designator for size in group.get_measurements()} == {"UCUM"}
        assert group.tracking_uid == segment.TrackingUID
        assert group.finding_type.value == segment.SegmentedPropertyTypeCodeSequence[0].CodeValue
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        assert reference.referenced_segment_numbers == [segment.SegmentNumber]


def test_the_report_says_how_surfaces_were_measured(tmp_path: Path, built: Dataset) -> None:
    """By its name the code is of a mesh; the report states what the method's own code is of."""
    _, surface = read_back(built, tmp_path)[0].get_measurements()
    assert surface.method.meaning == "Crofton formula over segmented voxels"
    (scheme,) = built.CodingSchemeIdentificationSequence
    assert surface.method.scheme_designator == scheme.CodingSchemeDesignator == "99MEDENHANCE"


def test_a_table_without_surfaces_gives_volumes_alone(
    tmp_path: Path,
    study: Any,
    table: Rows,
    meanings: Rows,
    derivation: Derivation,
    segmentation: Dataset,
) -> None:
    for row in table:
        del row["surface_mm2"]
    options = {"template": study.template, "segmentation": segmentation}
    report = build_measurements(table, meanings, derivation=derivation, **options)
    names = [
        [size.name.meaning for size in group.get_measurements()]
        for group in read_back(report, tmp_path)
    ]
    assert names == [["Volume"]] * 3


def test_the_standard_is_met(
    tmp_path: Path,
    examine: Examine,
    study: Any,
    labels: Volume,
    table: Rows,
    meanings: Rows,
    derivation: Derivation,
) -> None:
    options = {"template": study.template, "derivation": derivation, "monitor": Monitor()}
    segmentation = write_segmentation(labels, meanings, tmp_path / "out", **options)
    path = write_measurements(
        table, meanings, tmp_path / "out", segmentation=segmentation, **options
    )
    assert [line for line in examine(path) if "PatientSex" not in line] == []


def test_it_is_unverified_complete_and_for_research_alone(built: Dataset) -> None:
    assert built.VerificationFlag == "UNVERIFIED"
    assert built.CompletionFlag == "COMPLETE"
    assert built.PreliminaryFlag == "PRELIMINARY"
    assert any("Research use only" in text for text in texts(built.ContentSequence))
    assert any("brain-tissue" in text for text in texts(built.ContentSequence))
    assert built.SeriesDescription == "axial MedEnhance measurements"
    assert built.SeriesNumber == 4001


def test_it_names_the_device_the_patient_and_the_evidence(
    built: Dataset, segmentation: Dataset
) -> None:
    assert any(text.startswith("MedEnhance ") for text in texts(built.ContentSequence))
    assert (str(built.PatientName), built.StudyInstanceUID) == ("Müller^Jörg", "1.2.3")
    (study,) = built.CurrentRequestedProcedureEvidenceSequence
    named = {
        image.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }
    assert study.StudyInstanceUID == "1.2.3"
    assert named == {segmentation.SOPInstanceUID, *(f"1.2.3.1.{k}" for k in range(1, 7))}


def test_labels_of_one_name_are_distinguished_by_value(
    study: Any, labels: Volume, derivation: Derivation
) -> None:
    meanings = [{"value": 1, "name": "lung"}, {"value": 7, "name": "lung"}]
    options = {"template": study.template, "derivation": derivation}
    segmentation = build_segmentation(labels, meanings, monitor=Monitor(), **options)
    report = build_measurements(
        [{"label": "lung", "value": 7, "volume_ml": 7.0}],
        meanings,
        segmentation=segmentation,
        **options,
    )
    uid = segmentation.SegmentSequence[1].TrackingUID
    assert uid in str(report)


def test_labels_that_never_were_dicom_are_measured_too(
    tmp_path: Path,
    examine: Examine,
    labels: Volume,
    table: Rows,
    meanings: Rows,
    derivation: Derivation,
) -> None:
    template = new_study(modality="MR")
    options = {"template": template, "derivation": derivation, "monitor": Monitor()}
    plain = Volume(labels.voxels, labels.geometry, "SEG")
    segmentation = write_segmentation(plain, meanings, tmp_path / "out", **options)
    path = write_measurements(
        table, meanings, tmp_path / "out", segmentation=segmentation, **options
    )
    assert examine(path) == []
    report = pydicom.dcmread(path)
    assert "Source Series for Segmentation" not in str(report)
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence) == 1


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"label": "Liver", "volume_ml": 1.0}, "Liver"),
        ({"label": "Gray matter", "value": 7, "volume_ml": 1.0}, "Gray matter"),
        ({"label": "Gray matter", "value": 1, "volume_ml": float("nan")}, "nan mL"),
        ({"label": "Gray matter", "value": 1, "volume_ml": -1.0}, "-1.0 mL"),
        (
            {"label": "Gray matter", "value": 1, "volume_ml": 1.0, "surface_mm2": float("inf")},
            "surface of 'Gray matter' is inf mm²",
        ),
    ],
)
def test_rows_without_a_segment_or_with_no_size_are_refused(
    study: Any,
    meanings: Rows,
    derivation: Derivation,
    segmentation: Dataset,
    row: dict[str, Any],
    says: str,
) -> None:
    options = {
        "template": study.template,
        "derivation": derivation,
        "segmentation": segmentation,
    }
    with pytest.raises(InputError, match=says) as caught:
        build_measurements([row], meanings, **options)
    assert caught.value.hint
    with pytest.raises(InputError, match="empty"):
        build_measurements([], meanings, **options)
