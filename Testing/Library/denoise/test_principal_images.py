"""Frames of different contrast are filtered together, in principal images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import denoise
from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.denoisers import DENOISERS
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.progress import Monitor

Doubles = npt.NDArray[np.float64]
_SIGMA = 30.0


def _series(rng: np.random.Generator, frames: int = 12) -> tuple[Doubles, Volume]:
    """Make weighted directions of two structures: the truth, and magnitudes with noise."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in (6, 32, 32)), indexing="ij")
    head = np.where(j**2 + i**2 < 0.85, 1000.0, 0.0)
    angle = np.where((i + 0.3 * np.sin(5 * j) > 0) ^ (j > 0.2 * k), 0.4, 1.7)
    directions = np.linspace(0, np.pi, frames - 2, endpoint=False)
    decays = [0 * angle, 0 * angle, *(1.2 * np.cos(angle - each) ** 2 for each in directions)]
    truth = np.stack([head * np.exp(-decay) for decay in decays])
    noise = rng.normal(0, _SIGMA, (2, *truth.shape))
    voxels = np.hypot(truth + noise[0], noise[1]).astype(np.float32)
    gradients = [Gradient(0.0)] * 2 + [
        Gradient(1000.0, (float(np.cos(each)), float(np.sin(each)), 0.0)) for each in directions
    ]
    geometry = Geometry((2.0, 2.0, 2.0))
    return truth, Volume(voxels, geometry, modality="MR", gradients=tuple(gradients))


def _left(volume: Volume, truth: Doubles, noisy: Volume) -> float:
    tissue = truth.mean(axis=0) > 100
    errors = [(each.voxels - truth)[:, tissue].std() for each in (volume, noisy)]
    return float(errors[0] / errors[1])


def _enhance(volume: Volume, monitor: Monitor | None = None, **options: Any) -> denoise.Enhanced:
    part = options.pop("slices", None)
    config = EnhanceConfig(device="cpu", **options)
    return denoise.enhance(volume, config, slices=part, monitor=monitor)


def test_together_far_less_noise_is_left_and_the_mean_keeps_its_anatomy(
    rng: np.random.Generator,
) -> None:
    truth, noisy = _series(rng)
    together, each = (_enhance(noisy, sequence=way) for way in ("joint", "each"))
    assert _left(together.volume, truth, noisy) < 0.75 * _left(each.volume, truth, noisy)
    assert together.measured["sequence"]["images"] <= 5
    noise = together.measured["noise"]
    assert abs(noise["sigma"] / _SIGMA - 1) < 0.1
    assert noise["mean_changed"] < 1.1 * noise["mean_changed_by_noise"]
    assert together.model["name"] == "principal-images"
    assert any("12 frames were filtered together" in line for line in together.findings)


@pytest.mark.slow
def test_what_files_state_decides_unless_the_user_does(rng: np.random.Generator) -> None:
    diffusion = _series(rng, 7)[1].crop(k=slice(0, 4))
    alike = replace(diffusion, gradients=(), sequence_kind="functional")
    unknown = replace(diffusion, gradients=(), sequence_kind="")
    same = replace(diffusion, gradients=(), sequence_kind="repeats")
    ways = [(diffusion, "joint"), (alike, "each"), (unknown, "each"), (same, "repeats")]
    for volume, way in ways:
        automatic, stated = (_enhance(volume, sequence=each) for each in ("auto", way))
        assert np.array_equal(automatic.volume.voxels, stated.volume.voxels), way
        codes = [warning.code for warning in automatic.warnings]
        assert ("sequence-advice" in codes) == (volume is unknown)
    together = _enhance(alike, sequence="joint").warnings
    assert "erases weak changes" in next(
        str(w.message) for w in together if w.code == "joint-filter"
    )
    assert _enhance(alike, sequence="repeats").warnings == ()  # who states it knows it


def test_for_frames_of_unknown_kind_what_either_way_leaves_is_said_first(
    rng: np.random.Generator,
) -> None:
    truth, noisy = _series(rng, 12)
    unknown = replace(noisy, gradients=(), sequence_kind="")
    whole = _enhance(unknown)
    advice = whole.warnings[0]
    assert advice.code == "sequence-advice"
    for way, volume in (("each", whole.volume), ("joint", _enhance(noisy).volume)):
        left = 100 * _left(volume, truth, noisy)
        assert advice.numbers[way] == pytest.approx(left, abs=12), way
        assert f"about {advice.numbers[way]} % of the noise" in str(advice.hint) or way == "joint"
    assert "sequence joint" in str(advice.hint) and ".bval" in str(advice.hint)
    alone = denoise.enhance(unknown, EnhanceConfig(device="cpu"), frame=3)  # without the trial
    assert str(alone.warnings[0].message) == str(advice.message)


