"""How the jobs of a batch run: one after another, in several processes, or on a Dask cluster."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from MedEnhanceLib.errors import Cancelled, ConfigError, MedEnhanceError
from MedEnhanceLib.jobs.addresses import is_remote, listed, name_at, on_this_machine, shown
from MedEnhanceLib.jobs.batch_items import Item
from MedEnhanceLib.jobs.files import manifest_path
from MedEnhanceLib.jobs.ledger import FOREIGN, WARNINGS, Ledger, columns_of
from MedEnhanceLib.jobs.sending import check_target, check_writable, results_here
from MedEnhanceLib.report.page import make_folder
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor

T = TypeVar("T")
#: A job: its kind and its parameters.
Work = tuple[str, Mapping[str, Any]]
#: Called with the indices of some that begin, and of some that ended, with the fields of their
#: rows: rows of several reach the disk in the time of one.
Starting = Callable[[Sequence[int]], None]
Finished = Callable[[Mapping[int, Mapping[str, Any]]], None]
#: Runs the work, and stops at a request to cancel.
Runner = Callable[[Sequence[Work], Starting, Finished], None]
_POLL_SECONDS = 0.2
_DASK_POLL_SECONDS = 0.05
#: Jobs that are sent ahead for each thread of a Dask cluster, the least of them in all, and how
#: often the threads are counted.
_AHEAD, _FEWEST_AHEAD, _COUNT_SECONDS = 4, 16, 10.0


def results_and_ledger(out: str, ledger: str | None) -> tuple[Path | str, Path]:
    """The folder of the results, or its address, and that of the ledger, on this machine.

    Raises ConfigError where results go to an address and no folder is named for the ledger, and
    for addresses that nothing can be written to.
    """
    place, folder = on_this_machine(out), results_here("--ledger", ledger or "")
    if not is_remote(place):
        return Path(place), Path(folder or place)
    check_target(place)
    if not folder:
        raise ConfigError(
            f"--out is {shown(place)}, and the ledger (batch.jsonl, batch.csv) stays on this "
            "machine",
            "Name a folder for it: --ledger DIR. The same folder lets the batch go on later.",
        )
    return place, Path(folder)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A batch: one task, its volumes, and what is stated for all of them.

    out, ledger: as `results_and_ledger` gives them. config: of the task; stated: its other
    parameters. overwrite: whether what is done, and what lies there, is made anew. repeats: whether
    a job that was lost is run again elsewhere, and may find its own result.
    """

    task: str
    items: Sequence[Item]
    out: Path | str
    ledger: Path
    config: Mapping[str, Any]
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
        there = self._there()
        ledger = Ledger(self.ledger, there)
        options = {"task": self.task, "config": self.config, **self.stated}
        todo = [one for one in self.items if self.overwrite or not ledger.is_finished(one, options)]
        work = [(self.task, self._params(one, ledger, there)) for one in todo]
        own = [self.overwrite or ledger.is_ours(one) for one in todo]
        count = 0

        def foreign(index: int) -> dict[str, bool]:
            is_foreign = not own[index] and _is_taken(todo[index], there)
            return {FOREIGN: True} if is_foreign else {}

        def starting(indices: Sequence[int]) -> None:
            ledger.add(
                ((todo[index], {"status": "started", **foreign(index)}) for index in indices),
                options,
            )

        def finished(rows: Mapping[int, Mapping[str, Any]]) -> None:
            nonlocal count
            for index, fields in rows.items():
                count += fields["status"] in ("done", "failed")
                ended(todo[index], fields, count, len(todo))
            ledger.add(
                (
                    (
                        todo[index],
                        {**fields, **columns_of(fields)}
                        | ({} if fields["status"] == "done" else foreign(index)),
                    )
                    for index, fields in rows.items()
                ),
                options,
            )

        run(work, starting, finished)
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

    def _there(self) -> set[str]:
        """What lies at the address of the results, by one listing: paths below it, folders too.

        Raises OutputError where nothing can be written there.
        """
        if isinstance(self.out, Path):
            return set()
        check_writable(self.out)
        names = [PurePosixPath(name) for name in listed(self.out)]
        return {str(one) for name in names for one in (name, *name.parents)}

    def _params(self, item: Item, ledger: Ledger, there: Collection[str]) -> dict[str, Any]:
        is_own = ledger.is_ours(item)
        if item.to:
            is_own = is_own or (self.repeats and item.output.as_posix() not in there)
        else:
            make_folder(item.output.parent)
        params = {
            "input": item.place,
            "output": item.to or str(item.output.absolute()),
            "config": dict(self.config),
            "overwrite": self.overwrite or is_own,
        }
        return params | ({"series": item.series} if item.series else {}) | dict(self.stated)


