"""Noise of the slices at the middle, by which the panel orders series."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.noise.quick import quick_noise

SHAPE = (9, 96, 96)


def _noisy(sigma: float) -> Floats:
    """Tissue of 100 with soft structure, in air of −1000 as in CT, and noise of σ."""
    rng = np.random.default_rng(0)
    structure = gaussian_filter(rng.standard_normal(SHAPE), 6) * 600
    j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE[1:]), indexing="ij")
    body = np.where(np.hypot(j, i) < 0.9, 100 + structure, -1000)
    return (body + sigma * rng.standard_normal(SHAPE)).astype(np.float32)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_more_noise_is_a_higher_number(modality: str) -> None:
    offset = 0 if modality == "CT" else 1000
    low, middle, high = (
        quick_noise(_noisy(sigma) + offset, modality=modality) for sigma in (10, 20, 40)
    )
    assert 0 < low < middle < high < math.inf


def test_only_the_middle_counts_and_gaps_in_it_do_no_harm() -> None:
    voxels = _noisy(20)
    expected = quick_noise(voxels, modality="CT")
    voxels[0] = voxels[-1] = np.nan
    assert quick_noise(voxels, modality="CT") == expected
    voxels[4, :4] = np.nan
    assert quick_noise(voxels, modality="CT") == pytest.approx(expected, rel=0.1)


def test_where_nothing_is_shown_no_series_is_the_best() -> None:
    assert quick_noise(np.zeros(SHAPE, np.int16), modality="MR") == math.inf
    assert quick_noise(_noisy(20)[:3] + 1000, modality="MR") == math.inf
