"""Uncertainty: one switch, and a map that belongs to the result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg import EnhanceConfig, enhance


@pytest.fixture
def config(model: str) -> EnhanceConfig:
    return EnhanceConfig(model=model, device="cpu", uncertainty=True)


@pytest.fixture
def thin(head: Volume) -> Volume:
    return replace(head, voxels=np.maximum(head.voxels[3:8], 0))


def test_a_result_reports_what_its_map_was_fitted_on(thin: Volume, config: EnhanceConfig) -> None:
    result = enhance(thin, config)
    assert result.uncertainty is not None
    assert "persons from four sites" in result.uncertainty_facts["calibration"]["fitted_on"]
    assert "calibrated" in result.uncertainty.history[-1]
    assert enhance(thin, replace(config, uncertainty=False)).uncertainty_facts == {}


def test_a_preview_shows_the_uncertainty_of_the_whole_run(
    thin: Volume, config: EnhanceConfig
) -> None:
    whole, some = enhance(thin, config), enhance(thin, config, slices=(1, 3))
    assert whole.uncertainty is not None
    assert some.uncertainty is not None
    assert np.array_equal(some.uncertainty.voxels, whole.uncertainty.voxels[1:3])
