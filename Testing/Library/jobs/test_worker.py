"""The worker, read and written to line by line, and the private folders of workers and jobs."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from Library.forked import exit_status
from Library.jobs.raw_worker import RawWorker

from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.jobs.events import LONGEST_LINE, read_lines
from MedEnhanceLib.runtime import locks
from MedEnhanceLib.runtime.locks import Workspace, remove_abandoned

Start = Callable[..., RawWorker]
_DOCS = Path(__file__).parents[3] / "docs" / "jobs.md"

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and commands")


def test_the_session_in_the_documentation_is_true(start_worker: Start) -> None:
    text = _DOCS.read_text(encoding="utf-8")
    session = re.search(r"```\n(← .*?)```", text, re.DOTALL)
    worker = start_worker()
    received = [worker.hello]
    for line in session[1].splitlines():
        arrow, said = line[0], line[2:]
        if arrow == "→":
            worker.send(said.encode())
        else:
            fields = received.pop() if received else worker.next()
            assert re.fullmatch(_pattern(said), json.dumps(fields)), said
    worker.end_stdin()
    assert worker.wait() == 0


def _pattern(line: str) -> str:
    """A documented line, in which … stands for anything."""
    return ".*".join(re.escape(part) for part in line.split("…"))


def test_a_running_job_stops_in_two_seconds_a_waiting_one_never_begins(
    start_worker: Start,
) -> None:
    worker = start_worker()
    worker.send({"v": 1, "cancel": "never came"})
    assert worker.next()["event"] == "log"
    worker.ping("a", 1, 60)
    worker.ping("b")
    worker.ping("c")
    worker.until("started", "a")
    worker.send({"v": 1, "cancel": "b"})
    assert worker.until("error", "b")["code"] == "cancelled"
    began = time.monotonic()
    worker.send({"v": 1, "cancel": "a"})
    error = worker.until("error")
    assert time.monotonic() - began < 30  # not the 60 s of the job
    assert (error["job"], error["code"]) == ("a", "cancelled")
    assert worker.until("started")["job"] == "c"
    worker.until("result", "c")


def test_an_id_in_use_is_refused_and_free_again_afterwards(start_worker: Start) -> None:
    worker = start_worker()
    worker.ping("a", 1, 0.3)
    worker.ping("a")
    worker.send(b'{"v": 1, "id": "a", "kind": "pong"}')
    for says in ("'a' is in use", "unknown job"):
        refused = worker.until("error")
        assert refused["job"] is None  # "a" itself goes on
        assert says in refused["message"]
    worker.until("result", "a")
    worker.ping("a")
    worker.until("result", "a")


_GARBAGE: list[tuple[bytes, str | None, str]] = [
    (b"x" * (1024 * 1024 + 1), None, "more than"),
    (b"hello?", None, "not JSON"),
    (b"\xff\xfe\x00", None, "not JSON"),
    (b"[1, 2]", None, "not an object"),
    (b"[" * 100_000, None, "not JSON"),
    (b'{"v": 1, "id": "a", "kind": "pong"}', "a", "unknown job"),
    (b'{"v": 9, "id": "a", "kind": "ping"}', "a", "version"),
    (b'{"v": 1, "id": 5, "kind": "ping"}', None, "id is 5"),
    (b'{"v": 1, "cancel": 5}', None, "not a cancel line"),
    (b'{"v": 1, "cancel": "a", "too": 1}', None, "not a cancel line"),
    (b'{"v": 1, "id": "a", "kind": "ping", "params": {"count": NaN}}', None, "NaN"),
]


@pytest.mark.slow
def test_garbage_is_answered_and_survived(start_worker: Start) -> None:
    worker = start_worker()
    for line, job, says in _GARBAGE:
        worker.send(line)
        error = worker.next()
        assert (error["event"], error["job"], error["code"]) == ("error", job, "config")
        assert says in error["message"]
        assert error["hint"]
    worker.ping("b")
    worker.until("result", "b")


@pytest.mark.slow
def test_the_end_of_stdin_stops_a_job_and_leaves_nothing(start_worker: Start) -> None:
    worker = start_worker()
    worker.ping("a", 1, 60)
    worker.ping("b")
    worker.until("started")
    began = time.monotonic()
    worker.end_stdin()
    assert worker.wait() == 0
    assert time.monotonic() - began < 30  # not the 60 s of the job
    reported = [(fields["job"], fields["event"], fields["code"]) for fields in worker.rest()]
    assert reported == [("a", "error", "cancelled"), ("b", "error", "cancelled")]


@posix_only
def test_a_job_without_safe_points_does_not_outlive_the_end_of_stdin(start_worker: Start) -> None:
    worker = start_worker(odd=True)
    worker.job("a", "deaf")
    child = int(worker.until("metric")["value"])
    worker.end_stdin()
    assert worker.wait() == 130
    psutil.Process(child).kill()


@pytest.mark.slow
def test_it_ends_when_nothing_comes(start_worker: Start) -> None:
    worker = start_worker(idle_seconds=0.3)
    worker.ping("a", 1, 0.6)
    assert [fields["event"] for fields in worker.rest()][-1] == "result"
    assert worker.wait() == 0


def test_it_ends_when_its_card_is_lost_and_leaves_waiting_jobs_to_another(
    start_worker: Start,
) -> None:
    worker = start_worker(odd=True)
    worker.job("a", "lose-card")
    worker.ping("b")
    *_, error = worker.rest()
    assert (error["job"], error["event"], error["code"]) == ("a", "error", "device")
    assert "card stopped answering: CUDA error: unspecified launch failure" in error["message"]
    assert "--device cpu" in error["hint"]
    assert worker.wait() == 0


@posix_only
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_good_order(start_worker: Start, number: signal.Signals) -> None:
    worker = start_worker()
    worker.ping("a", 1, 60)
    worker.until("started")
    worker.process.send_signal(number)
    assert worker.wait() == 130
    assert [fields["code"] for fields in worker.rest()] == ["cancelled"]


@posix_only
def test_nothing_but_events_reaches_stdout(start_worker: Start) -> None:
    worker = start_worker(odd=True)
    worker.job("a", "chatter")
    events = [worker.next(), worker.next()]
    assert [fields["event"] for fields in events] == ["started", "result"]
    assert events[1]["stdin"] == ""
    worker.end_stdin()
    worker.wait()
    assert worker.rest() == []
    for said in (b"print", b"real stdout", b"file descriptor 1", b"C's puts", b"a child"):
        assert said in worker.stderr


@posix_only
def test_a_fault_is_reported_in_words_and_its_traceback_goes_to_the_log(
    start_worker: Start,
) -> None:
    worker = start_worker(odd=True)
    worker.job("a", "break-down")
    error = worker.until("error", "a")
    assert error["code"] == "internal"
    assert "the answer is not 42" in error["message"]
    assert "Traceback" not in error["message"] + error["hint"]
    assert "log" in error["hint"]
    assert "ZeroDivisionError" in error["details"]
    worker.job("b", "run-out-of-memory")
    assert worker.until("error", "b")["code"] == "memory"
    worker.job("c", "not-json")
    assert worker.until("error", "c")["code"] == "internal"
    worker.ping("d")
    worker.until("result", "d")
    worker.end_stdin()
    worker.wait()
    assert b"ZeroDivisionError: the answer is not 42" in worker.stderr


def test_a_caller_that_stops_listening_ends_the_worker(start_worker: Start) -> None:
    worker = start_worker()
    worker.close_events()
    worker.ping("a", 9, 60)
    assert worker.wait() == 0


_OWNER = """
import time
from MedEnhanceLib.runtime.locks import Workspace
ours = Workspace()
(ours.folder / "volume.nrrd").write_bytes(b"x")
print(ours.folder, flush=True)
time.sleep(60)
"""


def test_a_workspace_goes_with_its_owner_also_after_a_kill(temp_root: Path) -> None:
    command = [sys.executable, "-c", _OWNER]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
        Workspace() as ours,
    ):
        folder = Path(process.stdout.readline().strip())
        assert sys.platform == "win32" or stat.S_IMODE(ours.folder.stat().st_mode) == 0o700
        (ours.folder / "deep" / "deeper").mkdir(parents=True)
        assert remove_abandoned() == []
        assert (folder / "volume.nrrd").exists()
        process.kill()
        process.wait()
        assert remove_abandoned() == [folder]
        assert [*temp_root.iterdir()] == [ours.folder]
    assert [*temp_root.iterdir()] == []


@pytest.mark.parametrize("has_folder", [False, True])
def test_a_workspace_that_ends_as_others_look_for_abandoned_folders(
    temp_root: Path, monkeypatch: pytest.MonkeyPatch, has_folder: bool
) -> None:
    ours, lock_of = Workspace(), locks._file_lock

    def ended_first(path: Path, **options: Any) -> Any:
        ours.remove()
        if has_folder:  # its owner has removed the lock, and not yet the folder
            path.parent.mkdir()
        return lock_of(path, **options)

    monkeypatch.setattr(locks, "_file_lock", ended_first)
    remove_abandoned()
    assert [*temp_root.iterdir()] == []


def test_a_new_folder_that_is_removed_before_it_is_locked_is_made_again(
    temp_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_of = locks._file_lock

    def removed_first(path: Path, **options: Any) -> Any:
        monkeypatch.setattr(locks, "_file_lock", lock_of)
        path.parent.rmdir()
        return lock_of(path, **options)

    monkeypatch.setattr(locks, "_file_lock", removed_first)
    with Workspace() as ours:
        assert [*temp_root.iterdir()] == [ours.folder]
        assert remove_abandoned() == []
    assert [*temp_root.iterdir()] == []


def test_nothing_is_touched_that_is_not_ours(temp_root: Path, tmp_path: Path) -> None:
    for name in ("medenhance-empty_00", "medenhance-no_mark0", "medenhance-link_loc", "other"):
        (temp_root / name).mkdir()
    for name in ("medenhance-tests-gw0-abcdefgh", "medenhance-report"):  # empty for two minutes
        (temp_root / name).mkdir()
        os.utime(temp_root / name, times=(time.time() - 120,) * 2)
    (temp_root / "medenhance-no_mark0" / "owner.lock").write_bytes(b"somebody else's")
    (temp_root / "medenhance-a_file00").write_bytes(b"x")
    elsewhere = tmp_path / "elsewhere"
    with Workspace() as ours:
        (ours.folder / "owner.lock").rename(temp_root / "lock")
    elsewhere.mkdir()
    (elsewhere / "owner.lock").write_bytes((temp_root / "lock").read_bytes())
    (temp_root / "medenhance-link_loc" / "owner.lock").symlink_to(temp_root / "lock")
    (temp_root / "medenhance-a_link00").symlink_to(elsewhere)
    before = sorted(path.name for path in temp_root.iterdir())
    assert remove_abandoned() == []
    assert sorted(path.name for path in temp_root.iterdir()) == before
    assert (elsewhere / "owner.lock").exists()


def test_no_place_for_it_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("MedEnhanceLib.runtime.locks.tempfile.mkdtemp", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        Workspace()
    assert "TMPDIR" in caught.value.hint


@posix_only
def test_what_a_kill_leaves_of_a_folder_is_removed_once_it_is_old(temp_root: Path) -> None:
    for place, call in ((locks, "_file_lock"), (locks.os, "write")):  # before the lock, its mark

        def make_and_die(place: Any = place, call: str = call) -> None:
            setattr(place, call, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            Workspace()

        assert exit_status(make_and_die) == -signal.SIGKILL
    remains = [*temp_root.iterdir()]
    assert sorted(len([*folder.iterdir()]) for folder in remains) == [0, 1]
    assert remove_abandoned() == []
    with Workspace() as ours:
        (ours.folder / "owner.lock").write_bytes(b"")  # locked, and not yet marked
        for folder in temp_root.iterdir():
            os.utime(folder, (0, 0))
        remove_abandoned()
        assert [*temp_root.iterdir()] == [ours.folder]


def test_no_folder_of_a_live_process_is_removed_however_old_it_looks(
    temp_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*names: str) -> None:
        for name in names:
            (temp_root / name).mkdir(mode=0o700)

    make("medenhance-tests-gw0-abcdefgh", "medenhance-pip-abcdefgh", "medenhance-mine")
    (temp_root / "medenhance-publicly").mkdir(mode=0o755)
    monkeypatch.setitem(sys.modules, "filelock", None)  # not installed yet
    lockless = Workspace()
    monkeypatch.undo()
    monkeypatch.setattr("MedEnhanceLib.runtime.locks.tempfile.tempdir", str(temp_root))
    before = sorted(temp_root.iterdir())
    for folder in before:
        os.utime(folder, (0, 0))
    assert remove_abandoned() == []
    assert sorted(temp_root.iterdir()) == before
    lockless.remove()
    assert not lockless.folder.exists()


def test_lines_come_whole_whatever_the_pieces_and_megabytes_take_no_time() -> None:
    reader, writer = os.pipe()
    long = b"x" * (LONGEST_LINE - 1)
    written = [b'{"a"', b": 1}\r\n\n", b"y" * LONGEST_LINE, b"y\nb\n", *[long + b"\n"] * 3, b"cut"]

    def write() -> None:
        for piece in written:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(writer, rest) :]
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    began = time.process_time()
    lines = [*read_lines(reader)]
    seconds = time.process_time() - began
    thread.join()
    os.close(reader)
    assert lines == [b'{"a": 1}', b"", None, b"b", long, long, long]
    assert seconds < 0.5  # by bytes it takes more than one
