"""What derived objects take over of their source, and which images a derived slice names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from Library.conftest import Make
from Library.dicom.images import MR, enhanced_mr
from Library.dicomout.conftest import Sound
from Library.dicomout.writing import derive
from pydicom import Dataset

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import DicomOrigin
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout import new_study, read_template
from MedEnhanceLib.io.dicomout.derivation import with_elements
from MedEnhanceLib.io.dicomout.template import correct, frame_as_image


def origin_of(folder: Path) -> DicomOrigin:
    origin = io.load(folder).dicom_origin
    assert origin is not None
    return origin


def test_faults_of_the_source_are_corrected_with_a_warning(
    make_series: Make, recorder: Any
) -> None:
    odd = {"StudyID": "longer than sixteen characters", "PatientIdentityRemoved": "YES"}
    with pytest.warns(UserWarning):
        folder = make_series(np.zeros((2, 4, 5), np.int16), **odd)
    template = read_template(origin_of(folder), recorder.monitor)
    assert not template.study.StudyID
    assert template.study.DeidentificationMethod
    emptied = "the source's StudyID is left empty, as its value is not valid DICOM (SH)"
    assert recorder.warnings.count(emptied) == 1  # once, not once a file


def test_values_beyond_repair_are_left_empty_but_a_patient_is_never_cut() -> None:
    dataset = Dataset()
    with pytest.warns(UserWarning):
        dataset.StudyDate = "no date"
        dataset.PatientSex = "unknown!"
        dataset.PatientID = "x" * 80
    assert len(correct(dataset)) == 2
    assert not dataset.StudyDate
    assert not dataset.PatientSex
    assert dataset.PatientID == "x" * 80


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("patient_id", value) for value in ("x" * 65, "a\\b", "line\nend", "   ")),
        *(("patient_name", value) for value in ("A=B=C=D", "A^B^C^D^E^F^G", "a\\b", "x" * 65)),
    ],
)
def test_a_new_study_refuses_what_dicom_cannot_hold(field: str, value: str) -> None:
    with pytest.raises(InputError, match="DICOM cannot hold"):
        new_study(modality="CT", **{field: value})


def test_a_new_study_takes_names_in_several_scripts_and_invents_nobody() -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    study = new_study(modality="MR", patient_id=" 42 ", patient_name=name).study
    assert (str(study.PatientName), study.PatientID) == (name, "42")
    template = new_study(modality="EM")
    assert (template.modality, template.headers, template.dicom_origin) == ("OT", [], None)
    assert (template.study.PatientName, template.study.PatientID) == ("", "")


def test_a_frame_has_its_own_groups_and_those_that_all_share() -> None:
    source = enhanced_mr(np.zeros((2, 4, 5), np.uint16), [0.0, 1.0])
    source.PerFrameFunctionalGroupsSequence[1].MREchoSequence = [
        with_elements(EffectiveEchoTime=3.5)
    ]
    content = source.PerFrameFunctionalGroupsSequence[1].FrameContentSequence[0]
    content.TemporalPositionIndex = 2
    image = frame_as_image(source, 2, "file")
    assert list(image.PixelSpacing) == [0.5, 0.75]
    assert [float(mm) for mm in image.ImagePositionPatient] == [-3, 4, 1]
    assert float(image.EchoTime) == 3.5
    assert (image.TemporalPositionIdentifier, image.InstanceNumber) == (2, 2)
    assert "PerFrameFunctionalGroupsSequence" not in image
    assert len(source.PerFrameFunctionalGroupsSequence) == 2  # the source is left alone
    with pytest.raises(InputError, match="no frame 3"):
        frame_as_image(source, 3, "file")


@pytest.fixture
def axial(make_series: Make) -> Volume:
    """Five slices at 0, 3, … 12 mm, each taken at a time of its own."""
    return io.load(
        make_series(
            np.zeros((5, 8, 6), np.int16),
            positions=[(0, 0, 3.0 * k) for k in range(5)],
            **MR,
            PatientName="Doe^Jane",
            RepetitionTime="500",
            slice_elements=lambda k: {
                "AcquisitionTime": f"10000{k}",
                "BurnedInAnnotation": "NO" if k else "YES",
            },
        )
    )


def sources(volume: Volume, series: Volume) -> tuple[list[Dataset], list[list[int]]]:
    """The images of a volume beside a series, and which of its images each of them names."""
    assert series.dicom_origin is not None
    beside = replace(volume, dicom_origin=replace(series.dicom_origin, on_grid=False))
    images = derive(beside)
    number = {one.sop_instance: k for k, one in enumerate(series.dicom_origin.instances[0])}
    return images, [
        [number[str(item.ReferencedSOPInstanceUID)] for item in image.SourceImageSequence]
        for image in images
    ]


def resliced(axial: Volume, spacing: float, first: float = 0.0, count: int = 13) -> Volume:
    (x, y, z), (across, down, _) = axial.geometry.origin, axial.geometry.spacing
    geometry = Geometry((across, down, spacing), (x, y, z + first), axial.geometry.direction)
    return Volume(np.zeros((count, 8, 6), np.int16), geometry, "MR")


def test_a_slice_between_two_images_names_both(axial: Volume) -> None:
    images, named = sources(resliced(axial, 1.0), axial)
    assert {float(image.SliceThickness) for image in images} == {1.0}
    assert named[:5] == [[0], [0, 1], [0, 1], [1], [1, 2]]
    assert named[12] == [4]


def test_a_slice_made_up_in_a_gap_names_the_images_on_both_sides(make_series: Make) -> None:
    positions = [(0, 0, place) for place in (0.0, 3.0, 6.0, 12.0, 15.0)]
    folder = make_series(np.zeros((5, 8, 6), np.int16), positions=positions)
    series = io.load(folder, resample=True)
    assert series.shape[0] == 6
    images, named = sources(series, series)
    assert named == [[0], [1], [2], [2, 3], [3], [4]]
    assert ".dcm" not in images[0].DerivationDescription
    assert "113085" in [one.CodeValue for one in images[0].DerivationCodeSequence]
    assert images[3].SourceImageSequence[0].SpatialLocationsPreserved == "NO"
    assert "SliceLocation" not in images[3]


def test_a_thick_slice_names_all_that_it_reaches(axial: Volume) -> None:
    _, named = sources(resliced(axial, 9.0, first=4.5, count=1), axial)
    assert named == [[0, 1, 2, 3]]


def test_a_slice_across_images_names_all_and_states_what_all_state(
    axial: Volume, sound: Sound
) -> None:
    sagittal = Volume(
        np.zeros((4, 5, 8), np.int16),
        Geometry((1.0, 3.0, 1.0), (1.0, 0.0, 12.0), ((0, 0, 1), (1, 0, 0), (0, -1, 0))),
        "MR",
    )
    images, named = sources(sagittal, axial)
    assert named == [[0, 1, 2, 3, 4]] * 4
    for image in images:
        assert image.PatientName == "Doe^Jane"
        assert image.RepetitionTime == 500
        assert image.BurnedInAnnotation == "YES"  # as of one of them
        assert "AcquisitionTime" not in image
    sound(images)


@pytest.mark.parametrize("damage", ["gone", "cut", "garbage", "another"])
def test_a_file_that_is_no_longer_what_was_read_is_named(make_series: Make, damage: str) -> None:
    folder = make_series(np.zeros((2, 4, 5), np.int16))
    origin = origin_of(folder)
    one = sorted(folder.iterdir())[0]
    if damage == "another":
        dataset = pydicom.dcmread(one)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.9.9"
        dataset.save_as(one)
    elif damage == "gone":
        one.unlink()
    else:
        one.write_bytes(one.read_bytes()[:150] if damage == "cut" else b"garbage" * 100)
    says = "has changed since" if damage == "another" else ""
    with pytest.raises(InputError, match=f"{one.name}.*{says}"):
        read_template(origin)
