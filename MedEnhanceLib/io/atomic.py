"""Results appear complete or not at all; whatever was there before survives a failure."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.leftovers import remove_leftovers, temporary_name

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


def refuse_existing(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise OutputError where `path` exists and may not be replaced; ask before long work."""
    target = Path(path)
    with _as_output_error(target):
        exists = target.exists()
    if exists and target.is_dir():
        raise OutputError(f"{target} is a folder", "Name a file inside it.")
    if exists and not target.is_file():
        raise OutputError(f"{target} is a device, not a file", "Name a file.")
    if exists and not overwrite:
        raise OutputError(
            f"{target} exists already",
            "Choose another name, or allow that it is replaced (--force, overwrite=True).",
        )


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it takes its place on a clean exit.

    The temporary file exists already (empty) and has the ending in lower case. On any exception
    it is removed and what was at `path` stays. Of a link, the target is replaced, not the link.
    What a writer of `path` that was killed left behind is removed first, where that is certain.
    Raises OutputError naming `path` for a missing folder, no permission, no space left.
    An OSError about another file, raised by the caller's own code, passes through.
    """
    refuse_existing(path, overwrite)
    target = Path(path).resolve()
    with _as_output_error(Path(path)):
        temporary = _create_beside(target)
    try:
        with _as_output_error(Path(path), temporary):
            yield temporary
            _flush(temporary)
            refuse_existing(path, overwrite)  # somebody may have written it meanwhile
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
        temporary.write_text(text + "\n", encoding="utf-8")


def _create_beside(target: Path) -> Path:
    # In lower case: ITK writes the voxels of a .MHA into a second file of its own.
    ending = ".nii.gz" if target.name.lower().endswith(".nii.gz") else target.suffix.lower()
    remove_leftovers(target)
    temporary = target.with_name(temporary_name(target, ending))
    # Not tempfile: its 0600 would stay on the result; here the user's umask decides.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


def _flush(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut, where the system can."""
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
    """Say what stopped the writing of `path`, and the remedy."""
    cause = _first_cause(cause)
    if cause.errno in _NO_SPACE:
        return OutputError(
            f"{path}: no space left on the disk", "Free some space, or write to another disk."
        )
    if cause.errno in _NO_PERMISSION:
        return OutputError(
            f"{path}: no permission to write here", "Choose a folder that you may write to."
        )
    if not path.parent.is_dir():
        return OutputError(f"{path}: {path.parent} is not a folder", "Make it, or name another.")
    if cause.errno == errno.ENAMETOOLONG:
        return OutputError(f"{path.name}: the name is too long", "Choose a shorter one.")
    reason = cause.strerror or str(cause).partition("\n")[0]  # pydicom adds its own traceback
    return OutputError(f"{path} cannot be written: {reason}", "Write to another place.")


def _first_cause(error: OSError) -> OSError:
    """The error that tells what happened, where a library raised one that does not after it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen
        seen = seen.__cause__ or seen.__context__
    return error
