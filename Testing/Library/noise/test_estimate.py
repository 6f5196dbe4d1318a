"""Noise measured in the volume itself, the bias that it gives magnitudes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.ct_scanner import CtScanner
from MedEnhanceLib.denoise.noise_verdict import noise_verdict
from MedEnhanceLib.denoise.removal import removal_of
from MedEnhanceLib.noise.estimate import measure_noise, noise_of
from MedEnhanceLib.noise.rician import amplitude
from MedEnhanceLib.synthetic import synthetic_volume

SHAPE = (24, 120, 120)


def _noise(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _body(shape: tuple[int, ...] = SHAPE) -> Floats:
    """Tissue of 40 to 160, 0 outside: an ellipsoid with ellipsoids and fine walls in it."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    inside = np.hypot(j, i) < 0.9
    body = np.where(inside, 80 + 20 * i, 0)
    rng = np.random.default_rng(5)
    for center in rng.uniform(-0.6, 0.6, (24, 3)):
        radius = rng.uniform(0.08, 0.3)
        part = (k - center[0]) ** 2 / 4 + (j - center[1]) ** 2 + (i - center[2]) ** 2 < radius**2
        body = np.where(part & inside, rng.uniform(40, 160), body)
    walls = np.abs(np.sin(5 * j + 2 * k)) < 0.06
    return np.where(walls & inside, 150, body).astype(np.float32)


def _rician(clean: Floats, sigma: float | Floats, seed: int = 0) -> Floats:
    shape = clean.shape
    one, other = _noise(*shape, seed=seed), _noise(*shape, seed=seed + 1)
    return np.hypot(clean + sigma * one, sigma * other)


@pytest.mark.parametrize("shape", [(24, 64, 64), (2, 160, 160), (1, 160, 160)])
def test_noise_alone_gives_its_level_and_is_white(shape: tuple[int, int, int]) -> None:
    estimate = measure_noise(1000 + 7 * _noise(*shape), modality="MR")
    assert estimate.level == pytest.approx(7, rel=0.06)
    assert estimate.spectrum.mean() == pytest.approx(1, abs=1e-3)
    assert np.abs(estimate.spectrum - 1).mean() < 0.12


@pytest.mark.parametrize("sigma", [3.0, 20.0])
def test_anatomy_is_not_taken_for_noise(sigma: float) -> None:
    estimate = measure_noise(_rician(_body(), sigma), modality="MR")
    assert estimate.level == pytest.approx(sigma, rel=0.12)
    assert estimate.rician
    assert estimate.air == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("slices", [1, 3])
def test_the_noise_of_a_few_slices_is_in_their_interval(slices: int) -> None:
    voxels = _rician(_body((12, 64, 64)), 8.0)[4 : 4 + slices]
    estimate = measure_noise(voxels, modality="MR")
    assert estimate.confidence < 0.5
    assert estimate.low < 8 < estimate.high
    assert 4 < estimate.level < 12


def test_the_sum_of_the_spectrum_is_the_variance_of_a_voxel() -> None:
    """Noise that is correlated in plane and across slices."""
    noise = _noise(26, 122, 122)
    for axis in range(3):
        parts = [np.take(noise, range(n, noise.shape[axis] - 2 + n), axis) for n in range(3)]
        noise = (parts[0] + 2 * parts[1] + parts[2]) / np.float32(np.sqrt(6))
    estimate = measure_noise(40 + 10 * noise, modality="CT")
    assert noise.std() == pytest.approx(1, rel=0.02)
    assert estimate.level == pytest.approx(10, rel=0.06)
    along = estimate.spectrum.mean(axis=(1, 2))
    assert along[0] > 10 * along[3]
    assert estimate.spectrum[0, 0, 1] > 10 * estimate.spectrum[0, 0, 3]


