"""Volumes as derived series: what stays of the source, what does not, and what is said anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.conftest import Make
from Library.dicom.images import MR, packaged
from Library.dicom.reading import edited
from Library.dicomout.conftest import Sound
from Library.dicomout.writing import derive
from pydicom import Dataset

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.io.dicomout import Derivation, new_study, read_template
from MedEnhanceLib.io.dicomout.attributes import CT_IMAGE, MR_IMAGE, PET_IMAGE, SECONDARY_CAPTURE
from MedEnhanceLib.io.dicomout.derivation import NOTICE

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
    for image, source in zip(derive(ct), read_template(ct.dicom_origin).headers, strict=True):
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
    said = {"PatientComments": "kept", "ContentQualification": "PRODUCT"}
    odd = make_series(np.zeros((2, 3, 4), np.int16), folder=tmp_path / "odd", **said)
    for dataset in edited(odd):
        dataset.private_block(0x0029, "ACME", create=True).add_new(1, "LO", "secret")
        dataset.add_new(0x60003000, "OW", b"\0\0")
    image = derive(io.load(odd))[0]
    assert image.PatientComments == "kept"
    assert not any(element.tag.is_private or element.tag.group == 0x6000 for element in image)
    assert "ContentQualification" not in image


def test_a_series_of_its_own_says_what_was_done(ct: Volume) -> None:
    images = derive(ct)
    first = images[0]
    assert ct.dicom_origin is not None
    assert {image.SeriesInstanceUID for image in images} == {first.SeriesInstanceUID}
    assert first.SeriesInstanceUID != ct.dicom_origin.series
    assert len({image.SOPInstanceUID for image in images}) == 4
    assert [image.InstanceNumber for image in images] == [1, 2, 3, 4]
    assert (first.SeriesNumber, first.SeriesDescription) == (1001, "axial MedEnhance enhanced")
    for word in ("Enhanced", "ct", "cd" * 32, "2 tiles", "Research use only"):
        assert word in first.DerivationDescription
    assert first.ImageComments == f"{NOTICE} motion"
    assert first.ContributingEquipmentSequence[-1].Manufacturer == "MedEnhance"
    for image, source in zip(images, ct.dicom_origin.instances[0], strict=True):
        (item,) = image.SourceImageSequence
        assert item.ReferencedSOPInstanceUID == source.sop_instance
        assert item.SpatialLocationsPreserved == "YES"
        assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"


def test_required_elements_that_the_source_states_stay(make_series: Make) -> None:
    corrections = ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "RADL", "DCAL", "SLSENS", "NORM"]
    stated = {
        **PET, "CollimatorType": "NONE", "ActualFrameDuration": 1800, "CorrectedImage": corrections,
        "PatientBirthDate": "19500101", "PatientSex": "F", "StudyID": "7", "Manufacturer": "ACME",
        "ReferringPhysicianName": ["A^B", "C^D"], "AccessionNumber": "99",
        "PositionReferenceIndicator": "XY",
    }  # fmt: skip
    volume = io.load(make_series(np.ones((2, 4, 5), np.int16), **stated))
    image, source = derive(volume)[0], read_template(volume.dicom_origin).headers[0]
    for keyword in stated:
        assert image[keyword] == source[keyword]


def test_unchanged_pet_keeps_its_rescale_slice_by_slice(
    sound: Sound, out: Path, make_series: Make, rng: np.random.Generator
) -> None:
    stored = rng.integers(0, 32767, (3, 6, 5)).astype(np.int16)
    volume = io.load(
        make_series(stored, **PET, slice_elements=lambda k: {"RescaleSlope": 0.013 * (k + 1)})
    )
    image = sound(derive(volume))[1]
    assert io.load(out).is_equal(volume)
    assert float(image.RescaleSlope) == 0.026
    assert (image.SeriesDate, image.SeriesTime) == ("20200131", "120000")  # decay counts from it
    assert list(image.ImageType[:2]) == ["DERIVED", "PRIMARY"]


def test_pet_that_does_not_state_its_decay_is_no_pet_image(
    make_series: Make, recorder: Any
) -> None:
    volume = io.load(make_series(np.ones((2, 3, 4), np.int16), **{**PET, "DecayFactor": None}))
    image = derive(volume, monitor=recorder.monitor)[0]
    assert (image.SOPClassUID, image.Modality) == (SECONDARY_CAPTURE, "PT")
    assert any("DecayFactor" in said for said in recorder.warnings)


def test_dynamic_pet_stays_dynamic_and_a_time_point_of_it_is_static(
    sound: Sound, out: Path, make_series: Make
) -> None:
    dynamic = {"SeriesType": ["DYNAMIC", "IMAGE"], "NumberOfSlices": 3, "NumberOfTimeSlices": 2}
    volume = io.load(
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
    image = sound(derive(volume))[5]
    assert (list(image.SeriesType), image.NumberOfTimeSlices) == (["DYNAMIC", "IMAGE"], 2)
    assert io.load(out).frame_interval_s == pytest.approx(60)
    image = sound(derive(volume.frame(1)), out.with_name("static"))[0]
    assert list(image.SeriesType) == ["STATIC", "IMAGE"]
    assert "NumberOfTimeSlices" not in image
    assert float(image.FrameReferenceTime) == 60000


def test_texts_in_another_script_than_the_sources_are_kept(sound: Sound, make_series: Make) -> None:
    foreign = "Łódź 头"
    folder = make_series(np.ones((2, 3, 4), np.int16), BodyPartExamined="HEAD")
    for dataset in edited(folder):
        dataset.pop("SpecificCharacterSet", None)
        dataset.add_new(0x00104000, "LT", b"M\xfcller")
    named = Derivation("converted", series_description=foreign)
    image = sound(derive(io.load(folder), named))[0]
    assert (image.SeriesDescription, image.PatientComments) == (foreign, "Müller")


def test_what_a_source_says_against_the_standard_is_not_passed_on(
    sound: Sound, make_series: Make
) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "lying"
    volume = io.load(
        make_series(
            np.zeros((2, 3, 4), np.int16),
            **MR,
            ScanningSequence="SE",
            SequenceVariant="NONE",
            InversionTime="100",
            TriggerTime="200",
            PatientPosition="HFS",
            PatientOrientationCodeSequence=[code],
            BodyPartExamined="EXTREMITY",
        )
    )
    image = sound(derive(volume))[0]
    for keyword in ("InversionTime", "TriggerTime", "PatientOrientationCodeSequence"):
        assert keyword not in image
    assert image.PatientPosition == "HFS"


def test_cut_slices_name_what_they_were_made_from(ct: Volume) -> None:
    origin = ct.dicom_origin
    assert origin is not None
    part = ct.crop(k=slice(1, 3), j=slice(2, None), i=slice(1, None))
    images = derive(replace(part, dicom_origin=origin.cropped(1, 3)))
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
    sound: Sound,
    out: Path,
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
    images = sound(derive(volume, Derivation("converted"), template=template))
    assert len(images) == 4 * frames
    image = images[0]
    assert (image.SOPClassUID, image.PatientName) == (sop_class, "Døe^Jane")
    assert image.ImageType[0] == "DERIVED"
    assert "SourceImageSequence" not in image
    back = io.load(out)
    assert np.array_equal(back.voxels, volume.voxels)
    assert back.geometry.is_close(volume.geometry, 1e-5)
    assert back.frame_interval_s == interval_s


def test_a_sequence_keeps_the_times_of_its_source(
    sound: Sound, out: Path, make_series: Make, rng: np.random.Generator
) -> None:
    folder = make_series(
        rng.integers(0, 900, (6, 4, 5)).astype(np.int16),
        positions=[(0, 0, 2.5 * (k % 3)) for k in range(6)],
        **MR,
        slice_elements=lambda k: {"TemporalPositionIdentifier": 5 + k // 3},
    )
    volume = io.load(folder)
    assert volume.shape == (2, 3, 4, 5)
    images = sound(derive(volume))
    assert [int(one.TemporalPositionIdentifier) for one in images] == [5, 5, 5, 6, 6, 6]
    assert io.load(out).is_equal(volume)
    sources = [one.sop_instance for frame in volume.dicom_origin.instances for one in frame]
    assert [one.SourceImageSequence[0].ReferencedSOPInstanceUID for one in images] == sources


@pytest.mark.slow
def test_files_of_pydicom_that_can_be_read_pass_the_examiner(sound: Sound, tmp_path: Path) -> None:
    passed = []
    for path in sorted(packaged("").glob("*.dcm")):
        try:
            volume = io.load(path)
        except MedEnhanceError:
            continue
        if volume.dicom_origin is None:
            continue
        sound(derive(volume), tmp_path / path.name)
        back = io.load(tmp_path / path.name)
        assert back.geometry.is_close(volume.geometry, 1e-5), path.name
        if volume.units != "relative":  # a dose has 32 bits
            assert np.array_equal(back.voxels, volume.voxels), path.name
        passed.append(path.name)
    assert len(passed) >= 10


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
