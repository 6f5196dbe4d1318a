"""Synthetic anatomy: bodies that nobody else has, alike from slice to slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from MedEnhanceLib.core.imaging import gaussian_blur as blur
from MedEnhanceLib.training.spg.audit import Audited, copies

SIDE = 48
GROUPS = ("train", "held")
Anatomy = dict[str, np.ndarray]
Make = Callable[..., Audited]


def body(seed: int, slices: int = 10) -> np.ndarray:
    """[slices, 48, 48]: an oval with organs, fat and vessels of its own, and a little noise."""
    rng = np.random.default_rng([51, seed])
    row, column = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    height, width = rng.uniform(0.55, 0.9, 2)
    angle = np.arctan2(row, column)
    bulges = sum(rng.normal(0, 0.09) * np.cos(n * angle + rng.uniform(0, 6)) for n in range(2, 6))
    radius = np.hypot(row / height, column / width) * (1 + bulges)
    fat = rng.uniform(0.7, 0.95)
    ends = blur(rng.standard_normal((2, SIDE, SIDE)).astype(np.float32), 1.5)
    ends /= ends.std()
    organs = [
        (*rng.uniform(-0.4, 0.4, 2), *rng.uniform(0.1, 0.3, 2), rng.uniform(-0.3, 0.3))
        for _ in range(5)
    ]
    volume = []
    for height_in_body in np.linspace(0, 1, slices):
        tissue = 0.45 + 0.4 * (radius > fat)
        for y, x, b, a, level in organs:
            x = x + 0.1 * height_in_body
            tissue = tissue + level * (np.hypot((row - y) / b, (column - x) / a) < 1)
        texture = (1 - height_in_body) * ends[0] + height_in_body * ends[1]
        image = (tissue + 0.12 * texture) * (radius < 1)
        volume.append(image + rng.normal(0, 0.01, image.shape))
    return np.clip(np.array(volume), 0, 1).astype(np.float32)


def smooth_images(seed: int, count: int = 12) -> np.ndarray:
    """[count, 48, 48]: blobs that are nobody's."""
    rng = np.random.default_rng([52, seed])
    blobs = blur(rng.standard_normal((count, SIDE, SIDE)).astype(np.float32), 3.0)
    return np.clip(0.5 + 0.15 * blobs / blobs.std(), 0, 1).astype(np.float32)


@pytest.fixture(scope="package", autouse=True)
def one_plant() -> Iterator[None]:
    """The search for copies is tried on one planted copy, not on several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "PLANTS", 1)
        yield


@pytest.fixture(scope="session")
def people() -> Anatomy:
    """Five people to distill and five to hold out, and one more, "outside"."""
    names = [*(f"{start}{n}" for start in GROUPS for n in range(5)), "outside"]
    return {name: body(seed) for seed, name in enumerate(names)}


def groups(people: Anatomy, count: int = 5) -> list[Anatomy]:
    """The first people to distill and the first to hold out."""
    return [{f"{start}{n}": people[f"{start}{n}"] for n in range(count)} for start in GROUPS]


@pytest.fixture
def audited(people: Anatomy) -> Make:
    """Makes what is audited: these distilled images, and those people."""

    def make(distilled: np.ndarray, **options: object) -> Audited:
        return Audited(np.ascontiguousarray(distilled, np.float32), *groups(people), **options)

    return make


@pytest.fixture
def of_the_prior(people: Anatomy) -> np.ndarray:
    """[12, 48, 48]: what a clean distillation gives: an outside patient's slices, changed."""
    base = people["outside"][np.arange(12) % 10]
    return np.clip(base + 0.3 * (smooth_images(3) - 0.5), 0, 1).astype(np.float32)
