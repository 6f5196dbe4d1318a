"""Means, and paired differences with intervals over patients and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from _common import Gate, Row, gate

#: A comparison of two arms on one kind of damage: (case, arm, other arm).
Pair = tuple[str, str, str]
_DRAWS = 4000


@dataclass(frozen=True)
class Difference:
    """A mean paired difference with its 95 % interval, and how much it rests on."""

    mean: float
    low: float
    high: float
    least: float
    subjects: int
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:+.3g} ({self.low:+.3g} to {self.high:+.3g})"


def chosen(rows: Iterable[Row], **where: object) -> list[Row]:
    return [row for row in rows if all(row.get(key) == value for key, value in where.items())]


def values_of(rows: Iterable[Row], figure: str, **where: object) -> list[float]:
    return [row[figure] for row in chosen(rows, **where) if row.get(figure) is not None]


def mean_of(rows: Iterable[Row], figure: str, **where: object) -> float | None:
    """The mean of one figure over the rows that agree with `where`; None where there are none."""
    values = values_of(rows, figure, **where)
    return float(np.mean(values)) if values else None


def difference(rows: list[Row], figure: str, pairs: Iterable[Pair]) -> Difference | None:
    """Arm less other arm, on the same noise: mean over cases, then seeds, then patients.

    The interval is of percentiles over 4,000 draws of patients with replacement, and of seeds
    within each. None where a case, a patient or both arms are missing altogether.
    """
    gains: dict[str, dict[int, list[float]]] = {}
    for case, arm, other in pairs:
        ours, theirs = (_by_place(rows, figure, case, name) for name in (arm, other))
        common = ours.keys() & theirs.keys()
        if not common:
            return None
        for subject, seed in sorted(common):  # a set has another order in every process
            gain = ours[subject, seed] - theirs[subject, seed]
            gains.setdefault(subject, {}).setdefault(seed, []).append(gain)
    if not gains:
        return None
    patients = [np.array([np.mean(g) for g in seeds.values()]) for seeds in gains.values()]
    means = [patient.mean() for patient in patients]
    return Difference(
        float(np.mean(means)),
        *interval(patients),
        float(min(means)),
        len(patients),
        max(patient.size for patient in patients),
    )


def interval(patients: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float]:
    """Bootstrap a mean over patients or volumes: its 95 % interval.

    patients: the values of each, over which draws with replacement go too.
    """
    rng = np.random.default_rng(0)
    count = len(patients)
    over_seeds = np.stack(
        [p[rng.integers(p.size, size=(_DRAWS, count, p.size))].mean(axis=2) for p in patients]
    )
    whom = rng.integers(count, size=(_DRAWS, count))
    drawn = over_seeds[whom, np.arange(_DRAWS)[:, None], np.arange(count)].mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def _by_place(rows: list[Row], figure: str, case: str, arm: str) -> dict[tuple[str, int], float]:
    return {
        (row["subject"], row["seed"]): row[figure]
        for row in rows
        if row["case"] == case and row["arm"] == arm and row.get(figure) is not None
    }


def difference_gate(
    name: str, gain: Difference | None, bound: str, passed: bool, reason: str = ""
) -> Gate:
    """A row of the table of gates for a difference, with what it rests on."""
    entry = gate(name, None if gain is None else gain.mean, bound, passed, reason)
    if gain is not None:
        entry["interval"] = [gain.low, gain.high]
        entry["subjects"], entry["seeds"] = gain.subjects, gain.seeds
    return entry
