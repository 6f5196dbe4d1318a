"""What lists and checks say of installed models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from MedEnhanceLib.bundles.store import CARD, Bundle, list_bundles, verify_bundle
from MedEnhanceLib.errors import ModelError


def summary(bundle: Bundle) -> dict[str, Any]:
    """What a list says of a model."""
    metadata = bundle.metadata
    return {
        "name": bundle.name,
        "kind": bundle.kind,
        "modality": bundle.modality,
        "anatomy": bundle.anatomy,
        "deblurs": bundle.deblurs,
        "version": str(metadata.get("version", "")),
        "licence": str(metadata.get("licence", "")),
        "description": str(metadata.get("description", "")),
        "shipped": bundle.shipped,
        "bytes": folder_bytes(bundle.folder),
        "sha256": bundle.sha256,
        "folder": str(bundle.folder),
    }


def checked(bundle: Bundle) -> dict[str, Any]:
    """The summary with its card and training, and whether its files match their hashes."""
    path = bundle.folder / CARD
    details = {
        "card": path.read_text(encoding="utf-8") if path.is_file() else "",
        "training": str(bundle.metadata.get("training", {}).get("summary", "")),
    }
    return summary(bundle) | details | check(bundle)


def check(bundle: Bundle) -> dict[str, Any]:
    """ok: whether every file matches its hash; message: what is wrong."""
    try:
        verify_bundle(bundle)
    except ModelError as error:
        return {"ok": False, "message": error.message}
    return {"ok": True, "message": "verified"}


def installed() -> list[dict[str, Any]]:
    """One row for each installed model, checked; a row of its own where there is no folder."""
    try:
        bundles = list_bundles()
    except ModelError as error:
        return [{"name": "", "kind": "", "modality": "", "ok": False, "message": error.message}]
    return [
        {"name": bundle.name, "kind": bundle.kind, "modality": bundle.modality} | check(bundle)
        for bundle in bundles
    ]


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
