"""A simulated scanner says what its noise is: repeated scans have that σ, spectrum and mean."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from MedEnhanceLib.degradation.acquisition import Acquired, MRScanner, ScanKind
from MedEnhanceLib.noise.tissue_blocks import cosines

_SHAPE, _SPACING, _SIGMA = (8, 40, 40), (2.0, 2.0, 3.0), 0.05
_SCANNERS = [
    MRScanner(kind="epi", phase_share=0.75, partial_fourier=0.75, decay=1.0, seed=1),
    MRScanner(kind="2d", phase_axis="i", filter="tukey", taper=0.6, g_factor=0.4, seed=2),
    MRScanner(kind="3d", slice_share=0.7, elliptical=True, filter="hamming", taper=0.8, seed=3),
    MRScanner(kind="2d", coils=4, correlation=0.3, read_share=0.8, seed=4),
]


def body() -> np.ndarray:
    """An ellipse of tissue with soft borders in air."""
    _, j, i = np.mgrid[: _SHAPE[0], -1:1:40j, -1:1:40j]
    shape: np.ndarray = np.clip(4 * (1 - (j / 0.8) ** 2 - (i / 0.9) ** 2), 0, 1)
    return (shape * (1 + 0.1 * np.cos(5 * i))).astype(np.float32)


def scans(scanner: MRScanner, count: int) -> tuple[Acquired, np.ndarray]:
    """What a scanner states of its scan, and repeated scans."""
    rng = np.random.default_rng(5)
    made = [scanner.acquire(body(), _SIGMA, _SPACING, rng) for _ in range(count)]
    return made[0], np.stack([scan.noisy for scan in made])


@pytest.mark.parametrize("scanner", _SCANNERS, ids=lambda scanner: f"{scanner.kind}{scanner.seed}")
def test_repeated_scans_have_the_stated_noise(scanner: MRScanner) -> None:
    stated, repeats = scans(scanner, 60)
    tissue = stated.clean > 0.8
    mean, deviation = repeats.mean(axis=0), repeats.std(axis=0, ddof=1)
    # The map by its large parts: 60 repeats alone spread each voxel by 9 %.
    for half in np.array_split(np.argsort(stated.sigma[tissue]), 2):
        measured, map_of_half = deviation[tissue][half], stated.sigma[tissue][half]
        assert np.mean(measured**2) == pytest.approx(np.mean(map_of_half**2), rel=0.06)
    for part in (tissue, ~tissue):
        assert mean[part].mean() == pytest.approx(stated.mean[part].mean(), rel=0.02)
    blocks = (repeats - mean)[:, :, 12:28, 12:28].reshape(-1, 2, 4, 4, 4, 4, 4)
    power = np.square(blocks.transpose(0, 1, 3, 5, 2, 4, 6).reshape(-1, 64) @ cosines(4).T)
    spectrum = power.mean(axis=0) / power.mean()
    assert stated.spectrum.mean() == pytest.approx(1, rel=1e-5)
    assert spectrum == pytest.approx(stated.spectrum.ravel(), rel=0.15, abs=0.06)


@pytest.mark.parametrize("kind", ["epi", "2d", "3d"])
def test_a_drawn_scanner_survives_json_and_repeats_its_scan(kind: ScanKind) -> None:
    for seed in range(20):
        scanner = MRScanner.draw(np.random.default_rng(seed), kind)
        assert MRScanner.from_json(json.loads(json.dumps(scanner.to_json()))) == scanner
    first, again = scans(scanner, 1)[1], scans(replace(scanner), 1)[1]
    assert np.array_equal(first, again)
    assert np.isfinite(first).all()
    assert first.min() >= 0


def test_a_full_matrix_shows_the_object_and_slices_of_2d_are_independent() -> None:
    stated, _ = scans(MRScanner(kind="2d", phase_rad=0.0, steps=2.0), 1)
    assert stated.clean == pytest.approx(body(), abs=1e-5)
    levels = stated.noisy / (_SIGMA / 2)
    assert levels == pytest.approx(np.round(levels), abs=1e-3)
    assert stated.spectrum == pytest.approx(1, abs=1e-5)
    blurred, _ = scans(MRScanner(kind="epi", phase_share=0.5, filter="hamming", taper=0.9), 1)
    assert np.abs(blurred.clean - body()).max() > 0.1
    # Frequencies across slices stay white, those along phase (j) do not.
    assert np.ptp(blurred.spectrum.mean(axis=(1, 2))) < 1e-5
    assert blurred.spectrum[:, 3].mean() < 0.1 < 1 < blurred.spectrum[:, 0].mean()
