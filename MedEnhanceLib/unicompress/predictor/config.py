"""What can be chosen in training the predictor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from MedEnhanceLib.core.options import check_range, check_types, config_from_json
from MedEnhanceLib.errors import ConfigError

_PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 20, "batch": 256, "pool": 20_000, "drawn": 5_000, "widths": (8, 8)},
    "cpu": {},
    "full": {"steps": 60_000, "pool": 4_000_000, "drawn": 40_000},
}


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """Training of one modality's network.

    modality: CT, MR or EM; for the model's name. widths: of its two hidden layers. steps, batch:
    of the training, in voxels. learning_rate: the highest; it falls to nothing along a cosine.
    pool: voxels that are kept to draw batches from; drawn: so many of them are replaced every
    `refresh` steps, by voxels of another part of another volume. checkpoint_every: steps.
    """

    modality: str = "CT"
    widths: tuple[int, int] = (32, 32)
    steps: int = 7_000
    batch: int = 4_096
    learning_rate: float = 6e-3
    pool: int = 1_000_000
    drawn: int = 40_000
    refresh: int = 100
    checkpoint_every: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if self.modality not in ("CT", "MR", "EM"):
            raise ConfigError(f"modality is {self.modality!r}", "Use CT, MR or EM.")
        if len(self.widths) != 2 or not all(1 <= width <= 128 for width in self.widths):
            raise ConfigError(f"widths is {self.widths}", "Give two widths from 1 to 128.")
        for name in ("steps", "batch", "pool", "drawn", "refresh", "checkpoint_every"):
            check_range(name, getattr(self, name), 1, 1 << 31)
        check_range("learning_rate", self.learning_rate, 1e-6, 1.0)

    @classmethod
    def preset(cls, name: str, **fields: Any) -> PredictorConfig:
        """smoke, cpu or full; fields that are given come first."""
        return cls(**{**_fields_of(name), **fields})

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> PredictorConfig:
        """A preset (default cpu) and what differs from it; an unknown key is a ConfigError."""
        given = dict(fields)
        return config_from_json(cls, _fields_of(given.pop("preset", "cpu")) | given)


def _fields_of(preset: str) -> dict[str, Any]:
    if preset not in tuple(_PRESETS):
        raise ConfigError(f"preset is {preset!r}", f"Use one of {', '.join(_PRESETS)}.")
    return _PRESETS[preset]