def _is_taken(item: Item, there: Collection[str]) -> bool:
    """Whether something lies where a result or its manifest is to go."""
    manifest = manifest_path(item.output)
    if item.to:
        return any(path.as_posix() in there for path in (item.output, manifest))
    return item.output.exists() or manifest.exists()


def run_here(
    work: Sequence[Work], starting: Starting, finished: Finished, monitor: Monitor
) -> None:
    """One after another, in this process; the events of each are those of a share of the batch."""
    for index, (kind, params) in enumerate(work):
        if monitor.cancelled:
            return
        part = monitor.part(index / len(work), (index + 1) / len(work))
        given = params["input"]
        name = name_at(given) if is_remote(given) else Path(given).name
        starting([index])
        listener = partial(_pass_on, part, name, f"{index + 1} of {len(work)}, {name}")
        finished({index: outcome(kind, params, lambda: monitor.cancelled, listener)})


def _pass_on(part: Monitor, name: str, stage: str, event: Event) -> None:
    if event.kind == "progress":
        part.progress(event.fields["fraction"], f"{stage}: {event.fields['stage']}")
    elif event.kind == "log":
        part.log(event.fields["message"])
    elif event.kind == "warning":
        part.warn(f"{name}: {event.fields['message']}")


def run_in_processes(
    work: Sequence[Work],
    count: int,
    starting: Starting,
    finished: Finished,
    monitor: Monitor,
) -> None:
    """`count` at a time, each in a warm worker; one that dies takes only its own job along."""
    from MedEnhanceLib.jobs import Client, JobSpec

    here = threading.local()
    clients: list[Client] = []
    lock = threading.Lock()  # the ledger and the progress bar are not for several threads

    def run(index: int) -> Mapping[str, Any]:
        if monitor.cancelled:
            return row_of_error(Cancelled("cancelled"))
        if not hasattr(here, "client"):
            here.client = Client()
            clients.append(here.client)
        kind, params = work[index]
        with lock:
            starting([index])
        spec = JobSpec(kind, params)
        return timed(
            lambda listener: (
                here.client.run(spec, listener, cancel=lambda: monitor.cancelled).fields
            )
        )

    with _threads_shared_by(count), ThreadPoolExecutor(count) as pool:
        futures = {pool.submit(run, index): index for index in range(len(work))}
        try:
            for future in _as_completed(futures):
                with lock:
                    finished({futures[future]: future.result()})
        finally:
            for future in futures:
                future.cancel()
            for client in clients:
                client.close()


def run_on_dask(
    work: Sequence[Work],
    address: str,
    starting: Starting,
    finished: Finished,
    monitor: Monitor,
) -> None:
    """On the workers of a Dask scheduler, which must see the same paths.

    No more is sent than the workers need to stay busy: a million tasks would fill the scheduler's
    memory, and each would count as started. A worker that is lost is Dask's to replace.
    Raises DependencyError without dask.distributed, MedEnhanceError for no answer, then or later.
    """
    with suppress(Cancelled), _while_it_answers(address):
        _follow_on_dask(work, address, starting, finished, monitor)


