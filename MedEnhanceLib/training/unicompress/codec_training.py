"""Trains a part of the codec, and writes it into the bundles of its modalities."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from MedEnhanceLib.bundles.export import NOT_STATED, describe_bundle
from MedEnhanceLib.bundles.schema import CODEC, METADATA
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.unicompress.config import ImplicitConfig
from MedEnhanceLib.training.unicompress.pretraining import PredictorConfig
from MedEnhanceLib.training.unicompress.pretraining import train as train_predictor
from MedEnhanceLib.unicompress.config import MODALITIES

#: Parts of the codec that are trained.
_PARTS: dict[str, Any] = {"implicit": ImplicitConfig, "predictor": PredictorConfig}


def codec_config(fields: Mapping[str, Any]) -> Any:
    """Return the configuration of the part of the codec that the field `part` names.

    Raises ConfigError for an unknown part, and for fields that its configuration does not take.
    """
    part = fields.get("part", "implicit")
    if part not in [*_PARTS]:
        raise ConfigError(f"unknown part {part!r}", f"Use one of {', '.join(_PARTS)}.")
    return _PARTS[part].from_json({name: fields[name] for name in fields if name != "part"})


def train_codec(config: Any, data: Path, out: Path, monitor: Monitor) -> Path:
    """Train a part of the codec; returns the folder of its bundle, or of several.

    Args:
        config: from `codec_config`; it decides which part.
        data: folder that the configuration's `files` are searched in.
        out: for models and checkpoints, with one folder for each modality.
        monitor: gets progress and losses; may cancel.
    """
    is_implicit, files = isinstance(config, ImplicitConfig), config.volume_files(data)
    train: Callable[..., list[Path]] = train_predictor
    if is_implicit:  # which takes torch
        from MedEnhanceLib.training.unicompress.two_stages import train as train_implicit

        train = train_implicit
    models = train(config, files, out, monitor)
    modalities = MODALITIES if config.modality == "all" else (config.modality,)
    count = "1 volume" if len(files) == 1 else f"{len(files)} volumes"
    part = "implicit" if is_implicit else "predictor"
    summary = f"{part}: {config.steps} steps on {count}, seed {config.seed}"
    unnamed = {"subjects": count, "license": NOT_STATED, "source": NOT_STATED}
    entries = config.data or ({"name": "the user's own cohort", **unnamed},)
    folders = [out / f"{config.name}-{modality.lower()}" for modality in modalities]
    for folder, modality in zip(folders, modalities, strict=True):
        _describe(folder, modality, models, summary, entries, config.license)
    return folders[0] if len(folders) == 1 else out


def _describe(
    folder: Path,
    modality: str,
    models: list[Path],
    summary: str,
    entries: Sequence[Mapping[str, str]],
    license_: str,
) -> None:
    """Put trained models into their bundle; its other parts and their metadata stay."""
    (folder / "models").mkdir(parents=True, exist_ok=True)
    for model in models:
        with atomic_write(folder / "models" / model.name, overwrite=True) as temporary:
            shutil.copyfile(model, temporary)
    path, part = folder / METADATA, summary.partition(":")[0]
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    texts = before.get("training", {}).get("summary", "").split("; ")
    others = [text for text in texts if text and not text.startswith(f"{part}: ")]
    data = before.get("data", [])
    fields = {
        "kind": CODEC,
        "modality": modality,
        "description": f"Models of the compressed container for {modality}.",
        "license": NOT_STATED,
        "limits": ["Trained on few subjects: on other scanners and anatomy results can be worse."],
        **before,
        **({"license": license_} if license_ else {}),
        "name": folder.name,
        "training": {"summary": "; ".join([*others, summary])},
        "data": [*data, *(entry for entry in entries if entry not in data)],
    }
    describe_bundle(folder, fields)
