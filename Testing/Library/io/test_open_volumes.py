"""The open volumes kept beside the project, against nibabel and against each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from MedEnhanceLib.errors import GeometryError, InputError, MedEnhanceError
from MedEnhanceLib.io import WRITABLE, load, save

if TYPE_CHECKING:
    from Testing.Library.conftest import Ear

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("ct/sts/STS_002/CT", "CT"),
        ("ct/sts/STS_002/CT_gtv", "OT"),
        ("ct/sts/STS_010/PET", "OT"),
        ("ct/abdomen/CT", "CT"),
        ("mr/sts/STS_002/MR_T1", "MR"),
        ("mr/open_ms/C19/FLAIR", "MR"),
        ("mr/open_ms/L09/study2_FLAIR", "MR"),
        ("em/medulla_t2", "EM"),
        ("sample/mni152_tissue", "OT"),
    ],
)
def test_nifti_is_what_nibabel_reads(shared_data: Path, name: str, modality: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    path = shared_data / f"{name}.nii.gz"
    volume, image = load(path), nibabel.load(path)
    affine = image.affine.copy()
    if image.header.get_xyzt_units()[0] == "micron":
        affine[:3] *= 1e-3
    assert np.allclose(volume.geometry.affine_ras, affine, rtol=1e-15, atol=1e-15)
    assert np.array_equal(volume.voxels, np.asarray(image.dataobj).T)
    assert volume.dtype == image.get_data_dtype()
    assert volume.modality == modality


@pytest.mark.parametrize("ending", WRITABLE)
@pytest.mark.parametrize(
    "name", ["ct/sts/STS_025/CT", "mr/open_ms/L09/study2_FLAIR", "em/medulla_v_z0"]
)
def test_real_volume_comes_back_bit_for_bit(
    shared_data: Path, tmp_path: Path, name: str, ending: str
) -> None:
    volume = load(shared_data / f"{name}.nii.gz")
    save(volume, tmp_path / f"a{ending}")
    assert load(tmp_path / f"a{ending}").is_equal(volume)


def test_microscopy_is_ten_nanometres(shared_data: Path) -> None:
    volume = load(shared_data / "em" / "medulla_v_z0.nii.gz")
    assert volume.modality == "EM"
    assert np.allclose(volume.geometry.spacing, 1e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("folder", "file", "units"),
    [
        ("CT_series", "ct/sts/STS_025/CT", "HU"),
        ("MR_T1_series", "mr/sts/STS_025/MR_T1", ""),
        ("PET_series", "ct/sts/STS_025/PET", "SUV"),
    ],
)
def test_series_is_the_volume_that_was_made_from_it(
    shared_data: Path, folder: str, file: str, units: str
) -> None:
    series = load(shared_data / "dicom" / "STS_025" / folder)
    volume = load(shared_data / f"{file}.nii.gz")
    assert series.geometry.is_close(volume.geometry, tolerance=1e-3)
    assert np.allclose(series.voxels, volume.voxels, rtol=1e-6, atol=1e-6)
    assert series.units == units


def test_study_with_several_series_lists_them(shared_data: Path, ear: Ear) -> None:
    with pytest.raises(InputError, match="holds 3 series") as caught:
        load(shared_data / "dicom" / "STS_025", monitor=ear.monitor)
    for part in ("CT  149×138×47", "MR  75×55×25", "PT  37×34×47"):
        assert part in caught.value.message
    assert any("RT Structure Set" in warning for warning in ear.warnings)


def test_series_with_missing_slices_names_the_gaps(shared_data: Path) -> None:
    with pytest.raises(GeometryError) as caught:
        load(shared_data / "dicom" / "STS_025_missing")
    assert "between 420.44 and 426.98 mm (1 missing)" in caught.value.message
    assert "between 443.33 and 449.87 mm (1 missing)" in caught.value.message


ODD = {
    "CT_small": (1, 128, 128),
    "MR_small_RLE": (1, 64, 64),
    "MR_small_bigendian": (1, 64, 64),
    "MR_small_jp2klossless": (1, 64, 64),
    "MR_small_jpeg_ls_lossless": (1, 64, 64),
    "MR_truncated": "less than expected",
    "JPEG2000": "ImagePositionPatient",
    "JPGExtended": "ImagePositionPatient",
    "image_dfl": "ImagePositionPatient",
    "examples_ybr_color": "ultrasound clip",
    "no_meta": "DICM",
    "rtdose": "pixels of shape",
    "test-SR": "Comprehensive SR Storage",
    "emri_small": "10 frames",
    "emri_small_jpeg_ls_lossless": "10 frames",
    "eCT_Supplemental": "pixels of shape",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_dicom_gives_a_volume_or_a_reason(shared_data: Path, name: str) -> None:
    file, expected = shared_data / "dicom" / "odd" / f"{name}.dcm", ODD[name]
    try:
        volume = load(file)
    except MedEnhanceError as error:
        assert isinstance(expected, str), error
        assert expected in error.message
        assert name in error.message
        assert error.hint
    else:
        assert volume.shape == expected


def test_every_compression_gives_the_same_slice(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "odd"
    names = [name for name in ODD if name.startswith("MR_small")]
    first, *others = (load(folder / f"{name}.dcm") for name in names)
    for other in others:
        assert np.array_equal(first.voxels, other.voxels)
        assert first.geometry == other.geometry


def test_every_odd_file_is_known(shared_data: Path) -> None:
    assert {path.stem for path in (shared_data / "dicom" / "odd").iterdir()} == set(ODD)
