"""Files into a folder: prepared in a hidden folder, then all of them in place, or none.

    .medenhance-XXXXXXXX/    hidden (see `atomic`), in the target, or beside a new or empty one
        new/                 the files that are to be there
        moves.json           while they are on their way: which old ones they leave no room for

A folder that is new or empty gets its content by one rename. Else each file is moved. From the
moment that `moves.json` is there, all of them come: if the process is killed meanwhile, `recover`
moves the rest before the next writing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.atomic import (
    MOVES,
    PREFIX,
    flush_folder,
    hidden_folder,
    hidden_folders,
    is_moving,
    output_error,
    remove_abandoned,
)
from MedEnhanceLib.runtime.locks import remove_owned, take_over
from MedEnhanceLib.runtime.progress import Monitor

__all__ = ["PREFIX", "Staging", "holds", "is_moving", "recover", "refuse_no_folder", "staging_for"]
_NEW = "new"


class Staging:
    """A hidden folder to prepare files in; `new` is empty and on the target's disk."""

    def __init__(self, target: Path, folder: Path) -> None:
        self._target, self._folder = target, folder
        self.new = folder / _NEW
        self.new.mkdir()

    def move_in(self, making_room: Iterable[Path] = ()) -> None:
        """Move the files in `new`, already flushed, into the target.

        Args:
            making_room: files in the target that are removed.
        Raises:
            OutputError: a file of the same name exists and is not in `making_room`, or the folder
                was filled meanwhile: then everything is as before.
        """
        flush_folder(self.new)
        try:
            if self._folder.parent == self._target.resolve():
                _move_each(self._folder, {path.name for path in making_room})
            else:
                _move_whole(self.new, self._target.resolve())
        except OSError as cause:
            raise output_error(self._target, cause) from cause


def refuse_no_folder(target: Path) -> None:
    """Raise OutputError if `target` is a file, or if its parent does not exist."""
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file", "Name a folder.")
    if not target.parent.is_dir():
        raise OutputError(f"{target}: {target.parent} is not a folder", "Make it, or name another.")


@contextlib.contextmanager
def staging_for(target: Path, monitor: Monitor | None = None) -> Iterator[Staging]:
    """Yield a place to prepare files for `target`; it is removed at the end.

    What a killed process had begun there is put in order first.

    Args:
        target: the folder to write into; it need not exist yet, its parent must.
        monitor: warned of earlier writings that were stopped.
    Raises:
        OutputError: no permission, no space.
    """
    recover(target, monitor)
    try:
        place = _place(target.resolve())
    except OSError as cause:
        raise output_error(target, cause) from cause
    with hidden_folder(place, target) as folder:
        try:
            staging = Staging(target, folder)
        except OSError as cause:
            raise output_error(target, cause) from cause
        yield staging


def recover(target: Path, monitor: Monitor | None = None) -> None:
    """Put writings in and beside `target` in order whose process was killed, with warnings.

    One that was moving its files is completed; of others nothing is left.
    """
    monitor = monitor or Monitor()
    real = target.resolve()
    for place in (real.parent, real):
        for folder in filter(is_moving, hidden_folders(place)):
            lock = take_over(folder)
            if lock is None:
                continue
            try:
                _finish(folder)
            except (OSError, ValueError) as cause:
                lock.release()
                monitor.warn(
                    f"{place}: an earlier writing was stopped midway; the rest of its files lies "
                    f"in {folder} and cannot be moved: {cause}"
                )
                continue
            remove_owned(folder, lock)
            monitor.warn(
                f"{place}: an earlier writing was stopped midway; the rest of its files was moved "
                f"here from {folder.name}"
            )
        for folder in remove_abandoned(place):
            monitor.warn(
                f"{place}: an earlier writing was stopped; what it left ({folder.name}) was removed"
            )


def holds(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name, without hidden ones of writers."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(PREFIX))


def _place(target: Path) -> Path:
    """Beside the target, so that one rename puts all in place; inside if that is impossible."""
    if not target.is_dir():
        return target.parent
    parent = target.parent
    as_beside = (
        not any(target.iterdir())
        and not target.is_mount()
        and os.access(parent, os.W_OK)
        and target.stat().st_gid == parent.stat().st_gid
    )
    return parent if as_beside else target


def _move_whole(new: Path, target: Path) -> None:
    if target.is_dir():
        shutil.copymode(target, new)
        if sys.platform == "win32":  # elsewhere an empty folder is replaced at once
            target.rmdir()
    try:
        new.rename(target)
    except OSError as cause:
        if cause.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise OutputError(
                f"{target} was filled by another program meanwhile",
                "Run it again, into a folder of its own.",
            ) from cause
        raise
    flush_folder(target.parent)


def _move_each(folder: Path, making_room: set[str]) -> None:
    new = {path.name for path in (folder / _NEW).iterdir()}
    for name in sorted(new - making_room):
        if os.path.lexists(folder.parent / name):  # another program wrote it meanwhile
            raise FileExistsError(errno.EEXIST, f"{name} exists by now", str(folder.parent / name))
    with (folder / f"{MOVES}.part").open("w", encoding="utf-8") as stream:
        json.dump(sorted(making_room - new), stream)
        stream.flush()
        os.fsync(stream.fileno())
    Path(stream.name).rename(folder / MOVES)
    flush_folder(folder)
    _finish(folder)


def _finish(folder: Path) -> None:
    """Move what is still in `new`, and remove what it leaves no room for.

    Raises OSError, and ValueError if the record is damaged or names a place elsewhere.
    """
    target, names = folder.parent, json.loads((folder / MOVES).read_text(encoding="utf-8"))
    if not isinstance(names, list) or not all(_is_plain(name) for name in names):
        raise ValueError(f"{MOVES} is damaged")
    for path in sorted((folder / _NEW).iterdir()):
        path.replace(target / path.name)
    for name in names:
        (target / name).unlink(missing_ok=True)
    flush_folder(target)
    (folder / MOVES).unlink()  # this moment it is done
    flush_folder(folder)


def _is_plain(name: object) -> bool:
    """Whether it is the name of an entry of a folder, and leads nowhere else."""
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name
