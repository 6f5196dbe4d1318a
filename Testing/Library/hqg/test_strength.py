"""A result blended with its input later is what a run at that strength gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.hqg.strength import blend, blend_deviation, blend_voxels


@pytest.fixture
def config(model: str) -> EnhanceConfig:
    return EnhanceConfig(model=model, device="cpu")


def crop(volume: Volume) -> Volume:
    return replace(volume, voxels=volume.voxels[3:8])


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.4])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_blending_later_equals_a_run_bit_for_bit(
    head: Volume, config: EnhanceConfig, strength: float, dtype: str
) -> None:
    volume = replace(crop(head), voxels=head.voxels[3:8].astype(dtype))
    run = enhance(volume, replace(config, strength=strength))
    full = enhance(volume, config)
    assert full.strength == 1
    assert blend(volume, full.volume, strength).is_equal(run.volume)
    assert full.at_strength(strength).volume.is_equal(run.volume)
    assert run.volume.history == full.at_strength(strength).volume.history
    if strength == 0:
        assert np.array_equal(run.volume.voxels, volume.voxels)


@pytest.mark.slow
def test_shading_belongs_to_what_is_blended(config: EnhanceConfig) -> None:
    k, j, i = np.mgrid[-1:1:16j, -1:1:40j, -1:1:40j]
    shaded = ((k**2 + j**2 + i**2 < 0.9) * 500.0 * (1 + 0.4 * i)).astype(np.float32) + 1
    volume = Volume(shaded, Geometry((2.0, 2.0, 2.0)), modality="MR")
    config = replace(config, bias_correction="n4", uncertainty=1)
    full = enhance(volume, config)
    run = enhance(volume, replace(config, strength=0.4))
    blended = full.at_strength(0.4)
    assert blended.volume.is_equal(run.volume)
    assert blended.uncertainty is not None
    assert run.uncertainty is not None
    assert blended.uncertainty.is_equal(run.uncertainty)
    assert np.array_equal(full.at_strength(0.0).volume.voxels, volume.voxels)
    # At strength 0 it is the uncertainty of the input, whatever N4 would have taken away.
    bare = enhance(volume, replace(config, bias_correction="none", strength=0.0))
    assert bare.uncertainty is not None
    zero = full.at_strength(0.0).uncertainty
    assert zero is not None
    assert np.allclose(zero.voxels, bare.uncertainty.voxels, rtol=0.02, atol=0.5)


def test_shading_that_was_removed_is_no_uncertainty(rng: np.random.Generator) -> None:
    """Errors of a blend, against what the same blend gives without noise."""
    field = np.linspace(0.5, 2, 200_000)
    truth = np.full(field.shape, 100.0)
    plain = truth + rng.normal(0, 2, field.shape)
    before = (plain - rng.normal(0, 5, field.shape)).astype(np.float32)
    after = (plain / field).astype(np.float32)
    shading = field.astype(np.float32)
    deviation = (2 / field).astype(np.float32)
    maps = {1.0: deviation}
    for strength in (0.0, 0.5):
        blended = before + strength * (after - before)
        wanted = truth + strength * (truth / field - truth)
        maps[strength] = blend_deviation(deviation, before, after, strength, shading=shading)
        for part in np.array_split(np.arange(field.size), 4):
            stated = np.sqrt(np.mean(maps[strength][part] ** 2))
            missed = np.sqrt(np.mean((blended - wanted)[part] ** 2))
            assert stated == pytest.approx(missed, rel=0.06)
    half = (before + 0.5 * (after - before)).astype(np.float32)
    back = blend_deviation(maps[0.5], before, half, 0.0, made_at=0.5, shading=shading)
    assert np.allclose(back, maps[0.0], rtol=1e-3)


def test_every_frame_of_a_sequence_is_blended(head: Volume) -> None:
    voxels = np.stack([head.voxels, head.voxels // 2])
    sequence = replace(head, voxels=voxels)
    half = blend(sequence, sequence.with_voxels(voxels + np.int16(100)), 0.5)
    assert np.array_equal(half.voxels, voxels + 50)
    assert half.history[-1].startswith("DERIVED: blended with its input at strength 0.5")


def test_beyond_the_result_a_magnitude_does_not_fall_below_its_input(head: Volume) -> None:
    magnitude = replace(head, voxels=np.maximum(head.voxels, 0))
    black = np.zeros_like(magnitude.voxels)
    assert blend(magnitude, magnitude.with_voxels(black), 1.5).voxels.min() == 0
    ct = replace(magnitude, modality="CT")
    assert blend(ct, ct.with_voxels(black), 1.5).voxels.min() < 0


def test_wide_integers_come_back_exactly() -> None:
    wide = np.array([2**30 + 1, -(2**30) - 3], np.int32)
    assert np.array_equal(blend_voxels(wide, wide + 8, 0.0), wide)
    assert np.array_equal(blend_voxels(wide, wide + 8, 0.25), wide + 2)


def test_what_is_no_pair_is_refused(head: Volume) -> None:
    moved = replace(head, geometry=replace(head.geometry, origin=(0.0, 0.0, 0.0)))
    with pytest.raises(InputError, match="no pair: they lie elsewhere"):
        blend(head, moved, 0.5)
    with pytest.raises(InputError, match="no pair: shapes"):
        blend(head, crop(head), 0.5)
    with pytest.raises(InputError, match="no pair: MR and CT"):
        blend(head, replace(head, modality="CT"), 0.5)


@pytest.mark.parametrize("strength", [-0.1, 1.6, float("nan")])
def test_what_is_no_strength_is_refused(head: Volume, strength: float) -> None:
    with pytest.raises(ConfigError, match="strength"):
        blend(head, head, strength)


def test_only_a_full_result_is_blended(head: Volume, config: EnhanceConfig) -> None:
    half = enhance(crop(head), replace(config, strength=0.5))
    with pytest.raises(ConfigError, match=r"result at strength 0\.5"):
        half.at_strength(0.25)


def test_less_of_the_correction_leaves_more_of_the_inputs_error() -> None:
    deviation, before, after = (np.full((2, 2), v, np.float32) for v in (3.0, 10.0, 14.0))
    assert np.allclose(blend_deviation(deviation, before, after, 1.0), 3)
    assert np.allclose(blend_deviation(deviation, before, after, 0.0), 5)  # √(3² + 4²)
    half = blend_deviation(deviation, before, after, 0.5)
    assert np.allclose(half, np.sqrt(9 + 4))
    # From a blend back to a blend: as from the full result.
    again = blend_deviation(half, before, (before + after) / 2, 0.25, made_at=0.5)
    assert np.allclose(again, blend_deviation(deviation, before, after, 0.25))


def test_errors_of_a_blend_have_the_stated_deviation(rng: np.random.Generator) -> None:
    """Where the result's error and the input's noise are independent."""
    noise, miss = rng.normal(0, 5, 200_000), rng.normal(0, 2, 200_000)
    truth = np.full(noise.shape, 100.0)
    after = (truth + miss).astype(np.float32)
    before = (after - noise).astype(np.float32)
    half = 0.5 * (before + after)
    stated = blend_deviation(np.full(noise.shape, 2, np.float32), before, after, 0.5)
    measured = np.sqrt(np.mean((half - truth) ** 2))
    assert np.sqrt(np.mean(stated**2)) == pytest.approx(measured, rel=0.02)


def test_a_result_at_another_strength_or_with_nan_is_not_blended(head: Volume) -> None:
    half = blend(head, head.with_voxels(head.voxels + np.int16(9)), 0.5)
    with pytest.raises(InputError, match="blended with its input already") as caught:
        blend(head, half, 0.5)
    assert "strength (1)" in caught.value.hint
    spoilt = head.voxels.astype(np.float32)
    spoilt[2, 3, 4] = np.nan
    with pytest.raises(InputError, match="NaN"):
        blend(head, head.with_voxels(spoilt), 0.5)
    # What was enhanced may itself be such a blend.
    assert blend(half, half.with_voxels(half.voxels, did="DERIVED: enhanced"), 0.5)
