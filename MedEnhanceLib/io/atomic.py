"""Files are written completely or not at all; what was there before survives a failure.

A temporary file lies beside its target, under a name from which a later start can recognize that
its writer is gone:

    .medenhance-<owner>-<process>-<target>-<random><ending>

owner: a hash of this start of the machine and of its process table, which containers have their
own of. Only where it matches does a free process number mean that the writer is gone: another
machine, or another container, may be writing into the same folder. Systems that do not report
their start (all but Linux) get random names, and nothing is ever removed there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import MedEnhanceError, OutputError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


def refuse_existing(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise OutputError if `path` exists and may not be replaced; call it before long work."""
    target = Path(path)
    resolved(target)
    with _as_output_error(target):
        exists = target.exists()
    if exists and not target.is_dir() and not target.is_file():
        raise OutputError(f"{target} is a device, not a file", "Name a file.")
    if exists:
        refuse_taken(target, is_folder=target.is_dir(), overwrite=overwrite)


def refuse_taken(place: object, *, is_folder: bool, overwrite: bool) -> None:
    """Raise OutputError for a place where something is, here or at an address, by these rules."""
    if is_folder:
        raise OutputError(f"{place} is a folder", "Name a file inside it.")
    if not overwrite:
        raise OutputError(
            f"{place} exists already",
            "Choose another name, or allow that it is replaced (--force, overwrite=True).",
        )


def refuse_unwritable(folder: Path) -> None:
    """Raise OutputError for a folder that cannot be written to, or made; call it before long work.

    Args:
        folder: one that is there, or that is to be made in the next one above that is.
    """
    there = folder
    with _as_output_error(folder):
        while True:
            try:
                is_folder = stat.S_ISDIR(there.stat().st_mode)
                break
            except (FileNotFoundError, NotADirectoryError):
                there = there.parent
    if not is_folder:
        raise OutputError(f"{folder}: {there} is not a folder", "Name another one.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise output_error(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def resolved(path: Path, error: Callable[[Path, OSError], MedEnhanceError] | None = None) -> Path:
    """The path without links.

    Args:
        path: of what may be there or not.
        error: makes what is raised for a path that leads nowhere; `output_error` by default.
    """
    try:
        return path.resolve()
    except RuntimeError:  # Python's own word for a loop of links
        cause = OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    except ValueError as odd:
        cause = OSError(errno.EINVAL, str(odd))
    except OSError as refused:
        cause = refused
    raise (error or output_error)(path, cause) from cause


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it replaces `path` on a clean exit.

    The temporary file exists already (empty) and has the ending in lower case. On any exception
    it is removed and what was at `path` stays. What a killed writer of `path` left behind is
    removed first, if it certainly is gone. An OSError about another file passes through.

    Args:
        path: the file to write; of a link, the target is replaced, not the link.
        overwrite: whether an existing file is replaced.
    Yields:
        The temporary path.
    Raises:
        OutputError: an existing file, a missing folder, no permission, no space left.
    """
    refuse_existing(path, overwrite)
    target = resolved(Path(path))
    with _as_output_error(Path(path)):
        temporary = _create_beside(target)
    try:
        with _as_output_error(Path(path), temporary):
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            refuse_existing(path, overwrite)  # another program may have written it meanwhile
            temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    flush_folder(target.parent)


def write_json(path: str | os.PathLike[str], obj: Any, *, overwrite: bool) -> None:
    """Write `obj` as indented UTF-8 JSON, atomically; NaN is refused, as JSON has none."""
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path, overwrite=overwrite) as temporary:
        # A name of a file that is not UTF-8 holds lone surrogates, which JSON says as escapes.
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _create_beside(target: Path) -> Path:
    # In lower case: ITK writes the voxels of a .MHA into a second file of its own.
    ending = ".nii.gz" if target.name.lower().endswith(".nii.gz") else target.suffix.lower()
    remove_leftovers(target)
    temporary = target.with_name(temporary_name(target, ending))
    # Not tempfile: its 0600 would stay on the result; here the user's umask decides.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


def flush_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, if the system can."""
    if os.name == "nt":  # Windows cannot open a folder; its journal keeps the name
        return
    # The file is in place by now: a file system that cannot flush a folder takes nothing away.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _as_output_error(path: Path, temporary: Path | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        if temporary is not None and cause.filename not in (None, str(temporary), temporary):
            raise
        raise output_error(path, cause) from cause


def output_error(path: Path, cause: OSError) -> OutputError:
    """The error that says what stopped the writing of `path`, and the remedy."""
    cause = _first_cause(cause)
    if cause.errno in _NO_SPACE:
        return OutputError(
            f"{path}: no space left on the disk", "Free some space, or write to another disk."
        )
    if cause.errno in _NO_PERMISSION:
        return OutputError(
            f"{path}: no permission to write here", "Choose a folder that you may write to."
        )
    if cause.errno == errno.ENAMETOOLONG:
        return OutputError(f"{path.name:.80}…: the name is too long", "Choose a shorter one.")
    if cause.errno == errno.ELOOP:
        return OutputError(f"{path}: a link that leads to itself", "Remove it, or name a file.")
    if not path.parent.is_dir():
        return OutputError(f"{path}: {path.parent} is not a folder", "Make it, or name another.")
    reason = cause.strerror or str(cause).partition("\n")[0]  # pydicom adds its own traceback
    return OutputError(f"{path} cannot be written: {reason}", "Write to another place.")


def _first_cause(error: OSError) -> OSError:
    """The first error with a number, if a library raised another one without it afterwards."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen
        seen = seen.__cause__ or seen.__context__
    return error


PREFIX = ".medenhance-"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES = Path("/proc/self/ns/pid")
#: A folder whose names took as long as this to read is left alone for 20 times as long; when each
#: of these folders is read again, by this process's clock.
_NOTICED_SECONDS, _REST = 0.005, 20
_read_again: dict[Path, float] = {}


def temporary_name(target: Path, ending: str) -> str:
    """A new hidden name for what becomes `target`, with that ending."""
    owner = _owner()
    if not owner:
        return f"{PREFIX}{secrets.token_hex(8)}{ending}"
    return f"{PREFIX}{owner}-{os.getpid()}-{_hash(target.name)}-{secrets.token_hex(4)}{ending}"


def remove_leftovers(target: Path) -> None:
    """Remove what writers of `target` left behind that were killed since this machine started.

    Only regular files of this user, under names of `temporary_name`, whose process is gone.
    A folder whose names take long to read is not read again at once: a hundred thousand results
    in it would else take time that grows as their square.
    """
    owner, began = _owner(), time.monotonic()
    if not owner or began < _read_again.get(target.parent, began):
        return
    ours = re.compile(
        rf"{re.escape(PREFIX)}{owner}-(\d+)-{_hash(target.name)}-[0-9a-f]{{8}}(\..*)?"
    )
    # Whatever cannot be examined or removed stays: it does no harm.
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            named = ours.fullmatch(entry.name)
            if named and _is_gone(int(named[1])) and _is_own_file(entry):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()
    ended = time.monotonic()
    if ended - began > _NOTICED_SECONDS:
        _read_again[target.parent] = ended + _REST * (ended - began)
    else:
        _read_again.pop(target.parent, None)


def _is_own_file(entry: os.DirEntry[str]) -> bool:
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and status.st_nlink == 1


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's, or no number of a process
        return False
    return False


@cache
def _owner() -> str:
    try:
        return _hash(_BOOT.read_text(encoding="ascii") + str(_PROCESSES.readlink()))
    except (OSError, ValueError):
        return ""


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
