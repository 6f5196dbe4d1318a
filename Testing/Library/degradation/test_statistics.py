"""Each simulated damage has the statistics of its physics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.degradation.acquisition import bias_field
from MedEnhanceLib.degradation.ct_scanner import CtScanner
from MedEnhanceLib.degradation.lowdose import (
    CUTOFF,
    MU_WATER_PER_MM,
    VIEWS,
    low_dose_noise,
    ramp_response,
)
from MedEnhanceLib.noise.rician import rician_noise

_SPACING = (0.8, 0.8, 3.0)
_RADIUS_MM = 36.0


def disc(slices: int, side: int = 100) -> tuple[Floats, Floats]:
    """A water disc in air, [K, J, I] HU, and the distance from its axis in mm."""
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) * _SPACING[0]
    distance = np.hypot(x, y).astype(np.float32)
    hu = np.where(distance < _RADIUS_MM, 0, -1000).astype(np.float32)
    return np.repeat(hu[None], slices, axis=0), distance


def expected_sigma_hu(cutoff: float, photons: float) -> float:
    """At a disc's center: every view there sees the same counts; σ_p² = 1 / counts.

    Back projection adds views, each filtered and linearly interpolated at a random place
    between two detector elements: variance 2/3 R(0) + 1/3 R(1) of the kernel's autocorrelation.
    """
    kernel = np.fft.irfft(ramp_response(4096, _SPACING[0], cutoff))
    per_view = 2 / 3 * (kernel @ kernel) + 1 / 3 * (kernel @ np.roll(kernel, 1))
    variance_p = math.exp(2 * _RADIUS_MM * MU_WATER_PER_MM) / photons
    return math.pi / VIEWS * math.sqrt(VIEWS * per_view * variance_p) * 1000 / MU_WATER_PER_MM


def test_rician_signal_follows_rice_and_air_rayleigh(rng: np.random.Generator) -> None:
    stats = pytest.importorskip("scipy.stats")
    noise = rician_noise(np.full((20, 100, 100), 30, np.int16), 12.0, rng)
    assert stats.kstest(noise.ravel(), stats.rice(30 / 12, scale=12).cdf).pvalue > 1e-3
    assert (noise.astype(np.float64) ** 2).mean() == pytest.approx(30**2 + 2 * 12**2, rel=0.01)
    air = rician_noise(np.zeros((20, 100, 100), np.float32), 12.0, rng)
    assert stats.kstest(air.ravel(), stats.rayleigh(scale=12).cdf).pvalue > 1e-3


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.7])
def test_blur_equals_scipy(rng: np.random.Generator, sigma: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    voxels = rng.normal(100, 30, (9, 31, 40)).astype(np.float32)
    radius = max(1, math.ceil(4 * sigma))
    expected = ndimage.gaussian_filter(voxels.astype(np.float64), (0, sigma, sigma), radius=radius)
    assert np.abs(gaussian_blur(voxels, sigma) - expected).max() < 1e-3


def test_bias_field_has_its_strength_and_a_log_mean_of_zero(rng: np.random.Generator) -> None:
    field = bias_field((30, 60, 50), 0.3, rng, spacing_mm=(4, 3, 5))
    log = np.log(field.astype(np.float64))
    assert np.abs(log).max() == pytest.approx(math.log(1.3), rel=1e-5)
    assert log.mean() == pytest.approx(0, abs=1e-6)


def test_bias_field_does_not_depend_on_the_voxel_size() -> None:
    coarse = bias_field((20, 30, 40), 0.4, np.random.default_rng(4), spacing_mm=(6, 6, 12))
    fine = bias_field((40, 60, 80), 0.4, np.random.default_rng(4), spacing_mm=(3, 3, 6))
    averaged = fine.reshape(20, 2, 30, 2, 40, 2).mean((1, 3, 5))
    assert np.abs(averaged / coarse - 1).max() < 0.02


@pytest.mark.parametrize("cutoff", [1.0, CUTOFF, math.inf])
def test_dose_noise_has_the_variance_of_theory_and_mean_zero(cutoff: float) -> None:
    hu, distance = disc(48)
    rng = np.random.default_rng(7)
    center = low_dose_noise(hu, _SPACING, 2e4, 0, rng, cutoff=cutoff)[:, distance < 8]
    assert center.std() == pytest.approx(expected_sigma_hu(cutoff, 2e4), rel=0.05)
    per_slice = center.mean(axis=1)
    assert abs(per_slice.mean()) < 4 * per_slice.std() / math.sqrt(per_slice.size)


@pytest.mark.parametrize(("height", "least", "most"), [(36, 0.95, 1.05), (12, 0.5, 0.9)])
def test_modulated_current_lowers_the_noise_of_an_ellipse_at_the_same_dose(
    height: float, least: float, most: float
) -> None:
    y, x = (np.mgrid[:100, :100] - 49.5) * _SPACING[0]
    hu = np.where(np.hypot(x / 36, y / height) < 1, 2000, -1000)[None].repeat(10, axis=0)
    plain, modulated = (
        low_dose_noise(hu, _SPACING, 2e4, 0, np.random.default_rng(7), modulation=exponent)
        for exponent in (0.0, 0.5)
    )
    center = np.hypot(x, y) < 6
    assert least < modulated[:, center].std() / plain[:, center].std() < most


@pytest.mark.slow
def test_electronic_noise_adds_its_variance() -> None:
    hu, distance = disc(48)
    inside, photons = distance < 8, 4000.0
    counts = photons * math.exp(-2 * _RADIUS_MM * MU_WATER_PER_MM)
    sigma = math.sqrt(counts)
    quiet = low_dose_noise(hu, _SPACING, photons, 0, np.random.default_rng(3))
    loud = low_dose_noise(hu, _SPACING, photons, sigma, np.random.default_rng(3))
    assert loud[:, inside].var() / quiet[:, inside].var() == pytest.approx(2, rel=0.1)


def test_dose_noise_has_a_ramp_like_spectrum() -> None:
    """Power grows with frequency, less what linear interpolation takes; white noise is flat."""
    hu, _ = disc(48)
    noise = low_dose_noise(hu, _SPACING, 2e4, 0, np.random.default_rng(5), cutoff=math.inf)
    taper = np.outer(np.hanning(32), np.hanning(32))
    power = (np.abs(np.fft.fft2(noise[:, 34:66, 34:66] * taper)) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32)))
    measured, expected = [], []
    for f in (0.08, 0.16, 0.24, 0.32):
        measured.append(power[np.abs(frequency - f) < 0.04].mean())
        expected.append(f * (2 / 3 + math.cos(2 * math.pi * f) / 3))
    shape = np.array(measured) / measured[0] * expected[0]
    assert shape == pytest.approx(np.array(expected), rel=0.15)
    assert power[0, 0] < 0.5 * power.mean()


def test_slices_have_the_same_noise_however_many_follow() -> None:
    hu, _ = disc(40, side=24)
    many = low_dose_noise(hu, _SPACING, 1e4, 3, np.random.default_rng(6))
    few = low_dose_noise(hu[:5], _SPACING, 1e4, 3, np.random.default_rng(6))
    assert np.abs(many[:5] - few).max() < 1e-2
    assert np.abs(many[0] - many[1]).max() > 1


def test_scanners_of_ct_differ_in_the_texture_of_their_noise() -> None:
    hu, distance = disc(6)
    inside = distance < _RADIUS_MM / 2

    def noise(**fields: float) -> Floats:
        scanner = CtScanner(2e4, **fields)
        return scanner.noise(hu, _SPACING, np.random.default_rng(0))[:, inside]

    def across(values: Floats) -> float:
        return float(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1])

    plain = noise()
    assert across(plain) == pytest.approx(0, abs=0.05)
    assert across(noise(neighbor=0.2)) == pytest.approx(0.55, abs=0.1)  # 2·.6·.2 / (.6² + 2·.2²)
    assert noise(smoothed=0.6).std() < 0.7 * plain.std()
    assert noise(cutoff=0.8).std() < 0.6 * plain.std()


def test_a_soft_kernel_blurs_the_anatomy_and_a_sharp_one_does_not() -> None:
    hu, _ = disc(1)
    assert np.array_equal(CtScanner(1e4, cutoff=2.0).shown(hu), hu)
    shown = CtScanner(1e4, cutoff=0.6).shown(hu)
    steps = [float(np.abs(np.diff(image[0], axis=1)).max()) for image in (hu, shown)]
    assert steps[1] < 0.95 * steps[0]


def test_drawn_scanners_repeat_with_the_seed() -> None:
    first, again, other = (CtScanner.draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other
