"""What is done to a sequence is decided once: its frames never flip from one thing to another."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from Library.hqg import conftest

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation import Blur, Rician
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.jobs import JobSpec, run_job

#: Below, about and above what calls for all of the correction.
_LEVELS = (0.006, 0.01, 0.03)


@cache
def brain() -> Volume:
    return conftest.brain().crop(k=slice(0, 6))


def sequence(frames: list[Volume]) -> Volume:
    voxels = np.stack([np.float32(frame.voxels) for frame in frames])
    return Volume(voxels, frames[0].geometry, modality="MR", frame_interval_s=2.0)


@pytest.fixture
def dynamic() -> Volume:
    """Frames whose noise straddles the limits of what auto removes."""
    return sequence([Rician(level, 3).apply(brain()) for level in _LEVELS])


def config(**options: object) -> EnhanceConfig:
    return EnhanceConfig(model="mr", device="cpu", **options)


def test_every_frame_gets_the_share_of_the_typical_one(dynamic: Volume) -> None:
    auto = enhance(dynamic, config())
    full = enhance(dynamic, config(strength="full"))
    share = auto.measured["noise"]["share_removed"]
    assert 0.2 < share < 0.8
    assert auto.measured["noise"]["frames_measured"] == len(_LEVELS)
    assert f"{share:.0%} of the noise correction" in auto.volume.history[-1]
    for before, some, whole in zip(
        dynamic.voxels, auto.volume.voxels, full.volume.voxels, strict=True
    ):
        missed = np.abs((some - before) - share * (whole - before))
        assert np.quantile(missed, 0.999) < 1e-3
    levels = [noise.level for noise in auto.noises]
    assert levels[-1] > 2 * levels[0]  # of each frame by itself


def test_blur_is_undone_in_all_frames_or_in_none() -> None:
    sharp = Rician(0.01, 1).apply(brain())
    soft = Rician(0.01, 2).apply(Blur(1.6).apply(brain()))
    most = enhance(sequence([soft, sharp, soft]), config(task="sharpness"))
    assert most.measured["blur"]["undone"]
    few = enhance(sequence([sharp, soft, sharp]), config(task="sharpness"))
    assert not few.measured["blur"]["undone"]
    noise = enhance(sequence([sharp, soft, sharp]), config())
    assert np.array_equal(few.volume.voxels, noise.volume.voxels)
    assert most.volume.voxels[1].std() > few.volume.voxels[0].std()  # sharpened, too


def test_one_bias_field_corrects_all_frames(tmp_path: Path) -> None:
    field = 1 + 0.4 * np.linspace(-1, 1, brain().shape[2])
    shaded = brain().with_voxels((brain().voxels * field).astype(np.float32))
    frames = sequence([Rician(level, 3).apply(shaded) for level in (0.01, 0.03)])
    plain = enhance(frames, config(uncertainty=True))
    corrected = enhance(frames, config(correct_bias_field=True, uncertainty=True))
    assert corrected.measured["bias_field"]["corrected"]
    inside = brain().voxels > 100
    fields = plain.volume.voxels[:, inside] / corrected.volume.voxels[:, inside]
    assert np.ptp(fields[0]) > 0.2 and np.allclose(*fields, rtol=1e-3)
    before, after = (each.uncertainty.voxels[:, inside] for each in (plain, corrected))
    assert np.allclose(before / fields, after, rtol=1e-3)
    half = corrected.at_strength(0.5)
    again = enhance(frames, config(correct_bias_field=True, uncertainty=True, strength=0.5))
    assert half.volume.is_equal(again.volume)
    assert again.uncertainty is not None
    # Between σ of the corrected volume and of the input.
    ratio = again.uncertainty.voxels / corrected.uncertainty.voxels
    assert np.quantile(ratio, 0.02) > 0.7


def test_a_frame_alone_is_as_in_the_whole_sequence(dynamic: Volume, tmp_path: Path) -> None:
    me.save(dynamic, tmp_path / "dynamic.nii.gz")
    whole = enhance(dynamic, config())
    for frame in (0, 2):
        alone = enhance(dynamic, config(), frame=frame)
        assert np.array_equal(alone.volume.voxels, whole.volume.voxels[frame])
        assert alone.volume.history == whole.volume.history
    params = {
        "input": str(tmp_path / "dynamic.nii.gz"),
        "output": str(tmp_path / "out.nii.gz"),
        "modality": "MR",
        "frame": 2,
        "config": {"device": "cpu"},
    }
    run_job(JobSpec("enhance", params))
    written = me.load(tmp_path / "out.nii.gz", modality="MR")
    assert np.array_equal(written.voxels, whole.volume.voxels[2])
    measured = json.loads((tmp_path / "out.nii.gz.json").read_text())["results"]["measured"]
    assert measured["noise"]["share_removed"] == whole.share
    with pytest.raises(InputError, match="frame 3"):
        enhance(dynamic, config(), frame=3)
