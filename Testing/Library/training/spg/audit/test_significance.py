"""The audit's statistics against known ones."""

from __future__ import annotations

from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest

from MedEnhanceLib.training.spg.audit.significance import (
    auc,
    auc_interval,
    rank_sum_p,
    smallest_detectable_auc,
    smallest_rank_sum_p,
    tarone_level,
)


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
