"""The verdict on a volume before it is enhanced, and whether it comes true."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import MedEnhanceLib as me  # noqa: N813
from MedEnhanceLib.core.volume import Volume, as_volume
from MedEnhanceLib.denoise import VolumeCache, enhance
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.noise_verdict import measured_noise, noise_verdict
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.jobs.kinds.enhance import NoiseParams
from MedEnhanceLib.noise.even_region import even_tissue
from MedEnhanceLib.noise.tissue_blocks import cell_blocks
from MedEnhanceLib.runtime.resources import resource_folder


def _head() -> Volume:
    """The sample's template, which has hardly any noise."""
    volume = me.load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    return volume.crop(slice(30, 50), slice(None), slice(None))


@pytest.mark.slow
@pytest.mark.parametrize("percent", [4, 15])
def test_as_much_of_the_error_goes_as_the_verdict_says(percent: float) -> None:
    clean = _head()
    noisy = me.degrade(clean, rician=percent / 100, seed=1)
    verdict = noise_verdict(noisy)
    assert verdict is not None and verdict.is_certain and verdict.removable is not None
    tissue = clean.voxels > clean.voxels.mean()
    better = me.enhance(noisy).volume.voxels
    before, after = (
        float(np.sqrt(np.mean(np.square(voxels[tissue] - clean.voxels[tissue].astype(float)))))
        for voxels in (noisy.voxels, better)
    )
    # An average of 152 heads is smoother than a scan, and more of its noise goes.
    assert verdict.removable - 0.05 < 1 - after / before < verdict.removable + 0.3
    assert f"about {round(20 * verdict.removable) * 5} % of the error" in verdict.sentence


@pytest.mark.parametrize("bits", [8, 16])
def test_of_a_clean_scan_nothing_is_to_go(bits: int) -> None:
    head = _head()
    if bits == 8:  # rounded, as converters of pictures do
        share = 255 / head.voxels.max()
        head = head.with_voxels((head.voxels * share).round().astype(np.uint8))
    verdict = noise_verdict(head)
    assert verdict.removable is not None
    assert verdict.removable < 0.05
    # The number is stated too: a bound of compression depends on it.
    sigma, snr = f"±{verdict.sigma:.3g}", f"SNR {verdict.snr:.0f}"
    assert verdict.sentence.startswith(f"Noise {sigma} (1 SD; likely ")
    assert verdict.sentence.endswith(f", {snr}: clean, hardly anything to do")


def _smoothed_slices(sigma: float) -> Volume:
    """A head whose noise was smoothed within its slices of 3 mm, as by interpolation."""
    whole = me.load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    head = whole.voxels[54:150:3, 10:220, 10:190].astype(float)
    noise = np.random.default_rng(0).standard_normal(head.shape)
    noise = ndimage.gaussian_filter(noise, (0, 2.5, 2.5))
    noisy = head + sigma / noise.std() * noise
    noisy[head < 30] = 0
    return as_volume(np.maximum(noisy, 0).round(), modality="MR", spacing=(1, 1, 3))


def test_noise_is_clean_only_if_all_that_it_can_be_is_clean_and_even_tissue_tells_it() -> None:
    """Neighbors in a slice differ by less than the noise, and the measurement is too low."""
    volume, cache = _smoothed_slices(12), VolumeCache()
    verdict = noise_verdict(volume, cache=cache)
    assert verdict is not None and verdict.snr is not None
    assert verdict.snr > 100 and verdict.interval[1] < 12
    assert not verdict.is_certain and verdict.even_sigma == pytest.approx(12, rel=0.2)
    assert verdict.sentence.endswith(f"but even regions agree on ±{verdict.even_sigma:.3g}")
    region = measured_noise(volume, at=verdict.places[0], cache=cache)
    assert region.is_certain and region.even_sigma == verdict.even_sigma
    assert "the even regions of the volume agree on" in region.sentence
    for sigma, is_far in ((region.sigma, False), (3 * region.sigma, True)):
        part: dict[str, Any] = {"slices": (16, 17), "rows": (80, 120), "columns": (80, 120)}
        shown = enhance(
            volume, EnhanceConfig(noise=sigma, denoiser="block-matching"), cache=cache, **part
        )
        assert ("stated-noise" in [each.code for each in shown.warnings]) is is_far


def test_uncertain_noise_is_said_to_be_uncertain_and_has_no_share() -> None:
    rng = np.random.default_rng(0)
    texture = np.repeat(np.repeat(rng.uniform(50, 250, (24, 40, 40)), 3, axis=1), 3, axis=2)
    texture *= rng.uniform(0.2, 1.8, (6, 12, 12)).repeat(4, 0).repeat(10, 1).repeat(10, 2)
    texture = 100 + texture + 5 * rng.standard_normal(texture.shape)
    verdict = me.measure_noise(texture.astype(np.float32), modality="MR", spacing=(1, 1, 1))
    assert (verdict.is_certain, verdict.removable) == (False, None)
    assert "uncertain, because" in verdict.sentence


def test_a_volume_of_one_bright_voxel_has_no_noise_that_can_be_measured() -> None:
    voxels = np.zeros((8, 40, 40), np.float32)
    voxels[0, 0, 0] = 100.5
    verdict = me.measure_noise(voxels, modality="MR", spacing=(1, 1, 1))
    assert (verdict.sigma, verdict.snr, verdict.is_certain) == (0, None, False)
    assert "in which noise could be measured" in verdict.sentence


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_an_exact_slope_is_no_tissue(modality: str) -> None:
    voxels = np.zeros((2, 8, 8), np.int16)
    voxels[1] = 4095
    with pytest.raises(InputError, match="the region holds an exact slope"):
        me.measure_noise(voxels, modality=modality, spacing=(1, 1, 1), region=[slice(0, 2)])


