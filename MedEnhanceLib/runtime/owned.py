"""Folders whose owner is known even after a crash.

    <parent>/<prefix>XXXXXXXX/       mode 0700
        owner.lock                   held by an OS file lock as long as the owner lives
        …                            whatever the owner puts here

A lock, unlike a process number, ends with its process however that ends, and no later process
can be taken for it. A folder whose lock can be had has no owner any more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import IO

LOCK = "owner.lock"
#: The first line of the lock file: a folder without it is not ours, whatever its name is.
_MARK = b"MedEnhance temporary folder\n"
_TRIES = 20


def make_owned(prefix: str, parent: Path | None = None) -> tuple[Path, IO[bytes]]:
    """A private folder in `parent` (default: the system's temporary folder) and its held lock.

    Raises OSError; then nothing is left.
    """
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = (folder / LOCK).open("xb")
            lock.write(_MARK)
            lock.flush()
            # A cleaner may have come between open and lock and taken the folder for abandoned.
            if try_lock(lock) and _is_at(lock, folder / LOCK):
                return folder, lock
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        lock.close()
    raise OSError(errno.EBUSY, "other processes keep removing it")


def take_over(folder: Path) -> IO[bytes] | None:
    """The lock of an abandoned folder, or None where it has an owner or is not ours."""
    try:
        if not _is_private(folder) or not stat.S_ISREG((folder / LOCK).lstat().st_mode):
            return None
        lock = (folder / LOCK).open("rb+")
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if try_lock(lock) and lock.read(len(_MARK)) == _MARK and _is_at(lock, folder / LOCK):
            return lock
    lock.close()
    return None


def hold(folder: Path) -> IO[bytes] | None:
    """Own an existing folder for as long as what is returned stays open.

    None where another process owns it. Raises OSError where the folder cannot be written to.
    """
    lock = (folder / LOCK).open("ab+")
    if try_lock(lock) and _is_at(lock, folder / LOCK):
        return lock
    lock.close()
    return None


def is_held(folder: Path) -> bool:
    """Whether a process owns the folder just now."""
    if not (folder / LOCK).is_file():
        return False
    lock = hold(folder)
    if lock is not None:
        lock.close()
    return lock is None


def remove_owned(folder: Path, lock: IO[bytes]) -> None:
    """Remove the folder and let its lock go; a second call does nothing."""
    if lock.closed:
        return
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name != LOCK:
            _remove_entry(entry)
    if sys.platform == "win32":  # an open file cannot be removed there
        lock.close()
    shutil.rmtree(folder, ignore_errors=True)
    lock.close()


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

    def try_lock(file: IO[bytes]) -> bool:
        """Lock an open file for this process, unless another one has; whether that worked."""
        position = file.tell()
        try:
            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            file.seek(position)
        return True

    def unlock(file: IO[bytes]) -> None:
        """Let a lock of `try_lock` go, also where a child has the file open."""
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def try_lock(file: IO[bytes]) -> bool:
        """Lock an open file for this process, unless another one has; whether that worked."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(file: IO[bytes]) -> None:
        """Let a lock of `try_lock` go, also where a forked child has the file open."""
        fcntl.flock(file, fcntl.LOCK_UN)
