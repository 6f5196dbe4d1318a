"""Trained models on this machine: those that came with MedEnhance, and imported ones.

A bundle is a folder in the layout of MONAI bundles: configs/metadata.json, models/*.safetensors,
docs/README.md (its model card). It contains only data: nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from MedEnhanceLib.core.manifest import file_sha256
from MedEnhanceLib.core.modality import default_units
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.io.atomic import write_json
from MedEnhanceLib.io.staging import staging_for
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder

FORMAT = "medenhance-bundle"
FORMAT_VERSION = 1
METADATA = PurePosixPath("configs/metadata.json")
WEIGHTS = PurePosixPath("models/model.safetensors")
#: Bundles of this kind contain several models, one for each part of the compressed container.
CODEC = "codec"
#: Small networks that restore single slices, as `train denoiser` makes them.
RESTORER = "restorer"
#: Networks that restore thin slices from thick ones, as `train slices` makes them.
SLICES = "slices"
CARD = PurePosixPath("docs/README.md")
_REQUIRED = ("name", "kind", "modality", "version", "description", "licence", "files")
#: Of all files of a model in a zip.
_MOST_BYTES, _MOST_FILES = 1 << 30, 1000
#: In the user's folder: the models that the user set as default.
_DEFAULTS = "defaults.json"
_IMPORTED = "@imported"


@dataclass(frozen=True)
class Bundle:
    """A trained model's folder with its metadata, read and checked for form."""

    folder: Path
    metadata: dict[str, Any]
    shipped: bool
    #: Added to the name of an imported model that another one has too.
    suffix: str = ""

    @property
    def name(self) -> str:
        """The name that users give."""
        return f"{self.metadata['name']}{self.suffix}"

    @property
    def origin(self) -> str:
        """Where it is from: "shipped with MedEnhance", "imported" or "in a folder"."""
        if self.shipped or self.folder.parent == resource_folder("models"):
            return "shipped with MedEnhance"
        return "imported" if self.folder.parent == user_folder() else "in a folder"

    @property
    def kind(self) -> str:
        """One of "enhancer", "restorer", "slices", "head" and "codec"."""
        return str(self.metadata["kind"])

    @property
    def starts_grouped(self) -> bool:
        """Of an enhancer: whether the grouped filter comes first, in place of the network's own."""
        return self.metadata.get("start") == "grouped"

    @property
    def has_second_pass(self) -> bool:
        """Of an enhancer: whether its network removes noise too, after the filter."""
        return bool(self.metadata.get("second_pass", True))

    @property
    def expects_error(self) -> bool:
        """Of an enhancer: whether its network says how far off its result may be."""
        return bool(self.metadata.get("expects_error", True))

    @property
    def modality(self) -> str:
        """Of its training data: "MR", "CT"."""
        return str(self.metadata["modality"])

    @property
    def anatomy(self) -> str:
        """The body part of its training data: "brain"; empty where none is stated."""
        return str(self.metadata.get("anatomy", ""))

    @property
    def scope(self) -> str:
        """The anatomy that default results depend on; empty where nothing learned acts."""
        is_off = self.starts_grouped and not self.has_second_pass
        return "" if is_off else self.anatomy

    @property
    def deblurs(self) -> bool:
        """Whether it is an enhancer that undoes blur on request."""
        return bool(self.metadata.get("network", {}).get("deblurring", False))

    @property
    def on_request(self) -> bool:
        """Whether "auto" skips it, because it finds something that few images show."""
        return bool(self.metadata.get("on_request", False))

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / WEIGHTS

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights (of a codec, of all its files), which identifies the model."""
        files = self.metadata["files"]
        if self.kind != CODEC:
            return str(files[str(WEIGHTS)])
        hashes = (str(files[name]) for name in sorted(files) if name.endswith(".safetensors"))
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    def identity(self, *, is_learned: bool = True) -> dict[str, str]:
        """Name, hash and origin, as manifests record them, and the anatomy where it is stated.

        is_learned: whether what was learned has a part in the result; else its anatomy has none.
        """
        anatomy = {"anatomy": self.anatomy} if self.anatomy and is_learned else {}
        return {"name": self.name, "sha256": self.sha256, "origin": self.origin} | anatomy


def user_folder() -> Path:
    """The folder of imported bundles: $MEDENHANCE_MODELS, else .medenhance/models in the home."""
    folder = os.environ.get("MEDENHANCE_MODELS")
    return Path(folder) if folder else Path.home() / ".medenhance" / "models"


def list_bundles() -> list[Bundle]:
    """All readable bundles: the user's defaults, then those that ship, then imported ones, by name.

    So the first one that fits is the one to take. An imported one with the name of one that ships
    has "@imported" behind its name. Folders that are no readable bundle are left out;
    `read_bundle` reports the reason.
    """
    found: dict[str, Bundle] = {}
    for folder, shipped in _candidates():
        try:
            bundle = read_bundle(folder, shipped=shipped)
        except ModelError:
            continue
        if bundle.name in found:
            bundle = replace(bundle, suffix=_IMPORTED)
        found[bundle.name] = bundle
    defaults = set(read_defaults().values())
    return sorted(
        found.values(), key=lambda one: (one.name not in defaults, not one.shipped, one.name)
    )


def read_defaults() -> dict[str, str]:
    """The names of the models that the user set as default, by "KIND MODALITY".

    Raises:
        ModelError: the file that holds them is damaged.
    """
    path = user_folder() / _DEFAULTS
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as cause:
        raise ModelError(f"{path} cannot be read ({cause})", "Delete the file.") from cause
    if not isinstance(fields, dict) or not all(isinstance(v, str) for v in fields.values()):
        raise ModelError(f"{path} holds no names of models", "Delete the file.")
    return fields


def set_default(name: str) -> Bundle:
    """Take an installed model where none is named ("auto"), for its kind and modality.

    Raises:
        ModelError: there is none of this name, or it is taken on request alone.
    """
    bundle = _by_name(name)
    if bundle.on_request:
        raise ModelError(
            f"model {name!r} finds something that few images show, and is no default",
            "Name it where it is needed.",
        )
    which = f"{bundle.kind} {bundle.modality}"
    others = {key: value for key, value in read_defaults().items() if key != which}
    write_json(user_folder() / _DEFAULTS, others | {which: bundle.name}, overwrite=True)
    return bundle


def open_bundle_for(
    volume: Volume, name_or_path: str, *, kind: str, monitor: Monitor | None = None
) -> tuple[Bundle, Volume]:
    """The bundle for a volume, and the volume with the modality that it is processed as.

    A modality that was guessed from the values gives way to that of a model chosen by name.

    Args:
        volume: what is to be processed.
        name_or_path: as for `open_bundle`.
        kind: as for `open_bundle`.
        monitor: receives a message where the modality changes.

    Raises:
        ModelError: as `open_bundle`.
    """
    is_open = volume.modality_is_guess and name_or_path != "auto"
    modality = "OT" if is_open else volume.modality
    bundle = open_bundle(name_or_path, kind=kind, modality=modality)
    if not is_open or volume.modality == bundle.modality:
        return bundle, volume
    if monitor is not None:
        monitor.log(f"taken as {bundle.modality}, which model {bundle.name} is for")
    units = default_units(bundle.modality)
    return bundle, replace(volume, modality=bundle.modality, units=units, modality_is_guess=False)


def open_bundle(name_or_path: str, *, kind: str, modality: str) -> Bundle:
    """Find a bundle and check its files against their hashes.

    Args:
        name_or_path: a name, a folder, or "auto" for the user's default of this kind and modality,
            else the first that ships, else the first imported one; none that is `on_request`.
        kind: "enhancer", "restorer", "slices", "head" or "codec".
        modality: of the volume, such as "MR"; "OT" fits any model.
    Raises:
        ModelError: there is none, it is damaged, or it is of another kind or modality.
    """
    if name_or_path == "auto":
        bundle = _recommended(kind, modality)
    elif (folder := folder_of(name_or_path)) is not None:
        bundle = read_bundle(folder)
    else:
        bundle = _by_name(name_or_path)
    if bundle.kind != kind:
        raise ModelError(
            f"model {bundle.name!r} {_verb(bundle.kind)}; a model that {_verb(kind)} is needed",
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

    Args:
        folder: of the bundle.
        shipped: whether it came with MedEnhance.
        expected_sha256: of the model that is expected here; empty for any.
    Raises:
        ModelError: it is no bundle, or another model than expected.
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
        raise ModelError(f"{folder}: the model was replaced in the meantime", "Start again.")
    return bundle


def verify_bundle(bundle: Bundle) -> None:
    """Raise ModelError unless every file exists with the hash in the metadata."""
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
    """Verify a bundle, a folder or a zip, and copy it into the user's folder.

    Raises ModelError where it is no bundle, is damaged, or one of its name exists already.
    """
    target_root = user_folder()
    target_root.mkdir(parents=True, exist_ok=True)
    with staging_for(target_root / ".import") as staging:
        folder = _unpack(source, staging.new) if source.is_file() else source
        bundle = read_bundle(folder)
        verify_bundle(bundle)
        if not bundle.name.replace("-", "").replace("_", "").isalnum():
            raise ModelError(
                f"the model's name {bundle.name!r} cannot be used", "Use letters, digits, - and _."
            )
        if any(one.shipped and one.name == bundle.name for one in list_bundles()):
            raise ModelError(
                f"a model {bundle.name!r} came with MedEnhance",
                "Give the other one another name in its metadata.json.",
            )
        target = target_root / bundle.name
        if target.exists():
            raise ModelError(
                f"a model {bundle.name!r} already exists in {target_root}",
                f"Remove it first: medenhance models remove {bundle.name}",
            )
        staged = staging.new / "staged"
        for relative in (str(METADATA), *bundle.metadata["files"]):
            copy = staged / _safe(relative)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / _safe(relative), copy)
        staged.replace(target)
    return read_bundle(target)


def remove_bundle(name: str) -> None:
    """Delete an imported bundle; raises ModelError for one that came with MedEnhance."""
    bundle = _by_name(name)
    if bundle.shipped:
        raise ModelError(
            f"model {name!r} is part of MedEnhance", "Only imported models can be removed."
        )
    kept = {which: default for which, default in read_defaults().items() if default != name}
    if kept != read_defaults():
        write_json(user_folder() / _DEFAULTS, kept, overwrite=True)
    shutil.rmtree(bundle.folder)


def _candidates() -> Iterator[tuple[Path, bool]]:
    for root, shipped in ((resource_folder("models"), True), (user_folder(), False)):
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                if folder.is_dir() and not folder.name.startswith("."):
                    yield folder, shipped


def find_bundle(name_or_path: str) -> Bundle:
    """An installed model by name, or one by its folder; raises ModelError for neither."""
    folder = folder_of(name_or_path)
    if folder is not None and folder.is_dir():
        return read_bundle(folder)
    return _by_name(name_or_path, ". Or give the folder of a model.")


def folder_of(name_or_path: str) -> Path | None:
    """The folder that is meant, or None for the name of a model.

    A folder of images may have the name of an installed model: a plain word means a folder where
    that holds a model, or where no model of that name is installed.
    """
    folder = Path(name_or_path)
    if os.sep in name_or_path:
        return folder
    if not folder.is_dir():
        return None
    is_installed = any(bundle.name == name_or_path for bundle in list_bundles())
    return folder if (folder / METADATA).is_file() or not is_installed else None


def _by_name(name: str, more: str = " (see: medenhance models list).") -> Bundle:
    installed = {bundle.name: bundle for bundle in list_bundles()}
    if name not in installed:
        names = ", ".join(installed) or "none"
        raise ModelError(f"there is no model {name!r}", f"Installed: {names}{more}")
    return installed[name]


def is_restorer(name_or_path: str) -> bool:
    """Whether a model that was named is a small restorer; False where there is no such model."""
    try:
        return find_bundle(name_or_path).kind == RESTORER
    except ModelError:
        return False


def _recommended(kind: str, modality: str) -> Bundle:
    chosen = read_defaults().get(f"{kind} {modality}")
    if chosen is not None:
        return _by_name(chosen, ". Or set another default: medenhance models default NAME.")
    for bundle in list_bundles():
        if bundle.kind == kind and bundle.modality == modality and not bundle.on_request:
            return bundle
    raise ModelError(
        f"there is no model that {_verb(kind)} {modality}"
        + (" unless it is selected by name" if _fitting(kind, modality) else ""),
        _names_hint(kind, modality),
    )


def _verb(kind: str) -> str:
    """What a model of that kind does: messages say "segments", not "head"."""
    verbs = {
        "enhancer": "enhances",
        RESTORER: "restores",
        SLICES: "restores thin slices of",
        "head": "segments",
        CODEC: "compresses",
    }
    return verbs.get(kind, f"is of the kind {kind}")


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
    return f"A model here that {_verb(kind)}: {', '.join(others) or 'none'}."


def _safe(relative: str) -> PurePosixPath:
    """The path of a bundle's file; raises ModelError if it could leave the folder."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or "\\" in relative or ":" in relative:
        raise ModelError(
            f"the model names a file outside its folder: {relative!r}", "Do not import it."
        )
    return path


def _unpack(archive: Path, folder: Path) -> Path:
    """Extract a zip; returns the folder of the bundle inside."""
    try:
        with zipfile.ZipFile(archive) as contents:
            # `zipfile` unpacks no more than the size that a member declares.
            declared = sum(entry.file_size for entry in contents.infolist())
            if declared > _MOST_BYTES or len(contents.infolist()) > _MOST_FILES:
                raise ModelError(
                    f"{archive.name} unpacks to {declared / 1e9:.1f} GB in "
                    f"{len(contents.infolist())} files, more than a model has",
                    "Do not import it.",
                )
            for entry in contents.infolist():
                target = folder / "zip" / _safe(entry.filename)
                if entry.is_dir():
                    continue
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


def summary(bundle: Bundle) -> dict[str, Any]:
    """A model's row in lists."""
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
        "origin": bundle.origin,
        "default": bundle.name in read_defaults().values(),
        "bytes": folder_bytes(bundle.folder),
        "sha256": bundle.sha256,
        "folder": str(bundle.folder),
    }


def checked(bundle: Bundle) -> dict[str, Any]:
    """The summary with model card and training, and whether the files match their hashes."""
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
    """A checked row for each installed model; one row with the error if there is no folder."""
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
