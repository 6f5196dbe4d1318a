"""Patients on a cluster whose workers die: what is lost, what is reported, and what comes out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from MedEnhanceLib.errors import Cancelled, InputError, MedEnhanceError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.jobs import cluster
from MedEnhanceLib.jobs.cluster import distilling_on
from MedEnhanceLib.jobs.kinds.distill import distill_into
from MedEnhanceLib.runtime.locks import hold
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.folder import RunFolder

from .conftest import PEOPLE
from .test_distill import hashes

distributed = pytest.importorskip("distributed", reason="dask is an optional package")
LIBRARY = Path(__file__).resolve().parents[3]


@pytest.fixture
def two_workers() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A cluster with one worker in this process and one in another, which can be killed."""
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        protocol="tcp",
        host="127.0.0.1",
    ) as started:
        options = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1")
        command = [sys.executable, "-m", "distributed.cli.dask_worker", *options]
        process = subprocess.Popen(
            [*command, started.scheduler_address],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(LIBRARY), *sys.path])},
            stderr=subprocess.DEVNULL,
        )
        try:
            with distributed.Client(started, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
            yield started.scheduler_address, process
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_byte(
    people: Path,
    smoke: DistillConfig,
    tmp_path: Path,
    two_workers: tuple[str, subprocess.Popen[bytes]],
) -> None:
    config = replace(smoke, checkpoint_s=0.0, loop=replace(smoke.loop, outer=6))
    patients = Cohort.from_folder(people).only(lambda patient: patient.id != PEOPLE[0])
    folder = RunFolder(tmp_path / "out")
    address, process = two_workers
    received: list[Event] = []

    def kill_it(event: Event) -> None:
        received.append(event)
        if str(event.fields.get("stage")).endswith("of 3 patients"):
            status = folder.status()
            # Busy are both of them, or the other one with the patient who is left.
            if len(status["under_way"]) == min(2, status["patients"] - status["done"]):
                process.kill()

    distill_into(patients, folder.out, config, Monitor(kill_it), scheduler=address)
    assert process.poll() is not None
    warnings = [event.fields["message"] for event in received if event.kind == "warning"]
    assert sum("was lost; patient" in message for message in warnings) == 1
    alone = distill_into(patients, tmp_path / "alone", config, Monitor())
    assert hashes(folder.out) == hashes(alone)


@dataclass(frozen=True)
class Task:
    """Done at once."""

    result: Callable[[], Any]
    key: str = "k"
    status: str = "finished"

    def done(self) -> bool:
        return True


class Stand:
    """A cluster of one that fails as it is asked to: no process has to die for it."""

    def __init__(self, ends: list[Any]) -> None:
        self.ends, self.sent = ends, 0
        self.workers: list[dict[str, int]] = []

    def close(self) -> None:
        pass

    def nthreads(self) -> dict[str, int]:
        return self.workers.pop(0) if self.workers else {"tcp://w:1": 1}

    def processing(self) -> dict[str, list[str]]:
        return {"tcp://w:1": []}

    def scatter(self, work: Any, **_: object) -> Any:
        return work

    def submit(self, *_: object, **__: object) -> Any:
        end = self.ends[min(self.sent, len(self.ends) - 1)]
        self.sent += 1
        return Task(end)


def raising(error: BaseException) -> Any:
    def end() -> None:
        raise error

    return end


LOST = distributed.CancelledError("k")
KILLED = distributed.scheduler.KilledWorker("k", SimpleNamespace(address="tcp://w:1"), 3)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run one patient on a cluster that ends tasks so; the results, the stand, the messages."""
    monkeypatch.setattr(cluster, "_POLL_SECONDS", 0.01)
    event = SimpleNamespace(name="stop", set=lambda: None)
    monkeypatch.setattr("dask.distributed.Event", lambda *_, **__: event)

    def run(*ends: Any, **options: Any) -> tuple[list[Any], Stand, list[str]]:
        stand, received = Stand([*ends]), []
        stand.workers = options.pop("workers", [])
        monkeypatch.setattr(cluster, "connect", lambda *_: stand)
        work: Any = SimpleNamespace(folder=tmp_path / "p", raw=SimpleNamespace(number=4))
        monitor = Monitor(
            lambda event: received.append(str(event.fields.get("message"))), **options
        )
        return list(distilling_on("tcp://s:1")([work], "cpu", monitor)), stand, received

    return run


@pytest.mark.parametrize("error", [LOST, KILLED], ids=["data lost", "killed"])
def test_what_dask_gives_up_is_sent_again(run: Any, error: BaseException) -> None:
    found, stand, received = run(raising(error), raising(error), lambda: "images")
    assert found == [(0, "images")]
    assert stand.sent == 3
    assert any("patient 5 is sent to another" in message for message in received)


def test_a_patient_who_takes_every_worker_along_is_named(run: Any) -> None:
    with pytest.raises(MedEnhanceError, match="worker after worker is lost at patient 5"):
        run(raising(KILLED))


def test_a_patient_who_gets_on_may_lose_any_number(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines that are taken away every hour: each time the checkpoint is further."""
    steps = iter(range(100))
    monkeypatch.setattr(cluster, "latest_step", lambda _: next(steps))
    found, stand, _ = run(*[raising(KILLED)] * 9, lambda: "images")
    assert (found, stand.sent) == ([(0, "images")], 10)


def test_data_at_fault_are_no_reason_to_try_again(run: Any) -> None:
    with pytest.raises(InputError, match="all black"):
        run(raising(InputError("all black")))
    with pytest.raises(MedEnhanceError, match=r"failed at patient 5: ZeroDivisionError"):
        run(raising(ZeroDivisionError("0")))


def test_a_cluster_without_workers_is_waited_for_and_reported(run: Any) -> None:
    found, _, received = run(lambda: "images", workers=[{}, {}])
    assert found == [(0, "images")]
    assert any("has no worker; waiting" in message for message in received)
    with pytest.raises(Cancelled):
        run(lambda: "images", workers=[{}] * 1000, cancel=lambda: True)


@pytest.mark.parametrize("silent", ["connect", "nthreads", "scatter", "processing", "result"])
def test_a_cancel_is_not_held_up_by_a_scheduler_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, silent: str
) -> None:
    never, reached = threading.Event(), threading.Event()

    def wait_for_ever(*_: object, **__: object) -> None:
        reached.set()
        never.wait()

    task = Task(wait_for_ever if silent == "result" else lambda: "images", status="pending")
    stand = Stand([])
    stand.submit = lambda *_, **__: task  # type: ignore[method-assign]
    stand.close = wait_for_ever  # type: ignore[method-assign]
    if silent not in ("connect", "result"):
        monkeypatch.setattr(stand, silent, wait_for_ever)
    event = SimpleNamespace(name="stop", set=wait_for_ever)
    monkeypatch.setattr("dask.distributed.Event", lambda *_, **__: event)

    def connect(*_: object) -> Stand:
        if silent == "connect":
            wait_for_ever()
        return stand

    monkeypatch.setattr(cluster, "connect", connect)
    work: Any = SimpleNamespace(folder=tmp_path / "p", raw=SimpleNamespace(number=4))
    began = []

    def cancelled() -> bool:
        if reached.is_set() and not began:
            began.append(time.monotonic())
        return bool(began)

    with pytest.raises(Cancelled):
        list(distilling_on("tcp://s:1")([work], "cpu", Monitor(cancel=cancelled)))
    assert time.monotonic() - began[0] < 2.0
    never.set()


def test_workers_that_write_no_checkpoint_are_waited_for_in_a_bounded_time(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_CHECKPOINT_SECONDS", 0.1)
    stuck = Task(lambda: None, status="pending")
    monkeypatch.setattr(Stand, "submit", lambda *_, **__: stuck)
    monkeypatch.setattr(Task, "done", lambda _: False)
    cancels = iter([False] * 5)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        run(lambda: None, cancel=lambda: next(cancels, True))
    assert time.monotonic() - began < 2.0


def test_two_workers_never_write_into_one_patients_folder(tmp_path: Path) -> None:
    """One that the scheduler gave up may still be alive behind a cut cable."""
    (tmp_path / "p").mkdir()
    other = hold(tmp_path / "p")
    assert other is not None
    asked = []

    def free_it() -> bool:
        asked.append(True)
        other.release()
        return False

    with cluster._alone_in(tmp_path / "p", Monitor(cancel=free_it)):
        assert asked
        assert hold(tmp_path / "p") is None
