"""What a comparison says: means over seeds, gaps closed, and where nothing can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.spg.arms.comparison import ALL, FULL, MATCHED_NETWORK, PUBLIC, RANDOM, SPG
from MedEnhanceLib.spg.arms.rows import Row

#: Of a gap that is smaller nothing can be told: the seeds spread as much. dB.
LEAST_GAP_DB = 0.3


@dataclass(frozen=True)
class Mean:
    """mean, median and standard deviation over `count` seeds, dB."""

    mean: float
    median: float
    spread: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of one value or more."""
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return cls(float(np.mean(values)), float(np.median(values)), spread, len(values))

    def __str__(self) -> str:
        spread = f" ± {self.spread:.2f}" if self.count > 1 else ""
        return f"{self.mean:.2f}{spread} ({self.count})"


@dataclass(frozen=True)
class Closure:
    """(value − reference) / (full − reference); None where full − reference is below 0.3 dB."""

    share: float | None
    gap_db: float

    def __str__(self) -> str:
        return "cannot tell" if self.share is None else f"{self.share:.2f}"


def mean_of(
    rows: Sequence[Row], arm: str, budget: str, network: str = MATCHED_NETWORK
) -> Mean | None:
    """Over seeds; None where nothing was measured."""
    found = [
        row["psnr_db"]
        for row in rows
        if (row["arm"], row["budget"], row["network"]) == (arm, budget, network)
    ]
    return Mean.of(found) if found else None


def floor_of(rows: Sequence[Row]) -> float:
    """PSNR of the damaged images themselves, dB."""
    return float(rows[0]["floor_db"])


def closure(
    rows: Sequence[Row],
    budget: str,
    reference: str,
    arm: str = SPG,
    network: str = MATCHED_NETWORK,
    *,
    from_median: bool = False,
) -> Closure | None:
    """Of the gap from another arm at the same budget to full data; None where a part is missing.

    reference: "random" gives G_R, "public" G_P. from_median: of the reference: single pieces on
    which a training fails do not count for more than others then.
    """
    full = mean_of(rows, FULL, ALL.name, network)
    known = mean_of(rows, reference, budget, network)
    value = mean_of(rows, arm, budget, network)
    if full is None or known is None or value is None:
        return None
    start = known.median if from_median else known.mean
    gap = full.mean - start
    if gap < LEAST_GAP_DB:
        return Closure(None, gap)
    return Closure((value.mean - start) / gap, gap)


def kept(rows: Sequence[Row], budget: str, network: str, arm: str = SPG) -> Closure | None:
    """The share of full data's gain over the damaged images that an arm gives a network."""
    full = mean_of(rows, FULL, ALL.name, network)
    value = mean_of(rows, arm, budget, network)
    if full is None or value is None:
        return None
    floor = floor_of(rows)
    gain = full.mean - floor
    return Closure((value.mean - floor) / gain if gain >= LEAST_GAP_DB else None, gain)


REFERENCES = {"G_R": RANDOM, "G_P": PUBLIC}
