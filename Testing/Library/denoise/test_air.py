"""Air around the body: no groups there, and nobody sees where it begins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, denoisers, enhance
from MedEnhanceLib.filters.regions import Air
from MedEnhanceLib.noise.estimate import measure_noise

SHAPE = (8, 104, 104)
Z, Y, X = np.mgrid[:8, :104, :104]
RADIUS = np.hypot(Y - 52, X - 52)
CONFIG = EnhanceConfig(strength="full", for_viewing=True)


def _noise(sigma: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sigma, SHAPE)


def _ct() -> tuple[Volume, float]:
    body = np.where(RADIUS < 20, 40 + 60 * np.sin(X / 4) * np.cos(Y / 5), -1000)
    return _volume(body + _noise(25, 1), "CT"), 25


def _mr() -> tuple[Volume, float]:
    body = np.where(RADIUS < 20, 700 + 200 * np.sin(X / 4) * np.cos(Y / 5), 0)
    return _volume(np.hypot(body + _noise(60, 1), _noise(60, 2)), "MR"), 60


def _volume(voxels: np.ndarray, modality: str) -> Volume:
    return Volume(voxels.astype(np.float32), Geometry((1.0, 1.0, 2.0)), modality=modality)


def _air(volume: Volume) -> Air:
    noise = measure_noise(volume.voxels, modality=volume.modality)
    air = Air.of(volume, noise, volume.voxels)
    assert air is not None
    return air


@pytest.mark.parametrize("scan", [_ct, _mr])
def test_air_has_no_seam_and_tissue_is_as_if_all_were_computed(
    scan: Callable[[], tuple[Volume, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, sigma = scan()
    far = _air(volume).far_from_tissue(4)
    assert 0.4 < far.mean() < 0.8
    result = enhance(volume, CONFIG).volume.voxels
    monkeypatch.setattr(denoisers.Air, "of", lambda *_: None)
    whole = enhance(volume, CONFIG).volume.voxels
    assert not np.array_equal(whole, result)
    difference = (result - whole) / sigma
    tissue, air = np.broadcast_to(RADIUS < 20, SHAPE), np.broadcast_to(far, SHAPE)
    assert np.sqrt(np.square(difference[tissue]).mean()) < 1e-3
    assert np.abs(difference[tissue]).max() < 0.02
    assert abs(difference[air].mean()) < 0.01
    assert result[air].std() < 1.5 * whole[air].std()
    # On both sides of where groups begin.
    inside, outside = air & (RADIUS < 44), ~air & (RADIUS > 24)
    assert abs(result[inside].mean() - result[outside].mean()) < 0.02 * sigma
    assert result[inside].std() < 1.5 * result[outside].std()


def test_slices_with_air_equal_those_of_the_whole_volume() -> None:
    volume = _ct()[0].crop(j=slice(0, 64), i=slice(0, 64))
    whole = enhance(volume, CONFIG).volume.voxels
    assert np.array_equal(enhance(volume, CONFIG, slices=(3, 5)).volume.voxels, whole[3:5])


def test_air_that_the_body_encloses_and_what_is_beside_it_are_computed() -> None:
    """Bowel, lungs and a table of one row of voxels are no air around the body."""
    voxels = np.where((RADIUS > 36) & (RADIUS < 44), 40.0, -1000.0)
    voxels[:, 2, 40:] = -400
    far = _air(_volume(voxels + _noise(10, 1), "CT")).far_from_tissue(4)
    assert not far[RADIUS[0] < 44].any() and not far[:10, 40:].any()
    assert far[96:, :8].all()


def test_a_wire_in_the_air_keeps_its_contrast() -> None:
    voxels = _ct()[0].voxels.copy()
    voxels[:, 98, 4] += 400
    volume = _volume(voxels, "CT")
    assert _air(volume).far_from_tissue(4)[98, 4]
    wire = enhance(volume, CONFIG).volume.voxels[:, 98, 4]
    assert wire.mean() > -1000 + 0.9 * 400


def test_magnitudes_without_a_background_have_no_air() -> None:
    volume = _volume(500 + _noise(20, 1), "MR")
    noise = measure_noise(volume.voxels, modality="MR")
    assert Air.of(volume, noise, volume.voxels) is None
