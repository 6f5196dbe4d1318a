"""Trained models on this machine: those that came with MedEnhance, and imported ones.

A bundle is a folder in the layout of MONAI bundles: configs/metadata.json, models/*.safetensors,
docs/README.md (its model card). It contains only data: nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import os
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedEnhanceLib.bundles import schema
from MedEnhanceLib.core.manifest import file_sha256
from MedEnhanceLib.core.modality import SET_MODALITY, profile_of
from MedEnhanceLib.errors import InputError, ModelError, UnfitModelError
from MedEnhanceLib.io.atomic import write_json
from MedEnhanceLib.io.json_input import read_json
from MedEnhanceLib.io.voxels import refuse_pipe
from MedEnhanceLib.runtime.resources import resource_folder

_LONGEST_CARD = 1 << 20
#: In the user's folder: the models that the user set as default.
DEFAULTS = "defaults.json"
#: What a model of a kind does: messages say "segments", not "head".
_VERBS = {
    "enhancer": "inverts a scanner",
    schema.SLICES: "restores thin slices",
    "head": "segments",
    schema.CODEC: "compresses",
}
_REMOVE = "Import it again, or remove it: medenhance models remove {}"


@dataclass(frozen=True)
class Bundle:
    """A trained model's folder, read and checked for form.

    Attributes:
        metadata: the object in its configs/metadata.json.
    """

    folder: Path
    metadata: dict[str, Any]

    @property
    def name(self) -> str:
        """The name that users give."""
        return str(self.metadata["name"])

    @property
    def shipped(self) -> bool:
        """Whether it came with MedEnhance."""
        return self.folder.parent == shipped_folder()

    @property
    def origin(self) -> str:
        """The origin: "shipped with MedEnhance", "imported", "in a folder"."""
        if self.shipped:
            return "shipped with MedEnhance"
        return "imported" if self.folder.parent == user_folder() else "in a folder"

    @property
    def kind(self) -> str:
        """One of `schema.KINDS`."""
        return str(self.metadata["kind"])

    @property
    def modality(self) -> str:
        """The modality of its training data: "MR", "CT"."""
        return str(self.metadata["modality"])

    @property
    def anatomy(self) -> str:
        """The body part of its training data: "brain"; empty where none is stated."""
        return str(self.metadata.get("anatomy", ""))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings that every run with it has to state, by name."""
        return tuple(f"{self.name}: {t.rstrip('.')}" for t in self.metadata.get("warnings", ()))

    @property
    def inverts(self) -> bool:
        """Whether it changes more than noise, by a measured scanner: only where it is named."""
        return "scanner" in self.metadata

    @property
    def about(self) -> str:
        """Description, training data, warnings and limits, shorter than the card."""
        metadata = self.metadata
        data = ", ".join(str(entry.get("name") or "") for entry in metadata.get("data", ()))
        lines = [
            f"{self.name} {metadata['version']}: {metadata['description']}",
            f"Trained on: {data}",
            f"How it was trained: {metadata.get('training', {}).get('summary', '')}",
        ]
        lines += [*metadata.get("warnings", ()), *metadata.get("limits", ())]
        return "\n".join(textwrap.fill(line, 80) for line in lines)  # tool tips are not wrapped

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / schema.WEIGHTS

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights (of a codec, of all its files), which identifies the model."""
        files = self.metadata["files"]
        if self.kind != schema.CODEC:
            return str(files[str(schema.WEIGHTS)])
        hashes = (str(files[name]) for name in sorted(files) if name.endswith(".safetensors"))
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    def identity(self) -> dict[str, str]:
        """Return name, hash, origin and any anatomy, as manifests record them."""
        anatomy = {"anatomy": self.anatomy} if self.anatomy else {}
        return {"name": self.name, "sha256": self.sha256, "origin": self.origin} | anatomy


def shipped_folder() -> Path:
    """Return the folder of the models that ship with MedEnhance."""
    return resource_folder("models")


def user_folder() -> Path:
    """Return the folder of imported models: $MEDENHANCE_MODELS, else ~/.medenhance/models."""
    folder = os.environ.get("MEDENHANCE_MODELS")
    return Path(folder) if folder else Path.home() / ".medenhance" / "models"


def codec_files() -> Iterator[Path]:
    """Yield the weight files of codec models, shipped ones first, even if metadata are invalid.

    A volume that was compressed with a model can only be decoded with it.
    """
    for root in (shipped_folder(), user_folder()):
        yield from sorted(root.glob(f"{schema.CODEC_PREFIX}*/models/*.safetensors"))


#: State of the files, and what was read from them: models and defaults.
_listed: tuple[list[tuple[str, int, int, int]], list[Bundle], dict[str, str]] = ([], [], {})


def list_bundles() -> list[Bundle]:
    """List all readable bundles: the user's defaults, then shipped, then imported ones, by name.

    The first one that fits is preferred. `unreadable_bundles` has the other folders. The list is
    kept until a file changes.
    """
    return [*_installed()[0]]


def _installed() -> tuple[list[Bundle], dict[str, str]]:
    """Return `list_bundles` and `read_defaults`, read once until a file changes."""
    global _listed
    files = _bundle_files()
    if files != _listed[0]:
        bundles = [bundle for _, bundle in _read_all() if not isinstance(bundle, ModelError)]
        defaults = read_defaults()
        preferred = set(defaults.values())
        bundles.sort(key=lambda each: (each.name not in preferred, not each.shipped, each.name))
        _listed = files, bundles, defaults
    return _listed[1:]


def _bundle_files() -> list[tuple[str, int, int, int]]:
    """Return path, size and times (of content, of rights) of files that `list_bundles` reads."""
    roots = (shipped_folder(), user_folder())
    paths = [
        p for root in roots for p in (root / DEFAULTS, root, *root.glob(f"*/{schema.METADATA}"))
    ]
    states = [(str(path), path.stat()) for path in sorted(paths) if path.exists()]
    return [(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for path, state in states]


def unreadable_bundles() -> dict[Path, ModelError]:
    """Return the model folders that hold no usable model, each with its error."""
    return {folder: error for folder, error in _read_all() if isinstance(error, ModelError)}


def read_defaults() -> dict[str, str]:
    """Read the user's default models by "KIND MODALITY"; ModelError where the file is damaged."""
    path = user_folder() / DEFAULTS
    if not os.access(path, os.R_OK):  # missing, or in the home of another user
        return {}
    try:
        fields = read_json(path)
    except (OSError, ValueError, InputError):
        fields = None
    if not isinstance(fields, dict) or not all(isinstance(v, str) for v in fields.values()):
        raise ModelError(f"{path} is damaged", "Delete it to reset the default models.")
    return fields


