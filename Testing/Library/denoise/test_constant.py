"""Padding stays bit for bit, clean volumes stay clean, and values too large are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib import native
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.denoise.removal import Removal, denoise
from MedEnhanceLib.errors import InputError, MedEnhanceError
from MedEnhanceLib.filters import block_matching
from MedEnhanceLib.filters.regions import ConstantRegions
from MedEnhanceLib.noise.estimate import measure_noise

SHAPE = (8, 48, 48)
Z, Y, X = np.mgrid[:8, :48, :48]
RADIUS = np.hypot(Y - 24, X - 24)


def _noise(sigma: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sigma, SHAPE)


def _round_ct(padding: int = -3024, reach: float = 23) -> tuple[Volume, np.ndarray]:
    """A body in air, measured in a circle that touches the border."""
    body = np.where(RADIUS < 16, 40 + 30 * np.sin(X / 4), -1000) + _noise(25)
    outside = reach <= RADIUS
    body = np.where(outside, padding, body).astype(np.int16)
    return Volume(body, Geometry((1.0, 1.0, 2.0)), modality="CT"), outside


def _masked_mr() -> tuple[Volume, np.ndarray]:
    """A brain with furrows of two voxels, cut out of its background."""
    outside = (RADIUS > 20) | (RADIUS > 10) & (np.abs(X - 24) < 1.5) | (Z == 4) & (RADIUS < 2)
    noisy = np.hypot(600 + 200 * np.sin(X / 4) + _noise(50), _noise(50, 2))
    voxels = np.where(outside, 0, noisy).astype(np.float32)
    return Volume(voxels, Geometry((1.0, 1.0, 1.0)), modality="MR"), outside


SCANS = {
    "a round field of view": _round_ct,
    "air": lambda: _round_ct(-1000, 16),
    "a value within the range": lambda: _round_ct(0),
    "a masked brain": _masked_mr,
}


@pytest.mark.parametrize("compiled", [True, False], ids=["C", "PyTorch"])
@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
def test_padding_stays_bit_for_bit(
    scan: Callable[[], tuple[Volume, np.ndarray]],
    compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    volume, outside = scan()
    if not compiled:
        monkeypatch.setattr(native, "load", lambda *_, **__: None)
        volume, outside = volume.crop(j=slice(0, 32), i=slice(0, 32)), outside[:, :32, :32]
    config = EnhanceConfig(strength="full", task="noise", uncertainty=True, device="cpu")
    full = enhance(volume, config)
    assert full.uncertainty is not None
    assert np.array_equal(full.volume.voxels[outside], volume.voxels[outside])
    assert not full.uncertainty.voxels[outside].any()
    assert np.mean(full.volume.voxels[~outside] != volume.voxels[~outside]) > 0.7
    if compiled:
        part = enhance(volume, config, slices=(2, 5)).volume.voxels
        assert np.array_equal(part, full.volume.voxels[2:5])
        half = enhance(volume, replace(config, strength=0.5), slices=(2, 5)).volume.voxels
        assert np.array_equal(half[outside[2:5]], volume.voxels[2:5][outside[2:5]])


def test_padding_is_not_seen_beside_it() -> None:
    """Air beside padding 2000 HU below it is enhanced as air beside air."""
    padded, outside = _round_ct()
    plain, _ = _round_ct(reach=99)
    near = ~outside & (RADIUS > 22)
    results = [
        np.asarray(me.enhance(scan, strength="full", progress=False).volume)[near].astype(float)
        for scan in (padded, plain)
    ]
    assert abs(results[0].mean() + 1000) < 2
    assert results[0].std() < 1.5 * results[1].std()


def test_noise_clipped_at_zero_is_removed_outside_constant_blocks() -> None:
    signal = np.where(RADIUS < 15, 800, np.where(X < 40, 0, -500))
    voxels = np.maximum(signal + _noise(30), 0).astype(np.float32)
    volume = Volume(voxels, Geometry((1.0, 1.0, 1.0)), modality="MR")
    assert ConstantRegions(voxels, 30).padding == []
    result = np.asarray(me.enhance(volume, noise=30, task="noise", progress=False).volume)
    assert not result[:, :, 41:].any()
    clipped = (voxels == 0) & (RADIUS > 20) & (X < 36)
    assert np.mean(result[clipped] != 0) > 0.5


def test_blocks_are_padding_where_regions_end_in_steps() -> None:
    """All slices are treated by the same values; a slice that is missing counts as well."""
    voxels = (500 + _noise(20)).astype(np.float32)
    voxels[4] = 0
    regions = ConstantRegions(voxels, 20)
    assert regions.padding == [0]
    assert [bool(regions.mask(z).all()) for z in range(3, 6)] == [False, True, False]
    assert 450 < regions.neutral[4:5].mean() < 550
    assert np.array_equal(regions.neutral[3:4], voxels[3:4])


@pytest.mark.slow
def test_thin_slices_between_padding_are_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedEnhanceLib.slices.steps.TUNING_STEPS", 4)
    volume, outside = _round_ct()
    volume = replace(volume, geometry=Geometry((1.0, 1.0, 4.0)))
    thin = np.asarray(me.enhance(volume, task="slices", strength=0.5, progress=False).volume)
    assert np.all(thin[:, outside[0]] == -3024)
    assert thin[:, ~outside[0]].min() > -1200


def _decibels(result: np.ndarray, clean: np.ndarray, peak: float) -> float:
    return float(10 * np.log10(peak**2 / np.mean((result.astype(np.float64) - clean) ** 2)))


def _heads() -> dict[str, np.ndarray]:
    r2 = RADIUS**2 + (2 * (Z - 5)) ** 2
    values = {"MR": (700, 1000, 0), "CT": (700, 40, -1000)}
    wave = 1 + 0.1 * np.sin(X / 7) * np.cos(Y / 9)
    return {
        m: np.where(r2 < 92, a, np.where(r2 < 368, b, c)) * wave for m, (a, b, c) in values.items()
    }


def _sweep(modality: str, ratio: float, dtype: str) -> None:
    clean = _heads()[modality]
    if dtype == "int16" and modality == "MR":
        clean = clean * 25
    peak = float(clean.max() - clean.min())
    noisy = clean + _noise(peak / ratio)
    voxels = np.rint(noisy).astype(dtype) if dtype == "int16" else noisy.astype(dtype)
    volume = Volume(voxels, Geometry((1.0, 1.0, 2.0)), modality=modality)
    before = _decibels(volume.voxels, clean, peak)
    if dtype == "float32":  # with the noise as it is, everything removed
        noise = measure_noise(voxels, modality=modality)
        sigma = np.full((1, 1, 1), peak / ratio, np.float32)
        known = replace(
            noise, level=peak / ratio, sigma=sigma, spectrum=np.ones((4, 4, 4)), rician=False
        )
        assert _decibels(denoise(volume, Removal(known)), clean, peak) > before - 0.05
    auto = np.asarray(me.enhance(volume, progress=False).volume)
    # Where there is next to no noise, some anatomy is measured as noise.
    assert _decibels(auto, clean, peak) > min(before - 0.05, 90)
    full = me.enhance(volume, strength="full", progress=False).volume
    assert _decibels(np.asarray(full), clean, peak) > min(42, before)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_a_clean_volume_stays_clean(dtype: str) -> None:
    _sweep("MR", 2e4, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("ratio", [10, 1e3, 1e5, 1e7])
def test_no_noise_is_too_weak(modality: str, ratio: float) -> None:
    for dtype in ("float32", "int16"):
        _sweep(modality, ratio, dtype)


def test_a_result_that_is_not_finite_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_matching.Run, "slabs", lambda *_: iter([np.full((1, 8, 8), np.nan)]))
    with pytest.raises(MedEnhanceError, match="not finite, from slice 0"):
        block_matching.BlockMatchingFilter(
            np.ones((8, 8, 8), np.float32), np.ones((8, 8, 8), np.float32)
        ).denoised()


@pytest.mark.parametrize(
    "door",
    [
        lambda large: me.enhance(large, progress=False),
        lambda large: me.enhance(large, task="slices", progress=False),
        lambda large: me.degrade(large, blur=1.0),
        lambda large: me.segment(large, progress=False),
    ],
    ids=["enhance", "slices", "degrade", "segment"],
)
def test_values_too_large_for_single_precision_are_refused_by_name(
    door: Callable[[Volume], object],
) -> None:
    plain, _ = _masked_mr()
    plain = replace(plain, geometry=Geometry((1.0, 1.0, 2.0)))
    voxels = plain.voxels.astype(np.float64)
    voxels[3, 3, 3] = 1e39
    text = r"large\.nii: 1 voxel is too large .* \(values from 0 to 1e\+39\), first in slice 3"
    with pytest.raises(InputError, match=text) as caught:
        door(replace(plain, voxels=voxels, source="large.nii"))
    assert caught.value.hint
