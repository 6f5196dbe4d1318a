"""Volumes as derived series: what stays of the source, what does not, and what is said anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from Library.conftest import Make
from Library.dicomout.conftest import Examine
from Library.dicomout.writing import write_series
from pydicom import Dataset

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.io.dicomout import (
    Derivation,
    build_series,
    new_study,
    read_template,
)
from MedEnhanceLib.io.dicomout.attributes import CT_IMAGE, MR_IMAGE, PET_IMAGE, SECONDARY_CAPTURE
from MedEnhanceLib.io.dicomout.derivation import NOTICE

ENHANCED = Derivation("enhanced", "2 tiles", model={"name": "ct", "sha256": "cd" * 32})
PET = {
    "SOPClassUID": PET_IMAGE,
    "Modality": "PT",
    "Units": "BQML",
    "CountsSource": "EMISSION",
    "DecayCorrection": "START",
    "SeriesType": ["STATIC", "IMAGE"],
    "FrameReferenceTime": "1000.0",
    "DecayFactor": "1.02",
    "RescaleIntercept": 0,
    "SeriesDate": "20200131",
    "SeriesTime": "120000",
    "AcquisitionDate": "20200131",
    "AcquisitionTime": "120500",
}


def derive(volume: Volume, derivation: Derivation = ENHANCED, **options: Any) -> list[Dataset]:
    assert volume.origin is not None
    template = read_template(volume.origin)
    return build_series(volume, template=template, derivation=derivation, **options)


@pytest.fixture
def ct(make_series: Make, rng: np.random.Generator) -> Volume:
    return io.load(
        make_series(
            rng.integers(0, 3000, (4, 6, 5)).astype(np.int16),
            PatientName="Doe^Jane",
            PatientID="42",
            StudyDate="20200131",
            FrameOfReferenceUID="1.2.3.4",
            WindowCenter=40,
            WindowWidth=400,
            KVP=120,
            ImageComments="motion",
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            BodyPartExamined="HEAD",
            BurnedInAnnotation="YES",
            SmallestImagePixelValue=0,
            PixelPaddingValue=-2000,
            slice_elements=lambda k: {"SliceLocation": k, "InstanceNumber": 9 - k},
        )
    )


def test_patient_study_place_and_clinic_stay(ct: Volume) -> None:
    template = read_template(ct.origin)
    for image, source in zip(derive(ct), template.headers, strict=True):
        for keyword in (
            "PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "FrameOfReferenceUID",
            "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
            "WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "KVP",
            "BurnedInAnnotation", "SliceLocation",
        ):  # fmt: skip
            assert image[keyword].value == source[keyword].value, keyword


def test_what_is_no_longer_true_goes(ct: Volume, make_series: Make, tmp_path: Path) -> None:
    image = derive(ct)[0]
    assert "SmallestImagePixelValue" not in image
    assert "PixelPaddingValue" not in image
    assert list(image.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    odd = make_series(
        np.zeros((2, 3, 4), np.int16),
        folder=tmp_path / "odd",
        PatientComments="kept",
        ContentQualification="PRODUCT",
    )
    for file in odd.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.private_block(0x0029, "ACME", create=True).add_new(1, "LO", "secret")
        dataset.add_new(0x60003000, "OW", b"\0\0")
        dataset.save_as(file)
    image = derive(io.load(odd))[0]
    assert image.PatientComments == "kept"
    assert not any(element.tag.is_private or element.tag.group == 0x6000 for element in image)
    assert "ContentQualification" not in image


def test_a_series_of_its_own_says_what_was_done(ct: Volume) -> None:
    images = derive(ct)
    first = images[0]
    assert ct.origin is not None
    assert {image.SeriesInstanceUID for image in images} == {first.SeriesInstanceUID}
    assert first.SeriesInstanceUID != ct.origin.series
    assert len({image.SOPInstanceUID for image in images}) == 4
    assert [image.InstanceNumber for image in images] == [1, 2, 3, 4]
    assert (first.SeriesNumber, first.SeriesDescription) == (1001, "axial MedEnhance enhanced")
    for word in ("Enhanced", "ct", "cd" * 32, "2 tiles", "Research use only"):
        assert word in first.DerivationDescription
    assert first.ImageComments == f"{NOTICE} motion"
    assert first.ContributingEquipmentSequence[-1].Manufacturer == "MedEnhance"
    for image, source in zip(images, ct.origin.instances[0], strict=True):
        (item,) = image.SourceImageSequence
        assert item.ReferencedSOPInstanceUID == source.sop_instance
        assert item.SpatialLocationsPreserved == "YES"
        assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"


def test_unchanged_pet_keeps_its_rescale_slice_by_slice(
    tmp_path: Path, make_series: Make, rng: np.random.Generator, examine: Examine
) -> None:
    stored = rng.integers(0, 32767, (3, 6, 5)).astype(np.int16)
    volume = io.load(
        make_series(stored, **PET, slice_elements=lambda k: {"RescaleSlope": 0.013 * (k + 1)})
    )
    paths = write_series(volume, tmp_path / "out", derivation=ENHANCED)
    assert io.load(tmp_path / "out").is_equal(volume)
    image = pydicom.dcmread(paths[1])
    assert float(image.RescaleSlope) == 0.026
    assert (image.SeriesDate, image.SeriesTime) == ("20200131", "120000")  # decay counts from it
    assert list(image.ImageType[:2]) == ["DERIVED", "PRIMARY"]
    assert examine(paths[0]) == []


def test_pet_that_does_not_state_its_decay_is_no_pet_image(
    make_series: Make, recorder: Any
) -> None:
    volume = io.load(make_series(np.ones((2, 3, 4), np.int16), **{**PET, "DecayFactor": None}))
    image = derive(volume, monitor=recorder.monitor)[0]
    assert (image.SOPClassUID, image.Modality) == (SECONDARY_CAPTURE, "PT")
    assert any("DecayFactor" in said for said in recorder.warnings)


@pytest.fixture
def dynamic_pet(make_series: Make) -> Volume:
    dynamic = {"SeriesType": ["DYNAMIC", "IMAGE"], "NumberOfSlices": 3, "NumberOfTimeSlices": 2}
    return io.load(
        make_series(
            np.arange(6 * 12, dtype=np.int16).reshape(6, 3, 4),
            positions=[(0, 0, 3.0 * (k % 3)) for k in range(6)],
            slice_elements=lambda k: {
                "FrameReferenceTime": str(60000 * (k // 3)),
                "AcquisitionTime": f"120{k // 3}00",
            },
            **PET | dynamic | {"ActualFrameDuration": "60000"},
        )
    )


def test_dynamic_pet_stays_dynamic_and_a_time_point_of_it_is_static(
    tmp_path: Path, dynamic_pet: Volume, examine: Examine
) -> None:
    paths = write_series(dynamic_pet, tmp_path / "out")
    image = pydicom.dcmread(paths[5])
    assert (list(image.SeriesType), image.NumberOfTimeSlices) == (["DYNAMIC", "IMAGE"], 2)
    assert examine(paths[5]) == []
    assert io.load(tmp_path / "out").frame_interval_s == pytest.approx(60)
    paths = write_series(dynamic_pet.frame(1), tmp_path / "static")
    image = pydicom.dcmread(paths[0])
    assert list(image.SeriesType) == ["STATIC", "IMAGE"]
    assert "NumberOfTimeSlices" not in image
    assert float(image.FrameReferenceTime) == 60000
    assert examine(paths[0]) == []


def test_texts_in_another_script_than_the_sources_are_kept(
    tmp_path: Path, make_series: Make, examine: Examine
) -> None:
    foreign = "Łódź 头"
    folder = make_series(np.ones((2, 3, 4), np.int16), BodyPartExamined="HEAD")
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.pop("SpecificCharacterSet", None)
        dataset.add_new(0x00104000, "LT", b"M\xfcller")
        dataset.save_as(file)
    volume = io.load(folder)
    named = Derivation("converted", series_description=foreign)
    (path, *_) = write_series(volume, tmp_path / "out", derivation=named)
    image = pydicom.dcmread(path)
    assert (image.SeriesDescription, image.PatientComments) == (foreign, "Müller")
    assert examine(path) == []


def test_what_a_source_says_against_the_standard_is_not_passed_on(
    tmp_path: Path, make_series: Make, examine: Examine
) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "lying"
    volume = io.load(
        make_series(
            np.zeros((2, 3, 4), np.int16),
            SOPClassUID=MR_IMAGE,
            Modality="MR",
            RescaleSlope=None,
            RescaleIntercept=None,
            ScanningSequence="SE",
            SequenceVariant="NONE",
            InversionTime="100",
            TriggerTime="200",
            PatientPosition="HFS",
            PatientOrientationCodeSequence=[code],
            BodyPartExamined="EXTREMITY",
        )
    )
    image = derive(volume)[0]
    for keyword in ("InversionTime", "TriggerTime", "PatientOrientationCodeSequence"):
        assert keyword not in image
    assert image.PatientPosition == "HFS"
    paths = write_series(volume, tmp_path / "out", derivation=ENHANCED)
    assert examine(paths[0]) == []


def test_cut_slices_name_what_they_were_made_from(ct: Volume) -> None:
    origin = ct.origin
    assert origin is not None
    cut = Volume(
        ct.voxels[1:3, 2:, 1:],
        ct.geometry.cropped((1, 2, 1)),
        "CT",
        "HU",
        origin=replace(origin, instances=(origin.instances[0][1:3],)),
    )
    images = derive(cut)
    for image, source in zip(images, origin.instances[0][1:3], strict=True):
        (item,) = image.SourceImageSequence
        assert item.ReferencedSOPInstanceUID == source.sop_instance
    assert [float(x) for x in images[0].ImagePositionPatient] == [-9.5, 21.6, 2.5]


@pytest.mark.parametrize(
    ("modality", "sop_class"),
    [("CT", CT_IMAGE), ("MR", MR_IMAGE), ("PT", SECONDARY_CAPTURE), ("OT", SECONDARY_CAPTURE),
     ("EM", SECONDARY_CAPTURE)],
)  # fmt: skip
@pytest.mark.parametrize("frames", [1, 3])
def test_what_never_was_dicom_comes_back(
    tmp_path: Path,
    examine: Examine,
    rng: np.random.Generator,
    oblique_geometry: Geometry,
    modality: str,
    sop_class: str,
    frames: int,
) -> None:
    voxels = rng.integers(0, 2000, (frames, 4, 6, 5), dtype=np.int16)
    interval_s = 2.5 if frames > 1 else None
    volume = Volume(
        voxels if frames > 1 else voxels[0], oblique_geometry, modality, frame_interval_s=interval_s
    )
    template = new_study(modality=modality, patient_id="42", patient_name="Døe^Jane")
    paths = write_series(
        volume, tmp_path / "out", template=template, derivation=Derivation("converted")
    )
    assert len(paths) == 4 * frames
    assert examine(paths[0]) == []
    image = pydicom.dcmread(paths[0])
    assert (image.SOPClassUID, image.PatientName) == (sop_class, "Døe^Jane")
    assert image.ImageType[0] == "DERIVED"
    assert "SourceImageSequence" not in image
    back = io.load(tmp_path / "out")
    assert np.array_equal(back.voxels, volume.voxels)
    assert back.geometry.is_close(volume.geometry, 1e-5)
    assert back.frame_interval_s == interval_s


def test_a_sequence_keeps_the_times_of_its_source(
    tmp_path: Path, make_series: Make, rng: np.random.Generator, examine: Examine
) -> None:
    folder = make_series(
        rng.integers(0, 900, (6, 4, 5)).astype(np.int16),
        positions=[(0, 0, 2.5 * (k % 3)) for k in range(6)],
        SOPClassUID=MR_IMAGE,
        Modality="MR",
        RescaleSlope=None,
        RescaleIntercept=None,
        slice_elements=lambda k: {"TemporalPositionIdentifier": 5 + k // 3},
    )
    volume = io.load(folder)
    assert volume.shape == (2, 3, 4, 5)
    paths = write_series(volume, tmp_path / "out", derivation=ENHANCED)
    images = [pydicom.dcmread(path) for path in paths]
    assert [int(one.TemporalPositionIdentifier) for one in images] == [5, 5, 5, 6, 6, 6]
    assert examine(paths[0]) == []
    assert io.load(tmp_path / "out").is_equal(volume)
    sources = [one.sop_instance for frame in volume.origin.instances for one in frame]
    assert [one.SourceImageSequence[0].ReferencedSOPInstanceUID for one in images] == sources


def test_another_reader_finds_the_same_voxels_in_the_same_place(
    tmp_path: Path, make_series: Make, rng: np.random.Generator
) -> None:
    import SimpleITK as sitk  # noqa: N813 - as everybody calls it

    folder = make_series(
        rng.integers(0, 3000, (5, 6, 7)).astype(np.int16),
        positions=[(0.1, 0.2 - 1.5 * k, -7.3 + 2 * k) for k in range(5)],
        orientation=(1, 0, 0, 0, 0.8, 0.6),
    )
    volume = io.load(folder)
    write_series(volume, tmp_path / "out", derivation=ENHANCED)
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "out"))
    image = sitk.ReadImage(files)
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.voxels)
    direction = np.reshape(image.GetDirection(), (3, 3)).tolist()
    read = Geometry(image.GetSpacing(), image.GetOrigin(), direction)
    assert read.is_close(volume.geometry, 1e-5)


@pytest.mark.slow
def test_files_of_pydicom_that_can_be_read_pass_the_examiner(
    tmp_path: Path, examine: Examine
) -> None:
    files = Path(pydicom.__file__).parent / "data" / "test_files"
    passed = []
    for number, path in enumerate(sorted(files.glob("*.dcm"))):
        name = path.name
        try:
            volume = io.load(path)
        except MedEnhanceError:
            continue
        if volume.origin is None:
            continue
        paths = write_series(
            volume,
            tmp_path / str(number),
            derivation=ENHANCED,
        )
        assert examine(paths[0]) == [], name
        back = io.load(tmp_path / str(number))
        assert back.geometry.is_close(volume.geometry, 1e-5), name
        if volume.units != "relative":  # a dose has 32 bits
            assert np.array_equal(back.voxels, volume.voxels), name
        passed.append(name)
    assert len(passed) >= 10


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", ["CT_series", "MR_T1_series", "PET_series"])
def test_series_of_a_hospital_pass_the_examiner_and_come_back(
    tmp_path: Path, shared_data: Path, examine: Examine, name: str
) -> None:
    volume = io.load(shared_data / "dicom" / "STS_025" / name)
    paths = write_series(volume, tmp_path / "out", derivation=ENHANCED)
    for path in paths[:: max(1, len(paths) // 3)]:
        assert examine(path) == []
    back = io.load(tmp_path / "out")
    assert back.geometry.is_close(volume.geometry, 1e-5)
    assert (back.modality, back.units) == (volume.modality, volume.units)
    assert back.is_equal(volume)


def test_changed_pet_gets_a_slope_per_slice(make_series: Make) -> None:
    volume = io.load(make_series(np.ones((2, 3, 4), np.int16), **PET))
    voxels = np.full((2, 3, 4), 0.3, np.float32)
    voxels[1] *= 100
    images = derive(volume.with_voxels(voxels))
    assert float(images[1].RescaleSlope) == pytest.approx(100 * float(images[0].RescaleSlope))
    for image, slice_ in zip(images, voxels, strict=True):
        stored = np.frombuffer(image.PixelData, "<i2").reshape(3, 4)
        assert np.allclose(stored * float(image.RescaleSlope), slice_, rtol=2e-5)
        assert image.RescaleIntercept == 0
