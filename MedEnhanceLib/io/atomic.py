"""Writing of files, completely or not at all; a failure leaves the earlier file as it was.

A file is prepared in a hidden folder beside its target, and gets its name by one rename:

    .medenhance-XXXXXXXX/    locked while its writer lives (see `runtime.locks`)
        file.nrrd

So remains of a killed writer are identified with certainty, even if other machines or containers
write into the same folder, and the next writer removes them. The files of a whole folder are
prepared in the same way, and get its name by one rename.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.runtime.locks import make_owned, remove_abandoned, remove_owned
from MedEnhanceLib.runtime.tolerance import IfSupported

#: Prefix of the names of hidden folders.
PREFIX = ".medenhance-"
#: Between the name of a folder and 8 characters: where its files are while it is replaced.
_ASIDE = ".replaced-"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
#: Folders that this process has cleaned up: reading a hundred thousand names takes a while.
_cleaned: set[Path] = set()


def refuse_existing(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise OutputError if `path` exists and may not be replaced; call it before long work.

    A link exists, also one that leads nowhere.
    """
    target = Path(path)
    with as_output_error(target):
        exists, folder = target.exists(), entry_of(target).parent
        if any(part.is_symlink() for part in (folder, *folder.parents)):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if exists and not target.is_dir() and not target.is_file():
        raise OutputError(f"{target} is a device, not a file", "Name a file.")
    if exists and target.is_dir():
        raise OutputError(f"{target} is a folder", "Name a file inside it.")
    if (exists or target.is_symlink()) and not overwrite:
        raise OutputError(
            f"{target} exists already",
            "Choose another name, or allow replacing it (--force, overwrite=True).",
        )


