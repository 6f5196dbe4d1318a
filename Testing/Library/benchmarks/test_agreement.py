"""The estimate of errors without a reference, against errors that are known."""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from MedEnhanceLib.degrade import gaussian_blur
from MedEnhanceLib.nets.noise import NoiseEstimate

SHAPE = (16, 64, 64)
SIGMA = 5.0
SEEDS = range(4)


@pytest.fixture(scope="module")
def agreement() -> ModuleType:
    return importlib.import_module("_agreement")


def soft_spectrum() -> npt.NDArray[np.float32]:
    """Noise of a soft kernel: less at high frequencies, equal across slices."""
    along = np.array([1.0, 0.6, 0.2, 0.05])
    spectrum = np.ones((4, 1, 1)) * along[:, None] * along
    return (spectrum / spectrum.mean()).astype(np.float32)


def scene() -> npt.NDArray[np.float32]:
    """A ball brighter than what surrounds it."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    return (100 + 40 * (k**2 + j**2 + i**2 < 0.4)).astype(np.float32)


def estimate_with(spectrum: npt.NDArray[np.float32]) -> NoiseEstimate:
    return NoiseEstimate(
        level=SIGMA, sigma=np.full((1, 1, 1), SIGMA, np.float32), spectrum=spectrum,
        confidence=1.0, reason="", rician=False, air=None, contrast=20.0, shape=SHAPE,
        cell=(16.0, 64.0, 64.0),
    )  # fmt: skip


def errors(
    agreement: ModuleType, noise: NoiseEstimate, sigma: float = SIGMA
) -> dict[float, tuple[float, float]]:
    """Of blurs of 0, 2 and 4 pixels: the estimated and the true mean square error."""
    clean, tissue = scene(), np.ones(SHAPE, np.bool_)
    scan = clean + np.float32(SIGMA) * agreement.colored(SHAPE, soft_spectrum(), 1000)
    halves = [
        agreement.split(scan, noise, np.full(SHAPE, sigma, np.float32), tissue, s) for s in SEEDS
    ]
    found = {}
    for width in (0.0, 2.0, 4.0):
        results = [gaussian_blur(half.first, width) for half in halves]
        guessed = [half.error_of(result) for half, result in zip(halves, results, strict=True)]
        true = [float(((result - clean) ** 2).mean()) for result in results]
        found[width] = float(np.mean(guessed)), float(np.mean(true))
    return found


def test_the_error_against_the_clean_scan_is_found_without_it(agreement: ModuleType) -> None:
    for guessed, true in errors(agreement, estimate_with(soft_spectrum())).values():
        assert guessed == pytest.approx(true, abs=0.03 * SIGMA**2)


def test_noise_taken_for_white_misjudges_a_filter(agreement: ModuleType) -> None:
    white = estimate_with(np.ones((4, 4, 4), np.float32))
    guessed, true = errors(agreement, white)[2.0]
    assert abs(guessed - true) > 0.2 * SIGMA**2


def test_a_wrong_level_shifts_what_removes_the_noise_alike(agreement: ModuleType) -> None:
    found = errors(agreement, estimate_with(soft_spectrum()), 1.1 * SIGMA)
    shift = {width: (guessed - true) / SIGMA**2 for width, (guessed, true) in found.items()}
    assert shift[2.0] < -0.05 and shift[4.0] < -0.05
    assert shift[2.0] == pytest.approx(shift[4.0], abs=0.1)
    assert shift[0.0] > 0.1  # what passes all of the noise is shifted the other way


def test_magnitudes_stay_positive_and_what_is_cut_off_stays(agreement: ModuleType) -> None:
    scan = np.where(scene() > 120, 3, 0).astype(np.float32)  # weaker than the noise
    half = agreement.split(
        scan, replace(estimate_with(soft_spectrum()), rician=True),
        np.full(SHAPE, SIGMA, np.float32), scan > 0, 0,
    )  # fmt: skip
    assert half.first.min() >= 0
    assert np.array_equal(half.first[scan == 0], scan[scan == 0])


@pytest.mark.parametrize("spectrum", [soft_spectrum(), np.ones((4, 4, 4), np.float32)])
def test_noise_is_made_with_the_wanted_spectrum(agreement: ModuleType, spectrum: Any) -> None:
    field = agreement.colored((32, 96, 96), spectrum, 7)
    assert field.std() == pytest.approx(1, abs=0.01)
    carries = spectrum > 0.05
    found = agreement.spectrum_of(field)
    assert np.abs(found / spectrum - 1)[carries].mean() < 0.08


def test_a_known_truth_is_cropped_where_the_noisy_volume_is() -> None:
    scans, cases = importlib.import_module("real_scans"), importlib.import_module("noise")
    k, j, i = np.ogrid[:24, :200, :200]
    ball = (k - 12) ** 2 * 16 + (j - 100) ** 2 + (i - 100) ** 2 < 40**2
    # A faint rim is tissue with noise, and not without it.
    rim = ((j - 100) ** 2 + (i - 100) ** 2 < 60**2) & (j > 100) & ~ball
    clean = (100.0 * ball + 20.0 * rim).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 10, clean.shape).astype(np.float32)
    case = cases.Case(
        "MR Gaussian", "made", "10 %", "MR", clean + noise, noise, ball, (1.0, 1.0, 1.0), clean
    )
    scan = scans.known_scan(case)
    assert (scan.volume.voxels - scan.clean).std() == pytest.approx(10, rel=0.02)
