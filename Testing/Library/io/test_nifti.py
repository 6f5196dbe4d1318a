"""The corners of NIfTI, each against nibabel or the standard."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.geometry import Geometry
from MedEnhanceLib.io import load, save
from MedEnhanceLib.volume import Volume

if TYPE_CHECKING:
    from Testing.Library.io.conftest import Ear

nibabel = pytest.importorskip("nibabel")

VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -6], [0, 0, 3, 7], [0, 0, 0, 1]])


def written(
    path: Path,
    *,
    sform: tuple[Any, int] = (None, 0),
    qform: tuple[Any, int] = (None, 0),
    voxels: np.ndarray = VOXELS,
    **fields: Any,
) -> Path:
    image = nibabel.Nifti1Image(voxels.T, None)
    image.header.set_sform(*sform)
    image.header.set_qform(*qform)
    image.header.set_xyzt_units("mm", "sec")
    for key, value in fields.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


def test_sform_is_read_as_nibabel_reads_it(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii", sform=(AFFINE, 2), pixdim=[1, 1.5, 2, 3, 0, 0, 0, 0])
    assert np.array_equal(load(path, modality="OT").geometry.affine_ras, nibabel.load(path).affine)


@pytest.mark.parametrize("k", [1.0, -1.0])
def test_qform_is_read_where_there_is_no_sform(tmp_path: Path, k: float) -> None:
    affine = AFFINE @ np.diag([1, 1, k, 1])
    path = written(tmp_path / "a.nii", qform=(affine, 1))
    geometry = load(path, modality="OT").geometry
    assert np.allclose(geometry.affine_ras, nibabel.load(path).affine, atol=1e-6)
    assert geometry.is_right_handed == (k > 0)


def test_without_any_form_the_doubt_is_said(tmp_path: Path, ear: Ear) -> None:
    path = written(tmp_path / "a.nii", pixdim=[1, 1.5, 2, 3, 0, 0, 0, 0])
    geometry = load(path, modality="OT", monitor=ear.monitor).geometry
    assert geometry == Geometry((1.5, 2.0, 3.0))
    assert any("which side is left" in warning for warning in ear.warnings)


def test_forms_that_contradict_each_other_are_said(tmp_path: Path, ear: Ear) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 4
    path = written(tmp_path / "a.nii", sform=(AFFINE, 1), qform=(moved, 1))
    geometry = load(path, modality="OT", monitor=ear.monitor).geometry
    assert np.array_equal(geometry.affine_ras, AFFINE)
    assert any("sform and qform" in warning for warning in ear.warnings)


def test_forms_that_agree_cause_no_warning(tmp_path: Path, ear: Ear) -> None:
    path = written(tmp_path / "a.nii", sform=(AFFINE, 1), qform=(AFFINE, 1))
    load(path, modality="OT", monitor=ear.monitor)
    assert ear.warnings == []


def test_sheared_sform_is_refused_by_name(tmp_path: Path) -> None:
    sheared = np.diag([2.0, 3, 4, 1])
    sheared[0, 1] = 1
    path = written(tmp_path / "a.nii", sform=(sheared, 1), qform=(np.eye(4), 1))
    with pytest.raises(GeometryError, match=r"a\.nii: sform.*orthonormal") as caught:
        load(path)
    assert "resample" in caught.value.hint


@pytest.mark.parametrize("broken", [0.0, np.nan, np.inf])
def test_sform_without_extent_is_refused_by_name(tmp_path: Path, broken: float) -> None:
    path = written(tmp_path / "a.nii", sform=(np.diag([1, 1, 1, 1]), 1))
    data = bytearray(path.read_bytes())
    data[280:284] = np.float32(broken).tobytes()
    path.write_bytes(data)
    with pytest.raises(GeometryError, match=r"a\.nii: sform"):
        load(path)


@pytest.mark.parametrize(("unit", "mm"), [("micron", 1e-3), ("mm", 1.0), ("meter", 1e3)])
def test_unit_of_length_is_heeded(tmp_path: Path, unit: str, mm: float) -> None:
    image = nibabel.Nifti1Image(VOXELS.T, np.diag([0.5, 0.5, 0.5, 1]))
    image.header.set_xyzt_units(unit, "sec")
    nibabel.save(image, tmp_path / "a.nii")
    assert load(tmp_path / "a.nii", modality="OT").geometry.spacing == (0.5 * mm,) * 3


@pytest.mark.parametrize(
    ("unit", "stored", "seconds"), [("sec", 2.0, 2.0), ("msec", 500.0, 0.5), ("sec", 0.0, None)]
)
def test_frame_interval_is_read_in_its_unit(
    tmp_path: Path, unit: str, stored: float, seconds: float | None
) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 3, 2, 5), np.int16), np.eye(4))
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = stored
    nibabel.save(image, tmp_path / "a.nii")
    volume = load(tmp_path / "a.nii", modality="OT")
    assert volume.shape == (5, 2, 3, 4)
    assert volume.frame_interval_s == seconds


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"),
    [(1, -1024, "int16"), (2, 70000, "int32"), (0.5, 0, "float32"), (0, 5, "int16")],
)
def test_scaling_is_applied_once(tmp_path: Path, slope: float, intercept: float, kind: str) -> None:
    path = written(tmp_path / "a.nii", sform=(np.eye(4), 1))
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(data)
    volume = load(path, modality="OT")
    expected = VOXELS.astype(float) * slope + intercept if slope else VOXELS
    assert volume.dtype == kind
    assert np.array_equal(volume.voxels, expected)
    save(volume, tmp_path / "b.nii")
    assert np.array_equal(load(tmp_path / "b.nii").voxels, expected)


def test_large_stored_numbers_are_scaled_without_loss(tmp_path: Path) -> None:
    voxels = np.full((2, 3, 4), 16_777_217, np.int32)
    path = written(tmp_path / "a.nii", sform=(np.eye(4), 1), voxels=voxels)
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([0.5, 0], "<f4").tobytes()
    path.write_bytes(data)
    assert load(path, modality="OT").voxels.flat[0] == 8_388_608.5


def test_big_endian_file_is_read(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(VOXELS.T, AFFINE, header)
    nibabel.save(image, tmp_path / "a.nii")
    volume = load(tmp_path / "a.nii", modality="OT")
    assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\1\x5c"
    assert volume.dtype == np.dtype(np.int16)
    assert np.array_equal(volume.voxels, VOXELS)


def test_file_beside_one_of_the_same_name_is_not_mistaken(tmp_path: Path) -> None:
    """ITK reads the header of A.nii.gz and the voxels of A.nii."""
    save(Volume(VOXELS), tmp_path / "a.nii.gz")
    save(Volume(VOXELS + 100), tmp_path / "a.nii")
    assert np.array_equal(load(tmp_path / "a.nii.gz").voxels, VOXELS)
    assert np.array_equal(load(tmp_path / "a.nii").voxels, VOXELS + 100)


def test_compression_is_told_by_the_bytes_not_the_name(tmp_path: Path, ct: Volume) -> None:
    save(ct, tmp_path / "a.nii")
    plain = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(plain)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(plain))
    assert load(tmp_path / "plain.nii.gz").is_equal(ct)
    assert load(tmp_path / "packed.nii").is_equal(ct)


def test_file_of_several_gzip_members_is_read(tmp_path: Path, ct: Volume) -> None:
    save(ct, tmp_path / "a.nii")
    plain = (tmp_path / "a.nii").read_bytes()
    members = [gzip.compress(plain[start : start + 100]) for start in range(0, len(plain), 100)]
    (tmp_path / "a.nii.gz").write_bytes(b"".join(members))
    assert load(tmp_path / "a.nii.gz").is_equal(ct)


def test_descrip_shows_the_newest_step_to_other_programs(tmp_path: Path, ct: Volume) -> None:
    save(ct, tmp_path / "a.nii.gz")
    descrip = nibabel.load(tmp_path / "a.nii.gz").header["descrip"].item()
    assert descrip == b"DERIVED: second step"


def test_descrip_too_long_is_cut_and_the_history_is_not(tmp_path: Path, ct: Volume) -> None:
    long = ct.with_voxels(ct.voxels, did="ä" * 100)
    save(long, tmp_path / "a.nii")
    descrip = nibabel.load(tmp_path / "a.nii").header["descrip"].item()
    assert descrip.startswith(b"DERIVED: ???")
    assert len(descrip) == 79
    assert load(tmp_path / "a.nii").history == long.history


def test_geometry_edited_by_another_program_wins_over_ours(tmp_path: Path, ct: Volume) -> None:
    save(ct, tmp_path / "a.nii")
    image = nibabel.load(tmp_path / "a.nii")
    moved = image.affine.copy()
    moved[0, 3] += 1
    nibabel.save(nibabel.Nifti1Image(image.dataobj, moved, image.header), tmp_path / "b.nii")
    back = load(tmp_path / "b.nii")
    assert np.array_equal(back.geometry.affine_ras.astype(np.float32), moved.astype(np.float32))
    assert back.modality == "CT"


def test_extension_with_a_lying_length_is_passed_over(tmp_path: Path, ct: Volume) -> None:
    save(ct, tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    for length in (0, 7, -1, 2**31 - 1):
        data[352:356] = np.array(length, "<i4").tobytes()
        (tmp_path / "b.nii").write_bytes(data)
        back = load(tmp_path / "b.nii")
        assert np.array_equal(back.voxels, ct.voxels)
        assert back.history == ()


@pytest.mark.parametrize("offset", [0.0, 100.0, 352.5, np.nan, 1e20])
def test_impossible_vox_offset_is_refused(tmp_path: Path, ct: Volume, offset: float) -> None:
    save(ct, tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[108:112] = np.float32(offset).tobytes()
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(InputError, match="vox_offset"):
        load(tmp_path / "a.nii")


def test_other_kinds_of_nifti_are_named(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(VOXELS.T, np.eye(4)), tmp_path / "two.nii")
    with pytest.raises(InputError, match="NIfTI-2") as caught:
        load(tmp_path / "two.nii")
    assert "NIfTI-1" in caught.value.hint
    nibabel.save(nibabel.Nifti1Pair(VOXELS.T, np.eye(4)), tmp_path / "pair.img")
    (tmp_path / "pair.hdr").rename(tmp_path / "pair.nii")
    with pytest.raises(InputError, match="pair"):
        load(tmp_path / "pair.nii")
