"""The network that sees whole slices of CT, as the model `ct` that ships has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.errors import ModelError

SIGMA = 25.0


def body(slices: int = 8, side: int = 96) -> Floats:
    """An ellipse of tissue with organs in it, in air, HU."""
    j, i = np.meshgrid(*2 * [np.linspace(-1, 1, side)], indexing="ij")
    plane = np.where(j**2 + 1.4 * i**2 < 0.9, 40 * np.sign(np.sin(6 * j) * np.sin(5 * i)), -1000)
    return np.repeat(plane[None], slices, axis=0).astype(np.float32)


def noisy(seed: int = 0) -> Volume:
    noise = np.random.default_rng(seed).normal(0, SIGMA, body().shape)
    return Volume((body() + noise).astype(np.float32), Geometry((0.8, 0.8, 2.0)), modality="CT")


def _enhanced(model: str, volume: Volume, **fields: Any) -> Enhanced:
    return enhance(volume, EnhanceConfig(model=model, device="cpu", **fields))


def test_auto_uses_it_and_each_method_can_be_chosen() -> None:
    methods = {}
    for name in ("auto", "set-network", "view-network", "block-matching"):
        model = "auto" if name == "block-matching" else "ct"
        result = _enhanced(model, noisy(), denoiser=name)
        methods[name] = result.measured["denoiser"]
        left = (result.volume.voxels - body())[:, 30:70, 30:70].std()
        assert left < 0.6 * SIGMA, name
    assert methods["auto"] == methods["view-network"] == "view-network"
    assert methods["set-network"] == "set-network"


def test_a_model_without_it_is_refused_by_name(user_models: Path) -> None:
    with pytest.raises(ModelError, match=r"mr has no network that sees whole slices") as caught:
        _enhanced("mr", replace(noisy(), modality="MR"), denoiser="view-network")
    assert "auto" in caught.value.hint


def test_air_far_from_the_body_stays_as_the_filter_leaves_it() -> None:
    voxels = np.pad(noisy().voxels, ((0, 0), (40, 0), (0, 0)))
    voxels[:, :40] = np.random.default_rng(1).normal(-1000, SIGMA, (8, 40, 96))
    volume = replace(noisy(), voxels=voxels)
    far, results = slice(0, 24), {}
    for name in ("set-network", "view-network"):
        results[name] = _enhanced("ct", volume, denoiser=name, for_viewing=True).volume.voxels
    change = np.abs(results["view-network"] - results["set-network"])
    assert change[:, far].max() == 0
    assert change[:, 60:].mean() > 0.01 * SIGMA
