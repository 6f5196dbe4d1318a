"""Private temporary folders whose owner is known even after a crash.

    <temp>/medenhance-XXXXXXXX/      mode 0700
        owner.lock                   held by an OS file lock as long as the owner lives
        …                            whatever the owner and its clients put here

A lock, unlike a process number, ends with its process however that ends, and no later process
can be taken for it. A folder whose lock can be had has no owner any more, and is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from MedEnhanceLib.errors import OutputError

_PREFIX = "medenhance-"
_LOCK = "owner.lock"
#: The first line of the lock file: a folder without it is not ours, whatever its name is.
_MARK = b"MedEnhance temporary folder\n"
_TRIES = 20


class Workspace:
    """A private folder, ours until `remove` or the end of the process."""

    def __init__(self) -> None:
        """Make one; raises OutputError where the system's temporary folder cannot be used."""
        try:
            self.folder, self._lock = _make()
        except OSError as cause:
            raise OutputError(
                f"no temporary folder can be made in {tempfile.gettempdir()}: {cause.strerror}",
                "Free some space there, or name another folder in the variable TMPDIR.",
            ) from cause

    def remove(self) -> None:
        """Remove the folder and let the lock go; a second call does nothing."""
        _remove(self.folder, self._lock)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


@contextlib.contextmanager
def exchange_folder(workspace: Path) -> Iterator[Path]:
    """A folder for one job inside a workspace of this user's; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="job-", dir=workspace))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned() -> list[Path]:
    """Remove the folders whose owners are gone; what was removed.

    Touches only folders of this user's that carry our mark and whose lock nobody holds.
    """
    removed = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        lock = _take_over(folder)
        if lock is not None:
            _remove(folder, lock)
            removed.append(folder)
    return removed


def _make() -> tuple[Path, IO[bytes]]:
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = (folder / _LOCK).open("xb")
        lock.write(_MARK)
        lock.flush()
        # A cleaner may have come between open and lock and taken the folder for abandoned.
        if _lock(lock) and _is_at(lock, folder / _LOCK):
            return folder, lock
        lock.close()
    raise OSError(errno.EBUSY, "other processes keep removing it")


def _take_over(folder: Path) -> IO[bytes] | None:
    """The lock of an abandoned folder, or None where it has an owner or is not ours."""
    try:
        if not _is_private(folder) or not stat.S_ISREG((folder / _LOCK).lstat().st_mode):
            return None
        lock = (folder / _LOCK).open("rb+")
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if _lock(lock) and lock.read(len(_MARK)) == _MARK and _is_at(lock, folder / _LOCK):
            return lock
    lock.close()
    return None


def _is_private(folder: Path) -> bool:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return False
    return sys.platform == "win32" or status.st_uid == os.getuid()


def _is_at(lock: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except OSError:
        return False


def _remove(folder: Path, lock: IO[bytes]) -> None:
    if lock.closed:
        return
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name != _LOCK:
            _remove_entry(entry)
    if sys.platform == "win32":  # an open file cannot be removed there
        lock.close()
    shutil.rmtree(folder, ignore_errors=True)
    lock.close()


def _remove_entry(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            entry.unlink()


if sys.platform == "win32":
    import msvcrt

    #: Beyond the mark: on Windows a locked byte cannot be read by others.
    _LOCKED_BYTE = 4096

    def _lock(file: IO[bytes]) -> bool:
        position = file.tell()
        try:
            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            file.seek(position)
        return True

else:
    import fcntl

    def _lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
