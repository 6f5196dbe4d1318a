"""Derived objects without the patient: nothing that was planted, all that the scan needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout import Derivation, Template
from MedEnhanceLib.io.dicomout.pseudonym import without_patient

from .conftest import MEANINGS, Examine, Study, study_of
from .writing import write_segmentation, write_series

_PLANTED = (
    b"Doe",
    b"DOE",
    b"Jane",
    b"P-1742",
    b"Saint",
    b"1958",
    b"2020013",
    b"1.2.3.4.5",
    b"Ward",
)


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", meaning
    return code


@pytest.fixture
def named(make_series: Callable[..., Path]) -> Study:
    """A CT that names its patient where it should, and where it should not."""
    agent = _code("7140000", "Contrast of Doe")
    agent.PatientComments = "Jane"
    region = _code("69536005", "Head")
    return study_of(
        make_series(
            np.zeros((3, 6, 5), np.int16),
            slice_elements=lambda index: {"SOPInstanceUID": f"1.2.3.4.5.{index + 1}"},
            uid="1.2.3.4.5",
            FrameOfReferenceUID="1.2.3.4.5.99",
            PatientName="Doe^Jane",
            PatientID="P-1742",
            PatientBirthDate="19580302",
            StudyDate="20200131",
            SeriesDate="20200131",
            AcquisitionDateTime="20200131120000",
            InstitutionName="Saint Elsewhere",
            StationName="Ward7",
            SeriesDescription="brain of Jane",
            ProtocolName="head, Doe",
            ConvolutionKernel="DOE_SHARP",
            Manufacturer="ACME",
            KVP="120",
            BodyPartExamined="HEAD",
            ContrastBolusAgentSequence=[agent],
            AnatomicRegionSequence=[region],
        )
    )


def test_nothing_planted_is_in_any_byte_and_the_scan_is(
    named: Study, tmp_path: Path, examine: Examine
) -> None:
    files = write_series(named.volume, tmp_path / "out", template=without_patient(named.template))
    for path in files:
        content = path.read_bytes()
        assert [word for word in _PLANTED if word in content] == []
        assert examine(path) == []
        image = dcmread(path)
        assert image.PatientID == str(image.PatientName)
        assert image.PatientID.startswith("ANON-")
        assert image.PatientIdentityRemoved == "YES"
    first = dcmread(files[0])
    assert first.Manufacturer == "ACME"
    assert (str(first.KVP), first.BodyPartExamined) == ("120", "HEAD")
    assert first.AnatomicRegionSequence[0].CodeMeaning == "Head"
    assert "ConvolutionKernel" not in first


def test_a_segmentation_refers_to_the_images_by_their_new_uids(
    study: Study, labels: Volume, derivation: Derivation, tmp_path: Path, examine: Examine
) -> None:
    template = without_patient(study.template)
    place = study.volume.origin
    assert place is not None
    path = write_segmentation(
        labels, MEANINGS, tmp_path / "seg", template=template, derivation=derivation
    )
    assert examine(path) == []
    assert template.origin is not None
    new = {one.sop_instance for frame in template.origin.instances for one in frame}
    old = {one.sop_instance for frame in place.instances for one in frame}
    referred = {str(item.ReferencedSOPInstanceUID) for item in dcmread(path).SourceImageSequence}
    assert referred <= new
    assert not referred & old


def test_two_runs_share_no_pseudonym_and_no_uid(named: Study) -> None:
    first, second = without_patient(named.template), without_patient(named.template)
    assert first.study.PatientID != second.study.PatientID
    assert first.study.StudyInstanceUID != second.study.StudyInstanceUID
    assert named.template.study.PatientID == "P-1742"


@pytest.mark.parametrize(
    "elements",
    [
        {"BurnedInAnnotation": "YES"},
        {"Modality": "OT"},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    ],
)
def test_images_that_may_show_text_are_refused(named: Study, elements: dict[str, Any]) -> None:
    template = _with(named.template, **elements)
    with pytest.raises(InputError, match="burned into") as caught:
        without_patient(template)
    assert "dicom-anonymizer" in caught.value.hint
    if "BurnedInAnnotation" not in elements:
        without_patient(_with(template, BurnedInAnnotation="NO"))


def _with(template: Template, **elements: Any) -> Template:
    for header in template.headers:
        for keyword, value in elements.items():
            setattr(header, keyword, value)
    return template
