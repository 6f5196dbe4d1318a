"""Trains the models of the codec: the implicit network and the predictor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from MedEnhanceLib.bundles.export import NOT_STATED, describe_bundle
from MedEnhanceLib.bundles.schema import CODEC, METADATA
from MedEnhanceLib.core.options import check_names, options_of
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.codecs.training import MODALITIES, CodecTrainingConfig

METHOD = "codec"
_CODECS = "MedEnhanceLib.unicompress.codecs"
#: Part of the codec → the class of its configuration, and the function that trains it:
#: configuration, files, output folder, monitor → files of models.
PARTS = {
    "implicit": (f"{_CODECS}.implicit.config:ImplicitConfig", f"{_CODECS}.implicit.trainer:train"),
    "predictor": (f"{_CODECS}.predictor.train:PredictorConfig", f"{_CODECS}.predictor.train:train"),
}
_LIMITS = ["Trained on few subjects: on other scanners and anatomy it reaches less."]
_Train = Callable[[CodecTrainingConfig, list[Path], Path, Monitor], list[Path]]


@dataclass(frozen=True)
class CodecTraining:
    """A part of the codec and its configuration, ready to be trained."""

    part: str
    config: Any

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> CodecTraining:
        """`part` (default "implicit"); the rest is the part's own configuration.

        Raises ConfigError naming the option that is unknown or cannot be.
        """
        given = dict(fields)
        part = given.pop("part", "implicit")
        if part not in tuple(PARTS):
            raise ConfigError(f"unknown part {part!r}", f"Use one of {', '.join(PARTS)}.")
        kind = _named(PARTS[part][0])
        names = [option.name for option in options_of(kind)]
        check_names(f"the codec's {part}", given, ["part", "preset", *names])
        return cls(part, kind.from_json(given))

    def train(self, data: Path, out: Path, monitor: Monitor) -> Path:
        """Train, or go on with a training; the folder of the bundle, or of several."""
        run: _Train = _named(PARTS[self.part][1])
        files = self.config.found(data)
        models = run(self.config, files, out, monitor)
        modality = self.config.modality
        modalities = MODALITIES if modality == "all" else (modality,)
        folders = [self._bundle(models, each, len(files), out) for each in modalities]
        return folders[0] if len(folders) == 1 else out

    def _bundle(self, models: list[Path], modality: str, volumes: int, out: Path) -> Path:
        """Put trained models into their bundle in `out`; other models that are there stay."""
        config = self.config
        folder = out / f"{config.name}-{modality.lower()}"
        (folder / "models").mkdir(parents=True, exist_ok=True)
        for model in models:
            with atomic_write(folder / "models" / model.name, overwrite=True) as temporary:
                shutil.copyfile(model, temporary)
        path = folder / METADATA
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        count = "1 volume" if volumes == 1 else f"{volumes} volumes"
        # What the bundle says of its other parts stays.
        parts = before.get("training", {}).get("summary", "").split("; ")
        others = [part for part in parts if part and not part.startswith(f"{self.part}: ")]
        own = f"{self.part}: {config.steps} steps on {count}, seed {config.seed}"
        unnamed = {"subjects": count, "license": NOT_STATED, "source": NOT_STATED}
        data = config.data or ({"name": "a cohort of its user's own", **unnamed},)
        known = before.get("data", [])
        fields = {
            "kind": CODEC,
            "modality": modality,
            "description": f"Models of the compressed container for {modality}.",
            "license": "Apache-2.0",
            "limits": _LIMITS,
            **before,
            "name": folder.name,
            "training": {"summary": "; ".join([*others, own])},
            "data": [*known, *(entry for entry in data if entry not in known)],
        }
        describe_bundle(folder, fields)
        return folder


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
