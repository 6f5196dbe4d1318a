"""Writes a trained model as a bundle, and reads its weights back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib._version import __version__
from MedEnhanceLib.bundles.schema import CARD, FORMAT, FORMAT_VERSION, METADATA, SLICES, WEIGHTS
from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.bundles.suitability import is_certain, is_certain_loss
from MedEnhanceLib.core.arrays import Array
from MedEnhanceLib.core.manifest import RESEARCH_ONLY, file_sha256
from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.io.atomic import atomic_write, write_json
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.device import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

#: Stands for a fact of the training data that was not given.
NOT_STATED = "not stated"
#: Errors of torch, and of our own code, for tensors that do not fit a network.
_UNFIT = (RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
#: Fields of a network's description that are also dimensions of its tensors.
_SIZES = ("context", "widths")
#: Sentences of the card, by kind of model: its purpose, and what its table of measurements states.
_PURPOSES = {
    "enhancer": "Inverts a scanner: {modality}",
    "slices": "Makes thin slices from thick ones: {modality}",
    "head": "Segments: finds structures in {modality}",
    "codec": "Helps to compress {modality}",
}
_MEASURES = {
    "enhancer": "PSNR (dB) against the undamaged volume: higher is better.",
    "slices": "PSNR (dB) against thin slices as acquired: higher is better.",
    "head": "Dice of each structure with the reference labels: 1 is equal, 0 is no overlap. Volume "
    "error: how much larger than the reference structures are, mean over scans.",
    "codec": "Size against the uncompressed volume; where voxels change, PSNR (dB).",
}


def export_bundle(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Bundle:
    """Write weights, metadata and model card; an existing bundle in the folder is replaced.

    Args:
        folder: of the bundle.
        tensors: the weights by name; stored in half precision, which changes results by less than
            1e-3 of the range (tested).
        metadata: fields of metadata.json; format, version and hashes are added.
    """
    (folder / WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
    on_cpu = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    stored = {n: (t.half() if t.is_floating_point() else t).contiguous() for n, t in on_cpu.items()}
    write_tensors(folder / WEIGHTS, stored)
    return describe_bundle(folder, metadata)


def training_record(config: Mapping[str, Any], start: Bundle | None) -> dict[str, Any]:
    """Return a training's options for metadata.json, which states no folder of this computer.

    start: the model that the training started from, which is recorded by its name and hash.
    """
    if start is None:
        return {"config": {**config, "start": ""}}
    return {"config": {**config, "start": start.name}, "start_sha256": start.sha256}


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file atomically; OutputError if the disk refuses it.

    Args:
        path: an existing file is replaced.
        tensors: by name; contiguous, without shared memory.
        metadata: texts for the header of the file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_write(path, overwrite=True) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as cause:
            number = re.search(r"\(os error (\d+)\)", str(cause))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from cause


def describe_bundle(folder: Path, metadata: dict[str, Any]) -> Bundle:
    """Write metadata and model card of the weights in `folder`."""
    import torch

    for relative in (METADATA, CARD):
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
    complete = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "version": __version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "intended_use": RESEARCH_ONLY,
        **metadata,
    }
    _write_texts(folder, complete)
    return read_bundle(folder)


def load_tensors(bundle: Bundle) -> dict[str, Tensor]:
    """Load the bundle's weights as tensors; as `load_arrays`."""
    import torch

    return {name: torch.from_numpy(array) for name, array in load_arrays(bundle).items()}


def load_arrays(bundle: Bundle) -> dict[str, Array]:
    """Load the bundle's weights in float32; ModelError if they are damaged or not finite."""
    stored_in: Any = require("safetensors.numpy", purpose="Opening a model")
    from safetensors import SafetensorError

    try:
        stored = stored_in.load_file(bundle.weights)
    except (SafetensorError, OSError, TypeError) as cause:  # the last for bfloat16
        raise ModelError(
            f"model {bundle.name!r}: its weights cannot be read ({cause})", "Import it again."
        ) from cause
    for name, array in stored.items():
        if not np.isfinite(array).all():
            raise ModelError(
                f"model {bundle.name!r}: its weights are not all finite ({name})",
                "Do not use it: its training failed, or its files were damaged before hashing.",
            )
    return {
        name: array.astype(np.float32) if array.dtype.kind == "f" else array
        for name, array in stored.items()
    }


