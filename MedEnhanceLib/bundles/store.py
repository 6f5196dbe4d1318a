"""Trained models on this machine: those that shipped, and those the user brought.

A bundle is a folder in the layout of MONAI bundles: configs/metadata.json, models/*.safetensors,
docs/README.md (its card). It holds data only: nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from MedEnhanceLib.core.manifest import file_sha256
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.runtime.resources import resource_folder

FORMAT = "medenhance-bundle"
FORMAT_VERSION = 1
METADATA = PurePosixPath("configs/metadata.json")
WEIGHTS = PurePosixPath("models/model.safetensors")
#: Bundles of this kind hold several models, one for each part of the compressed container.
CODEC = "codec"
#: Small networks that restore single slices, as `train denoiser` makes them.
RESTORER = "restorer"
CARD = PurePosixPath("docs/README.md")
_REQUIRED = ("name", "kind", "modality", "version", "description", "licence", "files")
_MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class Bundle:
    """A trained model's folder with its metadata, read and checked for form."""

    folder: Path
    metadata: dict[str, Any]
    shipped: bool

    @property
    def name(self) -> str:
        """What users call it by."""
        return str(self.metadata["name"])

    @property
    def kind(self) -> str:
        """One of "enhancer", "restorer", "head" and "codec"."""
        return str(self.metadata["kind"])

    @property
    def modality(self) -> str:
        """What it was trained on: "MR", "CT"."""
        return str(self.metadata["modality"])

    @property
    def anatomy(self) -> str:
        """What of the body it learned from: "brain"; empty where it does not say."""
        return str(self.metadata.get("anatomy", ""))

    @property
    def deblurs(self) -> bool:
        """Whether it is an enhancer that undoes blur where it is asked to."""
        return bool(self.metadata.get("network", {}).get("deblurring", False))

    @property
    def on_request(self) -> bool:
        """Whether "auto" leaves it out: it finds something that few images show."""
        return bool(self.metadata.get("on_request", False))

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / WEIGHTS

    @property
    def sha256(self) -> str:
        """Of the weights: names the model in files and manifests; of a codec's, of all of them."""
        files = self.metadata["files"]
        if self.kind != CODEC:
            return str(files[str(WEIGHTS)])
        hashes = (str(files[name]) for name in sorted(files) if name.endswith(".safetensors"))
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    def identity(self) -> dict[str, str]:
        """Name and hash, and the anatomy where it is told, as manifests record them."""
        told = {"anatomy": self.anatomy} if self.anatomy else {}
        return {"name": self.name, "sha256": self.sha256} | told


def user_folder() -> Path:
    """Where imported bundles live: $MEDENHANCE_MODELS, else .medenhance/models in the home."""
    wish = os.environ.get("MEDENHANCE_MODELS")
    return Path(wish) if wish else Path.home() / ".medenhance" / "models"


def list_bundles() -> list[Bundle]:
    """All bundles that can be read, by name; a user's one hides a shipped one of its name.

    A folder that is not a readable bundle is left out; `verify_bundle` and `open_bundle` say why.
    """
    found: dict[str, Bundle] = {}
    for folder, shipped in _candidates():
        try:
            bundle = read_bundle(folder, shipped=shipped)
        except ModelError:
            continue
        found[bundle.name] = bundle
    return sorted(found.values(), key=lambda bundle: bundle.name)


def open_bundle(name_or_path: str, *, kind: str, modality: str) -> Bundle:
    """The bundle to use, its files checked against their hashes.

    name_or_path: a name, a folder, or "auto" for the first that fits kind and modality and is
    not for requests alone.
    Raises ModelError where there is none, where it is damaged, or where it is of another kind
    or modality.
    """
    if name_or_path == "auto":
        bundle = _recommended(kind, modality)
    elif os.sep in name_or_path or Path(name_or_path).is_dir():
        bundle = read_bundle(Path(name_or_path))
    else:
        bundle = _by_name(name_or_path)
    if bundle.kind != kind:
        raise ModelError(
            f"model {bundle.name!r} {_does(bundle.kind)}, and is not one that {_does(kind)}",
            _names_hint(kind, modality),
        )
    if modality not in (bundle.modality, "OT"):
        raise ModelError(
            f"model {bundle.name!r} is for {bundle.modality}, the volume is {modality}",
            _names_hint(kind, modality)
            + " If the modality is wrong, correct it (--modality, or modality= when loading).",
        )
    verify_bundle(bundle)
    return bundle


def read_bundle(folder: Path, *, shipped: bool = False, expected_sha256: str = "") -> Bundle:
    """Read and check a bundle's metadata; the weights are not opened.

    Raises ModelError where it is not one, or where its weights are not those of expected_sha256.
    """
    path = folder / METADATA
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise ModelError(
            f"{folder}: {METADATA} cannot be read ({cause})",
            "Choose a model folder made by MedEnhance, or import the model again.",
        ) from cause
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ModelError(f"{path}: not the metadata of a MedEnhance model", "Choose another one.")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{path}: format {metadata.get('format_version')}, this version reads {FORMAT_VERSION}",
            "Update MedEnhance.",
        )
    missing = [field for field in _REQUIRED if field not in metadata]
    files = metadata.get("files")
    has_weights = isinstance(files, dict) and (
        str(WEIGHTS) in files or metadata.get("kind") == CODEC
    )
    if missing or not has_weights:
        raise ModelError(
            f"{path}: {', '.join(missing) or 'files'} is missing", "Import the model again."
        )
    bundle = Bundle(folder, metadata, shipped)
    if expected_sha256 not in ("", bundle.sha256):
        raise ModelError(f"{folder}: the model was exchanged meanwhile", "Start again.")
    return bundle


