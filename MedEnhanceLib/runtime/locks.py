"""Folders that are owned by a process as long as it lives.

    <parent>/<prefix>XXXXXXXX/owner.lock

The lock is the operating system's, taken with filelock: it ends with its process, however that
ends, and no later process can be taken for the owner. So a folder whose lock can be taken is
abandoned. Why: docs/decisions/0006-jobs-in-a-worker.md.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.errors import DependencyError, OutputError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.tolerance import IfSupported

if TYPE_CHECKING:
    from filelock import FileLock

#: Prefix of the names of workspaces.
_WORKSPACE = "medenhance-"
#: The file that locks an owned folder.
LOCK = "owner.lock"
#: Its content where the folder is temporary, and where it has an owner without a lock.
_MARK, _NO_LOCK = b"MedEnhance temporary folder\n", b"MedEnhance folder without a lock\n"
#: What follows the prefix in the names of `make_owned`, and in no other names: as of mkdtemp.
_RANDOM = 8 * "[a-z0-9_]"
#: How long `remove_abandoned` of another process may hold the lock of a new folder.
_CLEANER_SECONDS = 5.0
#: A folder of this age without a mark has no owner: marking a new folder takes far less.
_UNMARKED_SECONDS = 60.0


def make_owned(prefix: str, parent: Path | None = None) -> tuple[Path, FileLock | None]:
    """Make a private folder (mode 0700) and take its lock.

    prefix: of its name.
    parent: where it is made; None: the system's temporary folder.
    Returns the folder and its lock; no lock (None) if the file system has none, or filelock is not
    installed yet: such a folder is never removed by another process.
    Raises OSError if it cannot be made; nothing is left behind.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        try:
            lock = _file_lock(folder / LOCK, on_acquired=lambda file: os.write(file, _MARK))
        except DependencyError:
            (folder / LOCK).write_bytes(_NO_LOCK)
            return folder, None
        with IfSupported():
            lock.acquire(timeout=_CLEANER_SECONDS)
            # filelock makes it again where it was removed because this process was stopped.
            with contextlib.suppress(PermissionError):  # of a disk without modes
                folder.chmod(0o700)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, lock if lock.is_locked else None


def remove_abandoned(prefix: str = _WORKSPACE, parent: Path | None = None) -> list[Path]:
    """Remove the folders of `make_owned` whose owners are gone; returns their paths.

    prefix, parent: as given to `make_owned`; by default those of workspaces.
    Removes only folders of this user with the mark of MedEnhance and a free lock, and private ones
    a minute old that are empty but for a free lock, as their owner was killed before it marked it.
    """
    removed = []
    for folder in sorted((parent or Path(tempfile.gettempdir())).glob(f"{prefix}{_RANDOM}")):
        path = folder / LOCK
        with contextlib.suppress(OSError, DependencyError):  # a held lock is an OSError, too
            status = folder.lstat()
            is_ours = sys.platform == "win32" or status.st_uid == os.getuid()
            if not is_ours or not stat.S_ISDIR(status.st_mode):
                continue
            is_private = sys.platform == "win32" or not status.st_mode & 0o077
            is_old = is_private and time.time() - status.st_mtime > _UNMARKED_SECONDS
            if path.is_file() and not path.is_symlink():
                # Before the lock is taken: that makes anew what its owner has just removed.
                with path.open("rb") as stream:
                    mark = stream.read(len(_NO_LOCK))
                is_unmarked = is_old and _MARK.startswith(mark) and [*folder.iterdir()] == [path]
                if mark != _MARK and not is_unmarked:
                    continue
                lock = _file_lock(path)
                lock.acquire(blocking=False)
                remove_owned(folder, lock)
                removed.append(folder)
            elif is_old:
                folder.rmdir()  # fails where anything lies in it
    return removed


def hold(folder: Path) -> FileLock | None:
    """Own an existing folder until the lock is released; None where another process owns it.

    On a file system without locks others are not noticed, and the lock is not locked.
    Raises OSError where the folder cannot be written to.
    """
    filelock = require("filelock", purpose="Locking a folder")
    lock = _file_lock(folder / LOCK)
    try:
        with IfSupported():
            lock.acquire(blocking=False)
    except filelock.Timeout:
        return None
    return lock


def remove_owned(folder: Path, lock: FileLock | None) -> None:
    """Remove the folder and release its lock; a second call does nothing."""
    if lock is not None and not lock.is_locked:
        return
    with contextlib.suppress(OSError):  # a disk that went away: the next start removes the folder
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != LOCK:  # removed last: after a crash the next start finishes
                entry.unlink()
    if lock is not None and sys.platform == "win32":  # an open file cannot be removed there
        lock.release()
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        lock.release()


class Workspace:
    """A private temporary folder of a worker or a job, until `remove` or the end of the process."""

    def __init__(self, parent: Path | None = None) -> None:
        """Make one; raises OutputError where that is not possible.

        parent: where it is made; None: the system's temporary folder.
        """
        try:
            self.folder, self._lock = make_owned(_WORKSPACE, parent)
        except OSError as cause:
            place = parent or tempfile.gettempdir()
            raise OutputError(
                f"no temporary folder can be made in {place}: {cause.strerror}",
                "Free some space there, or name another folder in the variable TMPDIR.",
            ) from cause

    def remove(self) -> None:
        """Remove the folder and release the lock; a second call does nothing."""
        remove_owned(self.folder, self._lock)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _file_lock(path: Path, **options: Any) -> FileLock:
    filelock = require("filelock", purpose="Locking files")
    lock: FileLock = filelock.FileLock(path, thread_local=False, preserve_lock_file=True, **options)
    return lock
