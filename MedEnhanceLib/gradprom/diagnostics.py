"""What a gate did over a training: how often it was open, and at which angles gradients met."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

#: Degrees of a bin of the histogram.
BIN = 10
_BINS = 180 // BIN
#: Of a checkpoint.
_KEYS = ("record.totals", "record.angles", "record.layers")


@dataclass(frozen=True)
class GateDiagnostics:
    """Over all steps so far. Angles and cosines are of each step's own gradients.

    silent: steps whose gradients form no angle, as one of them is zero or not finite.
    open_fraction: of all steps. share: mean share of the parameters' elements that the task's
        gradient was admitted to.
    cosine: mean over the steps that are not silent. average_cosine: the same of the averaged
        gradients; equal where ema is 0.
    angles: number of steps at 0 to 10°, 10 to 20° … 170 to 180°.
    layer_cosines: mean cosine of each layer, named by its first parameter.
    """

    steps: int
    silent: int
    open_fraction: float
    share: float
    cosine: float
    average_cosine: float
    angles: tuple[int, ...]
    layer_cosines: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


class Record:
    """Counts and sums; its memory grows with the number of layers, not with that of steps.

    steps: heard so far.
    """

    def __init__(self) -> None:
        self.steps = self._silent = self._open = 0
        self._share = self._cosine = self._average = 0.0
        self._angles = [0] * _BINS
        self._layers: dict[int, tuple[float, int]] = {}

    def hear(
        self,
        *,
        admitted: float,
        cosine: float | None,
        average: float,
        layers: Mapping[int, float],
    ) -> None:
        """A step: the share admitted, cosines (None where there is no angle), those of layers."""
        self.steps += 1
        self._open += admitted > 0
        self._share += admitted
        if cosine is None:
            self._silent += 1
            return
        self._cosine += cosine
        self._average += average
        angle = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
        self._angles[min(int(angle / BIN), _BINS - 1)] += 1
        for place, value in layers.items():
            total, count = self._layers.get(place, (0.0, 0))
            self._layers[place] = (total + value, count + 1)

    def told(self, names: Sequence[str]) -> GateDiagnostics:
        """names: of the parameters, whose places the layers have."""
        steps, heard = max(1, self.steps), max(1, self.steps - self._silent)
        return GateDiagnostics(
            steps=self.steps,
            silent=self._silent,
            open_fraction=self._open / steps,
            share=self._share / steps,
            cosine=self._cosine / heard,
            average_cosine=self._average / heard,
            angles=tuple(self._angles),
            layer_cosines={
                names[place] if place < len(names) else f"parameter {place}": total / count
                for place, (total, count) in sorted(self._layers.items())
            },
        )

    def state_dict(self) -> dict[str, Tensor]:
        """As tensors, for a checkpoint."""
        counts = (self.steps, self._silent, self._open)
        totals = [*counts, self._share, self._cosine, self._average]
        layers = [(place, *values) for place, values in self._layers.items()]
        rows = (totals, self._angles, layers)
        tensors = [torch.tensor(row, dtype=torch.float64) for row in rows]
        return dict(zip(_KEYS, tensors, strict=True))

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Record:
        """One that goes on from `state_dict`; from nothing where the state holds none."""
        record = cls()
        if all(key in state for key in _KEYS):
            totals, angles, layers = (state[key].tolist() for key in _KEYS)
            record.steps, record._silent, record._open = (int(value) for value in totals[:3])
            record._share, record._cosine, record._average = totals[3:]
            record._angles = [int(value) for value in angles]
            record._layers = {int(place): (total, int(count)) for place, total, count in layers}
        return record
