"""What is done to a sequence is decided once: its frames never flip from one thing to another."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from Library.denoise import conftest

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Rician
from MedEnhanceLib.denoise import EnhanceConfig, VolumeCache, enhance
from MedEnhanceLib.denoise.decide import decide
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.runtime.progress import Monitor

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
    return EnhanceConfig(**options)


def test_all_noise_of_a_sequence_goes_even_where_it_is_weak(dynamic: Volume) -> None:
    single = enhance(dynamic.frame(0), config())
    assert single.share < 0.8
    done = enhance(dynamic, config())
    noise = done.measured["noise"]
    sigma = 0.006 * robust_max(brain().voxels)
    assert noise["sigma"] == noise["sigma_used"] == pytest.approx(sigma, rel=0.08)
    assert (noise["share_removed"], noise["frames"]) == (1, 3)
    assert len({each.level for each in done.noises}) == 1
    assert done.noise.shape == dynamic.shape[1:]  # one map, as `noise` takes it
    inside = brain().voxels > 100
    for number in range(3):
        before, after = (each.voxels[number][inside] for each in (dynamic, done.volume))
        truth = brain().voxels[inside]
        assert np.square(after - truth).mean() < 0.8 * np.square(before - truth).mean()


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
        decided = ("sigma", "sigma_used", "interval", "share_removed")
        assert [alone.measured["noise"][name] for name in decided] == [
            whole.measured["noise"][name] for name in decided
        ]
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


# --- frames that are not like the others ----------------------------------------------------------

_SIGMA = 20.0
_SHAPE = (8, 32, 36)


def phantom() -> np.ndarray:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in _SHAPE), indexing="ij")
    r = np.sqrt(x**2 + y**2 + z**2)
    return np.select([r < 0.6, r < 0.9], [1000.0, 700.0], 0.0)


def magnitudes(count: int, signal: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    real, imaginary = np.random.default_rng(seed).normal(0, _SIGMA, (2, count, *_SHAPE))
    return list(np.hypot(signal + real, imaginary))


def judged(frames: list[np.ndarray]) -> tuple[float, dict[str, str]]:
    """Return the measured σ, and what was warned of, by code."""
    volume = Volume(np.stack(frames).astype(np.float32), modality="MR")
    config, monitor = EnhanceConfig(), Monitor()
    decision = decide(volume.frames(), VolumeCache(), config, monitor, kind="functional")
    return decision.noise.level, {each.code: str(each.message) for each in decision.warnings}


@pytest.mark.parametrize(("count", "at"), [(3, 3), (12, 6), (24, 0)])
@pytest.mark.parametrize("signal", [None, 0.0, 500.0])
def test_frames_without_tissue_do_not_set_the_noise(
    signal: float | None, count: int, at: int
) -> None:
    frames = magnitudes(count, phantom())
    empty = [np.full(_SHAPE, signal)] * 3
    frames[at:at] = magnitudes(3, np.zeros(_SHAPE), seed=1) if signal is None else empty
    level, warned = judged(frames)
    assert level == pytest.approx(_SIGMA, rel=0.06)
    assert warned["no-tissue"].startswith(f"frame no. {at} to {at + 2} (counted from 0)")


def test_a_repeated_or_averaged_frame_does_not_set_the_noise() -> None:
    for count in (2, 3, 12):
        frames = magnitudes(count, phantom())
        middle = count // 2
        before, after = frames[middle - 1], frames[middle]
        between = {
            "repeated": [before],
            "averaged": [(before + after) / 2],
            "interpolated": [before * 2 / 3 + after / 3, before / 3 + after * 2 / 3],
        }
        for name, added in between.items():
            level, warned = judged([*frames[:middle], *added, *frames[middle:]])
            assert level == pytest.approx(_SIGMA, rel=0.06), (name, count)
            named = f"{middle} to {middle + 1}" if len(added) > 1 else f"{middle} (counted from 0)"
            assert named in warned["unlike-frames"], (name, count)
    smooth = magnitudes(16, phantom())
    smooth[7] = (smooth[6] + 2 * smooth[7] + smooth[8]) / 4
    level, warned = judged(smooth)
    assert level == pytest.approx(_SIGMA, rel=0.06) and "frame no. 7 " in warned["unlike-frames"]


@pytest.mark.parametrize("signal", [0.5, 1.0, 2.0])
def test_frames_as_weak_as_their_noise_do_not_set_it(signal: float) -> None:
    weak = magnitudes(6, phantom() / 700 * signal * _SIGMA, seed=1)
    level, _ = judged([*magnitudes(10, phantom()), *weak])
    assert level == pytest.approx(_SIGMA, rel=0.06)


def test_frames_without_movement_set_the_noise_without_a_warning() -> None:
    detail = phantom() * np.random.default_rng(5).uniform(0.7, 1.3, _SHAPE)
    frames = magnitudes(8, detail)
    moved = [np.roll(each, n, 2) if n in (1, 2, 6) else each for n, each in enumerate(frames)]
    assert judged(moved)[0] == pytest.approx(_SIGMA, rel=0.1)
    assert judged(frames)[1] == {}
    level, warned = judged(magnitudes(5, np.full(_SHAPE, 600.0)))  # nothing to correlate
    assert level == pytest.approx(_SIGMA, rel=0.06) and warned == {}
    same = magnitudes(5, np.full(_SHAPE, 600.0))
    assert "no-tissue" not in judged([same[0], *same])[1]


def test_frames_without_tissue_stay_as_they_are() -> None:
    frames = [Rician(0.1, seed).apply(brain()) for seed in range(3)]
    alone = enhance(sequence(frames), config(uncertainty=True))
    noise = brain().with_voxels(np.random.default_rng(0).rayleigh(22.7, brain().shape))
    zeros, flat = (brain().with_voxels(np.full(brain().shape, v, "f4")) for v in (0, 50))
    mixed = enhance(sequence([zeros, *frames, flat, noise]), config(uncertainty=True))
    (warning,) = (each for each in mixed.warnings if each.code == "no-tissue")
    said = "frame no. 0, 4 to 5 (counted from 0) shows no tissue, only one value or noise"
    assert str(warning.message).endswith(said)
    result, uncertainty = mixed.volume.voxels, mixed.uncertainty.voxels
    assert np.array_equal(result[1:4], alone.volume.voxels)
    for number, source in ((0, zeros), (4, flat), (5, noise)):
        assert np.array_equal(result[number], source.voxels.astype(np.float32))
    assert not uncertainty[[0, 4]].any() and uncertainty[5].min() > 0
    only = enhance(sequence([zeros, *frames, flat, noise]), config(), frame=0)
    assert not only.volume.voxels.any() and warning in only.warnings


def test_a_series_in_which_one_frame_shows_tissue_is_measured() -> None:
    frame = magnitudes(1, phantom())[0]
    frames = np.stack([frame * 0, frame, frame * 0]).astype(np.float32)
    volume = Volume(frames, modality="MR", sequence_kind="diffusion")
    verdict = me.measure_noise(volume)
    assert verdict is not None
    assert verdict.sigma > 0
