"""Runs of a batch's jobs: one after another here, in several processes, or on Dask workers."""

from __future__ import annotations

import itertools
import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import Cancelled, MedEnhanceError
from MedEnhanceLib.jobs.batch_items import Item
from MedEnhanceLib.jobs.batch_ledger import Ledger, bytes_of
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.processes import starting_processes
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor, attend

#: How often ends of jobs and a cancel are looked for.
_POLL_SECONDS = 0.1
#: How long canceled jobs in processes may take to end.
_GRACE_SECONDS = 5.0
#: How often a job is begun whose process dies, as it does where memory runs out.
_TRIES = 2
#: How long a scheduler may take to pass on a cancel and to close the connection.
_LEAVE_SECONDS = 0.5
#: Jobs that are sent ahead: for each thread of a Dask cluster, and at least in all.
_AHEAD, _FEWEST_AHEAD = 4, 16
#: How often a scheduler is asked for its threads.
_ASK_SECONDS = 5.0
#: In a process of a batch: whether it is to stop.
_stop: Any = None


def run_here(ledger: Ledger, monitor: Monitor) -> None:
    """Run the jobs one after another in this process; each reports a share of the progress."""
    count = len(ledger.todo)
    for index, item in enumerate(ledger.todo):
        if monitor.cancelled:
            return
        part = monitor.part(index / count, (index + 1) / count)
        listener = partial(_pass_on, part, item, f"{index + 1} of {count}, {item.label}")
        (params,) = ledger.begin([item])
        ledger.end([(item, run_into_row(ledger.task, params, lambda: monitor.cancelled, listener))])


def _pass_on(part: Monitor, item: Item, stage: str, event: Event) -> None:
    if event.kind == "progress":
        part.progress(event.fields["fraction"], f"{stage}: {event.fields['stage']}")
    elif event.kind == "warning":
        message = event.fields["message"]
        for name in (item.name, item.source):  # the label is shorter
            message = message.removeprefix(f"{Path(name).name}: ")
        part.warn(f"{item.label}: {message}")


@dataclass
class _Process:
    """A process that runs one job at a time; another one takes its place where it dies."""

    start: Callable[[], ProcessPoolExecutor]
    item: Item | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    row: Future[dict[str, Any]] | None = None
    tries: int = 0

    def __post_init__(self) -> None:
        self.pool = self.start()

    def begin(self, task: str) -> None:
        """Begin the job of its item, which ends as `row`."""
        self.tries += 1
        try:
            self.row = self.pool.submit(_run, task, self.params)
        except BrokenExecutor:  # it died without a job
            self.replace()
            self.row = self.pool.submit(_run, task, self.params)

    def replace(self) -> None:
        """Let another process take its place."""
        self.pool.shutdown(wait=False)
        self.pool = self.start()


def run_in_processes(ledger: Ledger, count: int, monitor: Monitor) -> None:
    """Run the jobs side by side; the processes share the threads of the processor.

    A job whose process dies is begun once more, and then becomes a failed row. After a cancel all
    jobs end within seconds.

    Args:
        ledger: has the jobs; gets a row for each that ends.
        count: of the processes.
        monitor: receives progress; a cancel returns early, without an error.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.RawValue("b", 0)  # no lock, which a process that dies would keep
    start = partial(ProcessPoolExecutor, 1, context, _begin_process, (stop,))
    pending, ended, total = deque(ledger.todo), 0, len(ledger.todo)
    count = min(count, total)
    threads = max(1, cpu_threads() // max(1, count))
    with starting_processes(OMP_NUM_THREADS=str(threads)):
        processes = [_Process(start) for _ in range(count)]
        try:
            while ended < total and not stop.value:
                idle = [each for each in processes if each.item is None][: len(pending)]
                items = [pending.popleft() for _ in idle]
                jobs = ledger.begin(items, repeats=True)
                for process, item, params in zip(idle, items, jobs, strict=True):
                    process.item, process.params, process.tries = item, params, 0
                    process.begin(ledger.task)
                rows = [process.row for process in processes if process.row is not None]
                wait(rows, _POLL_SECONDS, FIRST_COMPLETED)
                if monitor.cancelled:
                    stop.value = 1
                    wait(rows, _GRACE_SECONDS)
                finished = [*_finished(processes, ledger.task, retries=not stop.value)]
                ledger.end(finished)
                ended += len(finished)
                with suppress(Cancelled):  # which the next turn sees
                    monitor.progress(ended / total, f"{ended} of {total}")
        finally:
            stop.value = 1
            for process in processes:
                process.pool.shutdown(cancel_futures=True)


def _finished(
    processes: list[_Process], task: str, *, retries: bool
) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Yield the items whose jobs ended, with their rows; jobs of dead processes begin again."""
    for process in processes:
        if process.row is None or not process.row.done():
            continue
        assert process.item is not None
        if (error := process.row.exception()) is None:
            row = process.row.result()
        else:
            process.replace()
            if retries and process.tries < _TRIES:
                process.begin(task)
                continue
            row = lost_row(error, "process")
        item, process.item, process.row = process.item, None, None
        yield item, row


