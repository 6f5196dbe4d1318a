"""DICOM in a zip: its members are read from the archive; nothing is unpacked to disk."""

from __future__ import annotations

import functools
import io
import lzma
import os
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.machine import memory
from MedEnhanceLib.runtime.progress import Monitor

_ENCRYPTED = 0x1
#: A zip that unpacks to more than this must not be packed more tightly than that.
_LARGE, _MOST_RATIO = 1_000_000_000, 100
_MOST_FILES = 500_000
_ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".iso")
_OF_SYSTEMS = ("__MACOSX", "lost+found", "System Volume Information", "$RECYCLE.BIN")
_UNPACK = "Unpack the archive and give the folder."
#: The exceptions that `zipfile` raises for damaged or hostile archives.
UNZIP_FAILURES: tuple[type[Exception], ...] = (
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


def members(path: Path, monitor: Monitor) -> list[str]:
    """The names of the files in a zip that may be DICOM.

    Args:
        path: the zip.
        monitor: is warned of archives inside it, which are not opened.
    Raises:
        InputError: the zip is damaged, encrypted, empty, holds only further archives, or unpacks
            to more than half of the free memory, or is packed as nothing but a trap is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    except UNZIP_FAILURES as cause:
        raise InputError(
            f"{path} cannot be read as a zip: {cause}", "Copy or download the file again."
        ) from cause
    except OSError as cause:
        raise InputError(f"{path} cannot be read: {cause.strerror}", _UNPACK) from cause
    entries = [entry for entry in entries if not _is_hidden(entry.filename)]
    _refuse_encrypted(entries, path)
    nested = [entry for entry in entries if _is_archive(entry.filename)]
    entries = [entry for entry in entries if not _is_archive(entry.filename)]
    if nested and not entries:
        raise InputError(
            f"{path} holds no DICOM file but further archives ({nested[0].filename} first)", _UNPACK
        )
    if nested:
        monitor.warn(
            f"{path.name}: archives inside it are not opened: {len(nested)}, "
            f"{nested[0].filename} first"
        )
    if not entries:
        raise InputError(f"{path} is an empty archive", "Give the archive that holds the images.")
    _refuse_huge(entries, path)
    names = Counter(entry.filename for entry in entries)
    for name, count in names.items():
        if count > 1:
            raise InputError(f"{path} holds {count} files of the name {name}", _UNPACK)
    return list(names)


def member_bytes(path: str, member: str) -> BinaryIO:
    """A member, unpacked in memory; raises InputError where it is damaged."""
    with _readable(path, member) as stream:
        try:
            return io.BytesIO(stream.read())
        except UNZIP_FAILURES as cause:
            raise _damaged(path, member, cause) from cause


def member_stream(path: str, member: str) -> BinaryIO:
    """A member that is unpacked as far as it is read; reading may raise UNZIP_FAILURES."""
    return _readable(path, member)


def forget() -> None:
    """Close the archives that were kept open between members."""
    _opened.cache_clear()


def _readable(path: str, member: str) -> BinaryIO:
    try:
        state = Path(path).stat()
        # A forked process shares the position in the file, so it needs an archive of its own.
        archive = _opened(path, state.st_mtime_ns, state.st_size, os.getpid())
        entry = archive.getinfo(member)
        _refuse_encrypted([entry], Path(path))
        _refuse_huge([entry], Path(path))
        return archive.open(entry)  # type: ignore[return-value] # seekable, and reads binary
    except UNZIP_FAILURES as cause:
        raise _damaged(path, member, cause) from cause


@functools.lru_cache(maxsize=2)
def _opened(path: str, _changed: int, _size: int, _process: int) -> zipfile.ZipFile:
    """Kept between members: reading the list of 10,000 of them takes long."""
    return zipfile.ZipFile(path)


def _damaged(path: str, member: str, cause: BaseException) -> InputError:
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return InputError(
        f"{member} in {path} cannot be unpacked: {reason}", "Copy or download the archive again."
    )


def _refuse_encrypted(entries: list[zipfile.ZipInfo], path: Path) -> None:
    for entry in entries:
        if entry.flag_bits & _ENCRYPTED:
            raise InputError(
                f"{path} is encrypted ({entry.filename})",
                "Unpack it with its password and give the folder.",
            )


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
    if len(entries) > _MOST_FILES:
        raise InputError(f"{path} holds {len(entries)} files", _UNPACK)


def is_litter(name: str) -> bool:
    """Whether an operating system made the file; hidden images count as images."""
    return name.startswith("._") or name in (".DS_Store", "Thumbs.db", "desktop.ini")


def is_litter_folder(name: str) -> bool:
    """Whether a folder is hidden, or made by an operating system."""
    return name.startswith(".") or name in _OF_SYSTEMS


def _is_hidden(name: str) -> bool:
    *folders, last = [part for part in name.split("/") if part not in (".", "..")]
    return is_litter(last) or any(map(is_litter_folder, folders))


def _is_archive(name: str) -> bool:
    return name.lower().endswith(_ARCHIVES)
