"""Files into a folder: prepared out of sight, then all of them in place, or none.

    .medenhance-XXXXXXXX/    an owned folder, in the target, or beside one that is new or empty
        new/                 what is to be there
        old/                 what made room for it
        moves.json           while files are on their way: from here on all can be put back

A folder that is new or empty gets its content by one rename. Else each file is moved, and whoever
finds `moves.json` without an owner, because the power went or the process was killed, puts all
back: `recover`, before the next writing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import IO

from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.atomic import flush_folder, output_error
from MedEnhanceLib.runtime.owned import make_owned, remove_owned, take_over
from MedEnhanceLib.runtime.progress import Monitor

PREFIX = ".medenhance-"
_NEW, _OLD, _MOVES = "new", "old", "moves.json"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class Staging:
    """new: an empty folder, on the target's disk, to write into."""

    def __init__(self, target: Path, folder: Path) -> None:
        self._target, self._folder = target, folder
        self.new = folder / _NEW
        self.new.mkdir()

    def move_in(self, making_room: Iterable[Path] = ()) -> None:
        """Bring what lies in `new`, which was flushed, into the target.

        making_room: files below the target that go.
        Raises OutputError, also where a file of that name is there and does not make room; then
        all is as before.
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


@contextlib.contextmanager
def staging_for(target: Path, monitor: Monitor | None = None) -> Iterator[Staging]:
    """A place to prepare what goes into `target`, which need not be there yet; gone at the end.

    What an earlier writing into it left, whose process was killed, is put back first.
    Raises OutputError.
    """
    recover(target, monitor)
    try:
        folder, lock = _make(_place(target.resolve()))
    except OSError as cause:
        raise output_error(target, cause) from cause
    try:
        try:
            staging = Staging(target, folder)
        except OSError as cause:
            raise output_error(target, cause) from cause
        yield staging
    finally:
        if is_moving(folder):  # they could be put back neither: nothing of it may be lost
            _let_go(lock)
        elif lock is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            remove_owned(folder, lock)


def recover(target: Path, monitor: Monitor | None = None) -> None:
    """Put back, in `target` and beside it, what writings left whose process was killed; warn."""
    monitor = monitor or Monitor()
    real = target.resolve()
    for place in (real.parent, real):
        for folder in _stagings(place):
            lock = take_over(folder)
            if lock is None:
                continue
            was_moving = is_moving(folder)
            try:
                _put_back(folder)
            except (OSError, ValueError) as cause:
                monitor.warn(
                    f"{place}: what was there before an earlier writing, which was stopped midway, "
                    f"lies in {folder} and cannot be put back: {cause}"
                )
                _let_go(lock)
                continue
            remove_owned(folder, lock)
            after = "; the folder is as it was before" if was_moving else ""
            monitor.warn(
                f"{place}: an earlier writing was stopped midway; what it left "
                f"({folder.name}) was removed{after}"
            )


def holds(folder: Path) -> list[Path]:
    """What lies in a folder, in the order of the names, besides what is on its way into it."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(PREFIX))


def is_moving(staging: Path) -> bool:
    """Whether its files are on their way."""
    return (staging / _MOVES).is_file()


def _stagings(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.glob(f"{PREFIX}*") if path.is_dir())
    except OSError:
        return []


def _place(target: Path) -> Path:
    """Beside the target, so that one rename puts all in place; inside where that cannot be."""
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


def _make(parent: Path) -> tuple[Path, IO[bytes] | None]:
    try:
        return make_owned(PREFIX, parent)
    except OSError as cause:
        if cause.errno not in _NO_LOCKS:  # some network disks have none; nobody may clean up there
            raise
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)), None


def _let_go(lock: IO[bytes] | None) -> None:
    if lock is not None:
        lock.close()


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
            if os.path.lexists(target / name):  # somebody wrote it meanwhile
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
    told = {kind: [name.as_posix() for name in of_kind] for kind, of_kind in names.items()}
    with (staging / f"{_MOVES}.part").open("w", encoding="utf-8") as stream:
        json.dump(told, stream)
        stream.flush()
        os.fsync(stream.fileno())
    Path(stream.name).rename(staging / _MOVES)
    flush_folder(staging)


def _put_back(staging: Path) -> None:
    """Undo what was moved so far. Raises OSError, and ValueError where nobody can tell what was."""
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
    """The names of a kind; a list that somebody else wrote leads nowhere out of the folder."""
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