def test_frames_of_noise_and_empty_ones_stay_and_disturb_nothing(rng: np.random.Generator) -> None:
    truth, noisy = _series(rng)
    voxels = noisy.voxels.copy()
    voxels[5] = np.hypot(*rng.normal(0, _SIGMA, (2, *voxels[5].shape)))
    voxels[8] = 0
    result = _enhance(noisy.with_voxels(voxels))
    assert np.array_equal(result.volume.voxels[[5, 8]], voxels[[5, 8]])
    others = [n for n in range(len(voxels)) if n not in (5, 8)]
    clean = _enhance(noisy.with_voxels(noisy.voxels)).volume
    left, right = (
        _left(each.with_voxels(each.voxels[others]), truth[others], _frames(noisy, others))
        for each in (result.volume, clean)
    )
    assert left < 1.25 * right  # two frames fewer share the noise


def _frames(volume: Volume, numbers: list[int]) -> Volume:
    gradients = tuple(volume.gradients[n] for n in numbers)
    return replace(volume, voxels=volume.voxels[numbers], gradients=gradients)


@pytest.mark.slow
def test_frames_that_move_are_filtered_one_by_one_with_a_warning(
    rng: np.random.Generator,
) -> None:
    noisy = _series(rng)[1]
    moved = [np.roll(frame, 3 * n, axis=2) for n, frame in enumerate(noisy.voxels)]
    volume, monitor = noisy.with_voxels(np.stack(moved)), Monitor()
    result = _enhance(volume, monitor, noise=_SIGMA)
    alone = _enhance(volume, sequence="each", noise=_SIGMA)
    assert np.array_equal(result.volume.voxels, alone.volume.voxels)
    assert result.model == alone.model and any("one by one" in each for each in monitor.warnings)
    assert "they move" in result.measured["sequence"]["reason"]["sentence"]


def test_a_method_is_chosen_by_its_name(rng: np.random.Generator) -> None:
    noisy = _series(rng)[1].frame(3)
    assert _enhance(noisy, denoiser="block-matching").model["name"] == "block-matching"
    with pytest.raises(ConfigError, match="there is no 'halve'") as caught:
        _enhance(noisy, denoiser="halve")
    assert "block-matching" in caught.value.hint
    with pytest.raises(ConfigError, match="frames of a sequence together"):
        _enhance(noisy, denoiser="principal-images")


def test_images_are_filtered_by_any_method(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DENOISERS, "median", "examples.median:MedianFilter")
    truth, noisy = _series(rng)
    joint, each = (_enhance(noisy, denoiser="median", sequence=way) for way in ("joint", "each"))
    assert joint.model["name"] == "principal-images, median"
    assert _left(joint.volume, truth, noisy) < 0.95 * _left(each.volume, truth, noisy)


def test_frames_that_cannot_be_filtered_together_say_why(rng: np.random.Generator) -> None:
    truth, noisy = _series(rng, 7)
    two = _enhance(_frames(noisy, [0, 3]), sequence="joint", strength="full")
    assert two.model["name"] == "block-matching"
    assert "2 frames were filtered one by one: fewer than 3 of them show tissue" in two.findings
    clean = noisy.with_voxels(np.round(truth).astype(np.int16))
    kept = _enhance(clean, strength=0.0)  # nothing is removed
    assert np.array_equal(kept.volume.voxels, clean.voxels)
    alike = replace(noisy, gradients=(), sequence_kind="functional").crop(k=slice(0, 4))
    assert "they repeat each other (functional)" in _enhance(alike).findings[-1]


def test_an_odd_frame_is_named_and_filtered_alone_and_the_others_are_as_without_it(
    rng: np.random.Generator,
) -> None:
    truth, noisy = _series(rng, 16)
    voxels = noisy.voxels.copy()
    voxels[9] = np.roll(voxels[9], 3, axis=1)
    damaged = noisy.with_voxels(voxels)
    result = _enhance(damaged)
    assert result.findings[-1].endswith("frame 9: moved by about 3 voxels")
    assert "odd-frames" in [warning.code for warning in result.warnings]
    others = [n for n in range(16) if n != 9]
    gradients = tuple(noisy.gradients[n] for n in others)
    without = _enhance(replace(noisy, voxels=voxels[others], gradients=gradients))
    assert np.array_equal(result.volume.voxels[others], without.volume.voxels)
    truth[9] = np.roll(truth[9], 3, axis=1)
    errors = [
        (each.voxels[9] - truth[9])[truth[9] > 100].std() for each in (result.volume, damaged)
    ]
    assert errors[0] < 0.9 * errors[1]
    alone = denoise.enhance(damaged, EnhanceConfig(device="cpu"), frame=9)
    assert np.array_equal(alone.volume.voxels, result.volume.voxels[9])
    verdict = me.measure_noise(damaged)
    assert verdict is not None
    (odd,) = verdict.to_json()["odd_frames"]
    assert odd["sentence"] == "frame 9: moved by about 3 voxels"
    assert odd["numbers"]["frame"] == 9


def test_where_both_ways_leave_the_same_nothing_is_said(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedEnhanceLib.denoise.enhancer._LEAST_LEFT", 0.9)  # said of both
    unknown = replace(_series(rng)[1], gradients=(), sequence_kind="")
    codes = {warning.code for warning in _enhance(unknown).warnings}
    assert not {"sequence-advice", "sequence-kind"} & codes
