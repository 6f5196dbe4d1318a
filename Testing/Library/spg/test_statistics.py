"""The cheap way: a public prior that takes on a cohort's intensities and textures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.spg.config import DistillConfig, DPConfig, ImageConfig
from MedEnhanceLib.spg.dataset import load_distilled
from MedEnhanceLib.spg.distill import distill_cohort
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.statistics import NUMBERS, Statistics, imposed, mean_over, measure

SCALING = ImageConfig()


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
    wanted = measure(textured(1, coarse=3, bright=0.4, noise=0.04), "MR", SCALING)
    before = distance(measure(prior, "MR", SCALING), wanted)
    changed = imposed(prior, wanted, "MR", SCALING)
    after = distance(measure(changed, "MR", SCALING), wanted)
    assert after[0] < 0.05 * before[0]
    assert after[1] < 0.3 * before[1]
    assert changed.dtype == np.float32
    assert 0 <= changed.min() <= changed.max() <= 1


def test_what_shows_nothing_stays_as_it_is() -> None:
    prior = textured(0, coarse=9, bright=0.7, noise=0.005)
    wanted = measure(textured(1, coarse=3, bright=0.4, noise=0.04), "MR", SCALING)
    changed = imposed(prior, wanted, "MR", SCALING)
    assert np.array_equal(changed[prior == 0], prior[prior == 0])


def test_ones_own_statistics_change_next_to_nothing() -> None:
    prior = textured(0, coarse=9, bright=0.7, noise=0.02)
    changed = imposed(prior, measure(prior, "MR", SCALING), "MR", SCALING)
    assert np.abs(changed - prior).max() < 0.02


def test_one_odd_patient_among_five_moves_no_mean_far() -> None:
    usual = [
        measure(textured(n, coarse=4, bright=0.5, noise=0.02), "MR", SCALING) for n in range(5)
    ]
    odd = measure(textured(9, coarse=1, bright=0.9, noise=0.2), "MR", SCALING)
    means = mean_over(usual)
    with_odd = mean_over([*usual[:4], odd])
    assert means.patients == with_odd.patients == 5
    assert distance(means, with_odd)[0] < 0.1 * distance(means, odd)[0]


def test_the_record_holds_as_many_numbers_as_are_stated() -> None:
    record = measure(textured(0, coarse=4, bright=0.5, noise=0.02), "MR", SCALING).record()
    assert NUMBERS == 101
    assert len(record["intensities"]) + sum(map(len, record["bands"])) == NUMBERS


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
    assert result.manifest["statistics"]["patients"] == result.manifest["patients"]
    prior = load_distilled(made / "prior").images
    assert not np.array_equal(result.images, prior)
    page = (made / "README.md").read_text(encoding="utf-8")
    assert "101 numbers" in page
    assert "matched" not in page


def test_no_number_is_of_one_patient_alone(made: Path) -> None:
    text = json.dumps(json.loads((made / "manifest.json").read_text()))
    assert "patient-" not in text
    assert load_distilled(made).manifest["statistics"]["patients"] > 1


@pytest.mark.slow
def test_equal_runs_give_equal_bytes(made: Path, people: Path, tmp_path: Path) -> None:
    config = load_distilled(made).config
    other = distill_cohort(
        Cohort.from_folder(people), tmp_path / "out", replace(config, device="cpu")
    )
    for name in ("images.npy", "manifest.json"):
        assert (other / name).read_bytes() == (made / name).read_bytes()


def test_differential_privacy_is_refused_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match="statistics") as caught:
        replace(DistillConfig(), method="statistics", dp=DPConfig(epsilon=8.0))
    assert "matching" in caught.value.hint
