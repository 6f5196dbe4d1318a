"""A file with a fourth axis of one, [x, y, z, 1], is a volume at every door, not a sequence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io import load, save


@pytest.fixture(scope="module")
def frame() -> Volume:
    """One frame with its axis, [1, K, J, I]."""
    k, j, i = np.mgrid[-1:1:12j, -1:1:48j, -1:1:48j]
    ball = np.where(np.sqrt(k**2 + j**2 + i**2) < 0.8, 600 + 200 * np.sin(9 * i), 20)
    noise = np.random.default_rng(0).normal(0, 20, ball.shape)
    voxels = np.abs(ball + noise).astype(np.int16)[None]
    return Volume(voxels, Geometry((2, 2, 4)), modality="MR")


@pytest.fixture
def path(frame: Volume, tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    save(frame, path)
    assert load(path).shape == (1, 12, 48, 48)
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("default_head")
def test_it_is_segmented_and_batch_takes_it(path: Path, tmp_path: Path) -> None:
    labels, forced = tmp_path / "labels.nii.gz", ["--modality", "MR", "--force-segmenter"]
    assert main(["segment", str(path), str(labels), *forced]) == 0
    assert load(labels).shape == (12, 48, 48)
    scan = tmp_path / "bids/sub-1/anat/sub-1_T1w.nii.gz"
    scan.parent.mkdir(parents=True)
    path.rename(scan)
    (tmp_path / "bids/dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    out = str(tmp_path / "out")
    batch = ["batch", "segment", str(tmp_path / "bids"), "--bids", "--out", out]
    assert main([*batch, "--force-segmenter"]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("default_head")
def test_it_comes_back_with_its_axis(frame: Volume, path: Path, tmp_path: Path) -> None:
    packed, back = tmp_path / "scan.ucv", tmp_path / "back.nii.gz"
    assert main(["compress", str(path), str(packed), "--lossless"]) == 0
    assert main(["decompress", str(packed), str(back)]) == 0
    assert load(back).shape == frame.shape
    assert me.enhance(frame, segment=True, force_segmenter=True).volume.shape == frame.shape


@pytest.mark.training
def test_cohorts_and_other_libraries_take_it(frame: Volume, path: Path) -> None:
    from MedEnhanceLib.training.spg.cohort import Patient

    assert Patient("1", (path,)).volumes(modality="MR")[0].shape == (12, 48, 48)
    assert frame.to_sitk().GetDimension() == 3


def test_a_sequence_of_several_frames_has_no_single_one(frame: Volume) -> None:
    sequence = replace(frame, voxels=np.concatenate([frame.voxels, frame.voxels]))
    with pytest.raises(InputError, match="a sequence of 2 frames"):
        sequence.single()
    with pytest.raises(InputError, match="a sequence of 2 frames"):
        me.segment(sequence, force_segmenter=True)
