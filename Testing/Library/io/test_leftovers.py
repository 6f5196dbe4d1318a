"""What killed writers leave behind goes with the next writer of the same target, and only that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from MedEnhanceLib.io import atomic
from MedEnhanceLib.io.atomic import atomic_write

pytestmark = pytest.mark.skipif(not atomic._owner(), reason="the system does not report its start")
_WRITER = """
import sys
from MedEnhanceLib.io.atomic import atomic_write
with atomic_write(sys.argv[1], overwrite=True) as temporary:
    temporary.write_bytes(b"half")
    print(temporary.name, flush=True)
    sys.stdin.read()
"""


def hidden(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(atomic.PREFIX)}


def write(target: Path) -> None:
    with atomic_write(target, overwrite=True) as temporary:
        temporary.write_bytes(b"whole")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is in the midst of writing a.ucv."""
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "a.ucv")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(atomic.PREFIX)
        yield process
        process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture
def left(writer: subprocess.Popen[str], tmp_path: Path) -> Path:
    """What a writer of a.ucv that was killed has left."""
    kill(writer)
    (name,) = hidden(tmp_path)
    return tmp_path / name


def test_the_next_writer_of_the_target_removes_it(left: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.ucv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ucv"]


def test_the_writer_of_another_target_leaves_it(left: Path, tmp_path: Path) -> None:
    write(tmp_path / "b.ucv")
    assert hidden(tmp_path) == {left.name}


def test_a_writer_that_lives_keeps_its_file(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    (name,) = hidden(tmp_path)
    write(tmp_path / "a.ucv")
    assert hidden(tmp_path) == {name}
    assert (tmp_path / name).read_bytes() == b"half"


def test_what_another_machine_or_start_left_stays(
    left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner in ("0" * 8, ""):
        monkeypatch.setattr(atomic, "_owner", lambda owner=owner: owner)
        write(tmp_path / "a.ucv")
        assert hidden(tmp_path) == {left.name}


def test_only_regular_files_of_that_name_alone_go(left: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"kept")
    stem = left.name.removesuffix(".ucv")
    names = [stem[:-8] + 8 * digit for digit in "abc"]
    link, folder, linked = (tmp_path / f"{name}.ucv" for name in names)
    link.symlink_to(kept)
    folder.mkdir()
    linked.hardlink_to(kept)
    others = [tmp_path / f".medenhance-{16 * 'a'}.ucv", tmp_path / f"x{left.name}"]
    for other in others:
        other.touch()
    write(tmp_path / "a.ucv")
    assert not left.exists()
    for path in (link, folder, linked, kept, *others):
        assert path.exists(), path.name
    assert kept.read_bytes() == b"kept"


def test_a_folder_of_many_names_is_not_read_for_each_result(
    left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, read, scandir = [0.0], list[float](), os.scandir

    def slow(folder: Path) -> object:
        read.append(clock[0])
        clock[0] += 0.2
        return scandir(folder)

    monkeypatch.setattr(atomic.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(atomic.os, "scandir", slow)
    for _result in range(100):
        clock[0] += 0.1
        write(tmp_path / "b.ucv")
    assert len(read) == 3  # in ten seconds
    clock[0] += 5
    write(tmp_path / "a.ucv")
    assert not left.exists()
