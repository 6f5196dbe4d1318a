"""A result blended with its input later is what a run at that strength gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import Blur, Rician
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.hqg.denoise import expected_deviation
from MedEnhanceLib.hqg.strength import blend, blend_deviation, blend_voxels
from MedEnhanceLib.runtime.resources import resource_folder


@pytest.fixture
def config(model: str) -> EnhanceConfig:
    return EnhanceConfig(model=model, device="cpu")


def crop(volume: Volume) -> Volume:
    return replace(volume, voxels=volume.voxels[3:8])


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.8])
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
def test_the_bias_field_belongs_to_what_is_blended(config: EnhanceConfig) -> None:
    k, j, i = np.mgrid[-1:1:16j, -1:1:40j, -1:1:40j]
    shaded = ((k**2 + j**2 + i**2 < 0.9) * 500.0 * (1 + 0.4 * i)).astype(np.float32) + 1
    volume = Volume(shaded, Geometry((2.0, 2.0, 2.0)), modality="MR")
    config = replace(config, bias_correction="n4", uncertainty=True)
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


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
@pytest.mark.parametrize("is_shaded", [False, True])
def test_errors_of_a_blend_have_the_stated_deviation(
    rng: np.random.Generator, share: float, is_shaded: bool
) -> None:
    """Where the error of the full result and the input's noise are independent.

    A bias field that was divided by is no error: the truth of the blend holds as much of it.
    """
    noise, miss = rng.normal(0, 5, 400_000), rng.normal(0, 2, 400_000)
    field = np.linspace(0.5, 2, noise.size) if is_shaded else np.ones(noise.size)
    truth = np.full(noise.shape, 100.0)
    before = (truth + miss + noise).astype(np.float32)
    auto = before - share * noise
    deviation = (np.hypot(2, (1 - share) * noise) / field).astype(np.float32)
    for strength in (0.0, 0.5, 1.0):
        blended = before + strength * (auto / field - before)
        missed = blended - truth * (1 - strength + strength / field)
        stated = blend_deviation(
            deviation,
            before,
            (auto / field).astype(np.float32),
            strength,
            share=share,
            bias_field=field.astype(np.float32) if is_shaded else None,
        )
        for part in np.array_split(np.arange(field.size), 4):
            found, expected = (np.sqrt(np.mean(x[part] ** 2)) for x in (stated, missed))
            assert found == pytest.approx(expected, rel=0.03)


def test_of_a_half_removed_half_leaves_three_quarters_of_the_noise() -> None:
    before, auto, left = (np.full((2, 2), v, np.float32) for v in (20.0, 15.0, 5.0))
    half = blend_deviation(left, before, auto, 0.5, share=0.5)  # of noise of 10
    assert np.allclose(np.square(half) / 10**2, 0.5625)
    assert np.allclose(blend_deviation(left, before, auto, 1.0, share=0.5), left)
    assert np.allclose(blend_deviation(left, before, auto, 0.0, share=0.5), 10)


def test_where_nothing_was_removed_the_deviation_stays() -> None:
    before, deviation = (np.full((2, 2), v, np.float32) for v in (20.0, 3.0))
    assert np.allclose(blend_deviation(deviation, before, before, 0.3, share=0.0), 3)


class TestShippedModel:
    """What nobody has measured is little: the share that auto removes is well below 1."""

    @pytest.fixture
    def scan(self) -> Volume:
        sample = me.load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
        voxels = np.ascontiguousarray(sample.voxels[84:96, 10:106, 40:136])
        noisy = Rician(0.008, 3).apply(Volume(voxels, Geometry((1.0, 1.0, 1.0)), modality="MR"))
        return noisy.with_voxels(np.round(noisy.voxels).astype(np.int16))

    def test_a_blend_of_auto_is_a_run_at_that_strength(self, scan: Volume) -> None:
        auto = me.enhance(scan, device="cpu", uncertainty=True)
        share = auto.report["results"]["measured"]["noise"]["share_removed"]
        assert 0.2 < share < 0.7
        run = me.enhance(scan, device="cpu", strength=0.5, uncertainty=True)
        later = auto.at_strength(0.5)
        assert me.blend(scan, auto.volume, 0.5).is_equal(run.volume)
        assert later.volume.is_equal(run.volume)
        assert later.volume.history == run.volume.history
        assert later.uncertainty is not None
        assert run.uncertainty is not None
        assert later.uncertainty.is_equal(run.uncertainty)
        for one in (later, run):
            results = one.report["results"]
            assert results["strength"] == one.report["config"]["strength"] == 0.5
            assert results["measured"]["noise"]["share_removed"] == share
        assert auto.report["results"]["strength"] == 1.0
        full = me.enhance(scan, device="cpu", strength="full")
        assert full.report["results"]["measured"]["noise"]["share_removed"] == 1.0
        changed = [np.abs(one.volume.voxels - scan.voxels).mean() for one in (run, auto, full)]
        assert changed[0] < changed[1] < changed[2]

    def test_the_deviation_of_a_blend_is_that_of_the_share_in_it(self, scan: Volume) -> None:
        scan = scan.with_voxels(scan.voxels.astype(np.float32))
        auto = me.enhance(scan, device="cpu", task="noise", uncertainty=True)
        half = auto.at_strength(0.5)
        assert half.uncertainty is not None
        (noise,) = auto.enhancement.noises
        expected = expected_deviation(
            half.volume.voxels.copy(), scan, noise, share=0.5 * auto.enhancement.share
        )
        assert np.median(half.uncertainty.voxels / expected) == pytest.approx(1, abs=0.02)
        assert half.uncertainty.voxels.mean() > 1.1 * auto.uncertainty.voxels.mean()

    @pytest.mark.slow
    def test_blur_and_bias_field_are_blended_with_it(self, scan: Volume) -> None:
        field = 1 + 0.3 * np.linspace(-1, 1, scan.shape[2])
        soft = Blur(1.4).apply(scan.with_voxels(scan.voxels * field))
        soft = Rician(0.006, 1).apply(soft)
        soft = soft.with_voxels(np.round(soft.voxels).astype(np.int16))
        auto = me.enhance(soft, device="cpu", bias_correction="n4", uncertainty=True)
        measured = auto.report["results"]["measured"]
        assert measured["blur"]["undone"]
        assert measured["bias_field"]["corrected"]
        assert measured["noise"]["share_removed"] < 0.7
        run = me.enhance(soft, device="cpu", bias_correction="n4", uncertainty=True, strength=0.5)
        later = auto.at_strength(0.5)
        assert me.blend(soft, auto.volume, 0.5).is_equal(run.volume)
        assert later.uncertainty is not None
        assert run.uncertainty is not None
        assert later.uncertainty.is_equal(run.uncertainty)

    def test_commands_agree_and_say_what_is_in_the_voxels(
        self, scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        me.save(scan, "scan.nii.gz")
        stated = ["--modality", "MR", "--json"]
        enhance = ["enhance", "scan.nii.gz", "--device", "cpu", "--task", "noise", *stated]
        assert main([*enhance, "auto.nii.gz"]) == 0
        assert main([*enhance, "run.nii.gz", "--strength", "0.5"]) == 0
        files = ["scan.nii.gz", "auto.nii.gz", "half.nii.gz"]
        assert main(["blend", *files, "--strength", "0.5", *stated]) == 0
        half, run, auto = (me.load(f"{n}.nii.gz", modality="MR") for n in ("half", "run", "auto"))
        assert np.array_equal(half.voxels, run.voxels)
        assert not np.array_equal(half.voxels, auto.voxels)
        records = [
            json.loads(Path(f"{n}.nii.gz.json").read_text()) for n in ("half", "run", "auto")
        ]
        shares = {one["results"]["measured"]["noise"]["share_removed"] for one in records}
        assert len(shares) == 1
        assert 0.2 < shares.pop() < 0.7
        assert [one["results"]["strength"] for one in records] == [0.5, 0.5, 1.0]
        assert main([*enhance, "more.nii.gz", "--strength", "1.2"]) == 2


def test_every_frame_of_a_sequence_is_blended(head: Volume) -> None:
    voxels = np.stack([head.voxels, head.voxels // 2])
    sequence = replace(head, voxels=voxels)
    half = blend(sequence, sequence.with_voxels(voxels + np.int16(100)), 0.5)
    assert np.array_equal(half.voxels, voxels + 50)
    assert half.history[-1].startswith("DERIVED: blended with its input at strength 0.5")


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


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
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


def test_a_result_at_another_strength_or_with_nan_is_not_blended(head: Volume) -> None:
    half = blend(head, head.with_voxels(head.voxels + np.int16(9)), 0.5)
    with pytest.raises(InputError, match="blended with its input already") as caught:
        blend(head, half, 0.5)
    assert "at strength 1" in caught.value.hint
    spoilt = head.voxels.astype(np.float32)
    spoilt[2, 3, 4] = np.nan
    with pytest.raises(InputError, match="NaN"):
        blend(head, head.with_voxels(spoilt), 0.5)
    # What was enhanced may itself be such a blend.
    assert blend(half, half.with_voxels(half.voxels, did="DERIVED: enhanced"), 0.5)
