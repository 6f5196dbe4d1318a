"""How well figures agree before and after, over patients, and what follows for a choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NEAR = 0.05
#: What a recommendation asks of a mode.
MOST_DICE_CHANGE = 0.005
LEAST_WITHIN = 0.95


def share_within(
    before: Mapping[str, float], after: Mapping[str, float], near: float = NEAR
) -> float:
    """Share of the features that changed by at most `near` of what they were."""
    kept = [abs(after[name] - value) <= near * abs(value) for name, value in before.items()]
    return sum(kept) / len(kept)


def concordance(before: Sequence[float], after: Sequence[float]) -> float:
    """Lin's concordance correlation of one figure over patients; 1 where nothing changed.

    Source: Lin, Biometrics 45 (1989) 255, with population moments. 0 where one side is constant
    and they differ.
    """
    x, y = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if np.array_equal(x, y):
        return 1.0
    covariance = float(((x - x.mean()) * (y - y.mean())).mean())
    spread = float(x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    return 2 * covariance / spread if spread and math.isfinite(spread) else 0.0


@dataclass(frozen=True)
class Outcome:
    """What one mode did to everything of a modality.

    strength: the ratio or the largest error. dice_change: the largest over scans and structures,
    of Dice with a reference. within: share of features within 5 %, mean over patients. None: there
    was nothing to measure.
    """

    strength: float
    dice_change: float | None
    within: float | None

    @property
    def passes(self) -> bool:
        dice = self.dice_change is None or self.dice_change < MOST_DICE_CHANGE
        return dice and (self.within is None or self.within >= LEAST_WITHIN)


def strongest(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The strongest compression that passes, with all weaker ones; None where none does."""
    best = None
    for outcome in sorted(outcomes, key=lambda outcome: outcome.strength):
        if not outcome.passes:
            break
        best = outcome
    return best
