"""Shadow distillations alarm at one that leaks; the audit's statistics against known ones."""

from __future__ import annotations

from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit import Audited, membership
from MedEnhanceLib.spg.audit.membership import (
    Shadows,
    distill_shadows,
    lira_finding,
    shadow_finding,
)
from MedEnhanceLib.spg.audit.nearest import Gallery
from MedEnhanceLib.spg.audit.significance import (
    auc,
    auc_interval,
    rank_sum_p,
    smallest_detectable_auc,
    smallest_rank_sum_p,
    tarone_level,
)

from .conftest import Anatomy, Make, forgets

LEVEL = 0.01


def remembers(slices: Anatomy, seed: int) -> np.ndarray:
    """A faint slice of each patient over what is common to all."""
    rng = np.random.default_rng(seed)
    chosen = np.array([s[rng.integers(len(s))] for s in slices.values()])
    return (0.5 * chosen + 0.5 * np.mean([s[4] for s in slices.values()], axis=0)).astype("f4")


def shadows_of(it: Audited, redistill: object, pairs: int = 4) -> Shadows:
    return distill_shadows(it, Gallery(it.patients), redistill, pairs, Monitor())


def test_only_a_distillation_that_remembers_is_found(people: Anatomy, audited: Make) -> None:
    used = {n: s for n, s in people.items() if n.startswith("train")}
    for redistill, is_found in ((remembers, True), (forgets, False)):
        real = redistill(used, 99)
        it = audited(real)
        shadows = shadows_of(it, redistill)
        by_shadows = shadow_finding(shadows, LEVEL)
        by_lira = lira_finding(it, Gallery(it.patients).nearest(real), shadows, LEVEL)
        assert (by_shadows.alarm, by_lira.alarm) == (is_found, is_found)
        assert (by_shadows.measured["right"] > 0.8) == is_found
        assert (by_lira.measured["auc"] > 0.95) == is_found


def test_halves_are_distilled_with_their_complements_and_one_seed(audited: Make) -> None:
    seen: list[tuple[frozenset[str], int]] = []

    def redistill(slices: Anatomy, seed: int) -> np.ndarray:
        seen.append((frozenset(slices), seed))
        return forgets(slices, seed)

    it = audited(forgets(dict.fromkeys(range(5)), 1))
    shadows_of(it, redistill, 2)
    assert len(seen) == 4
    for (one, seed), (other, again) in zip(seen[::2], seen[1::2], strict=True):
        assert seed == again
        assert not one & other
        assert one | other == set(it.patients)
        assert len(one) == 5
    assert seen[0][0] not in (seen[2][0], seen[3][0])


def random_shadows(
    effect: float, pairs: int, rng: np.random.Generator, people: int = 10
) -> Shadows:
    first, second = rng.normal(0, 1, (2, pairs, people))
    is_first = rng.permuted(np.tile(np.arange(people) < people // 2, (pairs, 1)), axis=1)
    return Shadows(first + effect * is_first, second + effect * ~is_first, is_first)


def test_without_an_effect_alarms_are_as_rare_as_the_level(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "_PERMUTATIONS", 99)
    p = [shadow_finding(random_shadows(0, 2, rng), LEVEL).p for _ in range(300)]
    assert np.mean(np.array(p) <= 0.1) < 0.16


def brute_force_p(positives: list[float], negatives: list[float]) -> float:
    everyone = np.array(positives + negatives)
    ranks = np.array([np.sum(everyone < v) + 0.5 * np.sum(everyone == v) for v in everyone])
    reached = ranks[: len(positives)].sum()
    sums = [ranks[list(c)].sum() for c in combinations(range(len(everyone)), len(positives))]
    return float(np.mean(np.array(sums) >= reached - 1e-9))


@pytest.mark.parametrize("values", [(9, 4, 7, 1, 3, 2, 0), (1, 1, 0, 1, 0, 0, 0), (2,) * 7])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_rank_sum_test_counts_every_split_ties_too(values: tuple[int, ...], size: int) -> None:
    ours, theirs = [float(v) for v in values[:size]], [float(v) for v in values[size:]]
    assert rank_sum_p(ours, theirs) == pytest.approx(brute_force_p(ours, theirs))
    assert rank_sum_p([5, 6, 7, 8, 9], [0, 1, 2, 3, 4]) == smallest_rank_sum_p(5, 5)


def test_above_sixty_patients_the_normal_law_takes_over_smoothly(rng: np.random.Generator) -> None:
    ours, theirs = rng.normal(0.4, 1, 30), rng.normal(0, 1, 30)
    exact = rank_sum_p(ours, theirs)
    assert 0.3 * exact < rank_sum_p([*ours, 0.0], [*theirs, 0.0]) < 3 * exact


@pytest.mark.parametrize(("distance", "true"), [(0.0, 0.5), (1.0, 0.760), (2.0, 0.921)])
@pytest.mark.parametrize("patients", [5, 12])
def test_the_interval_holds_the_true_auc_95_times_in_100(
    distance: float, true: float, patients: int, rng: np.random.Generator
) -> None:
    """Two normal distributions: AUC = Φ(distance / √2)."""
    inside = 0
    for _ in range(600):
        low, high = auc_interval(
            auc(rng.normal(distance, 1, patients), rng.normal(0, 1, patients)), patients, patients
        )
        inside += low <= true <= high
    assert inside / 600 > 0.93


def test_the_detectable_auc_is_found_about_four_times_in_five(rng: np.random.Generator) -> None:
    value = smallest_detectable_auc(12, 12, 0.01)
    assert value is not None
    distance = np.sqrt(2) * NormalDist().inv_cdf(value)
    samples = (rng.normal([[distance], [0]], 1, (2, 12)) for _ in range(600))
    assert 0.7 < np.mean([rank_sum_p(*pair) <= 0.01 for pair in samples]) < 0.92


def test_all_tests_together_alarm_falsely_with_at_most_alpha(rng: np.random.Generator) -> None:
    """Six tests whose p come in steps, as on few patients."""
    smallest = [0.0, 1 / 252, 1 / 252, 1 / 120, 1 / 24, 1e-4]
    level = tarone_level(smallest, 0.05)
    assert tarone_level([0.0, 0.2, 0.2], 0.05) == 0.05  # what cannot alarm costs nothing
    grid = np.array([max(p, 1e-4) for p in smallest])
    p = np.minimum(1, np.ceil(rng.uniform(size=(20_000, 6)) / grid) * grid)
    assert np.mean((p <= level).any(axis=1)) <= 0.05
