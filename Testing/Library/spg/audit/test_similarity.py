"""Similarity finds the same anatomy through what a copy goes through, and nothing in strangers."""

from __future__ import annotations

import numpy as np
import pytest

from MedEnhanceLib.degrade import gaussian_blur as blur
from MedEnhanceLib.spg.audit.similarity import (
    fingerprints,
    lay_on,
    match,
    rotate,
    shifted,
)

Anatomy = dict[str, np.ndarray]


def score(image: np.ndarray, onto: np.ndarray) -> float:
    found = match(fingerprints(image[None].astype(np.float32)), fingerprints(onto[None]))
    return float(found.score[0, 0])


@pytest.fixture
def anatomy(people: Anatomy) -> np.ndarray:
    return people["train0"][4]


def test_a_copy_in_disguise_is_found_with_its_shift_and_rotation(anatomy: np.ndarray) -> None:
    assert score(anatomy, anatomy) > 0.999
    assert score(blur(2.0 * np.roll(anatomy, (6, -6), (0, 1))[None] + 0.2, 1.5)[0], anatomy) > 0.8
    turned = match(fingerprints(rotate(anatomy[None], 4.0)), fingerprints(anatomy[None]))
    assert turned.score[0, 0] > 0.7
    assert turned.angle_deg[0, 0] == -4
    moved = np.roll(anatomy, (4, -2), (0, 1))[None]
    found = match(fingerprints(moved), fingerprints(anatomy[None]))
    assert found.shift[0, 0].tolist() == [-4, 2]


def test_flat_images_are_like_nothing(anatomy: np.ndarray, rng: np.random.Generator) -> None:
    """Without floors two fields of noise, or a flat image and anything, might score high."""
    flat = np.full_like(anatomy, 0.5)
    noise = (flat + rng.normal(0, 0.002, (2, *flat.shape))).astype(np.float32)
    assert abs(score(flat, anatomy)) < 0.05
    assert score(noise[0], noise[1]) < 0.1
    assert score(noise[0], anatomy) < 0.1


def test_the_fast_correlation_is_the_plain_one(people: Anatomy) -> None:
    """Over the shared part, by two loops over shifts; the floor of empty parts aside."""
    one, other = fingerprints(people["train0"][:1])[0], fingerprints(people["train1"][:1])[0]
    side, best = one.shape[0], -1.0
    for down in range(-3, 4):
        for right in range(-3, 4):
            ours = one[max(0, -down) : side - max(0, down), max(0, -right) : side - max(0, right)]
            theirs = other[max(0, down) : side + min(0, down), max(0, right) : side + min(0, right)]
            best = max(best, (ours * theirs).sum() / np.sqrt((ours**2).sum() * (theirs**2).sum()))
    found = match(one[None], other[None], angles_deg=(0.0,))
    assert found.score[0, 0] == pytest.approx(best, abs=1e-5)


def test_laid_on_its_slice_a_copy_has_its_brightness_and_place(
    anatomy: np.ndarray, people: Anatomy
) -> None:
    moved = 0.2 + 0.5 * shifted(anatomy, np.array([3, -1], np.int32))
    laid = lay_on(moved.astype(np.float32), anatomy, 0.0)
    assert laid.ssim > 0.95
    inner = (slice(6, -6), slice(6, -6))
    assert np.abs(laid.image - anatomy)[inner].max() < 0.02
    stranger, empty = people["train1"][4], np.zeros_like(anatomy)
    assert lay_on(anatomy, stranger, 0.0).ssim < 0.5
    assert lay_on(empty, empty, 0.0).ssim == 0
