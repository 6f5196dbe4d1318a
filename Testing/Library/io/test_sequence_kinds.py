"""What the frames of a sequence differ in, as files state it, and what keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from Library.conftest import Make, WarningRecorder
from Library.dicom.images import MR, enhanced_mr, written
from Library.io.test_nrrd_metaimage import nrrd

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.sequence_kind import KINDS, is_filtered_together
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io import load, save

FRAMES = np.arange(4 * 2 * 5 * 6, dtype=np.int16).reshape(4, 2, 5, 6)


def nifti(path: Path, frames: int = 4, **beside: Any) -> Path:
    """Write a sequence of another program, with files beside it: their ending, their content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(FRAMES[:frames].T, np.diag((2, 2, 3, 1))), path)
    for ending, content in beside.items():
        text = content if isinstance(content, str) else json.dumps(content)
        path.with_name(f"{path.name.partition('.')[0]}.{ending}").write_text(text)
    return path


def kind_of(path: Path) -> str:
    return load(path, modality="MR").sequence_kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sub-01/dwi/sub-01_dwi.nii.gz", "diffusion"),
        ("dwi.nii", "diffusion"),
        ("a_DWI.nii", "diffusion"),
        ("sub-01/dwi/sub-01_dir-AP_sbref.nii.gz", ""),
        ("sub-01/func/sub-01_task-rest_echo-2_bold.nii.gz", "functional"),
        ("sub-01/func/sub-01_task-rest.nii.gz", "functional"),
        ("sub-01/perf/sub-01_asl.nii.gz", "perfusion"),
        ("sub-01/perf/sub-01_m0scan.nii.gz", ""),
        ("sub-01/perf/sub-01_dce.nii.gz", "perfusion"),
        ("sub-01/pet/sub-01_pet.nii.gz", "dynamic"),
        ("sub-01/anat/sub-01_MEGRE.nii.gz", "echoes"),
        ("sub-01/anat/sub-01_echo-1_MEGRE.nii.gz", ""),
        ("sub-01/anat/sub-01_IRT1.nii.gz", "inversion times"),
        ("sub-01/anat/sub-01_inv-1_MP2RAGE.nii.gz", ""),
        ("sub-01/anat/sub-01_T1w.nii.gz", "repeats"),
        ("func/scan.nii.gz", ""),
    ],
)
def test_names_and_folders_of_bids_state_the_kind(tmp_path: Path, name: str, kind: str) -> None:
    assert kind_of(nifti(tmp_path / name)) == kind
    together = ("diffusion", "echoes", "inversion times", "repeats")
    assert is_filtered_together(kind) == (kind in together)


@pytest.mark.parametrize(
    ("sidecar", "kind"),
    [
        ({"EchoTime": [0.01, 0.02, 0.03, 0.04]}, "echoes"),
        ({"EchoTime": [0.01] * 4}, ""),
        ({"InversionTime": [0.1, 0.4, 0.8, 1.6]}, "inversion times"),
        ({"ArterialSpinLabelingType": "PCASL", "InversionTime": [0.1, 0.4, 0.8, 1.6]}, "perfusion"),
        ({"TaskName": "rest", "EchoTime": [0.01, 0.02, 0.03, 0.04]}, "functional"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]}, "diffusion"),
        ({"ContrastBolusIngredient": "GADOLINIUM"}, "dynamic"),
        ({"ImageType": 5, "EchoTime": {}}, ""),
        ("{", ""),
    ],
)
def test_the_json_beside_a_file_states_the_kind(tmp_path: Path, sidecar: Any, kind: str) -> None:
    assert kind_of(nifti(tmp_path / "scan.nii", json=sidecar)) == kind


def test_b_values_without_directions_state_diffusion(tmp_path: Path) -> None:
    assert kind_of(nifti(tmp_path / "scan.nii.gz", bval="0 50 400 800\n")) == "diffusion"


