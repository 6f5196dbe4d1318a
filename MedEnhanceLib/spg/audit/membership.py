"""Membership inference with shadow distillations: does a set tell who went into it?

Random halves of all patients are distilled again, each half and its complement. Who is in is drawn
by the audit itself, so that the first question has an exact answer on few patients: of the two sets
of a pair, is the one that holds a patient the nearer to them? Every patient in every pair is one
trial, and more shadows find smaller leaks. The second question is about the real set: by each
patient's own nearness to shadows with and without them, does it look as if it held them?

Source: LiRA, Carlini et al., IEEE S&P 2022 (arXiv 2112.03570), with one variance for all patients
as there for few shadows, and one effect for all; the pairs and the exact tests are our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit.audited import Audited, Images, check_redistilled
from MedEnhanceLib.spg.audit.config import AuditConfig
from MedEnhanceLib.spg.audit.findings import Finding
from MedEnhanceLib.spg.audit.neighbours import Gallery, Nearest, compare_groups
from MedEnhanceLib.spg.audit.statistics import (
    permutation_p,
    rate_interval,
    smallest_detectable_rate,
)

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
#: Slices by patient and a seed give distilled images [N, H, W].
Redistill = Callable[[dict[str, Images], int], Images]

#: Below this, shadows do not differ at all, and a ratio of likelihoods has no scale.
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class Shadows:
    """What the shadow distillations showed.

    first, second: [pairs, C], each patient's nearness (Fisher's scale) to the one set of a pair
    and to the other. is_first: [pairs, C], whether the patient went into the first one.
    """

    first: Doubles
    second: Doubles
    is_first: Flags

    @property
    def inside(self) -> Doubles:
        """Nearness to the sets that hold the patient."""
        return np.where(self.is_first, self.first, self.second)

    @property
    def outside(self) -> Doubles:
        """Nearness to the sets that do not."""
        return np.where(self.is_first, self.second, self.first)

    def log_ratio(self, nearness: Doubles) -> Doubles:
        """For a nearness [C] to another set, the log of the likelihoods, held to not held."""
        inside, outside = self.inside, self.outside
        effect = float((inside - outside).mean())
        centre = (inside.mean(axis=0) + outside.mean(axis=0)) / 2
        left = np.concatenate([inside - centre - effect / 2, outside - centre + effect / 2])
        spread = max(_LEAST_SPREAD, float(left.std()))
        ratio: Doubles = effect * (nearness - centre) / spread**2
        return ratio


def shadow_count(config: AuditConfig) -> int:
    """Pairs of shadow distillations."""
    return config.shadows // 2


def smallest_shadow_p(patients: int, config: AuditConfig) -> float:
    """The best p that so many pairs could give."""
    halves = math.comb(patients, patients // 2)
    return max(float(halves) ** -shadow_count(config), 1 / (config.permutations + 1))


def distil_shadows(
    audited: Audited,
    gallery: Gallery,
    redistill: Redistill,
    config: AuditConfig,
    monitor: Monitor,
) -> Shadows:
    """Distil random halves of the patients, each with its complement and one seed for both."""
    rng = np.random.default_rng([config.seed, 1])
    names = list(audited.patients)
    pairs = shadow_count(config)
    first, second, drawn = [], [], []
    for pair in range(pairs):
        is_first = _halved(len(names), rng)
        sets = []
        for number, chosen in enumerate((is_first, ~is_first)):
            monitor.progress((pair + number / 2) / pairs, "shadow distillations")
            members = {n: audited.patients[n] for n, c in zip(names, chosen, strict=True) if c}
            images = check_redistilled(redistill(members, config.seed + 1 + pair), audited)
            sets.append(gallery.nearest(images).z.max(axis=0))
        first.append(sets[0])
        second.append(sets[1])
        drawn.append(is_first)
    return Shadows(np.array(first), np.array(second), np.array(drawn))


def shadow_finding(shadows: Shadows, config: AuditConfig, level: float) -> Finding:
    """Whether sets are nearer to those who went into them."""
    pairs, patients = shadows.is_first.shape
    trials = pairs * patients
    differences = shadows.inside - shadows.outside
    right = float(np.mean((differences > 0) + 0.5 * (differences == 0)))
    smallest_p = smallest_shadow_p(patients, config)
    detectable = smallest_detectable_rate(trials, 0.5, level) if smallest_p <= level else None
    return Finding(
        attack="shadows",
        title="Can one tell which of two sets holds a patient? (shadow distillations)",
        sentence=(
            f"Right in {right:.0%} of {trials} trials ({patients} patients in {pairs} pairs of "
            "sets); guessing is right in 50 %."
        ),
        p=_shadow_p(shadows, config),
        level=level,
        smallest_p=smallest_p,
        detectable=detectable,
        power=(
            "No rate of right answers would have been found: more shadows are needed."
            if detectable is None
            else f"A leak that gives right answers in {detectable:.0%} of trials is found."
        ),
        measured={
            "right": right,
            "interval": list(rate_interval(round(right * trials), trials)),
            "interval_method": "Clopper-Pearson over trials",
            "trials": trials,
            "mean_effect": float(differences.mean()),
        },
    )


def lira_finding(audited: Audited, nearest: Nearest, shadows: Shadows, level: float) -> Finding:
    """Whether the real set looks as if it held the training patients rather than the others."""
    nearness = nearest.z.max(axis=0)
    ratios = dict(zip(nearest.patients, shadows.log_ratio(nearness).tolist(), strict=True))
    return compare_groups(
        audited,
        ratios,
        level,
        attack="lira",
        title="Does the set tell who was in it? (LiRA, against the shadows)",
    )


def _halved(count: int, rng: np.random.Generator) -> Flags:
    chosen = np.zeros(count, bool)
    chosen[rng.permutation(count)[: count // 2]] = True
    return chosen


def _shadow_p(shadows: Shadows, config: AuditConfig) -> float:
    """Of the mean difference, among halves that might have been drawn instead."""
    rng = np.random.default_rng([config.seed, 2])
    difference = shadows.first - shadows.second
    sign = np.where(shadows.is_first, 1.0, -1.0)
    # Which of the two sets is the smaller one, where patients are odd in number, stays.
    drawn = np.zeros(config.permutations)
    for pair, signs in zip(difference, sign, strict=True):
        drawn += rng.permuted(np.tile(signs, (config.permutations, 1)), axis=1) @ pair
    return permutation_p(float(np.sum(difference * sign)), drawn)
