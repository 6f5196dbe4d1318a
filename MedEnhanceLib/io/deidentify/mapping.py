"""The file that keeps a cohort consistent over several runs, and that re-identifies everybody."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import ConfigError, InputError, OutputError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.io.deidentify.patients import Person
from MedEnhanceLib.runtime.progress import Monitor

_FORMAT = "medenhance-deidentification"
_NOTICE = (
    "SECRET. Whoever has this file can tell who is behind each de-identified image. Keep it apart "
    "from the images, and delete it when nobody needs to find the patients again."
)
_LARGEST = 256 << 20
_OTHERS = 0o077


@dataclass
class Mapping:
    """secret: 32 bytes that new UIDs and moved dates follow from. patients: who is called what."""

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    patients: dict[Person, str] = field(default_factory=dict)
    #: The file's text as it was read; None where there was none.
    read: str | None = None


def read_mapping(path: Path | None, monitor: Monitor) -> Mapping:
    """What the file says; a new mapping where there is no file yet, or no path.

    Raises InputError for a file that is none, and warns of one that others may read.
    """
    if path is None or not path.exists():
        return Mapping()
    try:
        if path.stat().st_size > _LARGEST:
            raise _no_mapping(path)
        text = path.read_text(encoding="utf-8")
        is_open = os.name != "nt" and path.stat().st_mode & _OTHERS
        fields = json.loads(text)
    except OSError as cause:
        raise InputError(f"{path} cannot be read: {cause.strerror}", "Check the path.") from cause
    except (ValueError, RecursionError):
        raise _no_mapping(path) from None
    if is_open:
        monitor.warn(f"{path.name} can be read by other users of this machine: chmod 600 {path}")
    return _checked(fields, text, path)


def check_place(path: Path | None, folder_out: Path) -> None:
    """Raise ConfigError for a mapping among what is passed on, OutputError where none can be."""
    if path is None:
        return
    if path.resolve().is_relative_to(folder_out.resolve()):
        raise ConfigError(
            f"{path.name}: the mapping would lie inside the de-identified folder",
            "It re-identifies everybody: keep it elsewhere.",
        )
    if not path.parent.is_dir():
        raise OutputError(
            f"{path}: the folder {path.parent} is not there", "Make it, or give another path."
        )
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is no file", "Name a file for the mapping.")


@contextlib.contextmanager
def mapping_in_place(path: Path | None, mapping: Mapping) -> Iterator[None]:
    """Write it for as long as what it tells of comes into being; where that fails, undo it.

    It is there before the images: one that nobody can match any more is worse than one too few.
    """
    if path is None:
        yield
        return
    before = mapping.read
    write_mapping(path, mapping)
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, before)
        raise


def write_mapping(path: Path, mapping: Mapping) -> None:
    """Save it, readable by its owner alone; OutputError where another run changed it meanwhile."""
    now = path.read_text(encoding="utf-8") if path.exists() else None
    if now != mapping.read:
        raise OutputError(
            f"{path.name} was changed by another run meanwhile", "Run this one again after it."
        )
    fields = {
        "format": _FORMAT,
        "version": 1,
        "notice": _NOTICE,
        "secret": mapping.secret.hex(),
        "patients": [
            {"pseudonym": pseudonym, **asdict(person)}
            for person, pseudonym in mapping.patients.items()
        ],
    }
    text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    _write(path, text)
    mapping.read = text


def _write(path: Path, text: str) -> None:
    with atomic_write(path, overwrite=True) as temporary:
        temporary.chmod(0o600)  # before anything secret is in it
        temporary.write_text(text, encoding="utf-8")


def _checked(fields: Any, text: str, path: Path) -> Mapping:
    if not isinstance(fields, dict) or fields.get("format") != _FORMAT:
        raise _no_mapping(path)
    if fields.get("version") != 1:
        raise InputError(f"{path.name} is of a newer version", "Update MedEnhance.")
    try:
        secret = bytes.fromhex(fields["secret"])
        patients = dict(_patient(row) for row in fields["patients"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _no_mapping(path) from None
    if len(secret) < 16:
        raise _no_mapping(path)
    return Mapping(secret, patients, text)


def _patient(row: dict[str, Any]) -> tuple[Person, str]:
    if not all(isinstance(value, str) for value in row.values()):
        raise TypeError
    told = dict(row)
    pseudonym: str = told.pop("pseudonym")
    return Person(**told), pseudonym


def _no_mapping(path: Path) -> InputError:
    return InputError(
        f"{path.name} is no mapping of de-identified patients",
        "Name the file that an earlier run wrote, or one that is not there yet.",
    )