@contextmanager
def must_fit(bundle: Bundle, tensors: Mapping[str, Any]) -> Iterator[None]:
    """Turn errors from building a bundle's network into a ModelError that names the bundle."""
    try:  # before memory is allocated: no stated size may exceed those of the weights
        sizes = (size for tensor in tensors.values() for size in (*tensor.shape, 1))
        largest = max(sizes, default=0)
        for name, value in bundle.metadata.get("network", {}).items():
            if name in _SIZES and np.max(value, initial=0) > largest:
                raise ValueError(f"{name} is {value}, and no tensor is larger than {largest}")
        yield
    except (*_UNFIT, ConfigError) as cause:
        if is_out_of_memory(cause):
            raise
        raise ModelError(
            f"model {bundle.name!r}: its weights do not fit its description", "Import it again."
        ) from cause


def make_card(metadata: dict[str, Any]) -> str:
    """Return the model card: description, training data, measurements, limits."""
    anatomy = metadata.get("anatomy")
    data = [
        f"- {entry['name']}: {entry['subjects']}. License: {entry.get('license', NOT_STATED)}. "
        f"Source: {entry.get('source', NOT_STATED)}"
        for entry in metadata.get("data", [])
    ]
    lines = [
        f"# {metadata['name']}",
        "",
        str(metadata["description"]),
        "",
        f"**{RESEARCH_ONLY}**",
        "",
        f"- {_PURPOSES[metadata['kind']].format(modality=metadata['modality'])}",
        *([f"- Anatomy: {anatomy} only"] if anatomy else []),
        f"- Version: {metadata['version']}",
        f"- License of the weights: {metadata['license']}",
        f"- How it was trained: {metadata.get('training', {}).get('summary', 'see metadata.json')}",
        "",
        "## Training data",
        "",
        *(data or ["The training data are not stated."]),
        "",
        "## Measured",
        "",
        *_measured_table(metadata),
        "",
        "## Limits",
        "",
        *(f"- {text}" for name in ("warnings", "limits") for text in metadata.get(name, [])),
    ]
    return "\n".join(lines) + "\n"


def _measured_table(metadata: dict[str, Any]) -> list[str]:
    rows = metadata.get("measured", [])
    if not rows:
        return [comparison(metadata) or "Not measured yet."]
    columns = list(rows[0])
    return [
        _MEASURES[metadata["kind"]],
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *(
            "| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |"
            for row in rows
        ),
    ]


def comparison(metadata: Mapping[str, Any]) -> str:
    """Compare a model with the shipped one, and advise; "" if not measured."""
    training = metadata.get("training", {})
    validation = training.get("validation") or {}
    if "over_shipped_db" not in validation:
        return ""
    over, error = validation["over_shipped_db"], validation["over_shipped_error_db"]
    shipped = f"{metadata['modality'].lower()}-{SLICES}"
    text = f"{abs(over):.2f} ± {error:.2f} dB {_better(over)} than the shipped {shipped}"
    where = (
        "volumes held out"
        if training["config"].get("held_out")
        else "new crops of the training volumes, not of other scans"
    )
    text = f"On {where}: {text}."
    if is_certain(over, error):
        return f"{text} Use {metadata['name']}: it gains beyond chance."
    verdict = "It is worse" if is_certain_loss(over, error) else "No gain beyond chance"
    return f"{text} {verdict}: use {shipped}."


def _better(difference: float) -> str:
    return "better" if difference > 0 else "worse"


def _cell(value: Any) -> str:
    return "–" if value is None else str(value)


def record_fields(folder: Path, fields: dict[str, Any]) -> Bundle:
    """Replace fields of a bundle's metadata, and rewrite its model card."""
    metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    _write_texts(folder, metadata | fields)
    return read_bundle(folder)


def _write_texts(folder: Path, metadata: dict[str, Any]) -> None:
    """Write model card and metadata, with the hash of every file of the bundle."""
    with atomic_write(folder / CARD, overwrite=True) as temporary:
        # File names that are not UTF-8 contain lone surrogates, which become "?".
        temporary.write_text(make_card(metadata), encoding="utf-8", errors="replace")
    models = sorted(path.relative_to(folder) for path in folder.glob("models/*.safetensors"))
    files = [*(model.as_posix() for model in models), str(CARD)]
    hashes = {relative: file_sha256(folder / relative) for relative in files}
    write_json(folder / METADATA, metadata | {"files": hashes}, overwrite=True)
