"""How the jobs of a batch run: one after another in this process, or on workers of Dask."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import Cancelled, ConfigError, MedEnhanceError, OutputError
from MedEnhanceLib.jobs.addresses import exists, is_remote, shown
from MedEnhanceLib.jobs.batch_items import Item
from MedEnhanceLib.jobs.ledger import FOREIGN, WARNINGS, Ledger, columns_of
from MedEnhanceLib.jobs.sending import check_target, results_here
from MedEnhanceLib.report.page import make_folder
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor, attend

#: Called with the indices of some that begin; the parameters of those that may.
Starting = Callable[[Sequence[int]], dict[int, dict[str, Any]]]
#: Called with the fields of the rows of some that ended: several reach the disk in the time of one.
Finished = Callable[[Mapping[int, Mapping[str, Any]]], None]
#: Runs a number of jobs, and stops at a request to cancel.
Runner = Callable[[int, Starting, Finished], None]
_POLL_SECONDS = 0.05
#: How long a process may take to end by itself.
_KILL_SECONDS = 0.2
#: How long a scheduler may take to pass on a cancel, and as long to let go of the connection.
_LEAVE_SECONDS = 0.5
#: Jobs that are sent ahead for each thread of a Dask cluster, the least of them in all, and how
#: often the threads are counted.
_AHEAD, _FEWEST_AHEAD, _COUNT_SECONDS = 4, 16, 10.0


def folder_of_ledger(out: str, ledger: str | None) -> Path:
    """The folder of the ledger, on this machine.

    Raises ConfigError where results go to an address and no folder is named for it, and for
    addresses that nothing can be written to.
    """
    folder = results_here("--ledger", ledger)
    if not is_remote(out):
        return Path(folder or out)
    check_target(out)
    if not folder:
        raise ConfigError(
            f"--out is {shown(out)}, and the ledger (batch.jsonl, batch.csv) stays on this machine",
            "Name a folder for it: --ledger DIR. The same folder lets the batch go on later.",
        )
    return Path(folder)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A batch: one task, its volumes, and what is stated for all of them.

    ledger: the folder of its rows. stated: parameters of the task. overwrite: whether what is done,
    and what lies there, is made anew. repeats: whether a job that was lost is run again elsewhere,
    and may find its own result.
    """

    task: str
    items: Sequence[Item]
    ledger: Path
    stated: Mapping[str, Any]
    overwrite: bool
    repeats: bool = False

    def work_through(
        self, run: Runner, ended: Callable[[Item, Mapping[str, Any], int, int], None]
    ) -> dict[str, Any]:
        """Do what is not finished yet, with a row for each.

        ended: called with each item, the fields of its row, how many have ended, and of how many.
        Returns total, done, already_done, failed (counts), table (path) and rows.
        """
        make_folder(self.ledger)
        ledger = Ledger(self.ledger)
        options = {"task": self.task, **self.stated}
        todo = [
            item for item in self.items if self.overwrite or not ledger.is_finished(item, options)
        ]
        count = 0

        def starting(indices: Sequence[int]) -> dict[int, dict[str, Any]]:
            params, refused = dict[int, dict[str, Any]](), dict[int, dict[str, Any]]()
            for index in indices:
                item = todo[index]
                is_own = self.overwrite or ledger.is_ours(item)
                if not is_own and (place := _taken(item)):
                    error = OutputError(f"{place} exists already", "See --force.")
                    refused[index] = {"seconds": 0.0, **row_of_error(error), FOREIGN: True}
                    continue
                if not is_remote(item.output):
                    make_folder(Path(item.output).parent)
                overwrite = is_own or self.repeats
                params[index] = {**item.params, **self.stated, "overwrite": overwrite}
            if params:
                ledger.add(((todo[index], {"status": "started"}) for index in params), options)
            if refused:
                finished(refused)
            return params

        def finished(rows: Mapping[int, Mapping[str, Any]]) -> None:
            nonlocal count
            for index, fields in rows.items():
                count += fields["status"] in ("done", "failed")
                ended(todo[index], fields, count, len(todo))
            ledger.add(
                ((todo[index], {**row, **columns_of(row)}) for index, row in rows.items()), options
            )

        run(len(todo), starting, finished)
        table = ledger.write_table(self.items)
        rows = [row for row in map(ledger.row_of, self.items) if row is not None]
        return {
            "total": len(self.items),
            "done": sum(row["status"] == "done" for row in rows),
            "already_done": len(self.items) - len(todo),
            "failed": sum(row["status"] == "failed" for row in rows),
            "table": str(table),
            "rows": rows,
        }


