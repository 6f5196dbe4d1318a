"""Import trained models from a folder or a zip, and delete them."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections import deque
from dataclasses import replace
from pathlib import Path
from shlex import quote

from MedEnhanceLib.bundles import store
from MedEnhanceLib.bundles.schema import METADATA, MOST_BYTES, MOST_FILES, safe_path
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.options import NAMES, is_name
from MedEnhanceLib.errors import MedEnhanceError, ModelError, OutputError
from MedEnhanceLib.io.atomic import (
    PREFIX,
    as_output_error,
    atomic_folder,
    hidden_folder,
    make_folder,
    remove_folder,
    write_json,
)
from MedEnhanceLib.io.voxels import refuse_pipe
from MedEnhanceLib.runtime.locks import remove_abandoned
from MedEnhanceLib.runtime.text import renamed_in_errors

_ZIP = "zip"
#: What `zipfile` raises on members that it cannot unpack, besides its own error.
_ZIP_FAULTS = (zipfile.BadZipFile, OSError, RuntimeError, EOFError, ValueError, zlib.error)


def import_bundle(source: Path, name: str | None = None) -> Bundle:
    """Verify a bundle, a folder or a zip, and copy it into the user's folder.

    name: new name of the model; None keeps its own.
    Raises ModelError if it is no bundle or damaged; InputError if nothing can be read; OutputError
    for a name that is taken, and without disk space or permission.
    """
    refuse_pipe(source)
    root = make_folder(store.user_folder())
    # Folders that killed imports have left.
    remove_abandoned(PREFIX, root)
    with (
        hidden_folder(root, root / source.name) as staging,
        # Errors name the zip: the unpacked copy is deleted before they are shown.
        renamed_in_errors(staging / _ZIP, str(source)),
    ):
        folder = source if source.is_dir() else _unpack(source, staging)
        bundle = _checked(store.read_bundle(folder), name, root, source)
        target = root / bundle.name
        with atomic_folder(target, replaceable=lambda _: False) as staged:
            _copy(folder, staged)
            metadata = bundle.metadata | {"imported_from": source.absolute().name}
            write_json(staged / METADATA, metadata, overwrite=True)
            _forget_default(bundle.name)  # set for another model, whose folder is gone
    return store.read_bundle(target)


def _checked(bundle: Bundle, name: str | None, root: Path, source: Path) -> Bundle:
    """Return a verified bundle under its new name; raises as `import_bundle`."""
    store.verify_bundle(bundle)
    if name is not None:
        bundle = replace(bundle, metadata=bundle.metadata | {"name": name})
    if not is_name(bundle.name):
        raise OutputError(f"the model's name {bundle.name!r} cannot be used", f"Use {NAMES}.")
    rename = f"Choose a name: medenhance models import {quote(str(source))} --name NAME"
    if any(other.shipped and other.name == bundle.name for other in store.list_bundles()):
        raise OutputError(f"a model {bundle.name!r} came with MedEnhance", rename)
    if os.path.lexists(root / bundle.name):
        raise OutputError(
            f"a model {bundle.name!r} already exists in {root}",
            f"{rename}. Or remove it first: medenhance models remove {bundle.name}",
        )
    return bundle


def _copy(folder: Path, staged: Path) -> None:
    """Copy metadata, and the files that they name."""
    for relative in (str(METADATA), *store.read_bundle(folder).metadata["files"]):
        copy = staged / safe_path(relative)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / safe_path(relative), copy)


def remove_bundle(name: str) -> None:
    """Delete an imported bundle, or a model folder that cannot be read.

    name: of the bundle, or of the unreadable folder.
    Raises ModelError without one, MedEnhanceError if it is shipped, OutputError for a link and
    where that fails.
    """
    broken = store.user_folder() / name
    folder = broken
    if broken not in store.unreadable_bundles():
        bundle = store.by_name(name)
        if bundle.shipped:
            raise MedEnhanceError(
                f"model {name!r} is part of MedEnhance", "Only imported models can be removed."
            )
        folder = bundle.folder
    if folder.parent != store.user_folder():
        raise OutputError(f"{folder} is not a folder of a model", "Name a model.")
    steps = remove_folder(folder)
    next(steps)  # it is gone, or nothing has changed
    _forget_default(name)
    deque(steps, 0)


def _forget_default(name: str) -> None:
    """Let the shipped model be the default again, if one of this name is."""
    before = store.read_defaults()
    defaults = {key: value for key, value in before.items() if value != name}
    if defaults != before:
        write_json(store.user_folder() / store.DEFAULTS, defaults, overwrite=True)


def _unpack(archive: Path, folder: Path) -> Path:
    """Extract a zip; returns the folder of the bundle inside."""
    try:
        with zipfile.ZipFile(archive) as contents:
            entries = contents.infolist()
            # `zipfile` unpacks no more than the size that a member declares.
            declared = sum(entry.file_size for entry in entries)
            if declared > MOST_BYTES or len(entries) > MOST_FILES:
                raise ModelError(
                    f"{archive.name} unpacks to {declared / 1e9:.1f} GB in {len(entries)} files, "
                    "more than a model has",
                    "Do not import it.",
                )
            files = {safe_path(each.filename): each for each in entries if not each.is_dir()}
            for path, entry in files.items():
                data = contents.read(entry)
                with as_output_error(folder.parent):
                    place = folder / _ZIP / path
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(data)
    except _ZIP_FAULTS as cause:
        if isinstance(cause, OSError) and cause.filename is not None:
            raise  # not the zip's fault
        raise ModelError(
            f"{archive}: not a readable zip ({cause})", "Download or copy the file again."
        ) from cause
    for metadata in sorted((folder / _ZIP).rglob(METADATA.name)):
        if metadata.parent.name == METADATA.parent.name:
            return metadata.parent.parent
    raise ModelError(f"{archive.name}: no {METADATA} inside", "Choose the zip of a model.")