def verify_bundle(bundle: Bundle) -> None:
    """Raise ModelError unless every file is there with the hash that the metadata gives."""
    for relative, expected in bundle.metadata["files"].items():
        path = bundle.folder / _safe(relative)
        if not path.is_file():
            raise ModelError(
                f"model {bundle.name!r}: the file {relative} is missing", "Import it again."
            )
        if file_sha256(path) != expected:
            raise ModelError(
                f"model {bundle.name!r}: the file {relative} is damaged (its SHA-256 differs)",
                "Import the model again.",
            )


def import_bundle(source: Path) -> Bundle:
    """Copy a bundle, a folder or a zip, into the user's folder once it verifies.

    Raises ModelError where it is not a bundle, is damaged, or one of its name is there already.
    """
    target_root = user_folder()
    target_root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target_root, prefix=".import-") as temporary:
        folder = _unpack(source, Path(temporary)) if source.is_file() else source
        bundle = read_bundle(folder)
        verify_bundle(bundle)
        if not bundle.name.replace("-", "").replace("_", "").isalnum():
            raise ModelError(
                f"the model's name {bundle.name!r} cannot be used", "Use letters, digits, - and _."
            )
        target = target_root / bundle.name
        if target.exists():
            raise ModelError(
                f"a model {bundle.name!r} is in {target_root} already",
                f"Remove it first: medenhance models remove {bundle.name}",
            )
        staged = Path(temporary) / "staged"
        for relative in (str(METADATA), *bundle.metadata["files"]):
            copy = staged / _safe(relative)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / _safe(relative), copy)
        staged.replace(target)
    return read_bundle(target)


def remove_bundle(name: str) -> None:
    """Delete a bundle that the user imported; one that shipped stays."""
    bundle = _by_name(name)
    if bundle.shipped:
        raise ModelError(f"model {name!r} is part of MedEnhance", "Only imported ones go.")
    shutil.rmtree(bundle.folder)


def _candidates() -> Iterator[tuple[Path, bool]]:
    for root, shipped in ((resource_folder("models"), True), (user_folder(), False)):
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                if folder.is_dir() and not folder.name.startswith("."):
                    yield folder, shipped


def _by_name(name: str) -> Bundle:
    for bundle in list_bundles():
        if bundle.name == name:
            return bundle
    names = ", ".join(bundle.name for bundle in list_bundles()) or "none"
    raise ModelError(
        f"there is no model {name!r}", f"Installed: {names} (see: medenhance models list)."
    )


def _recommended(kind: str, modality: str) -> Bundle:
    for bundle in list_bundles():
        if bundle.kind == kind and bundle.modality == modality and not bundle.on_request:
            return bundle
    raise ModelError(
        f"there is no model that {_does(kind)} {modality}"
        + (" without being named" if _fitting(kind, modality) else ""),
        _names_hint(kind, modality),
    )


def _does(kind: str) -> str:
    """What a model of that kind does, as a verb: users know no kinds."""
    words = {
        "enhancer": "enhances",
        RESTORER: "restores",
        "head": "segments",
        CODEC: "compresses",
    }
    return words.get(kind, f"is of the kind {kind}")


def _fitting(kind: str, modality: str) -> list[str]:
    return [b.name for b in list_bundles() if b.kind == kind and b.modality == modality]


def _names_hint(kind: str, modality: str) -> str:
    fitting = _fitting(kind, modality)
    if fitting and kind == "head":
        name = fitting[0]
        return (
            f"Use {' or '.join(fitting)} (medenhance segment … --model {name}, medenhance enhance "
            f"… --segment --head {name}; model= and head= in Python)."
        )
    if fitting:
        return f"Use {' or '.join(fitting)}."
    others = [f"{b.name} ({b.modality})" for b in list_bundles() if b.kind == kind]
    return f"A model here that {_does(kind)}: {', '.join(others) or 'none'}."


def _safe(relative: str) -> PurePosixPath:
    """A path of a bundle's file, refused where it could leave the folder."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or "\\" in relative or ":" in relative:
        raise ModelError(f"the model names a file outside its folder: {relative!r}", "Refuse it.")
    return path


def _unpack(archive: Path, folder: Path) -> Path:
    """Extract a zip's bundle files; returns the folder that holds the metadata."""
    try:
        with zipfile.ZipFile(archive) as contents:
            for entry in contents.infolist():
                target = folder / "zip" / _safe(entry.filename)
                if entry.is_dir():
                    continue
                if entry.file_size > _MAX_FILE_BYTES:
                    raise ModelError(f"{archive.name}: {entry.filename} is too large", "Refuse it.")
                target.parent.mkdir(parents=True, exist_ok=True)
                with contents.open(entry) as stream, target.open("wb") as copy:
                    shutil.copyfileobj(stream, copy)
    except (zipfile.BadZipFile, OSError) as cause:
        raise ModelError(
            f"{archive}: not a readable zip ({cause})", "Download or copy the file again."
        ) from cause
    for metadata in sorted((folder / "zip").rglob(METADATA.name)):
        if metadata.parent.name == METADATA.parent.name:
            return metadata.parent.parent
    raise ModelError(f"{archive.name}: no {METADATA} inside", "Choose the zip of a model.")