def _thick_slices_of_a_head(shape: tuple[int, int, int], contrast: float) -> Floats:
    """A shell of bone around tissue that varies within slices and anew in the next, in HU."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    radius = np.hypot(j, i) / (0.9 - 0.25 * np.abs(k))
    tissue = gaussian_filter(_noise(*shape, seed=5), (0, 4, 4))
    tissue *= np.float32(contrast) / tissue.std()
    return np.where(radius < 0.85, 35 + tissue, np.where(radius < 1, 900, -1000))


def _noise_of_ct(*shape: int) -> Floats:
    """Noise whose power in plane is a ramp and the window of a kernel."""
    rows, columns = (np.fft.fftfreq(side) for side in shape[1:])
    frequency = np.hypot(rows[:, None], columns)
    gain = np.sqrt(frequency) * np.cos(np.pi / 2 * np.minimum(frequency, 0.5))
    noise = np.fft.ifft2(np.fft.fft2(_noise(*shape)) * gain).real
    return np.asarray(noise / noise.std(), np.float32)


@pytest.mark.parametrize(("sigma", "contrast"), [(20, 20), (10, 40)])
def test_anatomy_of_thick_slices_within_bone_is_not_taken_for_noise(
    sigma: int, contrast: int
) -> None:
    voxels = _thick_slices_of_a_head((12, 128, 128), contrast) + sigma * _noise_of_ct(12, 128, 128)
    volume = Volume(voxels.astype(np.float32), Geometry((1.0, 1.0, 7.0)), modality="CT")
    noise = noise_of(volume)
    assert noise.level == pytest.approx(sigma, rel=0.12)
    assert noise.low < sigma < noise.high
    assert removal_of(noise, "CT").noise.level < 1.12 * sigma


def test_the_map_follows_noise_that_varies_in_space() -> None:
    gain = np.broadcast_to(np.linspace(4, 16, 120, dtype=np.float32), SHAPE)
    estimate = measure_noise(_rician(_body() + 60, gain), modality="MR")
    found = estimate[:]
    assert found.shape == SHAPE
    assert np.abs(found[:, 20:100, 20:100] / gain[:, 20:100, 20:100] - 1).mean() < 0.1


def test_padding_clipping_and_masks_are_left_out() -> None:
    volume = 40 + 12 * _noise(*SHAPE)
    volume[:, :, :50] = np.maximum(-1015 + 12 * volume[:, :, :50], -1024)
    volume[:, 70:] = -2048
    assert measure_noise(volume, modality="CT").level == pytest.approx(12, rel=0.05)
    brain = np.where(_body() > 0, _rician(_body() + 100, 9.0), 0)
    estimate = measure_noise(brain, modality="MR")
    assert estimate.level == pytest.approx(9, rel=0.12)
    assert not estimate.rician
    assert estimate.air is None


def _head(shape: tuple[int, int, int]) -> tuple[Floats, Floats]:
    """A head in scalp and skull, and the distance from its middle, which is 1 at the skin.

    Its brain has two tissues, one with texture, in folds of which few blocks are free.
    """
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    distance = np.sqrt(0.6 * k**2 + j**2 + i**2) / 0.97
    folds, texture = (gaussian_filter(_noise(*shape, seed=1 + n), (9, 1.2)[n]) for n in (0, 1))
    folds, texture = folds / folds.std(), texture / texture.std()
    brain = np.where(np.abs(folds) < 0.6, 70 + 15 * texture, 100)
    skull = np.where(distance < 0.86, 15 + 3 * texture, 170 + 30 * texture)
    head = np.where(distance < 0.8, brain, skull)
    return np.where(distance < 1, head, 0).astype(np.float32), distance


@pytest.mark.parametrize("background", ["air", "zero", "padded", "no skull", "box"])
def test_the_noise_of_a_whole_head_is_that_of_its_parts(background: str) -> None:
    head, distance = _head((40, 128, 128))
    noisy = _rician(head, 6.0)
    masked = np.where(distance < 1, noisy, 0)
    voxels = {
        "air": noisy,
        "zero": masked,
        "padded": np.pad(masked, 8),
        "no skull": np.where(distance < 0.8, noisy, 0),
        "box": noisy[6:34, 34:94, 34:94],
    }[background]
    noise = measure_noise(voxels, modality="MR")
    assert noise.low < 6 < noise.high < 1.6 * noise.low
    assert removal_of(noise, "MR").noise.level == pytest.approx(6, rel=0.1)
    assert np.mean(masked == 0) == pytest.approx(0.43, abs=0.01)


def test_rounded_values_have_at_least_the_noise_of_rounding() -> None:
    steps = np.broadcast_to(np.linspace(0, 30, 120), SHAPE).astype(np.int16)
    assert measure_noise(steps, modality="CT").level >= 0.99 / np.sqrt(12)
    coarse = np.round(100 + 6 * _noise(*SHAPE)).astype(np.int16)
    assert measure_noise(coarse, modality="CT").level == pytest.approx(6, rel=0.05)


@pytest.mark.parametrize(
    "volume",
    [
        np.full((8, 32, 32), 5.0),
        np.zeros((8, 32, 32), np.uint8),
        np.full((8, 32, 32), -1000, np.int16),
        _noise(2, 3, 3),
        _noise(1, 1, 1),
    ],
)
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_where_there_is_nothing_to_measure_it_says_so(volume: Floats, modality: str) -> None:
    estimate = measure_noise(volume, modality=modality)
    assert estimate.confidence == 0
    assert "no tissue" in str(estimate.reason)
    assert np.isfinite(estimate[:]).all()
    removal = removal_of(estimate, modality)
    assert removal.share == 0
    assert "no tissue" in str(removal.reason)


def test_the_map_of_ct_follows_noise_that_doubles_within_two_centimeters() -> None:
    """As behind hips: streaks, whose spectrum is not that of the noise around them."""
    fine = gaussian_filter(_noise(*SHAPE), (0, 0.6, 0.6))
    streaks = gaussian_filter(_noise(*SHAPE, seed=1), (0, 0.6, 4))
    share = np.exp(-0.5 * np.square((np.arange(120) - 60) / 12))[:, None]
    true = np.hypot(120 * np.ones_like(share), 360 * share)
    noise = 120 * fine / fine.std() + 360 * share * streaks / streaks.std()
    body = np.where(_body() > 0, _body() - 50, -1000) + noise
    estimate = measure_noise(body.astype(np.float32), modality="CT")
    ratio = estimate[10:14][:, :, 40:80].mean(axis=(0, 2)) / true[:, 0]
    assert 0.6 < ratio[52:68].mean() < 1.1  # one cell, where noise falls to a third
    assert 0.95 < ratio[:24].mean() < 1.1


@pytest.mark.parametrize("sigma", [220.0, 900.0])
def test_tissue_of_ct_that_noise_makes_as_dark_as_air_is_measured(sigma: float) -> None:
    """As in an abdomen at very low dose, whose voxels reach below −900 HU."""
    noise = gaussian_filter(_noise(*SHAPE), (0, 0.6, 0.6))
    body = np.where(_body() > 0, _body() - 50, -1000) + sigma * noise / noise.std()
    estimate = measure_noise(body.astype(np.float32), modality="CT")
    assert estimate.level == pytest.approx(sigma, rel=0.07)
    assert estimate.confidence > 0.9


@pytest.mark.parametrize("seed", [1, 6])
def test_uncertain_noise_of_ct_has_an_interval_that_is_of_use(seed: int) -> None:
    """In anatomy that fills the blocks, where the quietest show ±.2 to ±6, or ±10 to ±16."""
    clean = synthetic_volume("CT", seed, shape=(12, 96, 96))
    rng = np.random.default_rng(seed)
    scanner = CtScanner.draw(rng)
    noise = scanner.noise(clean.voxels, clean.geometry.spacing, rng)
    shown = scanner.shown(clean.voxels)
    noise *= 12 / np.sqrt(np.median(np.square(noise[shown > -300])) / 0.455)
    verdict = noise_verdict(clean.with_voxels(np.round(shown + noise)))
    assert verdict is not None
    assert verdict.confidence < 0.5
    low, high = verdict.interval
    assert low < 12 < high < 2.5 * low
    assert verdict.sigma == pytest.approx(12, rel=0.25)
    assert str(verdict.reason) == "noise and anatomy look alike"


def test_uncertain_noise_of_ct_keeps_its_spectrum_and_flattens_its_map() -> None:
    clean = synthetic_volume("CT", 0, shape=(12, 96, 96))
    grain = gaussian_filter(_noise(12, 96, 96), (0, 0.8, 0.8))
    voxels = clean.voxels + 10 * (grain / grain.std())
    noise = measure_noise(voxels, modality="CT", spacing=clean.geometry.spacing)
    assert noise.confidence < 0.5
    assert noise.spectrum[:, 3, 3].mean() < 0.1 * noise.spectrum.mean()
    shares = noise.sigma / noise.level
    assert 0.8 < shares.min() < shares.max() < 1.25


def test_the_lower_end_of_uncertain_noise_is_removed_however_loud_it_is() -> None:
    noise = measure_noise(_rician(_body(), 20.0), modality="CT")

    def used(level: float, modality: str, contrast: float = 4.0) -> float:
        of_level = noise.at_level(level)
        scaled = replace(of_level, confidence=0.12, low=0.24 * level, contrast=contrast * level)
        removal = removal_of(scaled, modality)
        assert removal.share > 0
        return removal.noise.level / level

    for level in (50.0, 300.0, 900.0):
        assert used(level, "CT") == used(level, "MR") == pytest.approx(0.24)
    # In MR an over-estimate of noise that hides the anatomy has little to destroy.
    assert used(50.0, "MR", contrast=0.9) == 1
    assert used(50.0, "CT", contrast=0.9) == pytest.approx(0.24)


def test_signal_as_weak_as_the_background_is_denoised() -> None:
    """As in frames whose signal is about as strong as the noise: no block looks like tissue."""
    rng = np.random.default_rng(5)
    signal = 40 * np.ones((8, 64, 64)) + 10 * np.sin(np.arange(64) / 5)
    real, imaginary = 30 * rng.standard_normal((2, *signal.shape))
    voxels = np.hypot(signal + real, imaginary).astype(np.float32)
    volume = Volume(voxels, Geometry((2.0, 2.0, 2.0)), modality="MR")
    result = me.enhance(volume, progress=False)
    noise = result.report["results"]["measured"]["noise"]
    assert noise["interval"][0] < 30 < noise["interval"][1]
    assert 20 < noise["sigma_used"] < 40
    assert np.asarray(result.volume).std() < 0.5 * voxels.std()


SIGMA = np.float32(0.1)


def mean_of(truth: float) -> float:
    """The mean of noisy magnitudes of an even object."""
    rng = np.random.default_rng(0)
    real, imaginary = float(SIGMA) * rng.standard_normal((2, 100_000))
    return float(np.hypot(truth + real, imaginary).mean())


@pytest.mark.parametrize("truth", [0.2, 0.3, 0.6, 1.0, 3.0])
def test_the_mean_of_tissue_is_the_truth(truth: float) -> None:
    mean = mean_of(truth)
    found = float(amplitude(np.float32(mean), SIGMA))
    assert abs(found - truth) < max(0.25 * (mean - truth), 0.002)


def test_negative_values_and_what_is_no_number_stay() -> None:
    freed = amplitude(np.array([-0.3, np.nan, 0.5], np.float32), SIGMA)
    assert freed[0] == np.float32(-0.3)
    assert np.isnan(freed[1])
    assert np.isfinite(freed[2])
