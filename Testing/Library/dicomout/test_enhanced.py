"""Enhanced multi-frame images: nothing that single images say is lost, nothing invented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from Library.dicomout.writing import write_series
from pydicom import Dataset

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout import Derivation, new_study, read_template

Examine = Callable[[Path], list[str]]
Make = Callable[..., Path]

ENHANCED = Derivation(
    "enhanced", model={"name": "ct", "sha256": "cd" * 32}, lossy=(Lossy("ucv", 20.0),)
)


@pytest.fixture
def ct(make_series: Make, rng: np.random.Generator) -> Volume:
    return io.load(
        make_series(
            rng.integers(0, 3000, (4, 6, 5)).astype(np.int16),
            PatientName="Doe^Jane",
            PatientID="42",
            StudyDate="20200131",
            StudyID="7",
            FrameOfReferenceUID="1.2.3.4",
            BodyPartExamined="KNEE",
            BurnedInAnnotation="NO",
            ContrastBolusAgent="IOHEXOL",
            ReferencedImageSequence=[localizer()],
        )
    )


def localizer() -> Dataset:
    dataset = Dataset()
    dataset.ReferencedSOPClassUID, dataset.ReferencedSOPInstanceUID = "1.2.840.10008.1.1", "1.5"
    return dataset


def write(volume: Volume, folder: Path, derivation: Derivation = ENHANCED) -> Path:
    assert volume.origin is not None
    (path,) = write_series(
        volume, folder, template=read_template(volume.origin), derivation=derivation, enhanced=True
    )
    return path


def test_one_file_passes_the_examiner_and_comes_back(
    tmp_path: Path, ct: Volume, examine: Examine
) -> None:
    path = write(ct, tmp_path / "out")
    assert examine(path) == []
    back = io.load(path)
    assert np.array_equal(back.voxels, ct.voxels)
    assert back.geometry.is_close(ct.geometry, 1e-5)
    assert (back.modality, back.units) == ("CT", "HU")


def test_nothing_that_is_said_is_lost(tmp_path: Path, ct: Volume) -> None:
    image = pydicom.dcmread(write(ct, tmp_path / "out"))
    assert (image.PatientName, image.PatientID, image.StudyID) == ("Doe^Jane", "42", "7")
    assert image.FrameOfReferenceUID == "1.2.3.4"
    assert image.ImageType[0] == "DERIVED"
    assert (image.LossyImageCompression, image.LossyImageCompressionMethod) == ("01", "UCV")
    assert image.BurnedInAnnotation == "NO"
    (aside,) = image.SharedFunctionalGroupsSequence[0].UnassignedSharedConvertedAttributesSequence
    assert aside.ContrastBolusAgent == "IOHEXOL"
    assert [one.Manufacturer for one in image.ContributingEquipmentSequence] == ["MedEnhance"]
    assert image.SeriesDescription == "axial MedEnhance enhanced"
    for frame, source in zip(
        image.PerFrameFunctionalGroupsSequence,
        ct.origin.instances[0],  # type: ignore[union-attr]
        strict=True,
    ):
        (derived,) = frame.DerivationImageSequence
        assert "ct" in derived.DerivationDescription
        assert derived.SourceImageSequence[0].ReferencedSOPInstanceUID == source.sop_instance


def test_only_images_that_are_stored_are_referred_to(tmp_path: Path, ct: Volume) -> None:
    image = pydicom.dcmread(write(ct, tmp_path / "out"))
    stored = {one.sop_instance for one in ct.origin.instances[0]}  # type: ignore[union-attr]
    named = {
        str(element.value)
        for element in image.iterall()
        if element.keyword == "ReferencedSOPInstanceUID"
    }
    assert named == stored


def test_frames_lie_along_the_normal_as_other_readers_expect(tmp_path: Path, ct: Volume) -> None:
    import SimpleITK as sitk  # noqa: N813 - as everybody calls it

    image = sitk.ReadImage(str(write(ct, tmp_path / "out")))
    assert np.array_equal(sitk.GetArrayFromImage(image), ct.voxels)
    assert np.allclose(image.GetOrigin(), ct.geometry.origin)
    assert np.allclose(image.GetSpacing(), ct.geometry.spacing)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_sequence_is_one_file_with_its_time_points(
    tmp_path: Path, rng: np.random.Generator, examine: Examine, modality: str
) -> None:
    volume = Volume(
        rng.integers(0, 900, (3, 4, 6, 5), dtype=np.int16), Geometry((0.7, 0.9, 3)), modality
    )
    (path,) = write_series(
        volume,
        tmp_path / "out",
        template=new_study(modality=modality),
        derivation=Derivation("converted"),
        enhanced=True,
    )
    assert examine(path) == []
    image = pydicom.dcmread(path)
    indices = [
        list(frame.FrameContentSequence[0].DimensionIndexValues)
        for frame in image.PerFrameFunctionalGroupsSequence
    ]
    assert indices == [[t, k] for t in (1, 2, 3) for k in (1, 2, 3, 4)]
    back = io.load(path)
    assert np.array_equal(back.voxels, volume.voxels)


def test_what_has_no_enhanced_class_is_refused(tmp_path: Path) -> None:
    volume = Volume(np.zeros((2, 3, 4), np.int16), Geometry(), "EM")
    options: dict[str, Any] = {"template": new_study(modality="EM"), "enhanced": True}
    with pytest.raises(InputError, match="enhanced"):
        write_series(volume, tmp_path / "out", derivation=Derivation("converted"), **options)
    assert not (tmp_path / "out").exists()


def test_an_enhanced_image_is_a_source_as_well(
    tmp_path: Path, ct: Volume, examine: Examine
) -> None:
    volume = io.load(write(ct, tmp_path / "enhanced"))
    assert volume.origin is not None
    paths = write_series(
        volume,
        tmp_path / "single",
        template=read_template(volume.origin),
        derivation=Derivation("enhanced"),
    )
    assert examine(paths[2]) == []
    assert io.load(tmp_path / "single").is_equal(volume)
    image = pydicom.dcmread(paths[2])
    (item,) = image.SourceImageSequence
    assert item.ReferencedSOPInstanceUID == volume.origin.instances[0][2].sop_instance
    assert item.ReferencedFrameNumber == 3
    assert image.PatientID == "42"
    assert image.LossyImageCompression == "01"