def _begin_process(stop: Any) -> None:
    """Prepare a process of a batch; stop: its value is 0 until the batch ends."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the batch cancels, also where a user types ^C
    threading.Thread(target=_end_in_time, daemon=True).start()


def _end_in_time() -> None:
    """End this process with the one that began it, or some time after a cancel."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    while not _stop.value:
        if connection.wait([parent.sentinel], _POLL_SECONDS):
            os._exit(1)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


def _run(task: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return run_into_row(task, params, lambda: bool(_stop.value))


def run_on_dask(ledger: Ledger, address: str, monitor: Monitor) -> None:
    """Run the jobs on the workers of a Dask scheduler, which must see the same paths.

    Only as many jobs are sent as keep the workers busy: a million tasks would fill the scheduler's
    memory, and each would count as started. Dask replaces a lost worker and runs its job again. A
    cancel does not wait for a scheduler that does not answer.

    Args:
        ledger: has the jobs; gets a row for each that ends.
        address: of the scheduler, such as "tcp://host:8786".
        monitor: receives progress; a cancel returns early, without an error.
    Raises DependencyError without dask.distributed, MedEnhanceError if the scheduler is lost.
    """
    distributed = require("dask.distributed", purpose="batch --scheduler")
    # A lost connection is raised below; Dask would also log it, with a traceback.
    for name in ("distributed.batched", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    connect = partial(distributed.Client, address, timeout="15s", set_as_default=False)
    client, running, count = None, dict[Item, Any](), len(ledger.todo)
    try:
        client = attend(connect, monitor)
        pending, ended, threads, asked = iter(ledger.todo), 0, 0, -math.inf
        while ended < count:
            if time.monotonic() > asked + _ASK_SECONDS:
                threads, asked = sum(attend(client.nthreads, monitor).values()), time.monotonic()
            ahead = max(_FEWEST_AHEAD, _AHEAD * threads)
            items = [*itertools.islice(pending, max(0, ahead - len(running)))]
            if items:
                jobs = ledger.begin(items, repeats=True)
                sent = client.map(partial(run_into_row, ledger.task), jobs, pure=False, retries=0)
                running.update(zip(items, sent, strict=True))
            if client.status != "running":
                raise ConnectionError(client.status)
            if ready := {item: future for item, future in running.items() if future.done()}:
                rows = attend(partial(client.gather, ready, errors="skip"), monitor)
                ledger.end(
                    (item, rows.get(item) or lost_row(ready[item].exception(), "Dask worker"))
                    for item in ready
                )
                running = {item: future for item, future in running.items() if item not in ready}
                ended += len(ready)
            monitor.progress(ended / count, f"{ended} of {count}")
            time.sleep(_POLL_SECONDS)  # more jobs end meanwhile, and share a flush to disk
    except Cancelled:
        return
    except (OSError, ValueError) as cause:  # as Dask's errors of connections are
        raise MedEnhanceError(
            f"the Dask scheduler {address} does not answer: {cause}",
            "Start it (dask scheduler) with its workers (PYTHONSAFEPATH=1 dask worker ADDRESS), "
            "and run the same command: finished volumes are skipped.",
        ) from cause
    finally:
        if client is not None:
            if running:
                _soon(partial(client.cancel, [*running.values()], force=True))
            _soon(client.close)


def _soon(call: Callable[[], Any]) -> None:
    """Make a call that a scheduler may never answer, for at most _LEAVE_SECONDS."""
    end = time.monotonic() + _LEAVE_SECONDS
    with suppress(Cancelled):
        attend(call, Monitor(cancel=lambda: time.monotonic() > end))


def lost_row(error: BaseException | None, where: str) -> dict[str, Any]:
    """Return the row of a job that was lost; where: "process", that ran it; error: why."""
    lost = MedEnhanceError(
        f"the {where} lost the job: {type(error).__name__}: {error}",
        "It may have run out of memory: give each more of it, or run fewer side by side.",
    )
    return _row_of_error(lost)


def run_into_row(
    kind: str,
    params: Mapping[str, Any],
    cancel: Cancel | None = None,
    progress: Listener | None = None,
) -> dict[str, Any]:
    """Run a job in this process, and return its row for the ledger.

    A `MedEnhanceError` is not raised, but becomes a row: status, code, message and hint.

    Args:
        kind: a key of `JOBS`.
        params: of the job, as in its JSON object.
        cancel: see `Monitor`; None: the job runs to its end.
        progress: receives all events; None: only warnings are kept, in the row.
    Returns status, seconds, warnings and `output_bytes`, with the fields of the result or error.
    """
    from MedEnhanceLib.jobs import JobSpec, run_job

    began = time.monotonic()
    warnings: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "warning":
            if event.fields.get("text", {}).get("key") == "keep_originals":
                return  # a batch says it once
            warnings.append(str(event.fields["message"]))
        if progress is not None:
            progress(event)

    try:
        fields = {**run_job(JobSpec(kind, params), listen, cancel).fields, "status": "done"}
    except MedEnhanceError as error:
        fields = _row_of_error(error)
    if warnings:
        fields["warnings"] = list(dict.fromkeys(warnings))
    fields["output_bytes"] = bytes_of(params["output"])
    return {"seconds": round(time.monotonic() - began, 3), **fields}


def _row_of_error(error: MedEnhanceError) -> dict[str, Any]:
    status = "cancelled" if isinstance(error, Cancelled) else "failed"
    return {"status": status, "code": error.code, "message": error.message, "hint": error.hint}
