"""The noise of a sequence, in the differences of its frames."""

from __future__ import annotations

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.noise.estimate import NoiseEstimate, measure_noise
from MedEnhanceLib.noise.sequence import measure_frames
from MedEnhanceLib.runtime.progress import Monitor

SHAPE = (8, 64, 64)


def _anatomy() -> Floats:
    """Detail in every pixel, as in an EPI of a brain, and a dark background."""
    rng = np.random.default_rng(1)
    j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE[1:]), indexing="ij")
    detail = rng.uniform(300, 900, SHAPE)
    return np.where(np.hypot(j, i) < 0.85, detail, 20).astype(np.float32)


def _frames(sigma: float | Floats, count: int = 6, seed: int = 0) -> list[Floats]:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, *SHAPE), dtype=np.float32)
    return list(_anatomy() + np.float32(sigma) * noise)


def _of_all(frames: list[Floats], typical: NoiseEstimate) -> NoiseEstimate | None:
    geometry = Geometry((3, 3, 3))
    volumes = [Volume(frame, geometry, modality="MR") for frame in frames]
    return measure_frames(volumes, typical, Monitor())


def _measured(frames: list[Floats]) -> NoiseEstimate:
    noise = _of_all(frames, measure_noise(frames[0], modality="MR"))
    assert noise is not None
    return noise


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_the_level_is_that_of_the_noise_whatever_the_anatomy(count: int) -> None:
    assert _measured(_frames(12, count)).level == pytest.approx(12, rel=0.05)


@pytest.mark.parametrize("sigma", [0.7, 1.5, 4.0])
def test_rounded_values_show_noise_of_a_few_steps(sigma: float) -> None:
    frames = [np.round(frame).astype(np.int16) for frame in _frames(sigma)]
    assert _measured(frames).level == pytest.approx(np.hypot(sigma, 12**-0.5), rel=0.06)


def test_the_map_and_the_spectrum_are_those_of_the_noise() -> None:
    gain = np.broadcast_to(np.linspace(8, 16, 64, dtype=np.float32), SHAPE)
    found = _measured(_frames(gain, 9))[:]
    middle = slice(12, 52)  # constant beyond the centers of the outer cells
    assert np.abs(found / gain - 1)[:, middle, middle].mean() < 0.08
    noise = [frame - _anatomy() for frame in _frames(9, 8)]
    smooth = [(n + np.roll(n, 1, 2)) / np.float32(np.sqrt(2)) + _anatomy() for n in noise]
    spectrum = _measured(smooth).spectrum
    assert spectrum.mean() == pytest.approx(1, abs=1e-3)
    assert spectrum[1:, 1:, 1].mean() > 3 * spectrum[1:, 1:, 3].mean()


@pytest.mark.parametrize("shape", [(30, 40, 40, 1), (30, 40, 1, 40), (30, 1, 40, 40)])
def test_frames_of_one_slice_are_measured_whichever_axis_it_lies_across(
    shape: tuple[int, ...],
) -> None:
    frames = list(500 + np.random.default_rng(0).normal(0, 20, shape).astype(np.float32))
    noise = _measured(frames)
    assert noise.level == pytest.approx(20, rel=0.1)
    assert noise[:].shape == shape[1:]


def test_changing_contrast_is_no_noise() -> None:
    """Echoes, each weaker than the one before, differ by more than a frame shows as noise."""
    j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE[1:]), indexing="ij")
    body = np.where(np.hypot(j, i) < 0.85, 900 + 100 * j + 40 * np.sin(9 * i), 20)
    decay = np.broadcast_to(np.exp(-0.3 - 0.2 * np.sin(3 * j) * np.cos(2 * i)), SHAPE)
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((5, *SHAPE))
    frames = [(body * decay**n + 5 * noise[n]).astype(np.float32) for n in range(5)]
    typical = measure_noise(frames[0], modality="MR")
    assert 3 < typical.level < 9
    assert _of_all(frames, typical) is None


def test_where_frames_are_equal_or_dark_nothing_is_measured() -> None:
    same = [np.float32(_anatomy())] * 3
    typical = measure_noise(same[0], modality="MR")
    assert _of_all(same, typical) is None
    dark = [np.zeros(SHAPE, np.float32)] * 3
    assert _of_all(dark, typical) is None
