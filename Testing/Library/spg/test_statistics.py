"""A public prior that takes on a cohort's intensities and textures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.dataset import load_distilled
from MedEnhanceLib.spg.distill import distill_cohort
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.statistics import (
    NUMBERS,
    Statistics,
    imposed,
    mean_over,
    measure,
)


def textured(seed: int, *, coarse: float, bright: float, noise: float) -> Floats:
    """[6, 64, 64] in [0, 1]: a bright disk with waves and noise in air."""
    rng = np.random.default_rng(seed)
    n, j, i = np.indices((6, 64, 64))
    waves = 0.1 * np.sin(j / coarse + n) * np.cos(i / coarse)
    disk = bright + waves + rng.normal(0, noise, n.shape)
    inside = (j - 32) ** 2 + (i - 32) ** 2 < 26**2
    images: Floats = np.where(inside, np.clip(disk, 0.06, 1), 0).astype(np.float32)
    return images


def distance(one: Statistics, other: Statistics) -> tuple[float, float]:
    return (
        float(np.abs(one.levels - other.levels).mean()),
        float(np.abs(one.bands - other.bands).mean()),
    )


def test_images_take_on_the_statistics_of_others() -> None:
    prior = textured(0, coarse=9, bright=0.7, noise=0.005)
    wanted = measure(textured(1, coarse=3, bright=0.4, noise=0.04), "MR")
    before = distance(measure(prior, "MR"), wanted)
    changed = imposed(prior, wanted, "MR")
    after = distance(measure(changed, "MR"), wanted)
    assert after[0] < 0.05 * before[0]
    assert after[1] < 0.3 * before[1]
    assert changed.dtype == np.float32
    assert np.array_equal(changed[prior == 0], prior[prior == 0])
    assert 0 <= changed.min() <= changed.max() <= 1


def test_one_odd_patient_among_five_moves_no_mean_far() -> None:
    usual = [measure(textured(n, coarse=4, bright=0.5, noise=0.02), "MR") for n in range(5)]
    odd = measure(textured(9, coarse=1, bright=0.9, noise=0.2), "MR")
    means = mean_over(usual)
    with_odd = mean_over([*usual[:4], odd])
    assert means.patients == with_odd.patients == 5
    assert distance(means, with_odd)[0] < 0.1 * distance(means, odd)[0]


@pytest.fixture(scope="module")
def made(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set by statistics alone."""
    config = replace(
        DistillConfig.preset("smoke"), method="statistics", device="cpu", images_per_patient=6
    )
    out = tmp_path_factory.mktemp("statistics") / "out"
    return distill_cohort(Cohort.from_folder(people), out, config)


def test_a_set_by_statistics_is_a_set_like_any_other(made: Path) -> None:
    result = load_distilled(made)
    assert result.images.shape == (6, 32, 32)
    assert result.config.method == "statistics"
    published = result.manifest["statistics"]
    assert published["patients"] == result.manifest["patients"]
    assert len(published["intensities"]) + sum(map(len, published["bands"])) == NUMBERS == 101
    page = (made / "README.md").read_text(encoding="utf-8")
    assert "101 numbers" in page
    assert ("lowest and highest" in page) == (result.manifest["patients"] < 5)
    assert "matched" not in page
