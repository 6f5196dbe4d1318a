"""Trains the models of the codec: the implicit network and the predictor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from importlib import import_module
from pathlib import Path
from typing import Any

from MedEnhanceLib.bundles.export import NOT_STATED, describe_bundle
from MedEnhanceLib.bundles.schema import CODEC, METADATA
from MedEnhanceLib.core.options import Options, check_names, config_from_json
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.models import PREFIX

METHOD = "unicompress"
#: Part of the codec → the class of its configuration, which has from_json, and the function that
#: trains it: configuration, files, output folder, monitor → files of models.
PARTS = {
    "implicit": (
        "MedEnhanceLib.unicompress.codecs.implicit.config:ImplicitConfig",
        "MedEnhanceLib.unicompress.codecs.implicit.train:train_implicit",
    ),
    "predictor": (
        "MedEnhanceLib.unicompress.codecs.predictor.train:PredictorConfig",
        "MedEnhanceLib.unicompress.codecs.predictor.train:train_predictor",
    ),
}
MODALITIES = ("CT", "MR", "EM")
_ALL = ("**/*.nii.gz",)
_LIMITS = ["Trained on few subjects: on other scanners and anatomy it reaches less."]
Patterns = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sources(Options):
    """What a part learns from, and what its bundle says of that.

    files, held_out: patterns relative to the data folder, of volumes learned from and not. name:
    of the bundle, to which the modality is added. data: name, subjects, license and source of
    each collection, for the card.
    """

    files: Patterns = _ALL
    held_out: Patterns = ()
    name: str = "codec"
    data: tuple[dict[str, str], ...] = ()

    def found(self, data: Path) -> list[Path]:
        """The volumes to learn from, by name."""
        left_out = {path for pattern in self.held_out for path in data.glob(pattern)}
        return sorted({path for pattern in self.files for path in data.glob(pattern)} - left_out)


@dataclass(frozen=True)
class CodecTraining:
    """A part of the codec and its configuration, ready to be trained."""

    part: str
    config: Any
    sources: Sources

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> CodecTraining:
        """`part` (default "implicit"); the rest is the part's own configuration, and its Sources.

        Raises ConfigError naming the option that is unknown or cannot be.
        """
        part = fields.get("part", "implicit")
        if part not in tuple(PARTS):
            raise ConfigError(f"unknown part {part!r}", f"Use one of {', '.join(PARTS)}.")
        kind = _named(PARTS[part][0])
        beside = _names(Sources)
        given = {name: value for name, value in fields.items() if name != "part"}
        check_names(f"the codec's {part}", given, ["part", "preset", *_names(kind), *beside])
        said = {name: given.pop(name) for name in beside if name in given}
        config = kind.from_json(given)
        sources = config_from_json(Sources, said)
        _check_bundle(sources)
        return cls(part, config, sources)

    def train(self, data: Path, out: Path, monitor: Monitor) -> Path:
        """Train, or go on with a training; the folder of the bundle, or of several."""
        run: Callable[[Any, Any, Path, Monitor], list[Path]] = _named(PARTS[self.part][1])
        files = self.sources.found(data)
        models = run(self.config, files, out, monitor)
        modality = self.config.modality
        modalities = MODALITIES if modality == "all" else (modality,)
        folders = [self._bundle(models, each, len(files), out) for each in modalities]
        return folders[0] if len(folders) == 1 else out

    def _bundle(self, models: list[Path], modality: str, volumes: int, out: Path) -> Path:
        """Put trained models into their bundle in `out`; other models that are there stay."""
        folder = out / f"{self.sources.name}-{modality.lower()}"
        (folder / "models").mkdir(parents=True, exist_ok=True)
        for model in models:
            with atomic_write(folder / "models" / model.name, overwrite=True) as temporary:
                shutil.copyfile(model, temporary)
        path = folder / METADATA
        said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        fields = {
            "kind": CODEC,
            "modality": modality,
            "description": f"Models of the compressed container for {modality}.",
            "licence": "Apache-2.0",
            "limits": _LIMITS,
            **said,
            "name": folder.name,
            "training": {"summary": self._summary(said, volumes)},
            "data": _data_of(self.sources, said, volumes),
        }
        describe_bundle(folder, fields)
        return folder

    def _summary(self, said: Mapping[str, Any], volumes: int) -> str:
        """How it was trained, after what the bundle says of its other parts."""
        earlier = said.get("training", {}).get("summary", "").split("; ")
        kept = [one for one in earlier if one and not one.startswith(f"{self.part}: ")]
        steps, seed = self.config.steps, self.config.seed
        return "; ".join([*kept, f"{self.part}: {steps} steps on {_count(volumes)}, seed {seed}"])


def _data_of(sources: Sources, said: Mapping[str, Any], volumes: int) -> list[dict[str, str]]:
    unnamed = {"subjects": _count(volumes), "licence": NOT_STATED, "source": NOT_STATED}
    new = sources.data or ({"name": "a cohort of its user's own", **unnamed},)
    known: list[dict[str, str]] = said.get("data", [])
    return [*known, *(entry for entry in new if entry not in known)]


def _count(volumes: int) -> str:
    return "1 volume" if volumes == 1 else f"{volumes} volumes"


def _check_bundle(described: Any) -> None:
    """Raise ConfigError where a bundle of that name would not be found, or its card not written."""
    name = described.name
    found = f"{name}-".startswith(PREFIX)
    if not found or not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(
            f"name is {name!r}",
            f"Use codec, or letters, digits, - and _ after {PREFIX}: files find their models so.",
        )
    for entry in described.data:
        lacking = [field for field in ("name", "subjects") if field not in entry]
        if lacking:
            raise ConfigError(
                f"data has the entry {entry!r} without {' and '.join(lacking)}",
                "Give name and subjects of each collection, and license and source if you can.",
            )


def _names(kind: Any) -> list[str]:
    return [entry.name for entry in fields_of(kind)]


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