def _follow_on_dask(
    work: Sequence[Work], address: str, starting: Starting, finished: Finished, monitor: Monitor
) -> None:
    """As `run_on_dask`; raises Cancelled, and OSError where the scheduler went away."""
    from MedEnhanceLib.jobs.cluster import LEAVE_SECONDS, answer_of, connected, in_thread

    def ask(call: Callable[[], T]) -> T:
        return answer_of(in_thread(call), monitor)

    with connected(address, "batch --scheduler", monitor) as client:
        left, running = iter(range(len(work))), dict[int, Any]()
        count, since = ask(lambda: _ahead(client)), time.monotonic()
        try:
            while True:
                monitor.check()
                if time.monotonic() - since > _COUNT_SECONDS:  # workers come and go
                    count, since = ask(lambda: _ahead(client)), time.monotonic()
                if indices := [*itertools.islice(left, count - len(running))]:
                    starting(indices)
                    kinds, given = zip(*(_sent(*work[index]) for index in indices), strict=True)
                    sent = client.map(outcome, kinds, given, pure=False, retries=0)
                    running.update(zip(indices, sent, strict=True))
                if client.status != "running":
                    raise ConnectionError(client.status)
                if ended := {index: future for index, future in running.items() if future.done()}:
                    finished(ask(partial(_dask_rows, client, ended)))
                    for index in ended:
                        del running[index]
                if not running:
                    return
                time.sleep(_DASK_POLL_SECONDS)  # meanwhile more of them end, and share a flush
        finally:
            if running:
                unfinished = [*running.values()]
                stopping = in_thread(lambda: client.cancel(unfinished, force=True))
                wait([stopping], LEAVE_SECONDS)


@contextmanager
def _while_it_answers(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as cause:  # Dask's own errors of connections are, too
        raise MedEnhanceError(
            f"the Dask scheduler {address} went away",
            "Start it again with its workers, and run the same command: what is done is left out.",
        ) from cause


def _ahead(client: Any) -> int:
    """How many jobs are sent ahead: a few for each thread of the cluster."""
    threads: int = sum(client.nthreads().values())
    return max(_FEWEST_AHEAD, _AHEAD * threads)


def _sent(kind: str, params: Mapping[str, Any]) -> Work:
    """Where nothing lies at the output now, what lies there later is of a worker that was lost.

    At an address that was looked up before, for all of them at once.
    """
    is_settled = is_remote(params["output"]) or Path(params["output"]).exists()
    return kind, params if is_settled else {**params, "overwrite": True}


def outcome(
    kind: str,
    params: Mapping[str, Any],
    cancel: Cancel | None = None,
    progress: Listener | None = None,
) -> dict[str, Any]:
    """Run a job in this process; the fields of its row, whether it was done or failed."""
    from MedEnhanceLib.jobs import JobSpec, run_job

    def run(note: Listener) -> Mapping[str, Any]:
        def listen(event: Event) -> None:
            note(event)
            if progress is not None:
                progress(event)

        return run_job(JobSpec(kind, params), listen, cancel).fields

    return timed(run)


def timed(run: Callable[[Listener], Mapping[str, Any]]) -> dict[str, Any]:
    """The row of what `run` gives or raises, with the seconds it took and what it warned of."""
    began = time.monotonic()
    warnings: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "warning":
            warnings.append(str(event.fields["message"]))

    try:
        fields = {**run(listen), "status": "done"}
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


def _as_completed(futures: Mapping[Future[Any], int]) -> Iterator[Future[Any]]:
    """As they complete; waits in short steps, so that Ctrl-C is noticed on every system."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
        yield from done


def _dask_rows(client: Any, ended: Mapping[int, Any]) -> dict[int, dict[str, Any]]:
    """The rows of jobs that ended, asked for together; of one that was lost, why."""
    found: dict[int, dict[str, Any] | None] = client.gather(dict(ended), errors="skip")
    return {index: row or _lost_row(ended[index]) for index, row in found.items()}


def _lost_row(future: Any) -> dict[str, Any]:
    error = future.exception()
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
