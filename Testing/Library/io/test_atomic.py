"""Results appear completely or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io import WRITABLE, atomic, save
from MedEnhanceLib.io.atomic import atomic_folder, atomic_write, refuse_existing, write_json

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_result_takes_its_place_only_on_a_clean_exit(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with atomic_write(target, overwrite=False) as temporary:
        temporary.write_bytes(b"new")
        assert not target.exists()
        assert temporary.parent.parent == tmp_path
        assert temporary.suffix == ".bin"
    assert target.read_bytes() == b"new"
    assert files_in(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("failure", [RuntimeError("boom"), KeyboardInterrupt()])
def test_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failure: BaseException
) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with (
        pytest.raises(type(failure)),
        atomic_write(target, overwrite=True) as temporary,
    ):
        temporary.write_bytes(b"half")
        raise failure
    assert target.read_bytes() == b"old"
    assert files_in(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("is_there_before", [True, False])
def test_another_programs_file_is_never_overwritten(tmp_path: Path, is_there_before: bool) -> None:
    target = tmp_path / "a.bin"
    if is_there_before:
        target.write_bytes(b"theirs")
    with (
        pytest.raises(OutputError, match="exists already") as caught,
        atomic_write(target, overwrite=False) as temporary,
    ):
        assert not is_there_before, "the body must not run"
        temporary.write_bytes(b"ours")
        target.write_bytes(b"theirs")
    assert "--force" in caught.value.hint
    assert target.read_bytes() == b"theirs"
    assert files_in(tmp_path) == ["a.bin"]


def test_a_link_is_replaced_and_the_file_has_the_rights_of_any_new_one(tmp_path: Path) -> None:
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    target.parent.mkdir()
    target.write_bytes(b"old")
    usual = target.stat().st_mode
    link.symlink_to(target)
    with pytest.raises(OutputError, match="exists already"):
        write_json(link, {}, overwrite=False)
    with atomic_write(link, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent.parent == tmp_path  # the target's folder may be read-only
    assert (link.is_symlink(), link.read_bytes(), link.stat().st_mode) == (False, b"new", usual)
    assert target.read_bytes() == b"old"
    assert files_in(target.parent) == ["target"]


@pytest.mark.parametrize("leads_to", ["nowhere", "link"])
def test_a_link_that_leads_to_no_file_exists_too(tmp_path: Path, leads_to: str) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / leads_to)
    with pytest.raises(OutputError, match="exists already"):
        write_json(link, {}, overwrite=False)
    assert link.is_symlink()
    write_json(link, {}, overwrite=True)
    assert files_in(tmp_path) == ["link"]
    assert link.read_text() == "{}\n"


def test_a_link_in_front_of_a_name_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    write_json(tmp_path / "results" / "a.json", {}, overwrite=False)
    assert files_in(tmp_path / "disk") == ["a.json"]
    with pytest.raises(OutputError, match="is a folder"):
        write_json(tmp_path / "results", {}, overwrite=True)


def test_a_folder_of_results_may_be_a_link_but_not_one_to_nowhere(tmp_path: Path) -> None:
    disk, results = tmp_path / "disk", tmp_path / "results"
    results.symlink_to(disk)
    for refuse in (atomic.refuse_no_folder, atomic.refuse_unwritable, atomic.make_folder):
        with pytest.raises(OutputError, match="results"):
            refuse(results)
    assert not disk.exists()
    disk.mkdir()
    with atomic_folder(results, replaceable=lambda _: False) as new:
        (new / "a.dcm").touch()
    assert results.is_symlink()
    assert files_in(disk) == ["a.dcm"]


def test_folders_and_devices_are_not_replaced_by_files(tmp_path: Path) -> None:
    for place, says in ((tmp_path, "is a folder"), (os.devnull, "device")):
        with pytest.raises(OutputError, match=says):
            refuse_existing(place, overwrite=True)
    with pytest.raises(OutputError, match="nowhere") as caught:
        write_json(tmp_path / "nowhere" / "a.json", {}, overwrite=False)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EACCES, "no permission"),
        (errno.EROFS, "no permission"),
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_reason_and_remedy_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with (
        pytest.raises(OutputError, match=says) as caught,
        atomic_write(tmp_path / "a.bin", overwrite=False) as temporary,
    ):
        temporary.write_bytes(b"data")
    assert "a.bin" in caught.value.message
    assert caught.value.hint
    assert files_in(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows flushes no folder")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_disk_that_fails_after_the_rename_is_named_with_the_place_of_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    target, fsync = tmp_path / "out", os.fsync

    def fail(handle: int) -> None:
        if os.path.samestat(os.fstat(handle), tmp_path.stat()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=r"out is complete and in place, but.*Input/output error"):
        if kind == "file":
            write_json(target, {}, overwrite=False)
        else:
            with atomic_folder(target, replaceable=lambda _: True) as new:
                (new / "new.txt").write_text("new")
    assert files_in(tmp_path) == ["out"]
    assert (target.read_text() == "{}\n") if kind == "file" else files_in(target) == ["new.txt"]


def fill(target: Path, text: str) -> None:
    with atomic_folder(target, replaceable=lambda path: path.name != "mine") as new:
        (new / "a.txt").write_text(text)


def test_earlier_files_that_cannot_be_removed_are_named_and_go_with_the_next_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, **_: bool) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    target = tmp_path / "out"
    fill(target, "old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        with pytest.raises(OutputError, match=r"in place, but earlier files are left in .*\.repl"):
            fill(target, "new")
    assert (target / "a.txt").read_text() == "new"
    assert len(files_in(tmp_path)) == 2
    fill(target, "newest")
    assert files_in(tmp_path) == ["out"]


#: Kills a process that fills a folder anew, at each of its steps; prints what does not hold.
_KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from MedEnhanceLib.io.atomic import atomic_folder, refuse_no_folder
top = Path(sys.argv[1])
out, steps = top / "out", 0
def fill(text, folder=out):
    with atomic_folder(folder, replaceable=lambda path: True) as new:
        (new / "a.txt").write_text(text)
def look(event, arguments):
    global steps
    steps += event == "open" or event.startswith("os.")
    if steps == at:
        os.kill(os.getpid(), signal.SIGKILL)
for at in range(1, 500):
    shutil.rmtree(top)
    top.mkdir()
    fill("old")
    child = os.fork()
    if child == 0:
        sys.addaudithook(look)
        fill("new")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    for empty in top.glob(".medenhance-*"):
        os.utime(empty, times=(0, 0))  # a minute later
    texts = {path.read_text() for path in top.glob("out*/a.txt")}
    if at % 2:
        fill("other", top / "other")  # another result in the same place touches nothing
    refuse_no_folder(out)
    held = (out / "a.txt").read_text()
    fill("next")
    left = sorted(path.name for path in top.iterdir() if path.name != "other")
    texts.add((out / "a.txt").read_text())
    if held not in ("old", "new") or not texts > {"next"} or left != ["out"]:
        print(at, held, texts, left)
    if status == 0:
        break
assert 10 < at < 499, at
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot fork")
def test_a_writer_killed_at_any_step_loses_no_folder_and_the_next_one_leaves_nothing(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "top")]
    (tmp_path / "top").mkdir()
    ran = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)


def test_a_folder_that_a_living_writer_set_aside_stays(tmp_path: Path) -> None:
    aside, hidden = tmp_path / "out.replaced-abcdefgh", tmp_path / ".medenhance-abcdefgh"
    aside.mkdir()
    hidden.mkdir()
    (aside / "a.txt").write_text("old")
    (aside / "mine").touch()
    atomic.refuse_no_folder(tmp_path / "out")
    fill(tmp_path / "out", "new")
    assert len(files_in(aside)) == 2
    hidden.rmdir()
    fill(tmp_path / "out", "new")
    assert files_in(aside) == ["mine"]  # a file of the user in it stays


def test_json_refuses_what_json_has_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "a.json", {"psnr": float("nan")}, overwrite=False)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("ending", WRITABLE)
def test_full_disk_leaves_the_old_file(full_disk: Path, ending: str) -> None:
    target = full_disk / f"a{ending}"
    save(Volume(np.zeros((2, 3, 4), np.int16)), target)
    before = target.read_bytes()
    noise = np.random.default_rng(1).integers(0, 1 << 15, (30, 100, 100), dtype=np.int16)
    with pytest.raises(OutputError, match="no space left"):
        save(Volume(noise), target, overwrite=True)
    assert target.read_bytes() == before
    assert files_in(full_disk) == [target.name]
    target.unlink()


_WRITER = """
import sys
from MedEnhanceLib.io.atomic import atomic_write
with atomic_write(sys.argv[1], overwrite=True) as temporary:
    temporary.write_bytes(b"half")
    print(temporary.parent.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that is in the midst of writing a.ucv, and its hidden folder."""
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "a.ucv")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=ENVIRONMENT, text=True, **pipes) as process:
        assert process.stdout is not None
        yield process, tmp_path / process.stdout.readline().strip()
        process.kill()


def test_what_a_killed_writer_left_goes_with_the_next_one_in_the_folder(
    writer: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, left = writer
    others = [tmp_path / f".medenhance-{name}" for name in ("file", "folder", "link")]
    others[0].write_text("mine")
    others[1].mkdir()
    (others[1] / "mine").touch()
    others[2].symlink_to(left)
    write_json(tmp_path / "b.json", {}, overwrite=True)
    assert [path.read_bytes() for path in left.glob("*.ucv")] == [b"half"]  # its writer lives
    process.send_signal(signal.SIGKILL)
    process.wait()
    write_json(tmp_path / "b.json", {}, overwrite=True)
    assert left.exists()  # a process looks through a folder once: it may hold many names
    call = f"write_json({str(tmp_path / 'b.json')!r}, {{}}, overwrite=True)"
    code = f"from MedEnhanceLib.io.atomic import write_json; {call}"
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True)  # another process
    assert set(tmp_path.iterdir()) == {tmp_path / "b.json", *others}
    assert (others[1] / "mine").exists()