@pytest.mark.parametrize(
    "places", [("dwi.bval", "dwi.bvec"), ("dwi.bval", "sub-01/sub-01_dwi.bvec")]
)
def test_tables_of_a_whole_bids_dataset_hold_for_its_images(
    tmp_path: Path, places: tuple[str, str]
) -> None:
    path = nifti(tmp_path / "sub-01/ses-a/dwi/sub-01_ses-a_run-1_dwi.nii.gz")
    for place, text in zip(places, ("0 9 9 9\n", "0 1 0 0\n0 0 1 0\n0 0 0 1\n"), strict=True):
        (tmp_path / place).write_text(text)
    (tmp_path / "sub-01/sub-01_acq-b_dwi.bval").write_text("1 2 3\n")  # of another image
    (tmp_path / "bold.bval").write_text("1 2 3\n")
    assert load(path, modality="MR").gradients == ()
    (tmp_path / "dataset_description.json").write_text("{}")
    volume = load(path, modality="MR")
    assert [gradient.b_value for gradient in volume.gradients] == [0, 9, 9, 9]
    save(volume, tmp_path / "sub-01/ses-a/dwi/sub-01_ses-a_run-2_dwi.nii.gz")
    assert (path.parent / "sub-01_ses-a_run-2_dwi.bval").read_text() == "0 9 9 9\n"


