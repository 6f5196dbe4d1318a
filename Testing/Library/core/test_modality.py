"""The properties of a modality, and what another one needs."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813
from MedEnhanceLib.core.modality import (
    MODALITIES,
    PROFILES,
    Modality,
    ModalityName,
    likely_modalities,
)


def test_every_name_has_properties() -> None:
    assert get_args(ModalityName) == MODALITIES
    assert all(name == profile.name for name, profile in PROFILES.items())


def test_an_entry_is_all_that_another_modality_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    name: Any = "US"
    monkeypatch.setitem(PROFILES, name, Modality(name=name, units="dB", is_measured=True))
    rng = np.random.default_rng(0)
    even = 500 + 250 * (np.indices((20, 48, 48)).sum(axis=0) // 16 % 2)
    noisy = (even + rng.normal(0, 20, even.shape)).astype(np.float32)
    volume = me.Volume.from_array(noisy, spacing=(1, 1, 1), modality=name)
    assert volume.units == "dB"
    verdict = me.measure_noise(volume)
    assert verdict is not None
    assert verdict.sigma == pytest.approx(20, rel=0.1)


def test_bytes_of_few_rows_are_no_reason_to_fail() -> None:
    voxels = np.random.default_rng(0).integers(0, 200, (40, 6, 64)).astype(np.uint8)
    voxels[:, :, :20] = 0
    assert likely_modalities(voxels, (1, 1, 1))