def set_default(name: str) -> Bundle:
    """Make "auto" select an installed model; MedEnhanceError if it is missing."""
    bundle = by_name(name)
    if bundle.inverts:
        raise ModelError(
            f"model {name!r} cannot be a default: it inverts a scanner, which is done on request",
            "Name it where it suits: --model.",
        )
    which = f"{bundle.kind} {bundle.modality}"
    others = {key: value for key, value in read_defaults().items() if key != which}
    user_folder().mkdir(parents=True, exist_ok=True)
    write_json(user_folder() / DEFAULTS, others | {which: bundle.name}, overwrite=True)
    return bundle


def open_bundle(name_or_path: str, *, kind: str, modality: str) -> Bundle:
    """Find a bundle and check its files against their hashes.

    Args:
        name_or_path: a name, a folder, or "auto" for the user's default of this kind and modality,
            else the first that ships, else the first imported one.
        kind: one of `schema.KINDS`.
        modality: of the volume, such as "MR"; "OT" fits any model.
    Raises ModelError: there is none, it is damaged, or it is of another kind or modality.
    """
    is_auto = name_or_path == "auto"
    bundle = _recommended(kind, modality) if is_auto else find_bundle(name_or_path)
    if bundle.kind != kind:
        raise UnfitModelError(
            f"model {bundle.name!r} {_VERBS[bundle.kind]}; a model that {_VERBS[kind]} is needed",
            _names_hint(kind, modality),
        )
    if not profile_of(modality).takes(bundle.modality):
        raise UnfitModelError(
            f"model {bundle.name!r} is for {bundle.modality}, the volume is {modality}",
            f"{_names_hint(kind, modality)} If the modality is wrong, correct it: {SET_MODALITY}.",
        )
    verify_bundle(bundle)
    return bundle


