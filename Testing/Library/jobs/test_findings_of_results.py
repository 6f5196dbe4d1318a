"""Sentences of a result on its noise and its change: in Python, and as a warning of the job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.denoise.conftest import brain

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib import denoise
from MedEnhanceLib.denoise.denoisers import BlockMatching, Denoised, FramePart, Frames
from MedEnhanceLib.denoise.enhancer import _shared_change
from MedEnhanceLib.jobs.enhancing import objects_of
from MedEnhanceLib.runtime.resources import resource_folder

_NOISE = {"sigma": 335.0, "share_removed": 1.0}


def test_a_result_says_in_words_what_was_found() -> None:
    volume = brain().crop(k=slice(0, 3))
    result = me.enhance(volume, device="cpu", noise=1.0, strength="full")
    verdict, line = result.findings
    assert verdict.endswith(" of the stated ±1")
    assert (result.verdict, result.sigma) == ("removed", 1.0)
    assert line == "noise stated: ±1 (1 SD); filtered: 100 %"
    assert f", {verdict}, {line} by MedEnhance" in result.volume.history[-1]
    assert verdict in objects_of(result).options  # of the derived series
    half = result.at_strength(0.5).findings[1]
    assert "filtered: 50 %, because the strength is 0.5" in half


@pytest.fixture(scope="module")
def enhanced() -> denoise.Enhanced:
    return denoise.enhance(
        brain().crop(k=slice(0, 2)), denoise.EnhanceConfig(device="cpu", noise=1e-12)
    )


@pytest.mark.parametrize(
    ("measured", "strength", "is_warned"),
    [
        ({"noise": _NOISE | {"changed": 422.0}}, 1.0, True),
        ({"noise": _NOISE | {"changed": 350.0}}, 1.0, False),
        ({"noise": _NOISE | {"changed": 422.0}}, 0.5, False),
        ({"noise": _NOISE | {"changed": 422.0}, "bias_field": {"corrected": True}}, 1.0, False),
        ({}, 1.0, False),
    ],
)
def test_a_change_that_exceeds_the_noise_is_warned_of(
    enhanced: denoise.Enhanced,
    measured: dict[str, Any],
    strength: float,
    is_warned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = replace(enhanced, measured=measured, strength=strength)
    monkeypatch.setattr(denoise, "enhance", lambda *_, **__: result)
    warnings = me.enhance(brain(), device="cpu").report["warnings"]
    text = "the change is larger than the noise that was measured"
    assert any(each.startswith(text) for each in warnings) == is_warned


def _is_warned_of_change(volume: Any) -> bool:
    warnings = me.enhance(volume, device="cpu").report["warnings"]
    return any(each.startswith("the change is larger than the noise") for each in warnings)


def test_lost_anatomy_is_warned_of_and_a_right_result_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Noise in air is removed too: it is no tissue, though some of it is above the mean."""
    sample = me.load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    head = sample.voxels[90:94, 40:200, 30:170]
    wide = me.Volume(np.pad(head, ((0, 0), (80, 80), (80, 80))), sample.geometry, modality="MR")
    noisy = me.degrade(wide, rician=0.09, seed=1)
    assert not _is_warned_of_change(noisy)

    def smoothed(_: BlockMatching, frames: Frames) -> Denoised:
        voxels = frames.volumes[0].voxels[frames.slices].astype(np.float32)
        for shift in (1, 2, 4, 8):
            voxels = (voxels + np.roll(voxels, shift, 2)) / 2
        return Denoised(iter([FramePart(0, frames.slices, voxels)]))

    monkeypatch.setattr(BlockMatching, "denoise", smoothed)
    assert _is_warned_of_change(noisy)


def _diffusion(rng: np.random.Generator, contrast: float) -> Any:
    """Return frames of seven directions, as magnitudes; with contrast 0 they repeat each other."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in (4, 48, 48)), indexing="ij")
    signal = np.where(np.sqrt(x**2 + y**2) < 0.85, 1000.0, 0.0) * rng.normal(1, 0.1, x.shape)
    angle = 3 * x + 2 * np.sin(4 * y) + z
    frames = []
    for direction in rng.uniform(0, np.pi, 7):
        weighted = signal * np.exp(-contrast * np.cos(angle - direction) ** 2)
        frames.append(
            np.hypot(*(signal_of + rng.normal(0, 20, x.shape) for signal_of in (weighted, 0)))
        )
    return np.stack(frames).astype(np.float32)


def test_anatomy_that_all_frames_lose_is_warned_of_and_noise_is_not(
    rng: np.random.Generator,
) -> None:
    results = [
        me.enhance(_diffusion(rng, contrast), spacing=(2, 2, 2), modality="MR", device="cpu")
        for contrast in (1.4, 0.0)
    ]
    noises = [result.measured["noise"] for result in results]
    warned = [
        [each for each in result.report["warnings"] if each.startswith("the mean of all frames")]
        for result in results
    ]
    assert noises[0]["mean_changed"] > 1.5 * noises[0]["mean_changed_by_noise"]
    assert f"changed by ±{noises[0]['mean_changed']:.3g} in tissue" in warned[0][0]
    assert "anatomy may have been removed" in warned[0][0] and warned[1] == []
    assert all("the mean of all frames changed by" in result.findings[2] for result in results)


@pytest.mark.slow
@pytest.mark.shared
def test_a_real_diffusion_scan_that_loses_structure_is_warned_of(shared_data: Path) -> None:
    scan = me.load(shared_data / "repeated/dwi_two_averages.nii.gz", modality="MR", progress=False)
    part = scan.crop(k=slice(6, 10))
    result = me.enhance(part, device="cpu", sequence="each", progress=False)
    assert any("the mean of all frames" in text for text in result.report["warnings"])


def test_the_mean_of_frames_averages_noise_and_shows_structure(
    rng: np.random.Generator,
) -> None:
    before = np.full((16, 4, 32, 32), 500, np.float32)
    structure = 8 * np.sign(np.sin(np.arange(32, dtype=np.float32)))
    for share in (0.0, 1.0):
        after = before + rng.normal(0, 8, before.shape) + share * structure + (before > 0)
        measured = _shared_change(before, after.astype(np.float32) - 1, range(16))
        both = np.hypot(8, 8 * share)
        assert measured["mean_changed"] == pytest.approx(np.hypot(2, 8 * share), rel=0.1)
        assert measured["mean_changed_by_noise"] == pytest.approx(both / 4, rel=0.1)