def test_a_region_is_measured_around_a_voxel_or_by_its_limits() -> None:
    voxels = 500 + 25 * np.random.default_rng(0).standard_normal((20, 40, 40))
    measured = me.measure_noise(voxels, at=(10, 20, 39), modality="CT", spacing=(1, 1, 3))
    assert measured.region == ((8, 12), (14, 26), (33, 40))  # 12 mm, within the volume
    assert measured.sigma == pytest.approx(25, rel=0.15)
    assert measured.sentence.startswith("Noise ±")
    region = (slice(2, 6), slice(0, 20))
    limits = me.measure_noise(voxels, region=region, modality="CT", spacing=(1, 1, 3))
    assert limits.region == ((2, 6), (0, 20), (0, 40))
    outside: list[dict[str, object]] = [{"at": (10, 40, 0)}, {"region": (slice(50, 60),)}]
    for wrong in outside:
        with pytest.raises(ConfigError):
            me.measure_noise(voxels, modality="CT", spacing=(1, 1, 3), **wrong)


def test_a_region_that_is_much_noisier_than_the_volume_may_hold_anatomy() -> None:
    rng = np.random.default_rng(0)
    voxels = 60 + 5 * rng.standard_normal((20, 60, 60))
    voxels[4:16, 4:20, 4:20] += 40 * rng.standard_normal((12, 16, 16))
    textured = me.measure_noise(voxels, at=(10, 12, 12), modality="CT", spacing=(1, 1, 1))
    assert textured.volume_sigma is not None
    assert textured.volume_sigma == pytest.approx(5, rel=0.2)
    assert not textured.is_certain and "the noise of the whole volume" in textured.sentence
    for place in textured.places:
        even = me.measure_noise(voxels, at=place, modality="CT", spacing=(1, 1, 1))
        assert even.is_certain and even.sigma == pytest.approx(5, rel=0.2)
    assert textured.places


def test_places_whose_noise_would_be_taken_for_anatomy_are_not_proposed() -> None:
    """Muscle at 3 mm: its cubes are even, and their spread is forty times the noise."""
    voxels = 500 + 40 * np.random.default_rng(0).standard_normal((20, 60, 60))
    assert even_tissue(voxels, (1, 1, 1), modality="MR", most=20).places == ()
    assert len(even_tissue(voxels, (1, 1, 1), modality="MR", most=50).places) == 3


def test_a_region_with_more_noise_than_the_volume_is_to_be_looked_at() -> None:
    voxels = 60 + 5 * np.random.default_rng(0).standard_normal((20, 60, 60))
    voxels[8:14, 4:20, 4:20] += 5 * np.random.default_rng(1).standard_normal((6, 16, 16))
    apart = me.measure_noise(voxels, at=(11, 12, 12), modality="CT", spacing=(1, 1, 2))
    alike = me.measure_noise(voxels, at=(11, 45, 45), modality="CT", spacing=(1, 1, 2))
    assert apart.is_certain and "lies in one tissue" in apart.sentence
    assert "lies in" not in alike.sentence


def test_of_a_series_a_region_is_measured_in_the_first_frame() -> None:
    frames = 500 + 20 * np.random.default_rng(0).standard_normal((6, 12, 48, 48))
    frames[1:] += 100
    measured = me.measure_noise(frames, at=(6, 24, 24), modality="MR", spacing=(1, 1, 2))
    assert measured.frame == 0
    assert measured.sigma == pytest.approx(20, rel=0.15)
    assert "in the region of frame 0; in the whole volume it is ±" in measured.sentence


def test_spacings_that_a_file_and_a_call_round_differently_have_one_measurement() -> None:
    voxels = np.random.default_rng(0).normal(500, 20, (16, 64, 64))
    first, second = (
        me.measure_noise(voxels, modality="MR", spacing=(mm, mm, mm))
        for mm in (0.66666663, 0.66667)
    )
    assert first == second
    assert cell_blocks((0.66666663,) * 3, (4, 4, 4)) == cell_blocks((0.66667,) * 3, (4, 4, 4))


def test_two_regions_are_refused_and_an_empty_one_is_the_volume() -> None:
    both: dict[str, Any] = {"input": "none.nii.gz", "region": [[0, 4]], "at": [1, 1, 1]}
    with pytest.raises(ConfigError, match="two regions"):
        me.measure_noise("none.nii.gz", region=(slice(0, 4),), at=(1, 1, 1))
    with pytest.raises(ConfigError, match="two regions"):
        NoiseParams(**both)
    head = _head()
    assert me.measure_noise(head, region=()) == me.measure_noise(head)


def test_what_is_no_image_of_ct_or_mr_is_uncertain_and_says_why() -> None:
    labels = np.zeros((8, 32, 32), np.uint8)
    labels[:, 8:20, 8:20] = 2
    pet = np.random.default_rng(0).random((8, 32, 32), np.float32)
    for voxels, modality in ((labels, "MR"), (pet, "PT")):
        verdict = me.measure_noise(voxels, modality=modality, spacing=(4, 4, 4))
        assert (verdict.verdict, verdict.sigma, verdict.places) == ("uncertain", 0, ())
        assert f"{modality} of this kind is not enhanced" in verdict.sentence


def test_values_too_small_for_a_measurement_are_described_all_the_same() -> None:
    rng = np.random.default_rng(0)
    tiny = as_volume(
        (1e-6 + 2e-7 * rng.standard_normal((12, 40, 40))).astype(np.float32),
        modality="MR",
        spacing=(1, 1, 1),
    )
    with pytest.raises(InputError, match="too small to measure"):
        me.measure_noise(tiny)
    assert me.inspect(tiny)["noise"] is None
