"""The noise of a sequence whose frames differ in contrast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import Doubles, Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.noise.contrasts import measure_contrasts
from MedEnhanceLib.noise.estimate import NoiseEstimate, measure_noise
from MedEnhanceLib.runtime.progress import Monitor

SHAPE = (8, 64, 64)
Y, X = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE[1:]), indexing="ij")
HEAD = np.broadcast_to(np.hypot(Y, X) < 0.85, SHAPE)
#: σ of parallel imaging: the middle has 1.6 times the noise of the rim.
SIGMA = np.broadcast_to(12 + 7 * np.exp(-(Y**2 + X**2) / 0.4), SHAPE)


def _diffusion(directions: int = 28, seed: int = 0) -> Doubles:
    """Signals of tensors that differ in every voxel, two b = 0 frames first."""
    rng = np.random.default_rng(seed)
    along = rng.standard_normal((directions, 3))
    along /= np.linalg.norm(along, axis=1)[:, None]
    fiber = rng.standard_normal((3, *SHAPE))
    fiber /= np.linalg.norm(fiber, axis=0)
    decay = np.exp(-0.4 - 1.0 * np.square(np.tensordot(along, fiber, 1)))
    still = np.where(HEAD, rng.uniform(400, 600, SHAPE), 0)
    return np.concatenate([np.broadcast_to(still, (2, *SHAPE)), still * decay])


def _magnitudes(signals: Doubles, sigma: float | Doubles = SIGMA, seed: int = 1) -> Floats:
    rng = np.random.default_rng(seed)
    real, imaginary = rng.standard_normal((2, *signals.shape)) * sigma
    return np.hypot(signals + real, imaginary).astype(np.float32)


def _measured(frames: Floats) -> NoiseEstimate | None:
    geometry = Geometry((2, 2, 2))
    volumes = [Volume(frame, geometry, modality="MR") for frame in frames]
    # One frame shows its texture, not its noise.
    typical = replace(measure_noise(frames[0], modality="MR"), level=90.0, high=100.0)
    return measure_contrasts(volumes, typical, Monitor())


def _ratios(noise: NoiseEstimate | None, sigma: Doubles = SIGMA) -> Doubles:
    assert noise is not None
    return (noise[:] / sigma)[HEAD]


def test_level_map_and_interval_are_those_of_the_noise_in_diffusion() -> None:
    noise = _measured(_magnitudes(_diffusion()))
    ratios = _ratios(noise)
    assert np.median(ratios) == pytest.approx(1, abs=0.08)
    assert np.median(np.abs(np.log(ratios))) < 0.08
    assert noise is not None and noise.low < np.median(SIGMA[HEAD]) < noise.high
    assert noise.confidence == 1
    assert noise.spectrum == pytest.approx(1, abs=0.35)


def test_weak_magnitudes_show_the_noise_of_a_channel() -> None:
    signals = _diffusion() / 15  # down to less than the noise
    assert np.median(_ratios(_measured(_magnitudes(signals)))) == pytest.approx(1, abs=0.12)


def test_frames_without_tissue_and_faulty_slices_do_not_count() -> None:
    signals = _diffusion()
    signals[[4, 9, 14]] = 0  # noise alone
    frames = _magnitudes(signals)
    frames[[3, 8]] = 0
    frames[11, 2:4] = 0
    assert np.median(_ratios(_measured(frames))) == pytest.approx(1, abs=0.09)


def test_copies_averages_and_trace_images_do_not_make_the_noise_smaller() -> None:
    frames = _magnitudes(_diffusion())
    frames[[5, 9]] = frames[[4, 2]]
    frames[12] = (frames[11] + frames[13]) / 2
    for more in (frames[2:].mean(axis=0, keepdims=True), frames):
        noise = _measured(np.round(np.concatenate([frames, more])))
        assert np.median(_ratios(noise)) == pytest.approx(1, abs=0.09)


def test_echoes_show_their_noise_and_its_spectrum() -> None:
    still, rate = _diffusion()[0], np.random.default_rng(3).uniform(0.05, 0.4, SHAPE)
    smooth = np.random.default_rng(4).standard_normal((10, *SHAPE)) * 12
    smooth = (smooth + np.roll(smooth, 1, 3)) / np.sqrt(2)
    echoes = np.stack([still * np.exp(-rate * n) for n in range(10)])
    noise = _measured((echoes + smooth).astype(np.float32) + 200)
    assert noise is not None and noise.level == pytest.approx(12, rel=0.1)
    assert noise.spectrum[1:, 1:, 1].mean() > 3 * noise.spectrum[1:, 1:, 3].mean()


def test_four_different_frames_are_not_measured_however_often_they_repeat() -> None:
    frames = _magnitudes(_diffusion())
    assert _measured(frames[:4]) is None
    assert _measured(np.repeat(frames[:4], 3, axis=0)) is None
    assert _measured(np.zeros_like(frames)) is None
