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
#: has from_json, or preset; the function takes configuration, data, output folder and monitor.
PARTS = {
    "implicit": (
        "MedEnhanceLib.unicompress.implicit.config:ImplicitConfig",
        "MedEnhanceLib.unicompress.implicit.train:train_implicit",
    ),
    "predictor": (
        "MedEnhanceLib.unicompress.predictor.config:PredictorConfig",
        "MedEnhanceLib.unicompress.predictor.train:train_predictor",
    ),
    "restoration": (
        "MedEnhanceLib.unicompress.restoration_training:RestorationConfig",
        "MedEnhanceLib.unicompress.restoration_training:train_restoration",
    ),
}
#: Parts whose function takes the volumes' files in place of the folder.
_OF_FILES = ("predictor", "restoration")
_ALL = ("**/*.nii.gz",)
Patterns = tuple[str, ...]


class CodecTraining:
    """A part of the codec and its configuration, ready to be trained."""

    def __init__(self, part: str, config: Any, files: Patterns, held_out: Patterns) -> None:
        self.part, self.config, self._files, self._held_out = part, config, files, held_out

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> CodecTraining:
        """`part` (default "implicit"); the rest is the part's own configuration.

        files, held_out: patterns relative to the data folder, of volumes learned from and not.
        """
        part = str(fields.get("part", "implicit"))
        if part not in PARTS:
            raise ConfigError(f"unknown part {part!r}", f"Use one of {', '.join(PARTS)}.")
        given = {name: value for name, value in fields.items() if name != "part"}
        files: Patterns = _ALL
        held_out: Patterns = ()
        if part in _OF_FILES:
            files = tuple(given.pop("files", _ALL))
            held_out = tuple(given.pop("held_out", ()))
        kind = _named(PARTS[part][0], part)
        if hasattr(kind, "from_json"):
            return cls(part, kind.from_json(given), files, held_out)
        preset = given.pop("preset", "cpu")
        try:
            return cls(part, kind.preset(preset, **given), files, held_out)
        except TypeError as cause:
            raise ConfigError(f"{kind.__name__}: {cause}", "Check the options.") from cause

    def train(self, data: Path, out: Path, monitor: Monitor) -> Path:
        """Train, or go on with a training; the folder of what was trained."""
        run: Callable[[Any, Any, Path, Monitor], Path] = _named(PARTS[self.part][1], self.part)
        if self.part not in _OF_FILES:
            return run(self.config, data, out, monitor)
        left_out = {path for pattern in self._held_out for path in data.glob(pattern)}
        found = {path for pattern in self._files for path in data.glob(pattern)}
        return run(self.config, sorted(found - left_out), out, monitor)


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
