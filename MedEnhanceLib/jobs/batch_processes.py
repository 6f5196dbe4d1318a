"""Runs of a batch's jobs in several processes of this computer."""

from __future__ import annotations

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
from typing import Any

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.jobs.batch_items import Item
from MedEnhanceLib.jobs.batch_runs import Ledger, lost_row, run_into_row
from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.processes import starting_processes
from MedEnhanceLib.runtime.progress import Monitor

#: How often a cancel is looked for, and how long canceled jobs may take to end.
_POLL_SECONDS, _GRACE_SECONDS = 0.1, 5.0
#: How often a job is begun whose process dies, as it does where memory runs out.
_TRIES = 2
#: In a process of a batch: whether it is to stop.
_stop: Any = None


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
