"""Fields of a NIfTI header beside voxels and geometry: kept where they hold, else named as lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from Library.conftest import WarningRecorder

from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load, save

FIELDS = {
    "dim_info": 57, "slice_code": 3, "slice_start": 0, "slice_end": 3, "slice_duration": 0.0625,
    "toffset": 1.5, "intent_code": 5, "intent_p1": 2.0, "cal_min": 10.0, "cal_max": 250.0,
}  # fmt: skip
TEXTS = {"descrip": "TE=30", "aux_file": "beside.txt", "intent_name": "z"}


def written(path: Path, *, code: int = 4, units: str = "sec", extension: int = 0) -> Path:
    """A sequence of another program, whose header has all fields and template coordinates."""
    voxels = np.random.default_rng(5).integers(0, 900, (6, 5, 4, 3)).astype(np.int16)
    image = nibabel.Nifti1Image(voxels, None)
    image.set_sform(np.diag([-2, 2, 3, 1]), code)
    image.set_qform(np.diag([-2, 2, 3, 1]), code)
    for name, value in (FIELDS | TEXTS).items():
        image.header[name] = value
    image.header.set_xyzt_units("mm", units)
    if extension:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(extension, b"<AFNI/>"))
    nibabel.save(image, path)
    return path


def fields(path: Path) -> dict[str, Any]:
    header = nibabel.load(path).header
    return {name: header[name].item() for name in FIELDS}


@pytest.mark.parametrize(
    "command",
    [
        "convert scan.nii new.nii.gz --modality MR",
        "enhance scan.nii new.nii.gz --modality MR --as-intensity",
        "compress scan.nii a.ucv --lossless --modality MR; decompress a.ucv new.nii.gz",
        "convert scan.nii a.nrrd --modality MR; convert a.nrrd new.nii.gz",
        "convert scan.nii a.mha --modality MR; convert a.mha new.nii.gz",
    ],
)
def test_fields_that_hold_are_those_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    written(tmp_path / "scan.nii")
    monkeypatch.chdir(tmp_path)
    for step in command.split("; "):
        assert main(step.split()) == 0
    assert fields(tmp_path / "new.nii.gz") == FIELDS
    header = nibabel.load(tmp_path / "new.nii.gz").header
    assert (header["sform_code"], header["qform_code"]) == (4, 4)
    is_derived = command.startswith("enhance")
    texts = {name: header[name].item().decode() for name in TEXTS}
    assert texts.pop("descrip").startswith("DERIVED" if is_derived else "TE=30")
    assert texts == {"aux_file": "beside.txt", "intent_name": "z"}


def test_times_are_in_seconds_whatever_their_unit_was(tmp_path: Path) -> None:
    save(load(written(tmp_path / "a.nii", units="msec"), modality="MR"), tmp_path / "b.nii")
    kept = fields(tmp_path / "b.nii")
    assert kept["toffset"] == pytest.approx(0.0015)
    assert kept["slice_duration"] == pytest.approx(0.0000625)


@pytest.mark.parametrize(("stated", "kept"), [((4, 0), 4), ((0, 2), 2), ((2, 1), 2), ((0, 0), 1)])
def test_both_codes_are_that_of_the_form_which_places_the_volume(
    tmp_path: Path, stated: tuple[int, int], kept: int
) -> None:
    image = nibabel.load(written(tmp_path / "a.nii"))
    image.header["sform_code"], image.header["qform_code"] = stated
    nibabel.save(
        nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header), tmp_path / "b.nii"
    )
    save(load(tmp_path / "b.nii", modality="MR"), tmp_path / "c.nii")
    header = nibabel.load(tmp_path / "c.nii").header
    assert (header["sform_code"], header["qform_code"]) == (kept, kept)


def test_timing_of_other_slices_is_left_out_and_named(
    tmp_path: Path, recorder: WarningRecorder
) -> None:
    part = load(written(tmp_path / "a.nii"), modality="MR").crop(k=slice(1, 3))
    save(part, tmp_path / "b.nii", monitor=recorder.monitor)
    kept = fields(tmp_path / "b.nii")
    gone = ("slice_code", "slice_end", "slice_duration")
    assert all(kept[name] == (0 if name in gone else value) for name, value in FIELDS.items())
    (warning,) = recorder.warnings
    assert all(name in warning for name in gone)


def test_labels_do_not_take_over_what_the_values_meant(
    tmp_path: Path, recorder: WarningRecorder
) -> None:
    labels = replace(load(written(tmp_path / "a.nii"), modality="MR"), modality="SEG")
    save(labels, tmp_path / "b.nii", monitor=recorder.monitor)
    kept = fields(tmp_path / "b.nii")
    assert [kept[name] for name in ("intent_code", "cal_min", "cal_max")] == [0, 0, 0]
    assert (kept["slice_code"], kept["dim_info"]) == (3, 57)
    assert "intent_code" in recorder.warnings[-1]


@pytest.mark.parametrize("code", [2, 4, 6, 32])
def test_an_extension_of_another_program_is_named(
    tmp_path: Path, recorder: WarningRecorder, code: int
) -> None:
    path = written(tmp_path / "a.nii", extension=code)
    volume = load(path, modality="MR", monitor=recorder.monitor)
    assert recorder.warnings == [f"a.nii: header extensions (code {code}) are not kept"]
    save(volume, tmp_path / "ours.nii")
    recorder.warnings.clear()
    load(tmp_path / "ours.nii", monitor=recorder.monitor)
    assert recorder.warnings == []


@pytest.mark.parametrize(
    ("values", "stored", "kind"),
    [
        ([0, 200], "int64", "uint8"),
        ([-5, 300], "int64", "int16"),
        ([0, 40000], "uint64", "uint16"),
        ([-5, 40000], "int64", "int32"),
        ([0, 2**32 - 1], "uint64", "uint32"),
        ([-1, 2**40], "int64", "float64"),
        ([0, 2**60 + 1], "int64", "int64"),
        ([-1, 2**60 + 1], "int64", "int64"),
        ([0, 2**64 - 1], "uint64", "uint64"),
        ([0, 200], "int32", "int32"),
    ],
)
def test_integers_of_64_bits_get_a_type_that_other_programs_read(
    tmp_path: Path, recorder: WarningRecorder, values: list[int], stored: str, kind: str
) -> None:
    volume = Volume(np.array(values, stored).reshape(1, 1, 2), modality="OT")
    save(volume, tmp_path / "a.nii.gz", monitor=recorder.monitor)
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == kind
    assert np.asarray(image.dataobj).ravel().astype(stored).tolist() == values
    said = [text for text in recorder.warnings if f"written as {kind}" in text]
    assert len(said) == (stored != "int32")
    save(volume, tmp_path / "a.nrrd")
    assert load(tmp_path / "a.nrrd").dtype == stored
