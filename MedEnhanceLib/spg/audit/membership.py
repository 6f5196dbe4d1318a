"""Membership inference by shadows: distillations of random halves of all patients.

Each half is distilled and its complement. The audit itself draws the halves, so that the first test
is exact on few patients: of the two sets of a pair, is the one made from a patient nearer to that
patient? Every patient in every pair is one trial, and more shadows find smaller leaks. The second
test (LiRA) is about the real set: compared with the shadows with and without each patient, does it
look as if it was made from the patient?

Source: LiRA, Carlini et al., IEEE S&P 2022 (arXiv 2112.03570), with one variance for all patients
as there for few shadows, and one effect for all; the pairs and the exact tests are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit.nearest import Gallery, Nearest, compare_groups
from MedEnhanceLib.spg.audit.records import Audited, Finding, Images
from MedEnhanceLib.spg.audit.significance import (
    OFTEN,
    Doubles,
    permutation_p,
    smallest_detectable_rate,
)

Flags = npt.NDArray[np.bool_]
#: Distills slices by patient with a seed; returns images [N, H, W].
Redistill = Callable[[dict[str, Images], int], Images]

#: Smallest spread of shadows: without spread a likelihood ratio has no scale.
_LEAST_SPREAD = 1e-3
#: Random rearrangements, of which there are too many for all; and the seed of all that is drawn.
_PERMUTATIONS, _SEED = 9999, 0


@dataclass(frozen=True)
class Shadows:
    """The results of the shadow distillations.

    Args:
        first: [pairs, C], each patient's nearness (Fisher's scale) to the first set of a pair.
        second: [pairs, C], the same for the second set.
        is_first: [pairs, C], whether the first set was made from the patient.
    """

    first: Doubles
    second: Doubles
    is_first: Flags

    @property
    def inside(self) -> Doubles:
        """Nearness to the sets made from the patient."""
        return np.where(self.is_first, self.first, self.second)

    @property
    def outside(self) -> Doubles:
        """Nearness to the other sets."""
        return np.where(self.is_first, self.second, self.first)

    def log_ratio(self, nearness: Doubles) -> Doubles:
        """The log likelihood ratio, member to non-member, of the nearness [C] to another set."""
        inside, outside = self.inside, self.outside
        effect = float((inside - outside).mean())
        center = (inside.mean(axis=0) + outside.mean(axis=0)) / 2
        left = np.concatenate([inside - center - effect / 2, outside - center + effect / 2])
        spread = max(_LEAST_SPREAD, float(left.std()))
        ratio: Doubles = effect * (nearness - center) / spread**2
        return ratio


def smallest_shadow_p(patients: int, pairs: int) -> float:
    """The smallest p possible with as many pairs of shadow distillations."""
    halves = math.comb(patients, patients // 2)
    return max(float(halves) ** -pairs, 1 / (_PERMUTATIONS + 1))


def distill_shadows(
    audited: Audited, gallery: Gallery, redistill: Redistill, pairs: int, monitor: Monitor
) -> Shadows:
    """Distill random halves of the patients, each with its complement and the same seed."""
    rng = np.random.default_rng([_SEED, 1])
    names = list(audited.patients)
    first, second, drawn = [], [], []
    for pair in range(pairs):
        is_first = rng.permutation(len(names)) < len(names) // 2
        sets = []
        for number, chosen in enumerate((is_first, ~is_first)):
            monitor.progress((pair + number / 2) / pairs, "shadow distillations")
            members = {n: audited.patients[n] for n, c in zip(names, chosen, strict=True) if c}
            images = redistill(members, _SEED + 1 + pair)
            sets.append(gallery.nearest(images).z.max(axis=0))
        first.append(sets[0])
        second.append(sets[1])
        drawn.append(is_first)
    return Shadows(np.array(first), np.array(second), np.array(drawn))


def shadow_finding(shadows: Shadows, level: float) -> Finding:
    """Test whether sets are nearer to the patients that they were made from."""
    pairs, patients = shadows.is_first.shape
    trials = pairs * patients
    differences = shadows.inside - shadows.outside
    right = float(np.mean((differences > 0) + 0.5 * (differences == 0)))
    is_possible = smallest_shadow_p(patients, pairs) <= level
    detectable = smallest_detectable_rate(trials, 0.5, level) if is_possible else None
    return Finding(
        attack="shadows",
        title="Which of two sets was made from a patient? (shadow distillations)",
        sentence=(
            f"Right in {right:.0%} of {trials} trials ({patients} patients in {pairs} pairs of "
            "sets); guessing is right in 50 %."
        ),
        p=_shadow_p(shadows),
        level=level,
        detectable=detectable,
        power=(
            "It cannot notice any leak, however large: more shadows are needed."
            if detectable is None
            else f"A leak that gives right answers in {detectable:.0%} of trials is noticed in "
            f"{OFTEN} audits, a weaker one less often."
        ),
        measured={"right": right, "trials": trials},
    )


def lira_finding(audited: Audited, nearest: Nearest, shadows: Shadows, level: float) -> Finding:
    """Test whether the real set looks as if it was made from the training patients."""
    nearness = nearest.z.max(axis=0)
    ratios = dict(zip(nearest.patients, shadows.log_ratio(nearness).tolist(), strict=True))
    title = "Who were the used patients? (LiRA, against the shadows)"
    return compare_groups(audited, ratios, level, "lira", title)


def _shadow_p(shadows: Shadows) -> float:
    """The p of the mean difference, among halves that might have been drawn instead."""
    rng = np.random.default_rng([_SEED, 2])
    difference = shadows.first - shadows.second
    sign = np.where(shadows.is_first, 1.0, -1.0)
    # With an odd number of patients, which of the two sets is the smaller one stays.
    drawn = np.zeros(_PERMUTATIONS)
    for pair, signs in zip(difference, sign, strict=True):
        drawn += rng.permuted(np.tile(signs, (_PERMUTATIONS, 1)), axis=1) @ pair
    return permutation_p(float(np.sum(difference * sign)), drawn)
