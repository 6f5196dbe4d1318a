"""DICOM in a zip: its members are read from the archive; nothing is unpacked to disk."""

from __future__ import annotations

import functools
import io
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.machine import memory

_ENCRYPTED = 0x1
#: A zip that unpacks to more than this must not be packed more tightly than that.
_LARGE, _MOST_RATIO = 1_000_000_000, 100
_UNPACK = "Unpack the archive and give the folder."
#: The exceptions that `zipfile` raises for damaged or hostile archives.
_FAILURES = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
    ValueError, KeyError,
)  # fmt: skip


def is_zip(path: Path) -> bool:
    """Whether a file is a zip, by its content; one that is damaged, by its name."""
    try:
        if not path.is_file():  # reading a pipe would wait
            return False
        with path.open("rb") as stream:
            begins = stream.read(4)
        return begins in (b"PK\x03\x04", b"PK\x05\x06") or path.suffix.lower() == ".zip"
    except OSError:
        return False


def members(path: Path) -> list[str]:
    """The names of the files in a zip.

    Raises:
        InputError: the zip is damaged, encrypted or empty, unpacks to more than half of the free
            memory, or is packed as nothing but a trap is.
    """
    try:
        entries = [entry for entry in _opened(str(path)).infolist() if not entry.is_dir()]
    except _FAILURES as cause:
        raise InputError(
            f"{path} cannot be read as a zip: {cause}", "Copy or download the file again."
        ) from cause
    except OSError as cause:
        raise InputError(f"{path} cannot be read: {cause.strerror}", _UNPACK) from cause
    if not entries:
        raise InputError(f"{path} is an empty archive", "Give the archive that holds the images.")
    for entry in entries:
        if entry.flag_bits & _ENCRYPTED:
            raise InputError(
                f"{path} is encrypted ({entry.filename})",
                "Unpack it with its password and give the folder.",
            )
    names = {entry.filename for entry in entries}
    if len(names) < len(entries):
        raise InputError(f"{path} holds several files of one name", _UNPACK)
    _refuse_huge(entries, path)
    return sorted(names)


def member_bytes(path: str, member: str) -> BinaryIO:
    """A member, unpacked in memory; raises InputError where it is damaged."""
    try:
        entry = _opened(path).getinfo(member)
        _refuse_huge([entry], Path(path))
        return io.BytesIO(_opened(path).read(entry))
    except _FAILURES as cause:
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise InputError(
            f"{member} in {path} cannot be unpacked: {reason}",
            "Copy or download the archive again.",
        ) from cause


def forget() -> None:
    """Close the archive that was kept open between members."""
    _opened.cache_clear()


@functools.lru_cache(maxsize=1)
def _opened(path: str) -> zipfile.ZipFile:
    """Kept between members: reading the list of 10,000 of them takes long."""
    return zipfile.ZipFile(path)


def _refuse_huge(entries: list[zipfile.ZipInfo], path: Path) -> None:
    """`zipfile` unpacks no more than the size that a member declares."""
    declared, free = sum(entry.file_size for entry in entries), memory()["free"]
    # A member lies in memory twice: unpacked, and as what is read of it.
    if free is not None and 2 * declared > free:
        raise InputError(
            f"{path} unpacks to {declared / 1e9:.1f} GB, which takes twice that; the free memory "
            f"is {free / 1e9:.1f} GB",
            _UNPACK,
        )
    packed = sum(entry.compress_size for entry in entries)
    if declared > _LARGE and declared > _MOST_RATIO * packed:
        raise InputError(
            f"{path} unpacks to {declared / 1e9:.1f} GB, {declared // max(packed, 1)} times what "
            "it takes: no images do",
            "If it is what you expect, unpack it and give the folder.",
        )
