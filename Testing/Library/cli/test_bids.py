"""batch with --bids: which volumes, which names, what lies beside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume


@pytest.fixture
def bids(tmp_path: Path, head: Volume) -> Path:
    """Two subjects, one with a session; a phase image, a mask and a scan of another kind."""
    root = tmp_path / "raw"
    names = [
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-01/func/sub-01_task-rest_bold.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_part-phase_T1w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_label-brain_mask.nii.gz",
    ]
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        io.save(head.with_voxels(head.voxels + np.int16(number)), root / name)
    (root / "dataset_description.json").write_text('{"Name": "Two", "BIDSVersion": "1.9.0"}')
    return root


def under(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.usefixtures("networks")
class TestBids:
    def test_anatomical_images_become_a_derivative_dataset(self, run: Callable, bids: Path) -> None:
        before = under(bids)
        ran = run("batch", "enhance", bids, "--bids")
        assert (ran.status, "3 of 3 done (0 of them before)" in ran.out) == (0, True)
        out = bids / "derivatives" / "medenhance"
        made = under(out)
        assert {name for name in made if name.endswith(".nii.gz")} == {
            "sub-01/anat/sub-01_desc-enhanced_T1w.nii.gz",
            "sub-01/anat/sub-01_desc-enhanced_T2w.nii.gz",
            "sub-02/ses-a/anat/sub-02_ses-a_run-1_desc-enhanced_T1w.nii.gz",
        }
        assert {name: under(bids)[name] for name in before} == before
        description = json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))
        assert description["DatasetType"] == "derivative"
        assert description["GeneratedBy"][0]["Name"] == "MedEnhance"
        assert "3 of 3 done (3 of them before)" in run("batch", "enhance", bids, "--bids").out

    def test_both_commands_go_on_in_one_dataset(self, run: Callable, bids: Path) -> None:
        assert run("batch", "enhance", bids, "--bids").status == 0
        volumes = bids.parent / "volumes.csv"
        command = ["batch", "segment", bids, "--bids", "--model", "brain", "--volumes", volumes]
        assert run(*command).status == 0
        anat = bids / "derivatives/medenhance/sub-01/anat"
        assert io.load(anat / "sub-01_desc-T2w_dseg.nii.gz").modality == "SEG"
        lines = (anat / "sub-01_desc-T2w_dseg.tsv").read_text(encoding="utf-8").splitlines()
        assert lines[0].split("\t") == ["index", "name", "abbreviation", "color"]
        assert lines[1].split("\t")[1:3] == ["gray matter", "GrayMatter"]
        measured = volumes.read_text(encoding="utf-8").splitlines()
        assert len(measured) == 1 + 3 * (len(lines) - 1)
        assert (run(*command).status, volumes.read_text("utf-8").splitlines()) == (1, measured)
        again = run("batch", "enhance", bids, "--bids")
        assert (again.status, "3 of 3 done (3 of them before)" in again.out) == (0, True)
        table = (bids / "derivatives/medenhance/batch.csv").read_text(encoding="utf-8")
        assert len(table.splitlines()) == 1 + 3 + 3
        assert "gray matter ml" in table

    def test_what_is_derived_stays_out_of_the_raw_dataset(self, run: Callable, bids: Path) -> None:
        before = under(bids)
        ran = run("batch", "enhance", bids, "--bids", "--out", bids / "sub-01")
        assert (ran.status, "lies in the raw dataset" in ran.err) == (1, True)
        assert under(bids) == before
        copied = bids / "sub-01/anat/sub-01_desc-enhanced_T1w.nii.gz"
        copied.write_bytes((bids / "sub-01/anat/sub-01_T1w.nii.gz").read_bytes())
        assert "3 of 3 done (0 of them before)" in run("batch", "enhance", bids, "--bids").out

    def test_diffusion_scans_are_enhanced_with_their_tables_and_not_segmented(
        self, run: Callable, bids: Path, head: Volume
    ) -> None:
        names = ["sub-01/dwi/sub-01_dir-AP_dwi", "sub-02/ses-a/dwi/sub-02_ses-a_dwi"]
        frames = np.stack([head.voxels, head.voxels // 2, head.voxels // 3])
        for name in [*names, "sub-01/dwi/sub-01_dir-AP_sbref", "sub-01/dwi/sub-01_desc-x_dwi"]:
            (bids / name).parent.mkdir(parents=True, exist_ok=True)
            path = bids / f"{name}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(frames.T, head.geometry.affine_ras), path)
        for place, columns in (("dwi", "0 9 9"), (names[0], "0 5 5")):  # the nearer table counts
            (bids / f"{place}.bval").write_text(f"{columns}\n")
            (bids / f"{place}.bvec").write_text("0 1 0\n0 0 1\n0 0 0\n")
        (bids / f"{names[0]}.json").write_text('{"EchoTime": 0.08}')
        assert "5 of 5 done (0 of them before)" in run("batch", "enhance", bids, "--bids").out
        out = bids / "derivatives/medenhance"
        for name, b_values in zip(names, ("0 5 5\n", "0 9 9\n"), strict=True):
            result = out / f"{name.removesuffix('_dwi')}_desc-enhanced_dwi.nii.gz"
            table = result.with_name(result.name.replace(".nii.gz", ".bval"))
            assert (io.load(result).shape, table.read_text()) == (frames.shape, b_values)
            columns = np.loadtxt(table.with_suffix(".bvec"))
            assert np.allclose(columns, [[0, 1, 0], [0, 0, 1], [0, 0, 0]])
            assert io.load(result).sequence_kind == "diffusion"
        sidecar = out / "sub-01/dwi/sub-01_dir-AP_desc-enhanced_dwi.json"
        assert json.loads(sidecar.read_text()) == {"EchoTime": 0.08}
        segmented = run("batch", "segment", bids, "--bids", "--model", "brain")
        assert "3 of 3 done" in segmented.out

    def test_what_is_no_dataset_is_refused(self, run: Callable, bids: Path) -> None:
        (bids / "dataset_description.json").unlink()
        assert "is no BIDS dataset" in run("batch", "enhance", bids, "--bids").err
        assert not (bids / "derivatives").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--bids", "--dicom"), "names the results itself"),
        ((), "no folder for the results"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    run: Callable, tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    ran = run("batch", "enhance", tmp_path, *options)
    assert ran.status == 2
    assert why in ran.err
