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
from types import SimpleNamespace

import psutil
import pytest

import MedEnhanceLib
from MedEnhanceLib.errors import Cancelled, ConfigError, DeviceMemoryError, InputError
from MedEnhanceLib.jobs import Client, JobSpec, Result, run_job
from MedEnhanceLib.jobs.failures import InternalError, WorkerError
from MedEnhanceLib.jobs.job import JOBS
from MedEnhanceLib.jobs.worker import process
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
def odd_client(odd_worker_command: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a worker whose jobs misbehave, with little patience."""
    for kind in ("break-down", "run-out-of-memory", "crash", "deaf"):
        monkeypatch.setitem(JOBS, kind, SimpleNamespace(params=_Nothing))
    with Client(command=odd_worker_command, grace_seconds=0.5) as client:
        yield client


def test_a_job_gives_the_same_result_events_and_errors_here_and_in_a_worker(
    client: Client,
) -> None:
    spec = JobSpec("ping", {"count": 3})
    here: list[Event] = []
    there: list[Event] = []
    assert run_job(spec, here.append) == client.run(spec, there.append) == Result({"count": 3})
    assert here == there
    pid = client.start().pid
    spec = JobSpec("inspect", {"input": "no such scan.nii"})
    with pytest.raises(InputError, match="no such scan") as in_worker:
        client.run(spec)
    with pytest.raises(InputError) as in_process:
        run_job(spec)
    assert in_worker.value.message == in_process.value.message
    assert in_worker.value.hint == in_process.value.hint
    assert client.start().pid == pid  # it stays warm


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


@pytest.mark.parametrize(
    ("fault", "error"), [(ValueError("its own"), ValueError), (KeyboardInterrupt(), Cancelled)]
)
def test_a_caller_that_fails_while_it_listens_stops_the_job(
    client: Client, temp_root: Path, fault: BaseException, error: type[Exception]
) -> None:
    def stumble(event: Event) -> None:
        raise fault

    process = psutil.Process(client.start().pid)
    with pytest.raises(error):
        client.run(JobSpec("ping", {"count": 100, "seconds": 60}), stumble)
    assert not process.is_running()
    assert list(temp_root.iterdir()) == []


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
    client.close()
    assert list(temp_root.iterdir()) == []


@posix_only
def test_faults_are_reported_with_the_end_of_the_log(odd_client: Client) -> None:
    with pytest.raises(InternalError, match="not 42") as caught:
        odd_client.run(JobSpec("break-down"))
    assert "ZeroDivisionError" in caught.value.__notes__[0]
    with pytest.raises(DeviceMemoryError):
        odd_client.run(JobSpec("run-out-of-memory"))
    with pytest.raises(WorkerError, match=r"SIGABRT(.|\n)*last words"):
        odd_client.run(JobSpec("crash"))


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
    with Client(command=["/no/such/python"]) as client, pytest.raises(ConfigError, match="no/such"):
        client.run(JobSpec("ping"))


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
    # Site-packages do not come before the standard library, the current folder not at all.
    installed = Path(sysconfig.get_path("purelib")).resolve()
    assert _python_path(monkeypatch, installed, "elsewhere") == "elsewhere"
    assert process.worker_command(60)[1] == "-P"
