"""Files into a folder: prepared in a hidden folder, then all of them in place, or none.

    .medenhance-XXXXXXXX/    an owned folder, in the target, or beside one that is new or empty
        new/                 what is to be there
        old/                 what made room for it
        moves.json           while files are on their way: from here on all can be put back

A folder that is new or empty gets its content by one rename. Else each file is moved. If the
process is killed meanwhile, `moves.json` stays without an owner, and `recover` puts all back before
the next writing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.atomic import flush_folder, output_error
from MedEnhanceLib.runtime.locks import make_owned, remove_owned, remove_unborn, take_over
from MedEnhanceLib.runtime.progress import Monitor

PREFIX = ".medenhance-"
_NEW, _OLD, _MOVES = "new", "old", "moves.json"


class Staging:
    """A hidden folder to prepare files in; `new` is empty and on the target's disk."""

    def __init__(self, target: Path, folder: Path) -> None:
        self._target, self._folder = target, folder
        self.new = folder / _NEW
        self.new.mkdir()

    def move_in(self, making_room: Iterable[Path] = ()) -> None:
        """Move the files in `new`, already flushed, into the target.

        Args:
            making_room: files below the target that are removed.
        Raises:
            OutputError: also if a file of the same name exists and is not in `making_room`; then
                everything is as before.
        """
        real = self._target.resolve()
        gone = [(path.parent.resolve() / path.name).relative_to(real) for path in making_room]
        for folder in (self.new, *(path for path in self.new.rglob("*") if path.is_dir())):
            flush_folder(folder)
        try:
            if self._folder.parent == real:
                _move_each(self._folder, gone)
            else:
                _move_whole(self.new, real)
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

    What a killed process left there by an earlier writing is put back first.

    Args:
        target: the folder to write into; it need not exist yet, its parent must.
        monitor: warned of earlier writings that were stopped.
    Raises:
        OutputError: no permission, no space.
    """
    recover(target, monitor)
    try:
        folder, lock = make_owned(PREFIX, _place(target.resolve()))
    except OSError as cause:
        raise output_error(target, cause) from cause
    try:
        try:
            staging = Staging(target, folder)
        except OSError as cause:
            raise output_error(target, cause) from cause
        yield staging
    finally:
        if is_moving(folder):  # undoing it failed too: nothing of it may be lost
            if lock is not None:
                lock.release()
        else:
            remove_owned(folder, lock)


def recover(target: Path, monitor: Monitor | None = None) -> None:
    """Undo writings in and beside `target` whose process was killed, with a warning for each."""
    monitor = monitor or Monitor()
    real = target.resolve()
    for place in (real.parent, real):
        for folder in _stagings(place):
            lock = take_over(folder)
            if lock is None:
                remove_unborn(folder)
                continue
            was_moving = is_moving(folder)
            try:
                _put_back(folder)
            except (OSError, ValueError) as cause:
                monitor.warn(
                    f"{place}: what was there before an earlier writing, which was stopped midway, "
                    f"lies in {folder} and cannot be put back: {cause}"
                )
                lock.release()
                continue
            remove_owned(folder, lock)
            after = "; the folder is as it was before" if was_moving else ""
            monitor.warn(
                f"{place}: an earlier writing was stopped midway; what it left "
                f"({folder.name}) was removed{after}"
            )


def holds(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name, without hidden staging folders."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(PREFIX))


def is_moving(staging: Path) -> bool:
    """Whether its files are being moved."""
    return (staging / _MOVES).is_file()


def _stagings(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.glob(f"{PREFIX}*") if path.is_dir())
    except OSError:
        return []


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


def _move_each(staging: Path, gone: list[Path]) -> None:
    target, new = staging.parent, staging / _NEW
    names = sorted(path.relative_to(new) for path in new.rglob("*") if not path.is_dir())
    made = [
        path.relative_to(new)
        for path in sorted(new.rglob("*"))
        if path.is_dir() and not (target / path.relative_to(new)).exists()
    ]
    _write_moves(staging, new=names, old=gone, made=made)
    try:
        for name in gone:
            _shift(target / name, staging / _OLD / name)
        for name in names:
            if os.path.lexists(target / name):  # another program wrote it meanwhile
                raise FileExistsError(errno.EEXIST, f"{name} exists by now", str(target / name))
            _shift(new / name, target / name)
        for folder in {(target / name).parent for name in names}:
            flush_folder(folder)
        (staging / _MOVES).unlink()  # this moment it is done
    except BaseException:
        _put_back(staging)
        raise
    flush_folder(staging)


def _write_moves(staging: Path, **names: list[Path]) -> None:
    moves = {kind: [name.as_posix() for name in of_kind] for kind, of_kind in names.items()}
    with (staging / f"{_MOVES}.part").open("w", encoding="utf-8") as stream:
        json.dump(moves, stream)
        stream.flush()
        os.fsync(stream.fileno())
    Path(stream.name).rename(staging / _MOVES)
    flush_folder(staging)


def _put_back(staging: Path) -> None:
    """Undo what was moved so far. Raises OSError, and ValueError if the record is damaged."""
    if not is_moving(staging):
        return
    moves = json.loads((staging / _MOVES).read_text(encoding="utf-8"))
    target = staging.parent
    for name in _checked(moves, "new"):
        if not (staging / _NEW / name).exists() and os.path.lexists(target / name):
            _shift(target / name, staging / _NEW / name)
    for name in _checked(moves, "old"):
        if os.path.lexists(staging / _OLD / name):
            if os.path.lexists(target / name):
                raise FileExistsError(errno.EEXIST, f"{name} exists by now")
            _shift(staging / _OLD / name, target / name)
    for name in reversed(_checked(moves, "made")):
        with contextlib.suppress(OSError):
            (target / name).rmdir()
    flush_folder(target)
    (staging / _MOVES).unlink()


def _checked(moves: object, kind: str) -> list[str]:
    """The names of a kind, if all of them lie inside the folder; else ValueError."""
    names = moves.get(kind) if isinstance(moves, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{_MOVES} is damaged")
    for name in names:
        path = PurePath(name)
        if path.is_absolute() or path.drive or ".." in path.parts or not path.parts:
            raise ValueError(f"{_MOVES} is damaged")
    return names


def _shift(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    path.rename(to)
