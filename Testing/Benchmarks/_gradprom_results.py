"""What the gate's benchmark measured, and the order of its arms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from _gradprom_arms import ALONE, BINARY, COLD, JOINT, MGDA_ARM, OURS, RANDOM, Settings
from _gradprom_gates import (
    gates,
)

Row = dict[str, Any]
_ORDER = (ALONE, JOINT, BINARY, "gate, cosine", COLD, OURS, "PCGrad", RANDOM, MGDA_ARM)


@dataclass(frozen=True)
class Results:
    """Everything that was measured.

    stories: of each run, what its training did: modality, arm, weight, seed, open fraction, …
    costs: by modality and arm.
    """

    settings: dict[str, Settings]
    weights: tuple[float, ...]
    seeds: tuple[int, ...]
    rows: list[Row]
    stories: list[Row]
    costs: dict[str, dict[str, dict[str, float]]]
    seconds: dict[str, float] = field(default_factory=dict)

    def gates(self) -> list[dict[str, Any]]:
        return gates(self.rows, self.weights, self.costs)

    def arms(self) -> tuple[str, ...]:
        present = {row["arm"] for row in self.rows}
        return tuple(arm for arm in _ORDER if arm in present)
