"""The statistics of the audit, exact for small cohorts; numpy alone.

The unit is always the patient: slices of one patient are correlated, and counting them would
overstate the certainty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, Longs

#: Largest probability of an alarm without a leak, over all attacks.
ALPHA = 0.05
_NORMAL = NormalDist()
#: Two-sided 95 %.
_Z95 = _NORMAL.inv_cdf(0.975)
#: Patients up to which the distribution of the rank sum is exact; normal above.
_EXACT_UP_TO = 60
#: Probability with which a detectable leak is found: "4 of 5" in reports.
POWER = 0.8


def auc(positives: Sequence[float] | Doubles, negatives: Sequence[float] | Doubles) -> float:
    """Compute the share of pairs with the positive above the negative, 0 to 1; ties count 0.5."""
    above, below = np.asarray(positives, float)[:, None], np.asarray(negatives, float)[None]
    return float(np.mean((above > below) + 0.5 * (above == below)))


def auc_interval(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """Compute the 95 % score interval of an AUC: both limits, 0 to 1.

    Valid for a handful of patients and at AUC 1, where DeLong's variance and a bootstrap over
    patients are both zero. Source: Newcombe, Stat. Med. 25 (2006) 559, method 5.

    Args:
        value: the AUC, 0 to 1.
        positives: number of patients in training, at least 1.
        negatives: number of patients held out, at least 1.
    """

    def is_outside(candidate: float) -> bool:
        spread = _Z95 * math.sqrt(_auc_variance(candidate, positives, negatives))
        return abs(value - candidate) > spread

    low = _bisect(lambda x: not is_outside(x), 0.0, value) if value > 0 else 0.0
    high = 1 - _bisect(lambda x: not is_outside(1 - x), 0.0, 1 - value) if value < 1 else 1.0
    return low, high


def smallest_detectable_auc(positives: int, negatives: int, level: float) -> float | None:
    """Compute the AUC that a one-sided rank-sum test finds with 80 % probability.

    Normal approximation with the variances of Newcombe's method 5.

    Args:
        positives: number of patients in training.
        negatives: number of patients held out.
        level: of the test, 0 to 1.
    Returns None if no result of as few patients reaches the level.
    """
    if smallest_rank_sum_p(positives, negatives) > level:
        return None
    null = math.sqrt((positives + negatives + 1) / (12 * positives * negatives))
    bar = 0.5 + _NORMAL.inv_cdf(1 - level) * null

    def is_found(value: float) -> bool:
        spread = math.sqrt(_auc_variance(value, positives, negatives))
        return value - _NORMAL.inv_cdf(POWER) * spread >= bar

    return _bisect(is_found, 0.5, 1.0)


def _auc_variance(value: float, positives: int, negatives: int) -> float:
    half = (positives + negatives) / 2 - 1
    shape = 1 + half * (1 - value) / (2 - value) + half * value / (1 + value)
    return value * (1 - value) * shape / (positives * negatives)


def rank_sum_p(positives: Sequence[float] | Doubles, negatives: Sequence[float] | Doubles) -> float:
    """Compute the one-sided p of the rank sum: the share of splits that rank as high.

    Exact, with ties, for up to 60 patients; normal above. Valid for any scores if patients were
    assigned to the groups at random.
    """
    sample = np.asarray(positives, float)
    everyone = np.concatenate([sample, np.asarray(negatives, float)])
    ranks = _doubled_ranks(everyone)
    size, total = sample.size, everyone.size
    reached = int(ranks[:size].sum())
    if total <= _EXACT_UP_TO:
        counts = _subset_sums(ranks, size)
        return float(counts[reached:].sum() / counts.sum())
    mean = size * ranks.mean()
    variance = size * (total - size) / (total - 1) * ranks.var()
    return 1 - _NORMAL.cdf((reached - 1 - mean) / math.sqrt(variance)) if variance > 0 else 1.0


def smallest_rank_sum_p(positives: int, negatives: int) -> float:
    """Compute the p of `rank_sum_p` if every positive is above every negative."""
    return 1 / math.comb(positives + negatives, positives)


def _doubled_ranks(values: Doubles) -> Longs:
    """Compute twice the mid-ranks: whole numbers, ties or not."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, "left")
    upto = np.searchsorted(ordered, values, "right")
    return np.asarray(below + upto + 1, np.int64)


def _subset_sums(ranks: Longs, size: int) -> Doubles:
    """Count the subsets of this size with each sum."""
    sums = np.zeros((size + 1, int(np.sort(ranks)[::-1][:size].sum()) + 1))
    sums[0, 0] = 1
    for rank in ranks:
        for count in range(size, 0, -1):
            sums[count, rank:] += sums[count - 1, : sums.shape[1] - rank]
    counts: Doubles = sums[size]
    return counts


def tarone_level(smallest: Sequence[float], alpha: float) -> float:
    """Compute the level of each of several tests for a family-wise error rate of at most alpha.

    smallest: the smallest possible p of each test; tests that cannot reach their level cost the
    others nothing. Source: Tarone, Biometrics 46 (1990) 515: Bonferroni for discrete tests.
    """
    for divisor in range(1, len(smallest) + 1):
        if sum(p <= alpha / divisor for p in smallest) <= divisor:
            return alpha / divisor
    return alpha / max(1, len(smallest))


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Find the smallest value in [low, high] from which on a condition holds."""
    for _ in range(100):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
