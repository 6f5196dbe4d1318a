"""The noise of a sequence whose frames differ in contrast."""

from __future__ import annotations

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import Array, Doubles, Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.noise.contrasts import measure_contrasts
from MedEnhanceLib.noise.estimate import NoiseEstimate, measure_noise
from MedEnhanceLib.runtime.progress import Monitor

SHAPE = (8, 64, 64)
Y, X = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE[1:]), indexing="ij")
HEAD = np.broadcast_to(np.hypot(Y, X) < 0.85, SHAPE)
#: As of parallel imaging: the middle has 1.6 times the noise of the rim.
SIGMA = np.broadcast_to(12 + 7 * np.exp(-(Y**2 + X**2) / 0.4), SHAPE)


def _diffusion() -> Doubles:
    """Two b = 0 frames and 28 directions of tensors that differ in every voxel, without noise."""
    rng = np.random.default_rng(0)
    along, fiber = rng.standard_normal((28, 3)), rng.standard_normal((3, *SHAPE))
    along /= np.linalg.norm(along, axis=1)[:, None]
    fiber /= np.linalg.norm(fiber, axis=0)
    zero = np.where(HEAD, rng.uniform(400, 600, SHAPE), 0)
    decay = np.exp(-0.4 - np.square(np.tensordot(along, fiber, 1)))
    return np.concatenate([np.broadcast_to(zero, (2, *SHAPE)), zero * decay])


def _magnitudes(signals: Doubles, sigma: float | Doubles = SIGMA) -> Floats:
    real, imaginary = np.random.default_rng(1).standard_normal((2, *signals.shape)) * sigma
    return np.hypot(signals + real, imaginary).astype(np.float32)


def _measured(frames: Array) -> NoiseEstimate | None:
    volumes = [Volume(frame, Geometry((2, 2, 2)), modality="MR") for frame in frames]
    return measure_contrasts(volumes, measure_noise(frames[0], modality="MR"), Monitor())


def _ratios(noise: NoiseEstimate | None) -> Doubles:
    assert noise is not None
    return (noise[:] / SIGMA)[HEAD]


def test_level_map_spectrum_and_interval_are_those_of_the_noise() -> None:
    noise = _measured(_magnitudes(_diffusion()))
    assert np.median(np.abs(np.log(_ratios(noise)))) < 0.08
    assert noise is not None and noise.low < np.median(SIGMA[HEAD]) < noise.high
    assert noise.level == pytest.approx(np.median(SIGMA[HEAD]), rel=0.08)
    assert noise.spectrum == pytest.approx(1, abs=0.35)


def test_frames_of_noise_alone_and_faulty_slices_do_not_count() -> None:
    signals = _diffusion()
    signals[[4, 9, 14]] = 0
    frames = _magnitudes(signals)
    frames[[3, 8]], frames[20], frames[11, 2:4] = 0, 9000, 0
    assert np.median(_ratios(_measured(frames))) == pytest.approx(1, abs=0.09)
    weak = _measured(_magnitudes(_diffusion() / 15))  # all as weak as the noise
    assert np.median(_ratios(weak)) == pytest.approx(1, abs=0.12)


def test_copies_averages_and_trace_images_do_not_make_the_noise_smaller() -> None:
    frames = _magnitudes(_diffusion())
    frames[[5, 9]], frames[12] = frames[[4, 2]], (frames[11] + frames[13]) / 2
    for more in (frames[2:].mean(axis=0, keepdims=True), frames):
        noise = _measured(np.round(np.concatenate([frames, more])).astype(np.int16))
        assert np.median(_ratios(noise)) == pytest.approx(1, abs=0.09)


def test_echoes_show_the_spectrum_of_their_noise() -> None:
    rng = np.random.default_rng(3)
    rate, white = rng.random(SHAPE) / 3, rng.standard_normal((10, *SHAPE)) * 12
    echoes = _diffusion()[0] * np.exp(-np.arange(10)[:, None, None, None] * rate)
    smooth = _measured(echoes + (white + np.roll(white, 1, 3)) / np.sqrt(2) + 200)
    assert smooth is not None and smooth.level == pytest.approx(12, rel=0.1)
    assert smooth.spectrum[1:, 1:, 1].mean() > 3 * smooth.spectrum[1:, 1:, 3].mean()


def test_four_different_frames_and_turning_heads_are_not_measured() -> None:
    frames = _magnitudes(_diffusion())
    assert _measured(np.repeat(frames[:4], 3, axis=0)) is None
    assert _measured(np.zeros_like(frames)) is None
    lobes = np.where(HEAD, 600 + 300 * np.tanh(9 * np.sin(4 * Y) * X), 0)
    turned = np.stack([np.roll(lobes, n * n % 11 - 5, axis=1 + n % 2) for n in range(12)])
    assert _measured(_magnitudes(turned, 4)) is None
