"""The client and its worker's process: the same results and errors as in one's own process."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import MedEnhanceLib
from MedEnhanceLib.errors import Cancelled, ConfigError, DeviceMemoryError, InputError, OutputError
from MedEnhanceLib.jobs import Client, JobSpec, Result, run_job
from MedEnhanceLib.jobs.failures import InternalError, WorkerError
from MedEnhanceLib.jobs.job import JOBS, JobKind
from MedEnhanceLib.jobs.kinds.installation import run_ping
from MedEnhanceLib.jobs.worker import process
from MedEnhanceLib.jobs.worker.process import exit_words
from MedEnhanceLib.runtime.progress import Event

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and commands")


@dataclass(frozen=True)
class _Nothing:
    """Parameters of a kind that only the odd worker can run."""


@pytest.fixture
def client() -> Iterator[Client]:
    with Client() as client:
        yield client


@pytest.fixture
def odd_client(
    odd_worker_command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Client]:
    """A client of a worker whose jobs misbehave, with little patience and a log."""
    for kind in ("break-down", "run-out-of-memory", "crash", "deaf"):
        monkeypatch.setitem(JOBS, kind, JobKind(_Nothing, run_ping))
    with Client(command=odd_worker_command, grace_seconds=0.5, log=tmp_path / "log") as client:
        yield client


@pytest.mark.slow
def test_a_job_gives_the_same_result_and_events_here_and_in_a_worker(client: Client) -> None:
    spec = JobSpec("ping", {"count": 3})
    here: list[Event] = []
    there: list[Event] = []
    assert run_job(spec, here.append) == client.run(spec, there.append) == Result({"count": 3})
    assert here == there


@pytest.mark.slow
def test_the_worker_stays_warm(client: Client) -> None:
    client.run(JobSpec("ping"))
    pid = client.start().pid
    client.run(JobSpec("ping"))
    assert client.start().pid == pid


def test_errors_come_back_as_their_own_class(client: Client) -> None:
    spec = JobSpec("inspect", {"input": "no such scan.nii"})
    with pytest.raises(InputError, match="no such scan") as there:
        client.run(spec)
    with pytest.raises(InputError) as here:
        run_job(spec)
    assert (there.value.message, there.value.hint) == (here.value.message, here.value.hint)


def test_cancel_stops_within_two_seconds_and_the_worker_lives_on(client: Client) -> None:
    pid = client.start().pid
    cancel = threading.Event()
    timer = threading.Timer(0.3, cancel.set)
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        client.run(JobSpec("ping", {"seconds": 60}), cancel=cancel)
    assert time.monotonic() - began < 2.3
    client.run(JobSpec("ping"))
    assert client.start().pid == pid
    timer.join()


@pytest.mark.slow
def test_a_caller_that_fails_while_it_listens_stops_the_job(client: Client) -> None:
    def stumble(event: Event) -> None:
        if event.kind == "progress":
            raise ValueError("the caller's own fault")

    with pytest.raises(ValueError, match="caller's own"):
        client.run(JobSpec("ping", {"count": 100, "seconds": 60}), stumble)
    began = time.monotonic()
    client.run(JobSpec("ping"))
    assert time.monotonic() - began < 2


def test_an_interrupt_while_waiting_is_a_cancelled_job(client: Client) -> None:
    def interrupt(_: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Cancelled):
        client.run(JobSpec("ping", {"seconds": 60}), interrupt)


@pytest.mark.slow
@posix_only
def test_a_job_that_does_not_listen_is_killed_with_its_children(
    odd_client: Client, temp_root: Path
) -> None:
    children: list[psutil.Process] = []

    def note_child(event: Event) -> None:
        if event.kind == "metric":
            children.append(psutil.Process(int(event.fields["value"])))

    began = time.monotonic()
    with pytest.raises(Cancelled, match="did not stop"):
        odd_client.run(JobSpec("deaf"), note_child, cancel=lambda: bool(children))
    assert time.monotonic() - began < 5
    psutil.wait_procs(children, timeout=60)
    assert not any(child.is_running() for child in children)
    odd_client.run(JobSpec("ping"))
    odd_client.close()
    assert list(temp_root.iterdir()) == []


@pytest.mark.slow
@posix_only
def test_a_killed_worker_is_reported_with_its_signal(client: Client, temp_root: Path) -> None:
    pid = client.start().pid

    def kill(event: Event) -> None:
        if event.kind == "progress":
            os.kill(pid, 9)

    with pytest.raises(WorkerError, match="SIGKILL") as caught:
        client.run(JobSpec("ping", {"count": 100, "seconds": 60}), kill)
    assert caught.value.hint
    client.run(JobSpec("ping"))
    assert client.start().pid != pid
    client.close()
    assert list(temp_root.iterdir()) == []


@posix_only
def test_a_killed_worker_s_folder_goes_with_its_client(temp_root: Path) -> None:
    with Client() as client:
        psutil.Process(client.start().pid).kill()
    assert list(temp_root.iterdir()) == []


@posix_only
def test_a_crash_is_reported_with_the_end_of_the_log(odd_client: Client, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"SIGABRT(.|\n)*last words") as caught:
        odd_client.run(JobSpec("crash"))
    assert str(tmp_path / "log") in caught.value.hint
    assert b"last words" in (tmp_path / "log").read_bytes()


@posix_only
def test_faults_name_the_log(odd_client: Client, tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="not 42") as caught:
        odd_client.run(JobSpec("break-down"))
    assert str(tmp_path / "log") in caught.value.hint
    assert "ZeroDivisionError" in caught.value.__notes__[0]
    with pytest.raises(DeviceMemoryError):
        odd_client.run(JobSpec("run-out-of-memory"))


def test_leaving_in_the_middle_leaves_no_process_and_no_folder(temp_root: Path) -> None:
    with Client() as client:
        process = psutil.Process(client.start().pid)
        job = client.submit(JobSpec("ping", {"seconds": 60}))
        assert next(job.events()).kind == "started"
    assert not process.is_running()
    assert list(temp_root.iterdir()) == []


def test_events_end_with_the_result(client: Client) -> None:
    job = client.submit(JobSpec("ping", {"count": 2}))
    assert [event.kind for event in job.events()] == ["started", "progress", "progress", "result"]


@pytest.mark.slow
def test_two_clients_work_at_once() -> None:
    results: list[Result] = []

    def work() -> None:
        with Client() as client:
            results.extend(
                client.run(JobSpec("ping", {"count": 2, "seconds": 0.1})) for _ in range(5)
            )

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 10


@pytest.mark.slow
def test_threads_may_share_a_client(client: Client) -> None:
    received: dict[str, list[float]] = {"a": [], "b": []}

    def work(name: str) -> None:
        def listen(event: Event) -> None:
            if event.kind == "progress":
                received[name].append(event.fields["fraction"])

        client.run(JobSpec("ping", {"count": 20, "seconds": 0.2}), listen)

    threads = [threading.Thread(target=work, args=(name,)) for name in received]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert received["a"] == received["b"]
    assert len(received["a"]) == 20


def test_one_id_cannot_be_two_jobs(client: Client) -> None:
    client.submit(JobSpec("ping", {"seconds": 60}, id="same"))
    with pytest.raises(ConfigError, match="in use"):
        client.submit(JobSpec("ping", id="same"))


@pytest.mark.slow
def test_a_worker_that_has_ended_is_started_again() -> None:
    with Client(idle_seconds=0.2) as client:
        client.run(JobSpec("ping"))
        first = client.start().pid
        psutil.wait_procs([psutil.Process(first)], timeout=60)
        time.sleep(0.2)
        client.run(JobSpec("ping"))
        assert client.start().pid != first


def test_a_job_that_reached_a_worker_as_it_went_home_is_sent_again(tmp_path: Path) -> None:
    script = tmp_path / "leaves_once.py"
    marker = tmp_path / "left"
    script.write_text(
        "import pathlib, sys\n"
        f"marker = pathlib.Path({str(marker)!r})\n"
        "if not marker.exists():\n"
        "    marker.touch()\n"
        '    print(\'{"v": 1, "job": null, "event": "hello", "folder": "x"}\', flush=True)\n'
        "    sys.stdin.readline()\n"
        "    sys.exit(0)\n"
        "from MedEnhanceLib.jobs.worker import worker\n"
        "sys.exit(worker.main([]))\n"
    )
    with Client(command=[sys.executable, str(script)]) as client:
        assert client.run(JobSpec("ping", {"count": 2})) == Result({"count": 2})
    assert marker.exists()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit('no module named MedEnhanceLib')", "exit status 1(.|\n)*no module"),
        ("print('Welcome!')", "exit status 0(.|\n)*Welcome"),
    ],
)
def test_what_is_no_worker_is_reported_with_what_it_said(code: str, says: str) -> None:
    with (
        Client(command=[sys.executable, "-c", code]) as client,
        pytest.raises(WorkerError, match=says),
    ):
        client.run(JobSpec("ping"))


def test_a_missing_command_is_an_error_that_names_it() -> None:
    with Client(command=["/no/such/python"]) as client, pytest.raises(ConfigError, match="no/such"):
        client.run(JobSpec("ping"))


def test_a_log_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with Client(log=tmp_path / "missing" / "log") as client, pytest.raises(OutputError):
        client.run(JobSpec("ping"))


@pytest.mark.parametrize(
    ("status", "words"), [(0, "exit status 0"), (3, "exit status 3"), (-999, "signal 999")]
)
def test_exit_statuses_have_words(status: int, words: str) -> None:
    assert exit_words(status) == words


def test_closing_twice_and_never_starting_is_fine() -> None:
    client = Client()
    client.close()
    client.close()


def _python_path(monkeypatch: pytest.MonkeyPatch, library: Path, inherited: str) -> str:
    """PYTHONPATH as a worker sees it, were the library at `library`."""
    monkeypatch.setattr(process, "_LIBRARY", library)
    monkeypatch.setenv("PYTHONPATH", inherited)
    code = "import os, sys; sys.stdout.write(os.environ['PYTHONPATH'])"
    started = process.start_process([sys.executable, "-c", code])
    out, _ = started.communicate(timeout=60)
    return out.decode()


def test_a_worker_finds_the_library_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Path(MedEnhanceLib.__file__).parents[1]
    assert _python_path(monkeypatch, library, "elsewhere") == f"{library}{os.pathsep}elsewhere"


def test_site_packages_do_not_come_before_the_standard_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = Path(sysconfig.get_path("purelib")).resolve()
    assert _python_path(monkeypatch, installed, "elsewhere") == "elsewhere"


def test_the_current_folder_is_not_on_a_worker_s_path() -> None:
    assert process.worker_command(60)[1] == "-P"


def test_killing_what_has_ended_is_fine() -> None:
    started = process.start_process([sys.executable, "-c", ""])
    started.communicate(timeout=60)
    process.kill_tree(started)
    assert started.returncode == 0
