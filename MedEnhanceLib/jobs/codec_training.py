"""Trains the models of the codec: the implicit network, the predictor, the restoration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from importlib import import_module
from pathlib import Path
from typing import Any

from MedEnhanceLib.config import check_names, check_types, config_from_json
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.progress import Monitor

METHOD = "unicompress"
#: Part of the codec → the class of its configuration, which has from_json, and the function that
#: trains it, which takes configuration, the data folder or its files, output folder and monitor.
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
_ALL = ("**/*.nii.gz",)
Patterns = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """files, held_out: patterns relative to the data folder, of volumes learned from and not."""

    files: Patterns = _ALL
    held_out: Patterns = ()

    def __post_init__(self) -> None:
        check_types(self)

    def found(self, data: Path) -> list[Path]:
        """The volumes to learn from, by name."""
        left_out = {path for pattern in self.held_out for path in data.glob(pattern)}
        return sorted({path for pattern in self.files for path in data.glob(pattern)} - left_out)


@dataclass(frozen=True)
class CodecTraining:
    """A part of the codec and its configuration, ready to be trained.

    sources: of a part whose own configuration does not say what it learns from.
    """

    part: str
    config: Any
    sources: Sources | None = None

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> CodecTraining:
        """`part` (default "implicit"); the rest is the part's own configuration, and its Sources.

        Raises ConfigError naming the option that is unknown or cannot be.
        """
        part = fields.get("part", "implicit")
        if part not in tuple(PARTS):
            raise ConfigError(f"unknown part {part!r}", f"Use one of {', '.join(PARTS)}.")
        kind = _named(PARTS[part][0], part)
        own = _names(kind)
        beside = [name for name in _names(Sources) if name not in own]
        given = {name: value for name, value in fields.items() if name != "part"}
        _check_names(part, given, ["part", "preset", *own, *beside])
        said = {name: given.pop(name) for name in beside if name in given}
        config = kind.from_json(given)
        return cls(part, config, config_from_json(Sources, said) if beside else None)

    def train(self, data: Path, out: Path, monitor: Monitor) -> Path:
        """Train, or go on with a training; the folder of what was trained."""
        run: Callable[[Any, Any, Path, Monitor], Path] = _named(PARTS[self.part][1], self.part)
        given = data if self.sources is None else self.sources.found(data)
        return run(self.config, given, out, monitor)


def _check_names(part: str, given: Mapping[str, Any], known: list[str]) -> None:
    """As `check_names`; of an option that is another part's it says so."""
    try:
        check_names(f"the codec's {part}", given, known)
    except ConfigError as error:
        unknown = next(name for name in given if name not in known)
        others = (one for one in PARTS if one != part)
        owners = [one for one in others if unknown in _names(_named(PARTS[one][0], one))]
        also = f" The part {' and the part '.join(owners)} has it." if owners else ""
        raise ConfigError(error.message, error.hint + also) from None


def _names(kind: Any) -> list[str]:
    return [entry.name for entry in fields_of(kind)]


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