def refuse_unwritable(folder: Path) -> None:
    """Raise OutputError if a folder cannot be made or written to; call it before long work."""
    existing = folder
    with as_output_error(folder):
        while not existing.exists() and not existing.is_symlink():
            existing = existing.parent
    if not existing.is_dir():
        raise OutputError(f"{folder}: {existing} is not a folder", "Name another one.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise output_error(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def make_folder(folder: str | Path) -> Path:
    """Make a folder unless it exists; raises OutputError where it cannot be made."""
    target = Path(folder)
    with as_output_error(target):
        target.mkdir(parents=True, exist_ok=True)
    return target


def resolved(path: Path) -> Path:
    """Resolve symbolic links in a path; a link to itself stays."""
    return Path(os.path.realpath(path))


def entry_of(path: Path) -> Path:
    """Resolve symbolic links in the folder of a path; a link at its end stays."""
    return resolved(path) if path.name in ("", "..") else resolved(path.parent) / path.name


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` on a clean exit.

    The temporary file exists already (empty) and has the ending in lower case. On any exception
    it is removed and the file at `path` stays. If `path` is a link, the link itself is replaced:
    its target may be shared, as the objects of DataLad and git-annex are.
    Raises OutputError for an existing file (unless `overwrite`), a missing folder, no permission,
    no space left; an OSError about another file passes through.
    """
    refuse_existing(path, overwrite)
    target = entry_of(Path(path))
    if target.parent not in _cleaned:
        _cleaned.add(target.parent)
        remove_abandoned(PREFIX, target.parent)
    with hidden_folder(target.parent, Path(path)) as folder:
        temporary = folder / f"file{target.suffix.lower()}"
        with as_output_error(Path(path), folder):
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            with contextlib.suppress(OSError):  # some network disks have no modes
                temporary.chmod(mode)  # safetensors makes a new file that its owner alone can read
            with temporary.open("rb+") as stream:
                flush(stream)
            refuse_existing(path, overwrite)  # another program may have written it meanwhile
            temporary.replace(target)
    with _is_in_place(Path(path)):
        flush_folder(target.parent)


def write_json(path: str | os.PathLike[str], obj: Any, *, overwrite: bool) -> None:
    """Write indented UTF-8 JSON, as `atomic_write` does.

    Args:
        path: of the file, in a folder that exists.
        obj: the JSON value; ValueError if it holds NaN or infinity.
        overwrite: whether a file at `path` is replaced; else OutputError.
    """
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(json_bytes(obj))


def json_bytes(obj: Any) -> bytes:
    """Return the bytes that `write_json` writes."""
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name that is not UTF-8 holds lone surrogates, which JSON writes as escapes.
    return text.encode(errors="backslashreplace")


@contextlib.contextmanager
def hidden_folder(place: Path, target: Path) -> Iterator[Path]:
    """Yield a new hidden folder in `place` to prepare `target` in; it is removed at the end."""
    with as_output_error(target):
        folder, lock = make_owned(PREFIX, place)
    try:
        yield folder
    finally:
        remove_owned(folder, lock)


@contextlib.contextmanager
def atomic_folder(target: Path, *, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a new hidden folder; it becomes `target`, with all of its files, on a clean exit.

    On any exception nothing changes. If the process is killed between the two renames that replace
    a folder, its earlier files are in `<target>.replaced-XXXXXXXX`; `refuse_no_folder` puts them
    back, and the next replacement removes those of a process that was killed after both.

    target: a new or an empty folder, or one whose files may be removed.
    replaceable: returns whether a file in it may be removed; called just before the renames.
    Raises OutputError if the target cannot be replaced, or holds files that may not be removed;
    an OSError about another file passes through.
    """
    refuse_no_folder(target)
    real = resolved(target)
    with hidden_folder(real.parent, target) as folder:
        new = folder / "new"
        with as_output_error(target, folder):
            new.mkdir()
            yield new
        with as_output_error(target):
            for place, _, names in os.walk(new, topdown=False):
                for name in names:
                    with Path(place, name).open("rb+") as stream:
                        flush(stream)
                flush_folder(Path(place))
            _put_in_place(new, real, replaceable)
    with _is_in_place(target):
        flush_folder(real.parent)
    for aside in _set_aside(real):
        with _is_in_place(target, f"earlier files are left in {aside}"):
            for path in filter(replaceable, sorted(aside.iterdir())):
                path.unlink(missing_ok=True)  # another process may be at it
            with contextlib.suppress(OSError):  # another program has put a file there meanwhile
                aside.rmdir()


def remove_folder(folder: Path) -> Iterator[None]:
    """Remove a folder in steps, each of some milliseconds; `deque(…, 0)` takes them all.

    It gets a hidden name first, so a failure leaves all of it, and what a killed process leaves
    hidden is removed by the next writer in the same place.
    Raises OutputError for a link, and without permission.
    """
    if folder.is_symlink():
        raise OutputError(f"{folder} is a link to another folder", "Remove the link yourself.")
    remove_abandoned(PREFIX, folder.parent)
    with hidden_folder(folder.parent, folder) as hidden:
        moved = hidden / "removed"
        with as_output_error(folder):
            folder.rename(moved)
        yield
        for place, _, names in os.walk(moved, topdown=False):
            for name in names:
                with contextlib.suppress(OSError):
                    Path(place, name).unlink()
                yield


def refuse_no_folder(target: Path) -> None:
    """Raise OutputError if no folder can be made at `target`; call it before long work.

    Where `target` is missing or empty, files of it that a killed process set aside are put back.
    """
    if os.path.lexists(target) and not target.is_dir():
        what = "is a file" if target.exists() else "is a link to a folder that does not exist"
        raise OutputError(f"{target} {what}", "Name a folder.")
    if not target.parent.is_dir():
        raise OutputError(
            f"{target}: {target.parent} is not a folder", "Create it, or name another."
        )
    real = resolved(target)
    refuse_unwritable(real.parent)
    with as_output_error(target):
        remove_abandoned(PREFIX, real.parent)
        asides = _set_aside(real)
        if asides and not (real.is_dir() and any(real.iterdir())):
            max(asides, key=lambda aside: aside.stat().st_mtime).rename(real)


def _set_aside(target: Path) -> list[Path]:
    """List the folders of earlier files of `target` whose writers are gone."""
    asides = target.parent.glob(f"{glob.escape(target.name)}{_ASIDE}????????")
    living = {path.name[-8:] for path in target.parent.glob(f"{PREFIX}*")}
    gone = (path for path in asides if path.name[-8:] not in living)
    return [path for path in gone if path.is_dir() and not path.is_symlink()]


def _put_in_place(new: Path, target: Path, replaceable: Callable[[Path], bool]) -> None:
    earlier = sorted(target.iterdir()) if target.is_dir() else []
    foreign = [path for path in earlier if not replaceable(path)]
    if foreign:
        raise OutputError(
            f"{target} holds {foreign[0].name}, which MedEnhance did not write",
            "Name a new folder.",
        )
    if target.is_dir():
        with contextlib.suppress(OSError):  # some network disks have no modes
            shutil.copymode(target, new)
    if not earlier:
        if sys.platform == "win32" and target.is_dir():  # elsewhere the rename replaces it
            target.rmdir()
        new.rename(target)
        return
    # Its last characters are those of the hidden folder, which says whether the writer lives.
    aside = target.with_name(f"{target.name}{_ASIDE}{new.parent.name[-8:]}")
    target.rename(aside)
    try:
        new.rename(target)
    except OSError:
        aside.rename(target)
        raise


def flush(stream: IO[Any]) -> None:
    """Make what was written survive a power cut, if the file system can; OSError if it fails."""
    stream.flush()
    with IfSupported():
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, if the system can; OSError if it fails."""
    if os.name == "nt":  # Windows cannot open a folder; its journal keeps the name
        return
    with IfSupported(), contextlib.suppress(PermissionError):  # one may write to it, not read it
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _is_in_place(path: Path, what: str = "the disk reported an error") -> Iterator[None]:
    """Convert an OSError to an OutputError that says that the new result at `path` is in place."""
    try:
        yield
    except OSError as cause:
        raise OutputError(
            f"{path} is complete and in place, but {what}: {cause.strerror or cause}",
            "Check the disk, and copy the result to another one.",
        ) from cause


@contextlib.contextmanager
def as_output_error(path: Path, folder: Path | None = None) -> Iterator[None]:
    """Convert OSErrors to an OutputError for `path`; with `folder`, only those of files in it."""
    try:
        yield
    except OSError as cause:
        is_inside = folder is None or str(cause.filename or folder).startswith(str(folder))
        is_inside |= cause.errno in _NO_SPACE  # of a copy it names the source
        if not is_inside:
            raise
        raise output_error(path, cause) from cause


def output_error(path: Path, cause: OSError) -> OutputError:
    """Return the error with the reason why `path` could not be written, and the remedy."""
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
        return OutputError(f"{path}: a symbolic link to itself", "Remove it, or name a file.")
    if not path.parent.is_dir():
        return OutputError(f"{path}: {path.parent} is not a folder", "Create it, or name another.")
    reason = cause.strerror or str(cause)
    return OutputError(f"{path} cannot be written: {reason}", "Choose another output path.")
