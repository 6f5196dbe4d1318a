"""Targets lose their own noise and nothing else; a training begins with the spectrum it knows."""

from __future__ import annotations

import numpy as np
import pytest

from MedEnhanceLib.degrade import gaussian_blur
from MedEnhanceLib.hqg.config import NetworkConfig
from MedEnhanceLib.hqg.network import Enhancer
from MedEnhanceLib.hqg.train.augment import begin_with_spectrum, without_noise
from MedEnhanceLib.nets.shrinkage import BLOCK

TINY = NetworkConfig(context=1, widths=(8, 8, 12, 16), guide_widths=(4, 4, 8, 8), window=32)


def _steps() -> np.ndarray:
    """Plateaus with edges along all axes, [16, 64, 80]."""
    clean = np.full((16, 64, 80), 0.4, np.float32)
    clean[:, 20:50, 30:] = 0.9
    clean[8:, :, 50:] += 0.3
    return clean


def _noise(shape: tuple[int, ...], sigma: float, blur: float = 0.0) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    if blur:
        noise = np.stack([gaussian_blur(plane[None], blur)[0] for plane in noise])
    return (sigma * noise / noise.std()).astype(np.float32)


def test_a_target_loses_its_noise_and_keeps_its_edges() -> None:
    clean = _steps()
    quiet = without_noise(clean + _noise(clean.shape, 0.02), None)
    assert quiet.shape == clean.shape
    assert quiet.dtype == np.float32
    assert np.square(quiet - clean).mean() < 0.15 * 0.02**2
    flat = without_noise(clean, None)
    assert np.abs(flat - clean).max() < 5e-3


def test_noise_that_is_smooth_is_known_by_an_example_of_it() -> None:
    clean = _steps()
    noisy = clean + _noise(clean.shape, 0.02, blur=0.7)
    example = _noise((16, 64, 64), 0.05, blur=0.7).astype(np.float16)
    with_example, without_example = (
        np.square(without_noise(noisy, noise) - clean).mean() for noise in (example, None)
    )
    assert with_example < 0.6 * without_example


@pytest.mark.parametrize("shape", [(1, 40, 40), (3, 33, 47), (8, 16, 12)])
def test_odd_and_small_volumes_come_back_in_their_shape(shape: tuple[int, ...]) -> None:
    assert without_noise(np.ones(shape, np.float32), None).shape == shape


def test_a_training_begins_with_the_spectrum_of_the_noise_it_simulates() -> None:
    enhancer = Enhancer(TINY)
    begin_with_spectrum(enhancer, [_noise((16, 64, 64), 0.05, blur=0.7).astype(np.float16)])
    assert enhancer.shrinkage is not None
    expected = enhancer.shrinkage.noise.detach().view(BLOCK, BLOCK, BLOCK)
    assert expected[1, 0, 1] > 0 > expected[1, 3, 3]


def test_without_noise_to_know_or_a_shrinkage_to_describe_nothing_happens() -> None:
    enhancer = Enhancer(TINY)
    begin_with_spectrum(enhancer, [])
    assert enhancer.shrinkage is not None
    assert not enhancer.shrinkage.noise.any()
    plain = Enhancer(NetworkConfig(**{**vars(TINY), "shrinkage": False}))
    begin_with_spectrum(plain, [_noise((16, 64, 64), 0.05).astype(np.float16)])
    assert plain.shrinkage is None