def read_bundle(folder: Path, *, expected_sha256: str = "") -> Bundle:
    """Read and check a bundle's metadata; the weights are not opened.

    expected_sha256: of the model that is expected in the folder; empty for any.
    Raises ModelError where it is no bundle, or another model than expected.
    """
    path = folder / schema.METADATA
    try:
        metadata = schema.check_metadata(read_json(path), path)
    except (OSError, ValueError, InputError) as cause:
        reason = getattr(cause, "strerror", None) or cause
        raise ModelError(
            f"{folder}: {schema.METADATA} cannot be read ({reason})",
            "Choose a model folder made by MedEnhance, or import the model again.",
        ) from cause
    bundle = Bundle(folder, metadata)
    if expected_sha256 not in ("", bundle.sha256):
        raise ModelError(f"{folder}: the model was replaced in the meantime", "Start again.")
    return bundle


def shipped_bundle(name: str) -> Bundle:
    """Read the bundle of this name that ships; ModelError without it."""
    return read_bundle(shipped_folder() / name)


def verify_bundle(bundle: Bundle) -> None:
    """Raise ModelError unless every file exists with the hash in the metadata."""
    for relative, expected in bundle.metadata["files"].items():
        path = bundle.folder / relative  # within the folder, as was checked when it was read
        try:
            sha256 = file_sha256(path) if path.is_file() else None
        except OSError as cause:
            raise ModelError(
                f"model {bundle.name!r}: the file {relative} cannot be read ({cause.strerror})",
                "Give yourself access to it, or import the model again.",
            ) from cause
        if sha256 is None:
            raise ModelError(
                f"model {bundle.name!r}: the file {relative} is missing", "Import it again."
            )
        if sha256 != expected:
            raise ModelError(
                f"model {bundle.name!r}: the file {relative} is damaged (its SHA-256 differs)",
                "Import the model again.",
            )