def _taken(item: Item) -> str:
    """What lies where a result or its manifest is to go; "" for nothing."""
    places = (item.output, f"{item.output}.json")
    return next((shown(place) for place in places if exists(place)), "")


def run_here(
    kind: str, count: int, starting: Starting, finished: Finished, monitor: Monitor
) -> None:
    """One after another, in this process; the events of each are those of a share of the batch."""
    for index in range(count):
        if monitor.cancelled:
            return
        part = monitor.part(index / count, (index + 1) / count)
        for params in starting([index]).values():
            name = Path(shown(params["input"])).name
            listener = partial(_pass_on, part, name, f"{index + 1} of {count}, {name}")
            finished({index: outcome(kind, params, lambda: monitor.cancelled, listener)})


def _pass_on(part: Monitor, name: str, stage: str, event: Event) -> None:
    if event.kind == "progress":
        part.progress(event.fields["fraction"], f"{stage}: {event.fields['stage']}")
    elif event.kind == "log":
        part.log(event.fields["message"])
    elif event.kind == "warning":
        part.warn(f"{name}: {event.fields['message']}")


@contextmanager
def dask_here(workers: int) -> Iterator[str]:
    """The address of a Dask cluster of `workers` processes, which ends with this.

    Workers side by side share the processor's threads.
    """
    from MedEnhanceLib.runtime.machine import cpu_threads

    dask = require("dask", purpose="batch --workers")
    distributed = require("dask.distributed", purpose="batch --workers")
    threads = max(1, cpu_threads() // workers)
    environment = {"distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": threads}
    with dask.config.set(environment):
        cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=0,  # Dask would end a worker at its share of the memory
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        )
    try:
        yield str(cluster.scheduler_address)
    finally:  # whose own end waits seconds for jobs that were cancelled
        for worker in cluster.workers.values():
            worker.auto_restart = False
            cluster.sync(worker.kill, timeout=_KILL_SECONDS)
        _soon(cluster.close)


def run_on_dask(
    kind: str,
    address: str,
    count: int,
    starting: Starting,
    finished: Finished,
    monitor: Monitor,
) -> None:
    """On the workers of a Dask scheduler, which must see the same paths.

    No more is sent than the workers need to stay busy: a million tasks would fill the scheduler's
    memory, and each would count as started. A worker that is lost is Dask's to replace.
    Raises DependencyError without dask.distributed, MedEnhanceError for no answer, then or later.
    """
    try:
        with suppress(Cancelled):
            _follow_on_dask(kind, address, count, starting, finished, monitor)
    except OSError as cause:  # Dask's own errors of connections are, too
        raise MedEnhanceError(
            f"the Dask scheduler {address} went away",
            "Start it again with its workers, and run the same command: what is done is left out.",
        ) from cause


