"""The corners of NIfTI, on files made by hand after the standard."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from Library.conftest import WarningRecorder

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io import WRITABLE, load, save

VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -6], [0, 0, 3, 7], [0, 0, 0, 1]])
UPRIGHT = np.array([[1.5, 0, 0, 5], [0, 2, 0, -6], [0, 0, 3, 7], [0, 0, 0, 1]])
ROTATION = (0.0, 0.0, np.sqrt(0.5))  # b, c, d of a quarter turn about z, as in AFFINE
PIXDIM = (1, 1.5, 2, 3, 0, 0, 0, 0)

#: Where the standard puts a field, and its type; independent of the code under test.
FIELDS = {
    "dim": (40, "8h"), "datatype": (70, "h"), "bitpix": (72, "h"), "pixdim": (76, "8f"),
    "vox_offset": (108, "f"), "scaling": (112, "2f"), "xyzt_units": (123, "B"),
    "descrip": (148, "80s"), "qform_code": (252, "h"), "sform_code": (254, "h"),
    "quatern": (256, "3f"), "qoffset": (268, "3f"), "srow": (280, "12f"), "magic": (344, "4s"),
}  # fmt: skip


def written(
    path: Path, *, order: str = "<", voxels: np.ndarray = VOXELS, size: int = 348, **fields: Any
) -> Path:
    """A NIfTI file made by hand; fields as in FIELDS, over those of a plain int16 volume."""
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, size)
    shape = voxels.shape[::-1]
    values = {
        "dim": (len(shape), *shape, *[1] * (7 - len(shape))),
        "datatype": 4,
        "bitpix": 16,
        "pixdim": PIXDIM,
        "vox_offset": 352.0,
        "scaling": (1.0, 0.0),
        "xyzt_units": 2 | 8,
        "magic": b"n+1\0",
    } | fields
    for name, value in values.items():
        offset, kind = FIELDS[name]
        flat = np.ravel(value).tolist() if not isinstance(value, bytes) else [value]
        struct.pack_into(order + kind, header, offset, *flat)
    path.write_bytes(bytes(header) + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes())
    return path


def sform(affine: Any, code: int = 1) -> dict[str, Any]:
    return {"srow": np.asarray(affine)[:3], "sform_code": code}


def qform(offset: Any = (5, -6, 7), code: int = 1) -> dict[str, Any]:
    return {"quatern": ROTATION, "qoffset": offset, "qform_code": code}


def test_one_warning_names_the_guessed_modality_and_how_to_state_it(
    tmp_path: Path, recorder: WarningRecorder
) -> None:
    for name in ("a.nii", "b.nii"):
        guessed = load(written(tmp_path / name, **sform(AFFINE)), monitor=recorder.monitor)
    (warning,) = recorder.warnings
    assert "a.nii: no known modality is stated, and its values" in warning
    assert "--modality" in warning
    assert guessed.modality == "OT"


def test_python_logs_a_guess_once_a_process_and_keeps_it_for_every_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedEnhanceLib.api._logged_once", set())
    for name in ("a.nii", "b.nii"):
        guessed = me.load(written(tmp_path / name, **sform(AFFINE)))
        assert guessed.modality_is_guess
    (record,) = caplog.records
    assert "a.nii: no known modality is stated" in record.getMessage()
    assert record.getMessage().endswith("(not repeated for further files)")


def test_a_ct_that_was_rescaled_is_no_hu(tmp_path: Path, recorder: WarningRecorder) -> None:
    rescaled = np.random.default_rng(0).integers(0, 564, (4, 5, 6)).astype(np.int16)
    path = written(tmp_path / "a.nii", voxels=rescaled, **sform(AFFINE))
    assert load(path, monitor=recorder.monitor).modality == "MR"
    assert load(path, modality="CT", monitor=recorder.monitor).modality == "CT"
    guessed, chosen = recorder.warnings
    assert "look like MR" in guessed
    assert "a.nii: its values (1 to 562) look like MR" in chosen
    assert "state --modality MR" in chosen and "HU + 1024" in chosen
    hu = written(tmp_path / "b.nii", voxels=rescaled - np.int16(1000), **sform(AFFINE))
    load(hu, modality="CT", monitor=recorder.monitor)
    assert len(recorder.warnings) == 2
    undershot = written(tmp_path / "c.nii", voxels=rescaled - np.int16(10), **sform(AFFINE))
    load(undershot, modality="CT", monitor=recorder.monitor)
    assert "look like MR, without air at -1000 HU" in recorder.warnings[2]
    body = np.random.default_rng(1).choice([0, 1040, 1060, 2200], 4096, p=[0.4, 0.3, 0.25, 0.05])
    shifted = body.reshape(16, 16, 16).astype(np.int16) + np.arange(16, dtype=np.int16)
    from_0 = written(tmp_path / "d.nii", voxels=shifted, **sform(AFFINE))
    load(from_0, modality="CT", monitor=recorder.monitor)
    assert "d.nii: no value is below 0" in recorder.warnings[3]


@pytest.mark.parametrize(
    ("forms", "affine", "says"),
    [
        ({}, np.diag([-1.5, -2.0, 3.0, 1.0]), "which side is left"),
        (sform(AFFINE) | qform(offset=(9, -6, 7)), AFFINE, "sform and qform"),
        (sform(AFFINE) | {"pixdim": (1, 1, 1, 1, 0, 0, 0, 0)}, AFFINE, "1.5 × 2 × 3 is used"),
        *(
            (sform(wrong) | qform() | {"quatern": (0, 0, 0)}, UPRIGHT, "sform is not valid")
            for wrong in (np.zeros((4, 4)), np.full((4, 4), np.nan), AFFINE[:, [0, 0, 2, 3]])
        ),
        (sform(AFFINE) | qform((np.nan,) * 3), AFFINE, "qform is not valid"),
        ({"pixdim": (1, -1.5, *PIXDIM[2:])}, np.diag([-1.5, -2.0, 3.0, 1.0]), "absolute values"),
    ],
)
def test_an_unknown_or_contradictory_place_causes_a_warning(
    tmp_path: Path, recorder: WarningRecorder, forms: dict[str, Any], affine: Any, says: str
) -> None:
    path = written(tmp_path / "a.nii", **forms)
    geometry = load(path, modality="OT", monitor=recorder.monitor).geometry
    assert np.array_equal(geometry.affine_ras, affine)
    assert any(says in warning for warning in recorder.warnings)


@pytest.mark.parametrize(("code", "mm"), [(0, 1.0), (1, 1e3), (2, 1.0), (3, 1e-3)])
def test_unit_of_length_is_heeded(tmp_path: Path, code: int, mm: float) -> None:
    path = written(tmp_path / "a.nii", **sform(np.diag([0.5, 0.5, 0.5, 1])), xyzt_units=code)
    assert load(path, modality="OT").geometry.spacing == (0.5 * mm,) * 3


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_and_byte_orders_are_read_as_nibabel_reads_them(
    version: int, order: str, ending: str, oblique_geometry: Geometry, tmp_path: Path
) -> None:
    header = getattr(nibabel, f"Nifti{version}Header")(endianness=order)
    header.set_xyzt_units("mm", "msec")
    header.set_data_dtype(np.int16)
    header.set_slope_inter(1, 0)
    frames = np.arange(120, dtype=np.int16).reshape(5, 2, 3, 4)
    kind = getattr(nibabel, f"Nifti{version}Image")
    image = kind(frames.T, oblique_geometry.affine_ras, header)
    image.header["pixdim"][4] = 2500
    path = tmp_path / f"a{ending}"
    nibabel.save(image, path)
    volume = load(path, modality="MR")
    assert volume.dtype == np.int16
    assert np.array_equal(volume.voxels, frames)
    assert np.allclose(volume.geometry.affine_ras, nibabel.load(path).affine, rtol=1e-15, atol=0)
    assert volume.geometry.is_close(oblique_geometry, 1e-12 if version == 2 else 1e-4)
    assert volume.frame_interval_s == 2.5


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"),
    [
        *((1, -1024, "int16"), (2, 70000, "int32"), (0.5, 0, "float32")),
        *((0, 5, "int16"), (np.nan, 5, "int16")),
    ],
)
def test_scaling_is_applied_once(tmp_path: Path, slope: float, intercept: float, kind: str) -> None:
    path = written(tmp_path / "a.nii", **sform(AFFINE), scaling=(slope, intercept))
    volume = load(path, modality="OT")
    is_set = slope != 0 and np.isfinite(slope)
    expected = VOXELS.astype(float) * slope + intercept if is_set else VOXELS
    assert volume.dtype == kind
    assert np.array_equal(volume.voxels, expected)
    save(volume, tmp_path / "b.nii")
    assert np.array_equal(load(tmp_path / "b.nii").voxels, expected)


def test_compression_is_recognized_by_the_bytes_not_the_name(tmp_path: Path, ct: Volume) -> None:
    save(ct, tmp_path / "a.nii")
    plain = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(plain)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(plain))
    members = [gzip.compress(plain[start : start + 100]) for start in range(0, len(plain), 100)]
    (tmp_path / "members.nii.gz").write_bytes(b"".join(members))
    for name in ("plain.nii.gz", "packed.nii", "members.nii.gz"):
        assert load(tmp_path / name).is_equal(ct)


@pytest.mark.parametrize("side", [4, 100])
def test_zeros_behind_the_last_member_are_padding_and_other_bytes_damage(
    tmp_path: Path, side: int
) -> None:
    voxels = np.arange(side**3, dtype=np.int16).reshape(side, side, side)
    plain = written(tmp_path / "a.nii", voxels=voxels, **sform(AFFINE)).read_bytes()
    path, half = tmp_path / "a.nii.gz", len(plain) // 2
    members = [gzip.compress(plain), gzip.compress(plain[:half]) + gzip.compress(plain[half:])]
    for packed in members:
        path.write_bytes(packed + bytes(2 << 20))
        assert np.array_equal(load(path, modality="MR").voxels, voxels)
        differs = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]  # its checksum
        for damaged in (packed + bytes(512) + b"rest", differs):
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=r"a\.nii\.gz is damaged"):
                load(path)


FRAMES = np.arange(48, dtype=np.int16).reshape(2, 2, 3, 4)


@pytest.mark.parametrize(
    ("stored", "unit", "seconds", "warns"),
    [
        (2.5, 0, 2.5, False),
        (2.5, 2, 2.5, False),
        (2500, 2, 2.5, True),
        (0, 2, None, False),
        (300, 2 | 8, 300, False),
        (25, 2 | 32, None, True),
        (-2.5, 2 | 8, None, True),
    ],
)
def test_an_interval_without_unit_is_in_s_and_a_long_one_in_ms(
    tmp_path: Path,
    recorder: WarningRecorder,
    stored: float,
    unit: int,
    seconds: float | None,
    warns: bool,
) -> None:
    pixdim = (*PIXDIM[:4], stored, 0, 0, 0)
    path = written(
        tmp_path / "a.nii", voxels=FRAMES, pixdim=pixdim, xyzt_units=unit, **sform(AFFINE)
    )
    volume = load(path, modality="MR", monitor=recorder.monitor)
    assert volume.frame_interval_s == seconds
    assert bool(recorder.warnings) is warns
    assert Volume.from_nibabel(nibabel.load(path)).frame_interval_s == (
        None if stored < 0 else seconds
    )
    for ending in WRITABLE:
        save(volume, tmp_path / f"b{ending}")
        again = load(tmp_path / f"b{ending}", monitor=recorder.monitor)
        assert again.frame_interval_s == seconds
        if ending[:4] == ".nii":
            written_header = nibabel.load(tmp_path / f"b{ending}").header
            assert written_header["pixdim"][4] == (seconds or 0)
    assert len(recorder.warnings) == warns


def test_geometry_edited_by_another_program_wins_over_ours(tmp_path: Path, ct: Volume) -> None:
    path = tmp_path / "a.nii"
    save(ct, path)
    data = bytearray(path.read_bytes())
    moved = np.frombuffer(data, np.float32, 12, FIELDS["srow"][0]).reshape(3, 4)
    moved[0, 3] += 1  # in `data` itself
    path.write_bytes(data)
    back = load(path)
    assert np.array_equal(back.geometry.affine_ras[:3].astype(np.float32), moved)
    assert back.modality == "CT"
    assert back.history == ct.history


def test_extension_that_nibabel_cannot_read_hides_nothing(tmp_path: Path, ct: Volume) -> None:
    """DICOM with implicit VRs and a value of 200 bytes."""
    save(ct, tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes()
    dicom = struct.pack("<HHI", 0x0010, 0x4000, 200) + b"x" * 200
    theirs = struct.pack("<2i", 224, 2) + dicom.ljust(216, b"\0")
    longer = bytearray(data[:352] + theirs + data[352:])
    (offset,) = struct.unpack_from("<f", data, FIELDS["vox_offset"][0])
    struct.pack_into("<f", longer, FIELDS["vox_offset"][0], offset + len(theirs))
    (tmp_path / "b.nii").write_bytes(longer)
    assert load(tmp_path / "b.nii").is_equal(ct)
    assert load(tmp_path / "b.nii").history == ct.history


SHEARED = np.diag([2.0, 3, 4, 1]) + np.eye(4, k=1) * [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (sform(SHEARED) | qform(), r"sform.*right angles"),
        (qform() | {"quatern": (3.0, 0.0, 0.0), "sform_code": 0}, "qform"),
        (
            sform(np.zeros((4, 4))) | qform() | {"quatern": (3.0, 0.0, 0.0)},
            r"the sform and the qform are not valid",
        ),
        ({"xyzt_units": 5}, "xyzt_units"),
        *(
            (qform() | {"sform_code": 0, "pixdim": (1, 1, mm, 1, 0, 0, 0, 0)}, "pixdim is")
            for mm in (0, np.nan)
        ),
        ({"xyzt_units": 2, "srow": np.full((3, 4), np.nan)}, "sform"),
        ({"size": 540, "magic": b"n+2\0"}, "cut short"),  # in the place of NIfTI-1's
        ({"magic": b"ni1\0"}, "pair"),
        ({"magic": b"\0\0\0\0"}, "not a NIfTI"),
        ({"datatype": 128}, "color voxels"),
        ({"datatype": 2304}, "color voxels"),
        ({"datatype": 32}, "complex"),
        ({"datatype": 1}, "binary"),
        ({"datatype": 1234}, "1234, unknown"),
        ({"dim": (5, 2, 2, 2, 1, 3, 1, 1)}, "several values per voxel"),
        ({"dim": (2, 4, 6, 1, 1, 1, 1, 1)}, "a picture"),
        ({"dim": (9, 2, 2, 2, 1, 1, 1, 1)}, "dim is"),
        ({"dim": (3, 0, 2, 2, 1, 1, 1, 1)}, "zero size"),
        ({"scaling": (1, np.nan)}, "scl_inter"),
        *(({"vox_offset": offset}, "vox_offset") for offset in (0.0, 100.0, 352.5, np.nan, 1e20)),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=rf"a\.nii.*{says}") as caught:
        load(written(tmp_path / "a.nii", **(sform(AFFINE) | fields)))
    assert caught.value.hint
    place = {"quatern", "srow", "xyzt_units", "pixdim"} & fields.keys()
    assert isinstance(caught.value, GeometryError) == bool(place)
