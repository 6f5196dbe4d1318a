"""Schema of a model's metadata: checked when it is imported, and whenever it is read.

Metadata come from unknown sources: each field that other code reads has its type here, and lengths
are limited. Other fields are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from MedEnhanceLib.core.options import allowed_text, fits
from MedEnhanceLib.core.volume import MODALITIES
from MedEnhanceLib.errors import ModelError

FORMAT = "medenhance-bundle"
FORMAT_VERSION = 1
METADATA = PurePosixPath("configs/metadata.json")
WEIGHTS = PurePosixPath("models/model.safetensors")
CARD = PurePosixPath("docs/README.md")
#: Bundles of this kind contain several models, one for each part of the compressed container.
CODEC = "codec"
#: Prefix of their names, before the modality in lower case.
CODEC_PREFIX = f"{CODEC}-"
#: Networks that restore thin slices from thick ones, as `train slices` makes them.
SLICES = "slices"
#: A measured scanner, and a network for what its inversion leaves, as `train hqg` makes them.
ENHANCER = "enhancer"
KINDS = (ENHANCER, SLICES, "head", CODEC)
#: Limits of all files of a model together.
MOST_BYTES, MOST_FILES = 1 << 30, 1000
_REQUIRED = ("name", "kind", "modality", "version", "description", "license", "files")
_IMPORT_AGAIN = "Correct it in its metadata.json, or ask who made the model."
#: Most characters of a one-line text, of the name (also that of a folder), and of a path.
_LONGEST_LINE, _LONGEST_NAME, _LONGEST_PATH = 300, 64, 200
_LINES = ("name", "version", "anatomy", "license")
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Type of each field, if present: a type, an object's fields, or [the type of a list's entries].
_SHAPE: dict[str, Any] = {
    **dict.fromkeys(_REQUIRED, str),
    **dict.fromkeys(("anatomy", "intensity", "task"), str),
    "files": dict[str, str],
    "network": {},
    "unpaired": {},
    "scanner": {},
    "training": {"summary": str, "config": dict | None},
    "data": list[dict[str, str]],
    **dict.fromkeys(("limits", "warnings"), list[str]),
    "measured": [{}],
    "labels": [{"value": int, "name": str, "color": str}],
}


def check_metadata(fields: Any, path: Path) -> dict[str, Any]:
    """Return the metadata of the file at `path` if they are valid; ModelError names the field."""
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        if isinstance(fields, dict) and "network_data_format" in fields:
            raise ModelError(
                f"{path}: the metadata of a MONAI bundle, not of a MedEnhance model",
                f"Segment with it: medenhance segment … --monai-bundle {path.parents[1]}",
            )
        raise ModelError(f"{path}: not the metadata of a MedEnhance model", "Choose another one.")
    if fields.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{path}: format {fields.get('format_version')!r:.40}, this version reads "
            f"{FORMAT_VERSION}",
            "Update MedEnhance.",
        )
    missing = [name for name in _REQUIRED if name not in fields]
    if missing:
        raise ModelError(f"{path}: {', '.join(missing)} is missing", _IMPORT_AGAIN)
    fault = _fault(fields, _SHAPE, "") or _fault_of_lines(fields)
    if fault:
        raise ModelError(f"{path}: {fault}", _IMPORT_AGAIN)
    if fields["kind"] not in KINDS:
        raise ModelError(
            f"{path}: a model of the kind {fields['kind']!r:.40}; this version knows "
            f"{', '.join(KINDS)}",
            "Update MedEnhance.",
        )
    _check_files(fields, path)
    return fields


def safe_path(relative: str) -> PurePosixPath:
    """Return the path of a model's file; raises ModelError if it could leave the folder."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or "\\" in relative or ":" in relative:
        raise ModelError(
            f"the model names a file outside its folder: {relative!r:.80}", "Do not import it."
        )
    return path


def _fault(value: Any, shape: Any, place: str) -> str:
    """Say what is wrong with a value; "" where it has the shape."""
    faults: list[str] = []
    if isinstance(shape, dict) and isinstance(value, dict):
        names = sorted(shape.keys() & value.keys())
        faults = [_fault(value[name], shape[name], f"{place}.{name}") for name in names]
    elif isinstance(shape, list) and isinstance(value, list):
        faults = [_fault(entry, shape[0], f"{place}[{n}]") for n, entry in enumerate(value)]
    elif isinstance(shape, dict | list) or not fits(value, shape):
        expected = "a list" if isinstance(shape, list) else "an object"
        if not isinstance(shape, dict | list) and shape != dict | None:
            expected = allowed_text(shape)
        return f"{place.lstrip('.')} is {value!r:.40}, not {expected}"
    return next(filter(None, faults), "")


def _fault_of_lines(fields: Mapping[str, Any]) -> str:
    lines = {name: fields.get(name, "-") for name in _LINES}
    for number, label in enumerate(fields.get("labels", ())):
        lines[f"labels[{number}].name"] = label.get("name", "-")
    for name, text in lines.items():
        longest = _LONGEST_NAME if name == "name" else _LONGEST_LINE
        if len(text) > longest:
            return f"{name} has {len(text)} characters, {longest} are allowed"
        if name != "license" and not text.isprintable():
            return f"{name} has several lines, or characters that are not printable"
    names = [label["name"] for label in fields.get("labels", ()) if "name" in label]
    if len({*names}) < len(names):
        return f"labels holds the name {max(names, key=names.count)!r:.40} twice"
    if not fields["name"].strip() or set("/\\") & set(fields["name"]):
        return f"name is {fields['name']!r}"
    if fields["modality"] not in MODALITIES:
        return f"modality is {fields['modality']!r:.40}, not one of {', '.join(MODALITIES)}"
    return ""


def _check_files(fields: Mapping[str, Any], path: Path) -> None:
    files = fields["files"]
    if str(WEIGHTS) not in files and fields["kind"] != CODEC:
        raise ModelError(f"{path}: files lacks {WEIGHTS}", _IMPORT_AGAIN)
    if len(files) > MOST_FILES:
        raise ModelError(f"{path}: {len(files)} files, more than a model has", "Do not import it.")
    for relative, sha256 in files.items():
        safe_path(relative)
        if not 0 < len(relative) <= _LONGEST_PATH or not _SHA256.fullmatch(sha256):
            raise ModelError(
                f"{path}: files: {relative!r:.80} with {sha256!r:.80} is no path with its SHA-256",
                _IMPORT_AGAIN,
            )
