"""Locks between processes: one long job at a time on a GPU, and folders that have an owner.

    <temporary folder>/medenhance-gpu-<card>.lock   of a GPU, as long as a long job has it
    <parent>/<prefix>XXXXXXXX/owner.lock            of a private folder, as long as its owner lives

The locks are the operating system's, taken with filelock: a lock ends with its process, however
that ends, and no later process can be taken for the owner. So a file that can be locked is free,
and a folder whose lock can be taken is abandoned. All users of a machine share the files of GPUs
where they share the temporary folder (TMPDIR). Why:
docs/decisions/0006-jobs-in-a-worker.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.lazy import imported
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from filelock import FileLock

#: The file that locks an owned folder.
LOCK = "owner.lock"
#: Its first line where the folder is temporary: only folders with this mark are ever removed.
_MARK = b"MedEnhance temporary folder\n"
#: How long a cleaner that looks into a new folder may hold its lock.
_CLEANER_SECONDS = 5.0
#: Making a lock in a new folder takes no longer by far.
_UNLOCKED_SECONDS = 60.0
#: Errors of file systems without locks, such as some network disks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_POLL_SECONDS = 0.5


def make_owned(prefix: str, parent: Path | None = None) -> tuple[Path, FileLock | None]:
    """Make a private folder (mode 0700) and take its lock.

    Args:
        prefix: what its name begins with.
        parent: where it is made; None takes the system's temporary folder.
    Returns:
        The folder and its lock; None for the lock where the file system has none, or where
        filelock is not installed yet: nobody cleans up such a folder after a crash.
    Raises:
        OSError: it cannot be made; nothing is left behind.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        lock = _file_lock(folder / LOCK, on_acquired=lambda descriptor: os.write(descriptor, _MARK))
        lock.acquire(timeout=_CLEANER_SECONDS)
    except DependencyError:
        return folder, None
    except OSError as cause:
        if cause.errno in _NO_LOCKS:
            return folder, None
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, lock


def remove_abandoned(prefix: str, parent: Path) -> list[Path]:
    """Remove the folders of `make_owned` whose owners are gone; returns which these were.

    Touches only folders of this user that carry our mark and whose lock nobody holds, and empty
    ones a minute old, whose owner was killed before it made its lock.
    """
    removed = []
    for folder in sorted(parent.glob(f"{prefix}*")):
        path = folder / LOCK
        with contextlib.suppress(OSError, DependencyError):  # a held lock is an OSError, too
            status = folder.lstat()
            is_ours = sys.platform == "win32" or status.st_uid == os.getuid()
            if not is_ours or not stat.S_ISDIR(status.st_mode):
                continue
            if path.is_file() and not path.is_symlink():
                lock = _file_lock(path, on_acquired=_check_mark)
                lock.acquire(blocking=False)
                remove_owned(folder, lock)
                removed.append(folder)
            elif time.time() - status.st_mtime > _UNLOCKED_SECONDS:
                folder.rmdir()  # fails where anything lies in it
    return removed


def hold(folder: Path) -> FileLock | None:
    """Own an existing folder until the lock is released; None where another process owns it.

    Raises OSError where the folder cannot be written to.
    """
    filelock = require("filelock", purpose="Locking a folder")
    lock = _file_lock(folder / LOCK)
    try:
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
            elif entry.name != LOCK:  # the last to go: after a crash here, the next start goes on
                entry.unlink()
    if lock is not None and sys.platform == "win32":  # an open file cannot be removed there
        lock.release()
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        lock.release()


@contextlib.contextmanager
def hold_gpu(devices: Sequence[str], monitor: Monitor | None = None) -> Iterator[str]:
    """Keep other long jobs off one of these devices; a process shares a device with itself.

    At the end, memory that torch keeps cached on the device is freed.

    Args:
        devices: torch's names, the preferred one first; only GPUs are locked.
        monitor: is warned of a wait until one is free, and can cancel it.
    Yields:
        The name of the device.
    Raises:
        Cancelled: while waiting.
    """
    monitor, names = monitor or Monitor(), ", ".join(devices)
    free = _first_free(devices)
    if free is None:
        monitor.warn(f"waiting for the GPU, which another long job has ({names})")
        monitor.progress(0.0, "waiting for the GPU")
        while (free := _first_free(devices)) is None:
            monitor.check()
            time.sleep(_POLL_SECONDS)
        monitor.log(f"{free[0]} is free; going on")
    device, lock = free
    with lock:
        try:
            yield device
        finally:
            release_memory(device)


def release_memory(device: str) -> None:
    """Free the memory that torch keeps cached on a GPU, for other processes there."""
    torch: Any = imported("torch")
    if torch is None:
        return
    if device.startswith("cuda") and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif device.startswith("mps") and torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _file_lock(path: Path, **options: Any) -> FileLock:
    filelock = require("filelock", purpose="Locking files")
    lock: FileLock = filelock.FileLock(path, thread_local=False, preserve_lock_file=True, **options)
    return lock


def _check_mark(descriptor: int) -> None:
    if os.read(descriptor, len(_MARK)) != _MARK:
        raise OSError(errno.EINVAL, "not a temporary folder of MedEnhance")


def _first_free(
    devices: Sequence[str],
) -> tuple[str, contextlib.AbstractContextManager[object]] | None:
    """The first device that no other process has, with a context that releases it at its end."""
    for device in devices:
        path = _gpu_file(device)
        if path is None:
            return device, contextlib.nullcontext()
        filelock = require("filelock", purpose="Sharing a GPU")
        # The process's one lock of a card; filelock counts how often it was acquired.
        lock = _file_lock(path, mode=0o666, blocking=False, is_singleton=True)
        try:
            return device, lock.acquire()
        except filelock.Timeout:
            continue
        except OSError:
            # Where no file can be made (a full or foreign temporary folder) work goes on without
            # locks: they prevent slow runs and full memory, results do not depend on them.
            return device, contextlib.nullcontext()
    return None


def _gpu_file(device: str) -> Path | None:
    """The lock file of a device; None for what is no GPU.

    Two processes may see one card under two numbers (CUDA_VISIBLE_DEVICES), so its UUID names it
    where torch is loaded and gives one.
    """
    kind, _, number = device.partition(":")
    if kind not in ("cuda", "mps"):
        return None
    card = "mps" if kind == "mps" else number or "0"
    torch: Any = imported("torch")
    if kind == "cuda" and torch is not None and torch.cuda.is_available():
        uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
        if uuid.replace("-", "").isalnum():
            card = uuid
    return Path(tempfile.gettempdir()) / f"medenhance-gpu-{card}.lock"
