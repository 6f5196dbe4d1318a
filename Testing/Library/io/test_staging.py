"""A folder's content comes whole or not at all, whatever stops the writing, and nothing is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.errors import InputError, OutputError
from MedEnhanceLib.io import load
from MedEnhanceLib.io.staging import PREFIX, holds, is_moving, recover, staging_for
from MedEnhanceLib.runtime.progress import Monitor

#: Writes new.txt and kept.txt into a folder, in the place of what is there and of old.txt; dies at
#: the given rename.
_DYING = """
import os, sys
from pathlib import Path
from MedEnhanceLib.io.staging import staging_for
target, stop = Path(sys.argv[1]), int(sys.argv[2])
renames = 0
def look(event, arguments):
    global renames
    renames += event == "os.rename"
    if renames == stop:
        os.kill(os.getpid(), 9)
sys.addaudithook(look)
with staging_for(target) as staging:
    for name in ("new.txt", "kept.txt"):
        (staging.new / name).write_text("new")
    old = [target / name for name in ("kept.txt", "new.txt", "old.txt")]
    staging.move_in([path for path in old if path.exists()])
print("done")
"""


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def write_dying(target: Path, at_rename: int) -> bool:
    command = [sys.executable, "-c", _DYING, str(target), str(at_rename)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout != "done\n"


def monitor_of(said: list[str]) -> Monitor:
    def listen(event: Any) -> None:
        if event.kind == "warning":
            said.append(event.fields["message"])

    return Monitor(listen)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    folder = tmp_path / "filled"
    folder.mkdir()
    for name in ("kept", "old", "mine"):
        (folder / f"{name}.txt").write_text(name)
    return folder


AFTER = {"kept.txt": "new", "new.txt": "new"}


@pytest.mark.slow
@pytest.mark.parametrize("exists", [False, True])
def test_a_new_or_empty_folder_gets_all_by_one_rename(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "out"
    if exists:
        target.mkdir(mode=0o750)
    assert write_dying(target, 1)
    assert target.exists() == exists
    assert not exists or not any(target.iterdir())
    assert not write_dying(target, 99)
    assert contents(target) == AFTER
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # the dead one's things are gone
    assert not exists or target.stat().st_mode & 0o777 == 0o750


def is_halfway(folder: Path) -> bool:
    """Whether files are on their way into it, as a reader of the folder finds out."""
    return any(map(is_moving, folder.glob(f"{PREFIX}*")))


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_killed_writing_is_completed_before_the_next_once_files_are_moving(
    filled: Path, at: int
) -> None:
    before = contents(filled)
    assert write_dying(filled, at)
    assert len([path for path in filled.iterdir() if path.name.startswith(PREFIX)]) == 1
    assert is_halfway(filled) == (at > 1)  # the first rename records what is to go
    said: list[str] = []
    recover(filled, monitor_of(said))
    after = AFTER | {"mine.txt": "mine"}
    assert contents(filled) == (after if at > 1 else before)
    assert len(said) == 1
    assert PREFIX in said[0]
    assert ("was moved" in said[0]) == (at > 1)
    assert not write_dying(filled, 99)
    assert contents(filled) == after


def test_what_a_living_process_stages_is_left_alone(filled: Path) -> None:
    with staging_for(filled) as first, staging_for(filled) as second:
        recover(filled)
        (first.new / "a.txt").write_text("a")
        (second.new / "b.txt").write_text("b")
        first.move_in()
        second.move_in()
        assert [path.name for path in holds(filled)] == [
            "a.txt", "b.txt", "kept.txt", "mine.txt", "old.txt"
        ]  # fmt: skip


def test_after_an_error_while_files_move_the_next_writing_moves_the_rest(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def failing(path: Path, to: Path) -> Path:
        if to.name == "more.txt":
            raise OSError(errno.EACCES, "Permission denied")
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", failing)
    with staging_for(filled) as staging:
        for name in ("kept.txt", "more.txt"):
            (staging.new / name).write_text("new")
        with pytest.raises(OutputError, match="permission"):
            staging.move_in([filled / "kept.txt"])
    assert is_halfway(filled)
    monkeypatch.undo()
    recover(filled)
    after = {"kept.txt": "new", "mine.txt": "mine", "more.txt": "new", "old.txt": "old"}
    assert contents(filled) == after


def test_a_file_that_does_not_make_room_is_never_replaced(filled: Path) -> None:
    before = contents(filled)
    with staging_for(filled) as staging:
        for name in ("a.txt", "kept.txt"):
            (staging.new / name).write_text("new")
        with pytest.raises(OutputError, match=r"kept\.txt exists by now"):
            staging.move_in()
    assert contents(filled) == before


def test_a_folder_that_another_program_filled_meanwhile_stays_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with staging_for(target) as staging:
        (staging.new / "a.txt").write_text("new")
        target.mkdir()
        (target / "other.txt").write_text("other")
        with pytest.raises(OutputError, match="filled by another program"):
            staging.move_in()
    assert contents(tmp_path) == {"out/other.txt": "other"}


@pytest.mark.parametrize(
    "moves", ["{", '["../mine.txt"]', '["/etc/x"]', '[".."]', '{"removed": []}']
)
def test_a_record_that_leads_elsewhere_is_named_and_left(filled: Path, moves: str) -> None:
    write_dying(filled, 2)
    (staging,) = (path for path in filled.iterdir() if path.name.startswith(PREFIX))
    (staging / "moves.json").write_text(moves)
    before, said = contents(filled), list[str]()
    recover(filled, monitor_of(said))
    assert contents(filled) == before
    assert len(said) == 1
    assert str(staging) in said[0]
    assert "cannot be moved" in said[0]


@pytest.mark.parametrize("lies_in", [[], ["owner.lock"], ["owner.lock", "mine"], ["mine"]])
def test_a_folder_whose_maker_was_killed_at_once_goes_after_a_minute(
    filled: Path, lies_in: list[str]
) -> None:
    unborn = filled / ".medenhance-abcd1234"
    unborn.mkdir(mode=0o700)
    for name in lies_in:
        (unborn / name).touch()
    with staging_for(filled):
        assert unborn.exists()
    os.utime(unborn, times=(time.time() - 120,) * 2)
    with staging_for(filled):
        assert unborn.exists() is ("mine" in lies_in)
    if "mine" in lies_in:
        assert sorted(path.name for path in unborn.iterdir()) == sorted(lies_in)


def test_a_folder_that_images_are_on_their_way_into_is_not_read(
    make_series: Any, filled: Path
) -> None:
    folder = make_series(np.zeros((2, 3, 4), np.int16))
    for path in filled.iterdir():
        path.rename(folder / path.name)
    assert write_dying(folder, 3)
    with pytest.raises(InputError, match="interrupted"):
        load(folder)
    recover(folder)
    assert load(folder).shape == (2, 3, 4)
    assert (folder / "new.txt").exists()
