"""Trains the models of the codec: the implicit network, the predictor, the restoration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.progress import Monitor

METHOD = "unicompress"
#: Part of the codec → the class of its configuration, and the function that trains it. The class
#: has from_json; the function takes configuration, data folder, output folder and monitor.
PARTS = {
    "implicit": (
        "MedEnhanceLib.unicompress.implicit.config:ImplicitConfig",
        "MedEnhanceLib.unicompress.implicit.train:train_implicit",
    ),
    "predictor": (
        "MedEnhanceLib.unicompress.predictor.train:PredictorConfig",
        "MedEnhanceLib.unicompress.predictor.train:train_predictor",
    ),
    "restoration": (
        "MedEnhanceLib.unicompress.predictor.train:RestorationConfig",
        "MedEnhanceLib.unicompress.predictor.train:train_restoration",
    ),
}


class CodecTraining:
    """A part of the codec and its configuration, ready to be trained."""

    def __init__(self, part: str, config: Any) -> None:
        self.part, self.config = part, config

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> CodecTraining:
        """`part` (default "implicit"); the rest is the part's own configuration."""
        part = str(fields.get("part", "implicit"))
        if part not in PARTS:
            raise ConfigError(f"unknown part {part!r}", f"Use one of {', '.join(PARTS)}.")
        given = {name: value for name, value in fields.items() if name != "part"}
        return cls(part, _named(PARTS[part][0], part).from_json(given))

    def train(self, data: Path, out: Path, monitor: Monitor) -> Path:
        """Train, or go on with a training; the folder of what was trained."""
        run: Callable[[Any, Path, Path, Monitor], Path] = _named(PARTS[self.part][1], self.part)
        return run(self.config, data, out, monitor)


def _named(place: str, part: str) -> Any:
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as cause:
        if isinstance(cause, ModuleNotFoundError) and not str(cause.name).startswith("MedEnhance"):
            raise
        raise ConfigError(
            f"this version does not train the codec's {part}", "Install a newer MedEnhance."
        ) from cause
