"""Volumes that take on a cohort's intensities, textures and spacing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.noise.estimate import measure_noise
from MedEnhanceLib.synthetic import synthetic_volume
from MedEnhanceLib.training.spg.cohort import Cohort
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.dataset import STORED, load_distilled
from MedEnhanceLib.training.spg.distillation import distill_cohort
from MedEnhanceLib.training.spg.images import windowed
from MedEnhanceLib.training.spg.prepare import DESCRIPTIONS
from MedEnhanceLib.training.spg.readme import not_audited, sheet
from MedEnhanceLib.training.spg.statistics import (
    Statistics,
    count_of_numbers,
    imposed,
    mean_over,
    measure,
    spacings,
)

from .conftest import write_cohort


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
        float(np.abs(one.levels - other.levels).sum()) / max(1, one.levels.size),
        float(np.abs(one.bands - other.bands).mean()),
    )


def test_images_take_on_the_statistics_of_others() -> None:
    prior = textured(0, coarse=9, bright=0.7, noise=0.005)
    wanted = measure([textured(1, coarse=3, bright=0.4, noise=0.04)], "MR")
    before = distance(measure([prior], "MR"), wanted)
    changed = imposed(prior[None], wanted, "MR")[0]
    after = distance(measure([changed], "MR"), wanted)
    assert after[0] < 0.05 * before[0]
    assert after[1] < 0.3 * before[1]
    assert changed.dtype == np.float32
    assert np.array_equal(changed[prior == 0], prior[prior == 0])
    assert 0 <= changed.min() <= changed.max() <= 1


@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_noise_of_the_scans_is_no_texture(noise: float) -> None:
    """Bands of noisy scans come near those of clean ones, where σ is known."""
    clean, noisy = (textured(2, coarse=5, bright=0.5, noise=sigma) for sigma in (0.0, noise))
    texture = measure([clean], "MR")
    known = measure_noise(noisy, modality="MR").at_level(noise)
    without = np.abs(measure([noisy], "MR", [known]).bands - texture.bands)[0]
    with_it = np.abs(measure([noisy], "MR").bands - texture.bands)[0]
    assert without[3:-3].mean() < 0.5 * with_it[3:-3].mean()
    quiet = measure_noise(clean, modality="MR").at_level(1e-9)
    assert distance(measure([clean], "MR", [quiet]), texture)[1] < 1e-6


def test_textures_between_fat_and_muscle_are_not_torn_in_ct() -> None:
    """The texture of a set stays as smooth as it was drawn, whatever the cohort's intensities."""
    fat_and_muscle = np.where(textured(3, coarse=20, bright=0.5, noise=0) > 0.5, 0.52, 0.44)
    smooth = textured(4, coarse=6, bright=0.48, noise=0.0) * np.float32(0.2) + np.float32(0.4)
    cohort = measure([fat_and_muscle.astype(np.float32)], "CT")
    changed = imposed(smooth[None], cohort, "CT")[0]
    steps = [np.abs(np.diff(images[:, 20:44, 20:44])).max() for images in (smooth, changed)]
    assert steps[1] < 2 * steps[0]


def test_one_odd_patient_among_five_moves_no_mean_far() -> None:
    usual = [measure([textured(n, coarse=4, bright=0.5, noise=0.02)], "MR") for n in range(5)]
    odd = measure([textured(9, coarse=1, bright=0.9, noise=0.2)], "MR")
    means = mean_over(usual)
    with_odd = mean_over([*usual[:4], odd])
    assert means.patients == with_odd.patients == 5
    assert distance(means, with_odd)[0] < 0.1 * distance(means, odd)[0]


@pytest.fixture(scope="module", params=["MR", "CT"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set by statistics alone, of synthetic volumes."""
    folder = tmp_path_factory.mktemp("statistics")
    cohort = Cohort.from_folder(write_cohort(folder / "people", request.param))
    return distill_cohort(cohort, folder / "out", DistillConfig.preset("smoke"))


def test_a_set_has_the_statistics_and_the_spacing_of_the_cohort(made: Path) -> None:
    result = load_distilled(made)
    volumes = list(result.volumes())
    assert [volume.shape for volume in volumes] == [(12, 40, 40)] * 4
    assert all(volume.geometry.spacing == (3.0, 3.0, 5.0) for volume in volumes)
    assert {volume.modality for volume in volumes} == {result.modality}
    published = result.manifest["statistics"]
    numbers = count_of_numbers(result.modality)
    assert numbers == {"MR": 101, "CT": 68}[result.modality]
    assert published["patients"] == result.manifest["patients"] == 4
    assert len(published["intensities"]) + sum(map(len, published["bands"])) == numbers
    low, high = STORED[result.modality]
    scaled = [(volume.voxels.astype(np.float32) - low) / (high - low) for volume in volumes]
    theirs = Statistics(np.array(published["intensities"]), np.array(published["bands"]))
    ours = measure([np.concatenate(scaled)], result.modality)
    drawn = synthetic_volume(result.modality, 0, shape=(12, 40, 40), spacing=(5.0, 3.0, 3.0))
    before = distance(measure([windowed(drawn)], result.modality), theirs)
    assert result.modality == "CT" or distance(ours, theirs)[0] < 0.2 * before[0]
    assert distance(ours, theirs)[1] < before[1]


def test_a_set_by_statistics_says_first_that_few_patients_show_in_it(made: Path) -> None:
    page = (made / "PRIVACY.md").read_text(encoding="utf-8")
    first = next(line for line in page.splitlines() if line.startswith("**"))
    assert first.startswith("**No audit was run, because no volume was made from a patient's")
    assert "Averages over only 4 patients tell much about each of them" in first
    manifest = load_distilled(made).manifest
    assert [not_audited(count)["weight"] for count in (6, 7)] == ["warning", "info"]
    many = sheet(manifest | {"patients": 7, "audit": not_audited(7)})
    assert "images. The set has averages over 7 patients.**" in many
    assert "averages? | No; " in page and "averages? | Yes; " in many
    assert "the lowest and the highest value" in many and "the highest value" not in page
    assert "tell much" not in many and "Decide as on a table of averages" in many
    assert f"{count_of_numbers(load_distilled(made).modality)} numbers" in page
    assert f"start from? | {DESCRIPTIONS['synthetic']} |" in page
    assert "held out to test the set: nobody" in page and "No attack was run" in page
    assert "5 × 3 mm" in page
    assert "steps, each to make" not in page
    assert len(page.splitlines()) < 50, "it is one page"


def test_spacings_are_rounded_quartiles_of_the_cohort() -> None:
    patients = [(5.1234, 0.91234), (3.2, 0.5), (4.0, 0.7), (6.0, 1.0), (3.5, 0.6)]
    found = spacings(patients, 4)
    assert found == [(4.0, 0.7), (3.5, 0.6), (5.1, 0.91), (4.0, 0.7)]