def _read_all() -> Iterator[tuple[Path, Bundle | ModelError]]:
    """Yield every model folder with its model, or with the error that makes it unusable."""
    names: set[str] = set()
    for root in (shipped_folder(), user_folder()):
        try:
            entries = sorted(root.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as cause:
            reason = f"{root} cannot be read ({cause.strerror})"
            yield root, ModelError(reason, "Allow it, or name another folder (MEDENHANCE_MODELS).")
            continue
        for folder in entries:
            # A plain file is no model, and what begins with a dot is being imported.
            if folder.name.startswith(".") or os.path.isfile(folder):  # noqa: PTH113 - never raises
                continue
            try:
                bundle = read_bundle(folder)
                if bundle.name in names:
                    raise ModelError(f"{folder}: another model is named {bundle.name!r}")
                names.add(bundle.name)
                yield folder, bundle
            except ModelError as error:
                remedy = _REMOVE.format(folder.name) if root == user_folder() else error.hint
                yield folder, ModelError(error.message, remedy)


def find_bundle(name_or_path: str) -> Bundle:
    """Return an installed model by name, or one by its folder; raises ModelError for neither."""
    folder = folder_of(name_or_path)
    return by_name(name_or_path) if folder is None else read_bundle(folder)


def folder_of(name_or_path: str) -> Path | None:
    """Return the folder that `name_or_path` means; None if it is the name of a model.

    A plain word means a folder only if that holds a model: a folder of images may have its name.
    """
    folder = Path(name_or_path)
    is_folder = os.sep in name_or_path or os.path.isfile(folder / schema.METADATA)  # noqa: PTH113 - never raises
    return folder if is_folder else None


def by_name(name: str) -> Bundle:
    """Return an installed model; ModelError, which lists the installed names, if it is missing."""
    installed = {bundle.name: bundle for bundle in list_bundles()}
    if name in installed:
        return installed[name]
    for folder, error in unreadable_bundles().items():
        if folder.name == name:
            raise error
    names = ", ".join(installed) or "none"
    raise ModelError(
        f"there is no model {name!r}",
        f"Installed: {names} (see: medenhance models list). Or give the folder of a model.",
    )


def is_taken(name: str) -> bool:
    """Return whether a model or a model folder already has this name."""
    names = {bundle.name for bundle in list_bundles()}
    return bool(name) and (name in names or (user_folder() / name).exists())


def _recommended(kind: str, modality: str) -> Bundle:
    bundles, defaults = _installed()
    name = defaults.get(f"{kind} {modality}")
    if name is not None:
        return by_name(name)
    if not profile_of(modality).is_known:
        hint = "State it: --modality MR or CT (modality= in Python)."
        raise UnfitModelError("the modality is unknown, and the model depends on it", hint)
    fitting = [
        each
        for each in bundles
        if (each.kind, each.modality) == (kind, modality) and not each.inverts
    ]
    if fitting:
        return fitting[0]
    of_kind = any(bundle.kind == kind for bundle in bundles)
    raise (UnfitModelError if of_kind else ModelError)(
        f"there is no model for {modality} that {_VERBS[kind]}",
        _names_hint(kind, modality),
    )


def _names_hint(kind: str, modality: str) -> str:
    models = [bundle for bundle in list_bundles() if bundle.kind == kind]
    names = [bundle.name for bundle in models if profile_of(modality).takes(bundle.modality)]
    if kind == schema.ENHANCER and not names:
        return "Leave the model out: noise is removed without. Thin slices are another task."
    if not names:
        modalities = ", ".join(sorted({bundle.modality for bundle in models})) or "no modality"
        return f"Models are installed for {modalities}."
    options = "--model NAME, model= in Python"
    if kind == "head":
        options += "; of enhance, --segment --segmenter NAME, segment=True and segmenter="
    return f"Select one by name ({options}): {', '.join(names)}."


def _is_default(bundle: Bundle) -> bool:
    rivals = (b for b in list_bundles() if (b.kind, b.modality) == (bundle.kind, bundle.modality))
    return not bundle.inverts and bundle == next(rivals, None)


def details(bundle: Bundle) -> dict[str, Any]:
    """Return a model's row for lists, with whether its files match their hashes."""
    metadata = bundle.metadata
    files = [path for path in bundle.folder.rglob("*") if path.is_file()]
    try:
        verify_bundle(bundle)
        fault = ""
    except ModelError as error:
        fault = error.message
    return {
        "name": bundle.name,
        "kind": bundle.kind,
        "modality": bundle.modality,
        "anatomy": bundle.anatomy,
        "version": str(metadata["version"]),
        "license": str(metadata["license"]),
        "description": str(metadata["description"]),
        "shipped": bundle.shipped,
        "origin": bundle.origin,
        "imported_from": str(metadata.get("imported_from", "")),
        "default": _is_default(bundle),
        "bytes": sum(path.stat().st_size for path in files),
        "sha256": bundle.sha256,
        "folder": str(bundle.folder),
        "training": str(metadata.get("training", {}).get("summary", "")),
        "ok": not fault,
        "message": fault or "verified",
        "card": _card_of(bundle),
    }


def _card_of(bundle: Bundle) -> str:
    """Return the model card, up to its largest size; "" without one."""
    try:
        refuse_pipe(bundle.folder / schema.CARD)
        with (bundle.folder / schema.CARD).open("rb") as stream:
            return stream.read(_LONGEST_CARD).decode("utf-8", "replace").replace("\r\n", "\n")
    except (OSError, InputError):
        return ""


def installed() -> list[dict[str, Any]]:
    """Return details of each model, those that cannot be read last; or one row with the error."""
    unusable = {"kind": "", "modality": "", "ok": False}
    try:
        rows = [details(bundle) for bundle in list_bundles()]
    except ModelError as error:
        return [{"name": "", "message": error.message} | unusable]
    return rows + [row | unusable for row in unreadable_rows()]


def unreadable_rows() -> list[dict[str, str]]:
    """List name, error and hint of each model folder that holds no usable model."""
    return [
        {"name": folder.name, "message": error.message, "hint": error.hint}
        for folder, error in unreadable_bundles().items()
    ]
