"""A public prior that takes on a cohort's intensities and textures, privately on request."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from MedEnhanceLib.cli.main import main
from MedEnhanceLib.errors import ConfigError, DependencyError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.spg import folder as folder_module
from MedEnhanceLib.spg import statistics
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.dataset import load_distilled
from MedEnhanceLib.spg.distill import distill_cohort
from MedEnhanceLib.spg.folder import SECRET, RunFolder
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.statistics import (
    CLIP,
    NUMBERS,
    PROJECTED,
    Statistics,
    clipped_sum,
    imposed,
    mean_over,
    measure,
    noised_mean,
    projected,
)

from .conftest import PEOPLE
from .test_distill import Stop, hashes


def delta_of(epsilon: float, noise: float) -> float:
    """Balle and Wang 2018: exact for one Gaussian whose mean moves by 1."""

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    half, scaled = 1 / (2 * noise), epsilon * noise
    return normal(half - scaled) - math.exp(epsilon) * normal(-half - scaled)


def test_without_the_accountant_it_says_what_to_install(
    cohort: Cohort, private: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(DependencyError, match="needs the package dp-accounting") as caught:
        distill_cohort(cohort, tmp_path / "out", private)
    assert "pip install 'dp-accounting'" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"delta": 1e-6}, "Give both"),
        ({"epsilon": -1}, "epsilon"),
        ({"epsilon": 8, "method": "matching"}, "with the method matching"),
        ({"epsilon": 8, "prior": "representative"}, "does not protect"),
        ({"epsilon": 8, "prior": f"patient:{PEOPLE[1]}"}, "does not protect"),
    ],
)
def test_what_guarantees_nothing_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DistillConfig.from_json(fields)
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_the_command_takes_epsilon_and_delta(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", str(people), str(tmp_path / "out"), "--preset", "smoke", "--device", "cpu"]
    words += ["--held-out", "0", "--json"]
    assert main([*words, "--epsilon", "8", "--delta", "0.4"]) == 2
    assert "δ is 0.4 with 4 patients" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert main([*words, "--epsilon", "8", "--delta", "1e-4"]) == 0
    reported = json.loads(capsys.readouterr().out)
    assert reported["privacy"]["delta"] == 1e-4
    assert "ε = 8" in reported["privacy"]["statement"]


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


def statistics_of(seed: int, **how: float) -> Statistics:
    return measure(textured(seed, **how), "MR")


PUBLIC = statistics_of(0, coarse=9, bright=0.7, noise=0.005)
anybody = st.one_of(
    arrays(np.float64, PROJECTED, elements=st.floats(allow_nan=True, allow_infinity=True)),
    arrays(np.float64, PROJECTED, elements=st.floats(-3, 3)),
)


@given(others=st.lists(anybody, max_size=5), one=anybody, another=anybody)
def test_no_patient_moves_the_sum_by_more_than_the_clip(
    others: list[np.ndarray], one: np.ndarray, another: np.ndarray
) -> None:
    without = clipped_sum(others)
    with_one, with_another = (clipped_sum([*others, who]) for who in (one, another))
    assert np.linalg.norm(with_one - without) <= CLIP * (1 + 1e-9)
    assert np.linalg.norm(with_one - with_another) <= 2 * CLIP * (1 + 1e-9)


def test_noise_is_as_large_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(
        statistics, "shrunk", lambda noised, deviation: seen.append(noised) or noised
    )
    patients = [statistics_of(n, coarse=4, bright=0.65, noise=0.01) for n in (1, 2, 3)]
    rng = np.random.default_rng(5)
    for _ in range(1500):
        noised_mean(patients, PUBLIC, noise_multiplier=4.0, rng=rng)
    noise = np.stack(seen) - clipped_sum([projected(one, PUBLIC) for one in patients]) / 3
    assert noise.std(axis=0) == pytest.approx(np.full(PROJECTED, CLIP * 4.0 / 3), rel=0.06)
    assert np.abs(noise.mean(axis=0)).max() < 0.16
    assert np.abs(np.corrcoef(noise.T) - np.eye(PROJECTED)).max() < 0.1


def test_a_private_set_says_what_it_keeps_and_nothing_else_leaves(
    cohort: Cohort, private: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = RunFolder.secret
    monkeypatch.setattr(RunFolder, "secret", lambda self: seen.append(original(self)) or seen[-1])
    config = replace(private, held_out=0.5)
    out, second = (distill_cohort(cohort, tmp_path / name, config) for name in ("out", "b"))
    assert seen[0] != seen[1]
    assert hashes(out)["images.npy"] != hashes(second)["images.npy"]
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert f"{seen[0]:x}".encode() not in everything
    assert str(seen[0]).encode() not in everything
    assert not (out / "work").exists()

    manifest = load_distilled(out).manifest
    privacy = manifest["privacy"]
    # A replaced patient moves the sum by two clips, one who is left out by one.
    for name, clips in (("epsilon", 2), ("epsilon_left_out", 1)):
        noise = privacy["noise_multiplier"] / clips
        assert delta_of(privacy[name], noise) == pytest.approx(1e-3, rel=1e-6)
        assert delta_of(privacy[name], 0.99 * noise) > 1e-3
    assert privacy["epsilon"] == pytest.approx(8)
    assert privacy["clip"] == 1
    assert "replaced by any other" in privacy["compared"]
    assert "for each of 2 patients, as far as the statistics go" in privacy["statement"]
    page = (out / "README.md").read_text(encoding="utf-8")
    assert privacy["statement"] in page
    assert f"contribute {PROJECTED} numbers" in page
    assert "101" not in page
    assert "data_sha256" not in manifest

    assert not (out / "audit").exists()
    assert (tmp_path / "out-confidential" / "audit.json").exists()
    assert manifest["audit"]["alarm"] is None
    assert "does not protect them" in manifest["audit"]["summary"]


@pytest.mark.slow
def test_patients_reach_the_result_through_the_noise_alone(
    cohort: Cohort, private: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pairs of patients with the same noise, so much that nobody shows in it."""
    monkeypatch.setattr(folder_module, "new_secret", lambda: 7)
    pairs = [
        cohort.only(lambda who, pair=pair: who.id in pair) for pair in (PEOPLE[:2], PEOPLE[2:])
    ]

    def found(epsilon: float, name: str) -> list[Floats]:
        config = replace(private, epsilon=epsilon)
        return [
            load_distilled(distill_cohort(pair, tmp_path / f"{name}{n}", config)).images
            for n, pair in enumerate(pairs)
        ]

    drowned, shown = found(1e-6, "drowned"), found(1e4, "shown")
    assert np.abs(drowned[0] - drowned[1]).max() < 1e-3
    assert np.abs(shown[0] - shown[1]).max() > 0.02


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_the_same_noise(
    cohort: Cohort, private: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as broken, pytest.raises(Stop):
        broken.setattr("MedEnhanceLib.spg.dataset.write_images", stop)
        distill_cohort(cohort, tmp_path / "out", private)
    path = tmp_path / "out" / "work" / SECRET
    assert path.stat().st_mode & 0o077 == 0
    drawn = int(path.read_text(encoding="ascii"), 16)
    resumed = distill_cohort(cohort, tmp_path / "out", private)
    monkeypatch.setattr(folder_module, "new_secret", lambda: drawn)
    whole = distill_cohort(cohort, tmp_path / "whole", private)
    assert hashes(resumed) == hashes(whole)
