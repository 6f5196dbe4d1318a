"""What is done to a sequence is decided once: its frames never flip from one thing to another."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from Library.hqg import conftest

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Blur, Rician
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.jobs import JobSpec, run_job

#: Noise of the frames over the brightest tissue.
_LEVELS = (0.006, 0.006, 0.006)


@cache
def brain() -> Volume:
    return conftest.brain().crop(k=slice(0, 4), j=slice(16, 80))


def sequence(frames: list[Volume]) -> Volume:
    voxels = np.stack([np.float32(frame.voxels) for frame in frames])
    return Volume(voxels, frames[0].geometry, modality="MR", frame_interval_s=2.0)


@pytest.fixture
def dynamic() -> Volume:
    """Frames with noise that a single volume would keep, as nobody sees it."""
    return sequence([Rician(level, seed).apply(brain()) for seed, level in enumerate(_LEVELS)])


def config(**options: object) -> EnhanceConfig:
    return EnhanceConfig(model="mr", device="cpu", **options)


def test_all_noise_of_a_sequence_goes_even_where_it_is_weak(dynamic: Volume) -> None:
    single = enhance(dynamic.frame(0), config())
    assert single.share < 0.8
    done = enhance(dynamic, config())
    noise = done.measured["noise"]
    sigma = 0.006 * robust_max(brain().voxels)
    assert noise["sigma"] == noise["sigma_used"] == pytest.approx(sigma, rel=0.08)
    assert (noise["share_removed"], noise["frames"]) == (1, 3)
    assert len({each.level for each in done.noises}) == 1
    inside = brain().voxels > 100
    for number in range(3):
        before, after = (each.voxels[number][inside] for each in (dynamic, done.volume))
        truth = brain().voxels[inside]
        assert np.square(after - truth).mean() < 0.8 * np.square(before - truth).mean()


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