def test_a_kind_of_a_later_release_is_unknown(tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("core.volume", "core.sequence_kind"):
        monkeypatch.setattr(f"MedEnhanceLib.{name}.KINDS", (*KINDS, "later"))
    volume = Volume(FRAMES, modality="MR", sequence_kind="later")
    save(volume, tmp_path / "a.nrrd")
    me.compress(volume, tmp_path / "a.ucv", lossless=True, progress=False)
    monkeypatch.undo()
    assert {load(tmp_path / f"a{end}").sequence_kind for end in (".nrrd", ".ucv")} == {""}


def test_a_volume_keeps_the_kind_of_its_frames_and_a_frame_has_none() -> None:
    volume = Volume(FRAMES, sequence_kind="echoes")
    for same in (volume.with_voxels(FRAMES + 1), volume.crop(k=slice(1, 2)), volume.canonical()):
        assert same.sequence_kind == "echoes"
    assert volume.with_voxels(FRAMES[:2]).sequence_kind == ""
    assert volume.frame(0).sequence_kind == ""
    weighted = replace(volume, sequence_kind="", gradients=(Gradient(9),) * 4)
    assert weighted.sequence_kind == "diffusion"
    with pytest.raises(InputError, match="'echos' is no kind of sequence") as caught:
        replace(volume, sequence_kind="echos")
    assert "echoes" in caught.value.hint


def times(t: int) -> dict[str, Any]:
    return {"TemporalPositionIdentifier": t + 1}


@pytest.mark.parametrize(
    ("elements", "image_type", "more", "kind"),
    [
        (lambda t: {**times(t), "DiffusionBValue": 500.0 * t}, "M", {}, "diffusion"),
        (lambda t: {"EchoTime": 5.0 + 5 * t, "EchoNumbers": t + 1}, "M", {}, "echoes"),
        (lambda t: {"InversionTime": 100.0 + 300 * t}, "M", {}, "inversion times"),
        (lambda t: {"InversionTime": 100.0 + 300 * t}, "ASL", {}, "perfusion"),
        (lambda t: {"EchoTime": 5.0 + 5 * t, "EchoNumbers": t + 1}, "FMRI", {}, "functional"),
        (times, "PERFUSION", {}, "perfusion"),
        (times, "M", {"ContrastBolusAgent": "Gadobutrol"}, "dynamic"),
        (lambda t: {"NominalPercentageOfCardiacPhase": 25.0 * t}, "M", {}, "dynamic"),
        (times, "M", {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0}, "dynamic"),
        (times, "M", {}, ""),
        (lambda t: {"FlipAngle": 3.0 + 5 * t, **times(t)}, "M", {}, ""),
    ],
)
def test_dicom_states_the_kind_where_it_is_certain(
    make_series: Make,
    elements: Callable[[int], dict[str, Any]],
    image_type: str,
    more: dict[str, Any],
    kind: str,
) -> None:
    folder = make_series(
        FRAMES.reshape(-1, 5, 6).astype(np.uint16),
        positions=[(1.0, 2.0, 3.0 * k) for _ in range(4) for k in range(2)],
        slice_elements=lambda index: elements(index // 2),
        ImageType=["ORIGINAL", "PRIMARY", image_type, "ND"],
        **MR | more,
    )
    volume = load(folder)
    assert (len(volume.frames()), volume.sequence_kind) == (4, kind)


def test_enhanced_dicom_states_labeling_in_a_group_of_its_own(tmp_path: Path) -> None:
    from pydicom import Dataset

    dataset = enhanced_mr(FRAMES[:2].reshape(-1, 5, 6), [0.0, 2.0, 0.0, 2.0])
    for index, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        groups.FrameContentSequence[0].TemporalPositionIndex = index // 2 + 1
        item = Dataset()
        item.ArterialSpinLabelingContrast = "PSEUDOCONTINUOUS"
        groups.MRArterialSpinLabelingSequence = [item]
    (tmp_path / "asl.dcm").write_bytes(written(dataset))
    assert load(tmp_path / "asl.dcm").sequence_kind == "perfusion"


VECTORS = ("0 0 0", "2 0 0", "0 1.41421356 0", "0 0 -2")
SLICER = (
    "space directions: {} (0,3,0) (0,0,4) none\nspace origin: (1,2,3)\nkinds: space space space {}"
)


def dwi(path: Path, space: str, frames: str = "list", keys: str = "", **replaced: str) -> Path:
    """Write a diffusion scan as 3D Slicer does, in a file of four frames."""
    lines = f"space: {space}\n{SLICER.format('(2,0,0)', frames)}\nmodality:=DWMRI"
    fields = {"DWMRI_b-value": "1000"} | {
        f"DWMRI_gradient_{n:04}": v for n, v in enumerate(VECTORS)
    }
    lines += "".join(f"\n{key}:={value}" for key, value in (fields | replaced).items() if value)
    return nrrd(path, f"{lines}{keys}", (6, 5, 2, 4))


@pytest.mark.parametrize("frames", ["list", "vector"])
def test_gradients_of_slicer_come_from_the_measurement_frame_to_lps(
    tmp_path: Path, frames: str
) -> None:
    turn = "\nmeasurement frame: (0,1,0) (-1,0,0) (0,0,1)"  # its columns
    path = dwi(tmp_path / "a.nrrd", "right-anterior-superior", frames, turn)
    volume = load(path, modality="MR")
    assert (volume.shape, volume.sequence_kind) == ((4, 2, 5, 6), "diffusion")
    assert volume.gradients == (
        Gradient(0), Gradient(1000, (0, -1, 0)), Gradient(500, (1, 0, 0)),
        Gradient(1000, (0, 0, -1)),
    )  # fmt: skip
    plain = load(dwi(tmp_path / "b.nrrd", "left-posterior-superior"), modality="MR")
    assert plain.gradients[1:3] == (Gradient(1000, (1, 0, 0)), Gradient(500, (0, 1, 0)))
    save(volume, tmp_path / "new.nii.gz")
    assert (tmp_path / "new.bval").read_text() == "0 1000 500 1000\n"
    save(volume, tmp_path / "new.nrrd")
    assert load(tmp_path / "new.nrrd").gradients == volume.gradients


def test_repeated_gradients_of_slicer_are_stated_by_their_number(tmp_path: Path) -> None:
    path = dwi(tmp_path / "a.nrrd", "LPS", DWMRI_gradient_0002="", DWMRI_NEX_0001="2")
    directions = [gradient.direction for gradient in load(path, modality="MR").gradients]
    assert directions == [(0, 0, 0), (1, 0, 0), (1, 0, 0), (0, 0, -1)]


@pytest.mark.parametrize(
    "replaced",
    [
        {"DWMRI_gradient_0003": ""},
        {"DWMRI_gradient_0003": "0 1"},
        {"DWMRI_gradient_0003": "0 0 inf"},
        {"DWMRI_b-value": ""},
        {"DWMRI_b-value": "inf"},
        {"DWMRI_NEX_0001": "x"},
    ],
)
def test_faulty_gradients_of_slicer_are_named_and_the_kind_stays(
    tmp_path: Path, recorder: WarningRecorder, replaced: dict[str, str]
) -> None:
    path = dwi(tmp_path / "a.nrrd", "LPS", **replaced)
    volume = load(path, modality="MR", monitor=recorder.monitor)
    assert (volume.gradients, volume.sequence_kind) == ((), "diffusion")
    assert any("keys DWMRI" in warning for warning in recorder.warnings)


def test_inspect_names_the_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["inspect", str(nifti(tmp_path / "a.nii", bval="0 1 1 1")), "--modality", "MR"]) == 0
    )
    assert "diffusion, 4 frames" in capsys.readouterr().out
    me.compress(Volume(FRAMES, modality="MR", sequence_kind="echoes"), tmp_path / "a.ucv",
                lossless=True, progress=False)  # fmt: skip
    assert main(["inspect", str(tmp_path / "a.ucv")]) == 0
    assert "echoes, 4 frames" in capsys.readouterr().out
