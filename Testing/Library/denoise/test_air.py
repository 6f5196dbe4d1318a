"""Air around the body: no groups and no network there, and nobody sees where it begins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from MedEnhanceLib import native
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, denoisers, enhance
from MedEnhanceLib.filters import block_matching
from MedEnhanceLib.filters.native_engine import NativeEngine
from MedEnhanceLib.filters.regions import Air
from MedEnhanceLib.filters.torch_engine import TorchEngine
from MedEnhanceLib.noise.estimate import measure_noise

SHAPE = (8, 104, 104)
Z, Y, X = np.mgrid[:8, :104, :104]
RADIUS = np.hypot(Y - 52, X - 52)
CONFIG = EnhanceConfig(strength="full", task="noise", device="cpu", for_viewing=True)


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
    # The view network of CT sees air beside tissue.
    assert np.sqrt(np.square(difference[tissue]).mean()) < (2e-3 if scan is _ct else 1e-3)
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


def test_a_device_finds_the_same_air_however_it_winds() -> None:
    """Ways of three cells between walls of one, 24 of them one behind the other, 30 long."""
    cells = np.zeros((99, 34), bool)
    cells[2::4, 1:-1] = cells[:, [1, -2]] = True  # walls, and a frame inside of the border
    cells[2:-2:8, -5:-2] = cells[6:-2:8, 2:5] = cells[0:3, 2:5] = False
    walls = np.where(cells, 40, -1000).repeat(8, 0).repeat(8, 1)[:-3, :-5]
    volume = np.broadcast_to(walls, (20, *walls.shape)) + np.zeros((20, 1, 1), np.float32)
    for voxels in (volume, _ct()[0].voxels):
        air = Air(voxels, -950.0, np.inf)
        level = np.broadcast_to(np.float32(25), voxels.shape)
        given = block_matching.BlockMatchingFilter(voxels, level, air=air, engine=TorchEngine())
        with given.run() as run:
            for z in range(0, len(voxels), 5):
                assert np.array_equal(run.air(z), air.far_from_tissue(z))
        assert air.far_from_tissue(0)[-40 if voxels is volume else 4].any()


def test_pytorch_passes_over_the_same_air() -> None:
    library = native.load()
    if library is None:
        pytest.skip("the library is not compiled")
    volume, sigma = _ct()
    volume = volume.crop(k=slice(0, 5), j=slice(0, 52), i=slice(0, 52))
    level = np.full(volume.shape, sigma, np.float32)
    compiled, torch = (
        block_matching.BlockMatchingFilter(
            volume.voxels, level, rounds=block_matching.CT_ROUNDS, air=_air(volume), engine=engine
        ).denoised()
        for engine in (NativeEngine(library), TorchEngine())
    )
    assert np.abs(compiled - torch).max() < 0.02 * sigma