def _follow_on_dask(
    kind: str, address: str, count: int, starting: Starting, finished: Finished, monitor: Monitor
) -> None:
    """As `run_on_dask`; raises Cancelled, and OSError where the scheduler went away."""
    with _connected(address, monitor) as client:
        left, running = iter(range(count)), dict[int, Any]()
        ahead, since = attend(lambda: _ahead(client), monitor), time.monotonic()
        try:
            while True:
                monitor.check()
                if time.monotonic() - since > _COUNT_SECONDS:  # workers come and go
                    ahead, since = attend(lambda: _ahead(client), monitor), time.monotonic()
                indices = [*itertools.islice(left, max(0, ahead - len(running)))]
                if params := starting(indices) if indices else {}:
                    jobs = [*params.values()]
                    sent = client.map(partial(outcome, kind), jobs, pure=False, retries=0)
                    running.update(zip(params, sent, strict=True))
                if client.status != "running":
                    raise ConnectionError(client.status)
                if done := {index: future for index, future in running.items() if future.done()}:
                    finished(attend(partial(_rows_of, client, done), monitor))
                    for index in done:
                        del running[index]
                if not running and not indices:
                    return
                time.sleep(_POLL_SECONDS)  # meanwhile more of them end, and share a flush
        finally:
            unfinished = [*running.values()]
            if unfinished:
                _soon(lambda: client.cancel(unfinished, force=True))


@contextmanager
def _connected(address: str, monitor: Monitor) -> Iterator[Any]:
    """A connection to a Dask scheduler: a `distributed.Client`.

    Args:
        address: of the scheduler, for example "tcp://host:8786".
        monitor: neither the beginning nor the end holds up its cancel.
    Raises:
        DependencyError: dask.distributed is missing.
        MedEnhanceError: the scheduler does not answer.
    """
    distributed = require("dask.distributed", purpose="batch --scheduler")
    # A connection that is lost becomes an error of ours; Dask logs it too, with its traceback.
    for name in ("distributed.batched", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def connect() -> Any:
        return distributed.Client(address, timeout="15s", set_as_default=False)

    try:
        client = attend(connect, monitor)
    except (OSError, TimeoutError, ValueError) as cause:
        raise MedEnhanceError(
            f"the Dask scheduler {address} does not answer: {cause}",
            "Start one with: dask scheduler; and workers with: dask worker ADDRESS.",
        ) from cause
    try:
        yield client
    finally:
        _soon(client.close)


def _soon(call: Callable[[], Any]) -> bool:
    """Make a call that a scheduler may never answer; whether it did so at once."""
    end = time.monotonic() + _LEAVE_SECONDS
    with suppress(Cancelled):
        attend(call, Monitor(cancel=lambda: time.monotonic() > end))
        return True
    return False


def _ahead(client: Any) -> int:
    """How many jobs are sent ahead: a few for each thread of the cluster."""
    threads: int = sum(client.nthreads().values())
    return max(_FEWEST_AHEAD, _AHEAD * threads)


def _rows_of(client: Any, ended: Mapping[int, Any]) -> dict[int, dict[str, Any]]:
    """The rows of jobs that ended, asked for together; of one that was lost, why."""
    rows: dict[int, dict[str, Any] | None] = client.gather(dict(ended), errors="skip")
    return {index: row or _lost_row(ended[index]) for index, row in rows.items()}


def _lost_row(future: Any) -> dict[str, Any]:
    error = future.exception()
    lost = MedEnhanceError(
        f"the Dask worker lost the job: {type(error).__name__}: {error}",
        "See the worker's log; it may have run out of memory.",
    )
    return row_of_error(lost)


def outcome(
    kind: str,
    params: Mapping[str, Any],
    cancel: Cancel | None = None,
    progress: Listener | None = None,
) -> dict[str, Any]:
    """Run a job in this process; its row: what it gave or why it failed, seconds and warnings."""
    from MedEnhanceLib.jobs import JobSpec, run_job

    began = time.monotonic()
    warnings: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "warning":
            warnings.append(str(event.fields["message"]))
        if progress is not None:
            progress(event)

    try:
        fields = {**run_job(JobSpec(kind, params), listen, cancel).fields, "status": "done"}
    except MedEnhanceError as error:
        fields = row_of_error(error)
    said = {WARNINGS: list(dict.fromkeys(warnings))} if warnings else {}
    return {"seconds": round(time.monotonic() - began, 3), **fields, **said}


def row_of_error(error: MedEnhanceError) -> dict[str, Any]:
    """The fields of a failed row."""
    status = "cancelled" if isinstance(error, Cancelled) else "failed"
    return {
        "status": status,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
    }
