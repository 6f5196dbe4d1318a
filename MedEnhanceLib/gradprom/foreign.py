"""MONAI bundles of somebody else among the installed models: taken in as data, found by name.

mine/                       a model like any other: listed, verified and removed as they are
configs/metadata.json   what is known of it, with the SHA-256 of each file
docs/README.md          a card, made of what the bundle says of itself
monai/mine/             of the bundle what is read of it: no program, no script
monai/mine.json         the description that lay beside it, where there was one
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.bundles.importing import import_bundle
from MedEnhanceLib.bundles.schema import (
    CARD,
    FOREIGN,
    FORMAT,
    FORMAT_VERSION,
    METADATA,
    MONAI,
    is_monai,
    read_json,
)
from MedEnhanceLib.bundles.store import Bundle, folder_of, list_bundles, verify_bundle
from MedEnhanceLib.core.manifest import RESEARCH_ONLY, file_sha256
from MedEnhanceLib.io.atomic import write_json
from MedEnhanceLib.runtime.dependencies import require

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom.segmenters import Segmenter

_MOST_METADATA = 8 << 20
NO_LICENSE = "no license stated"
#: Fields of a bundle's metadata that its card has, with their names there.
_STATED = {
    "name": "name",
    "version": "version",
    "description": "description",
    "authors": "authors",
    "copyright": "copyright",
    "intended_use": "intended use",
    "data_source": "data",
    "references": "references",
}
_LONGEST, _LONGEST_LINE = 2000, 300


def import_model(source: Path) -> Bundle:
    """As `bundles.import_bundle`, and MONAI bundles of others too.

    Raises:
        ModelError, ConfigError, DependencyError: as `open_segmenter`, too.
    """
    return import_bundle(source, _adopt)


def installed_folder(name: str, kind: str) -> Path | None:
    """The folder of an imported MONAI bundle, its files checked; None where no such is meant.

    name: as users give it. kind: of `schema.FOREIGN`. Raises ModelError for a damaged one.
    """
    if os.sep in name or folder_of(name) is not None:
        return None
    for bundle in list_bundles():
        if (bundle.name, bundle.kind) == (name, kind):
            verify_bundle(bundle)
            return bundle.weights.parents[1]
    return None


def is_restoration(source: str) -> bool:
    """Whether a zip, the folder of a MONAI bundle that is not ours, or an imported one is named."""
    path = Path(source)
    if path.suffix.lower() == ".zip":
        return path.is_file()
    try:
        fields = json.loads((path / METADATA).read_bytes()[:_MOST_METADATA])
    except (OSError, ValueError, RecursionError):
        return any((one.name, one.kind) == (source, "restoration") for one in list_bundles())
    return is_monai(fields)


def _adopt(bundle: Path, name: str, beside: Path, model: Path) -> None:
    """Make a model of a MONAI bundle; arguments and errors as `importing.Adopt` says."""
    require("torch", purpose="Importing a MONAI bundle")
    from MedEnhanceLib.gradprom.segmenter_files import LICENSE_NOTE, LICENSES, read_members
    from MedEnhanceLib.gradprom.segmenters import open_restoration, open_segmenter

    contents = read_members(bundle)
    if beside.is_file():
        contents[f"../{name}.json"] = beside.read_bytes()
    inside = model / MONAI / name
    for relative, content in contents.items():
        (inside / relative).parent.mkdir(parents=True, exist_ok=True)
        (inside / relative).write_bytes(content)
    fields = read_json(inside / METADATA)
    kind = "restoration" if _gives_image(fields) else "segmenter"
    opened = open_restoration(inside) if kind == "restoration" else open_segmenter(inside)
    notes = {note.partition(LICENSE_NOTE)[2] for note in opened.notes if LICENSE_NOTE in note}
    license_ = (notes - {"not stated"} or {NO_LICENSE}).pop()
    (model / CARD).parent.mkdir()
    texts = [f"{MONAI}/{name}/{one}" for one in (str(CARD), *LICENSES) if one in contents]
    card = _card(name, kind, opened, fields, license_, texts)
    (model / CARD).write_text(card, encoding="utf-8")
    files = sorted(path for path in model.rglob("*") if path.is_file())
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": name,
        "kind": kind,
        "modality": opened.spec.modality,
        "version": _text(fields.get("version"), _LONGEST_LINE) or "not stated",
        "description": _text(fields.get("description") or fields.get("name"), _LONGEST),
        "licence": license_,
        "weights": next(f"{MONAI}/{name}/{one}" for one in contents if one.startswith("models/")),
        "files": {one.relative_to(model).as_posix(): file_sha256(one) for one in files},
    }
    (model / METADATA).parent.mkdir()
    write_json(model / METADATA, record, overwrite=False)


def _gives_image(fields: Mapping[str, Any]) -> bool:
    """Whether the first output that metadata state is an image; by whom it is read."""
    from MedEnhanceLib.gradprom.monai_bundle import IMAGES

    found: Any = fields
    for name in ("network_data_format", "outputs"):
        found = found.get(name) if isinstance(found, Mapping) else None
    first = next(iter(found.values()), None) if isinstance(found, Mapping) else None
    if not isinstance(first, Mapping) or "format" not in first:
        return isinstance(first, Mapping) and "channel_def" not in first
    return str(first["format"]).lower() in IMAGES


def _card(
    name: str,
    kind: str,
    opened: Segmenter,
    fields: Mapping[str, Any],
    license_: str,
    texts: list[str],
) -> str:
    """The model card. What the bundle says is indented: as a text, not as Markdown."""
    stated = {label: _text(fields.get(key), _LONGEST) for key, label in _STATED.items()}
    said = stated | {"license": license_, "labels": _text(list(opened.labels), _LONGEST)}
    if kind == "restoration":
        del said["labels"]
    lines = [
        fill(f"{label}: {text}", 96, initial_indent="    ", subsequent_indent="      ")
        for label, text in said.items()
        if text
    ]
    network = f"MONAI's {opened.spec.network.name}" if opened.spec.network else "a network of MONAI"
    return "\n".join(
        [
            f"# {name}\n",
            f"A MONAI bundle of somebody else for {opened.spec.modality}, a {kind}. Nothing is "
            "known here of how well it does. Of it, the weights and configurations are read, as "
            f"data, and no code is run: the network is {network}.\n",
            "What it says of itself:\n",
            *lines,
            "",
            f"- Its own texts: {', '.join(texts) or 'none'}",
            f"- SHA-256 of its weights: {opened.sha256}",
            f"- Use: `{FOREIGN[kind].format(name)}`",
            "",
            f"{RESEARCH_ONLY}\n",
        ]
    )


def _text(given: Any, longest: int) -> str:
    """What somebody else stated, in a line of limited length without control characters."""
    given = ", ".join(map(str, given)) if isinstance(given, list) else str(given or "")
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in given).split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
