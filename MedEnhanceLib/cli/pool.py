"""Runs the jobs of a batch: one after another, in several processes, or on a Dask cluster."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from MedEnhanceLib.errors import Cancelled, MedEnhanceError

#: A job on paper: its kind and its parameters.
Work = tuple[str, Mapping[str, Any]]
#: What is told of each: its index, and the fields of its row.
Told = Callable[[int, Mapping[str, Any]], None]
Starting = Callable[[int], None]
_POLL_SECONDS = 0.2


def run_here(work: Sequence[Work], starting: Starting, told: Told, cancel: threading.Event) -> None:
    """One after another, in this process."""
    for index, (kind, params) in enumerate(work):
        if cancel.is_set():
            return
        starting(index)
        told(index, outcome(kind, params, cancel))


def run_in_processes(
    work: Sequence[Work],
    count: int,
    starting: Starting,
    told: Told,
    cancel: threading.Event,
) -> None:
    """`count` at a time, each in a warm worker; one that dies takes only its own job along."""
    from MedEnhanceLib.jobs import Client, JobSpec

    here = threading.local()
    clients: list[Client] = []
    lock = threading.Lock()  # the ledger and the progress bar are not for several threads

    def run(index: int) -> Mapping[str, Any]:
        if cancel.is_set():
            return row_of_error(Cancelled("cancelled"))
        if not hasattr(here, "client"):
            here.client = Client()
            clients.append(here.client)
        kind, params = work[index]
        with lock:
            starting(index)
        return timed(lambda: here.client.run(JobSpec(kind, params), cancel=cancel).fields)

    with _threads_shared_by(count), ThreadPoolExecutor(count) as pool:
        futures = {pool.submit(run, index): index for index in range(len(work))}
        try:
            for future in _as_completed(futures):
                with lock:
                    told(futures[future], future.result())
        finally:
            for future in futures:
                future.cancel()
            for client in clients:
                client.close()


def run_on_dask(
    work: Sequence[Work], address: str, starting: Starting, told: Told, cancel: threading.Event
) -> None:
    """On the workers of a Dask scheduler, which must see the same paths.

    Raises DependencyError without dask.distributed, MedEnhanceError for no answer.
    """
    from MedEnhanceLib.jobs.cluster import connect

    with connect(address, "batch --scheduler") as client:
        futures = {}
        for index, (kind, params) in enumerate(work):
            starting(index)
            futures[client.submit(outcome, kind, dict(params), pure=False, retries=0)] = index
        waiting = set(futures)
        while waiting and not cancel.is_set():
            finished = {future for future in waiting if future.done()}
            for future in finished:
                told(futures[future], _dask_row(future))
            waiting -= finished
            if not finished:
                time.sleep(_POLL_SECONDS)
        client.cancel(list(waiting), force=True)


def outcome(
    kind: str, params: Mapping[str, Any], cancel: threading.Event | None = None
) -> dict[str, Any]:
    """Run a job in this process; the fields of its row, whether it was done or failed."""
    from MedEnhanceLib.jobs import JobSpec, run_job

    return timed(lambda: run_job(JobSpec(kind, params), cancel=cancel).fields)


def timed(run: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The row of what `run` gives or raises, with the seconds it took."""
    began = time.monotonic()
    try:
        fields = {**run(), "status": "done"}
    except MedEnhanceError as error:
        fields = row_of_error(error)
    return {"seconds": round(time.monotonic() - began, 3), **fields}


def row_of_error(error: MedEnhanceError) -> dict[str, Any]:
    """The fields of a failed row."""
    status = "cancelled" if isinstance(error, Cancelled) else "failed"
    return {
        "status": status,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
    }


def _as_completed(futures: Mapping[Future[Any], int]) -> Iterator[Future[Any]]:
    """As they complete; waits in short steps, so that Ctrl-C is heard on every system."""
    waiting = set(futures)
    while waiting:
        finished, waiting = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
        yield from finished


def _dask_row(future: Any) -> dict[str, Any]:
    error = future.exception()
    if error is None:
        row: dict[str, Any] = future.result()
        return row
    lost = MedEnhanceError(
        f"the Dask worker lost the job: {type(error).__name__}: {error}",
        "See the worker's log; it may have run out of memory.",
    )
    return row_of_error(lost)


@contextmanager
def _threads_shared_by(count: int) -> Iterator[None]:
    """Workers side by side must not each take all threads; a setting of the user's stays."""
    name = "OMP_NUM_THREADS"
    if name in os.environ:
        yield
        return
    from MedEnhanceLib.runtime.machine import cpu_threads

    os.environ[name] = str(max(1, cpu_threads() // count))
    try:
        yield
    finally:
        del os.environ[name]
