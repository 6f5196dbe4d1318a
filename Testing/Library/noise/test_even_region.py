"""Noise measured in a region of even tissue."""

import numpy as np
import pytest

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.noise.even_region import measure_region
from MedEnhanceLib.runtime.texts import Text

SHAPE = (5, 10, 10)


def _region(seed: int, sigma: float = 20, level: float = 200) -> np.ndarray:
    """Tissue that brightens over the region, by more than the noise, with noise."""
    k, j, i = np.indices(SHAPE)
    return level + 10 * k + 6 * j - i + sigma * np.random.default_rng(seed).standard_normal(SHAPE)


def test_the_interval_holds_the_noise_in_nine_of_ten_regions() -> None:
    estimates = [measure_region(_region(seed), modality="CT") for seed in range(200)]
    assert np.mean([each.level for each in estimates]) == pytest.approx(20, rel=0.02)
    assert 0.85 <= np.mean([each.low <= 20 <= each.high for each in estimates]) <= 0.95
    assert all(each.reason is None and each.voxels == 500 for each in estimates)


@pytest.mark.parametrize("snr", [3, 5, 20])
def test_magnitudes_show_the_noise_of_their_channels(snr: float) -> None:
    rng, levels = np.random.default_rng(0), []
    for _ in range(60):
        real, imaginary = 20 * rng.standard_normal((2, *SHAPE))
        values = np.hypot(20 * snr + real, imaginary)
        levels.append(measure_region(values, modality="MR").level)
    assert np.mean(levels) == pytest.approx(20, rel=0.03)


def test_an_edge_in_the_region_is_named() -> None:
    values = _region(1)
    values[:, 4:7, 4:7] += 150
    assert measure_region(values, modality="CT").reason == Text("uneven_region")
    noisier = _region(2)
    noisier[:, 5:] += 50 * np.random.default_rng(3).standard_normal((5, 5, 10))
    assert measure_region(noisier, modality="CT").reason is not None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (_region(0)[:1, :6, :6], "36 voxels"),
        (np.full(SHAPE, 7.0), "have the value 7"),
        (np.full(SHAPE, np.inf), "not finite"),
        (np.hypot(*np.random.default_rng(0).standard_normal((2, *SHAPE))), "dark as its noise"),
    ],
)
def test_a_region_that_shows_no_noise_is_refused(values: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        measure_region(values, modality="MR")
    assert caught.value.hint
