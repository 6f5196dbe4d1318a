"""How the jobs of a batch run: one after another here, or on workers of Dask; and their rows."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import Cancelled, MedEnhanceError, OutputError
from MedEnhanceLib.jobs.addresses import is_remote, shown
from MedEnhanceLib.jobs.batch_items import Item
from MedEnhanceLib.jobs.worker.events import as_json
from MedEnhanceLib.report.page import make_folder
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor, attend

_POLL_SECONDS = 0.05
#: How long a scheduler may take to pass on a cancel and to let go of the connection.
_LEAVE_SECONDS = 0.5
#: Jobs that are sent ahead for each thread of a Dask cluster, and the least of them in all.
_AHEAD, _FEWEST_AHEAD = 4, 16


class Batch:
    """One task for many volumes, with a row in the ledger for whatever happens to each.

    Args:
        task: the kind of job.
        items: the volumes.
        ledger: gets the rows.
        stated: parameters of the task for all volumes.
        overwrite: whether finished volumes are processed again and their files replaced.
        repeats: whether a job whose worker was lost is run again, and may find its own result.
        ended: called with each item, the fields of its row, how many have ended, and of how many.
    """

    def __init__(
        self,
        task: str,
        items: Sequence[Item],
        ledger: Ledger,
        stated: Mapping[str, Any],
        *,
        overwrite: bool,
        repeats: bool = False,
        ended: Callable[[Item, Mapping[str, Any], int, int], None],
    ) -> None:
        self.task, self._items, self._ledger, self._stated = task, items, ledger, stated
        self._overwrite, self._repeats, self._ended, self._count = overwrite, repeats, ended, 0
        self._options = {"task": task, **stated}
        self.todo = [
            item for item in items if overwrite or not ledger.is_finished(item, self._options)
        ]

    def begin(self, indices: Sequence[int]) -> dict[int, dict[str, Any]]:
        """The parameters of those of `todo` that may begin; the others have ended already."""
        params, refused = dict[int, dict[str, Any]](), dict[int, dict[str, Any]]()
        for index in indices:
            item = self.todo[index]
            is_own = self._overwrite or self._ledger.is_ours(item)
            places = (item.output, f"{item.output}.json")
            if taken := [place for place in places if os.path.lexists(place) and not is_own]:
                error = OutputError(
                    f"{taken[0]} exists already, and is not of this batch",
                    "Name another folder, or allow to replace it (--force).",
                )
                refused[index] = {"seconds": 0.0, **_row_of_error(error)}
                continue
            make_folder(Path(item.output).parent)
            overwrite = is_own or self._repeats
            params[index] = {**item.params, **self._stated, "overwrite": overwrite}
        if params:
            rows = ((self.todo[index], {"status": "started"}) for index in params)
            self._ledger.add(rows, self._options)
        if refused:
            self.end(refused)
        return params

    def end(self, rows: Mapping[int, Mapping[str, Any]]) -> None:
        """Write the rows of some that ended: several reach the disk in the time of one."""
        for index, fields in rows.items():
            self._count += fields["status"] in ("done", "failed")
            self._ended(self.todo[index], fields, self._count, len(self.todo))
        self._ledger.add(((self.todo[index], row) for index, row in rows.items()), self._options)

    def result(self) -> dict[str, Any]:
        """Write the table; total, done, already_done, failed (counts), table (path) and rows."""
        table = self._ledger.write_table(self._items)
        rows = [row for row in map(self._ledger.row_of, self._items) if row is not None]
        return {
            "total": len(self._items),
            "done": sum(row["status"] == "done" for row in rows),
            "already_done": len(self._items) - len(self.todo),
            "failed": sum(row["status"] == "failed" for row in rows),
            "table": str(table),
            "rows": rows,
        }


def run_here(batch: Batch, monitor: Monitor) -> None:
    """One after another, in this process; the events of each are those of a share of the batch."""
    count = len(batch.todo)
    for index in range(count):
        if monitor.cancelled:
            return
        part = monitor.part(index / count, (index + 1) / count)
        for params in batch.begin([index]).values():
            name = Path(shown(params["input"])).name
            listener = partial(_pass_on, part, name, f"{index + 1} of {count}, {name}")
            batch.end({index: outcome(batch.task, params, lambda: monitor.cancelled, listener)})


def _pass_on(part: Monitor, name: str, stage: str, event: Event) -> None:
    if event.kind == "progress":
        part.progress(event.fields["fraction"], f"{stage}: {event.fields['stage']}")
    elif event.kind == "warning":
        part.warn(f"{name}: {event.fields['message'].removeprefix(f'{name}: ')}")


@contextmanager
def dask_here(workers: int) -> Iterator[str]:
    """The address of a Dask cluster of `workers` processes, which ends with this.

    Workers side by side share the processor's threads.
    """
    from MedEnhanceLib.runtime.machine import cpu_threads

    dask = require("dask", purpose="batch --workers")
    distributed = require("dask.distributed", purpose="batch --workers")
    threads = max(1, cpu_threads() // workers)
    with dask.config.set({"distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": threads}):
        cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=0,  # Dask would end a worker at its share of the memory
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        )
    try:
        yield str(cluster.scheduler_address)
    finally:  # whose own end waits seconds for jobs that were canceled
        for worker in cluster.workers.values():
            worker.close_gracefully()  # it begins no other process
            cluster.sync(worker.kill, timeout=0.2)
        _soon(cluster.close)


def run_on_dask(batch: Batch, address: str, monitor: Monitor) -> None:
    """On the workers of a Dask scheduler, which must see the same paths.

    No more is sent than the workers need to stay busy: a million tasks would fill the scheduler's
    memory, and each would count as started. A worker that is lost is Dask's to replace. A
    scheduler that does not answer does not hold up a cancel.
    Raises DependencyError without dask.distributed, MedEnhanceError for no answer, then or later.
    """
    distributed = require("dask.distributed", purpose="batch --scheduler")
    # A connection that is lost becomes an error of ours; Dask logs it too, with its traceback.
    for name in ("distributed.batched", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    connect = partial(distributed.Client, address, timeout="15s", set_as_default=False)
    client, running = None, dict[int, Any]()
    try:
        client = attend(connect, monitor)
        left = iter(range(len(batch.todo)))
        while not monitor.cancelled:
            threads = sum(attend(client.nthreads, monitor).values())
            ahead = max(_FEWEST_AHEAD, _AHEAD * threads)
            indices = [*itertools.islice(left, max(0, ahead - len(running)))]
            if params := batch.begin(indices):
                jobs = [*params.values()]
                sent = client.map(partial(outcome, batch.task), jobs, pure=False, retries=0)
                running.update(zip(params, sent, strict=True))
            if client.status != "running":
                raise ConnectionError(client.status)
            if ended := {index: future for index, future in running.items() if future.done()}:
                gather = partial(client.gather, ended, errors="skip")
                rows = attend(gather, monitor)
                batch.end({i: rows.get(i) or _lost_row(ended[i]) for i in ended})
                running = {i: future for i, future in running.items() if i not in ended}
            if not running and not indices:
                return
            time.sleep(_POLL_SECONDS)  # meanwhile more of them end, and share a flush
    except Cancelled:
        return
    except (OSError, ValueError) as cause:  # Dask's own errors of connections are, too
        raise MedEnhanceError(
            f"the Dask scheduler {address} does not answer: {cause}",
            "Start it (dask scheduler) with its workers (dask worker ADDRESS), and run the same "
            "command: what is done is left out.",
        ) from cause
    finally:
        if client is not None:
            if running:
                _soon(partial(client.cancel, [*running.values()], force=True))
            _soon(client.close)


def _soon(call: Callable[[], Any]) -> None:
    """Make a call that a scheduler may never answer."""
    end = time.monotonic() + _LEAVE_SECONDS
    with suppress(Cancelled):
        attend(call, Monitor(cancel=lambda: time.monotonic() > end))


def _lost_row(future: Any) -> dict[str, Any]:
    error = future.exception()
    lost = MedEnhanceError(
        f"the Dask worker lost the job: {type(error).__name__}: {error}",
        "See the worker's log; it may have run out of memory.",
    )
    return _row_of_error(lost)


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
        fields = _row_of_error(error)
    if warnings:
        fields["warnings"] = list(dict.fromkeys(warnings))
    return {"seconds": round(time.monotonic() - began, 3), **fields}


def _row_of_error(error: MedEnhanceError) -> dict[str, Any]:
    status = "cancelled" if isinstance(error, Cancelled) else "failed"
    return {"status": status, "code": error.code, "message": error.message, "hint": error.hint}


_ROWS, _TABLE = "batch.jsonl", "batch.csv"
_FIRST_COLUMNS = ("source", "output", "status", "seconds", "code", "message", "hint")


class Ledger:
    """batch.jsonl; the last row of a source and its result counts.

    Several commands may share the folder, as those for one dataset of BIDS do.

    status of a row: started, done, failed or cancelled. A row belongs to a key: the source with
    its size and time, and the options; with other options the work is done again.
    """

    def __init__(self, folder: Path) -> None:
        """Read what an earlier run left; a line that was cut off by a crash is left out."""
        self.path, self._table = folder / _ROWS, folder / _TABLE
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._started: set[str] = set()
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, RecursionError):
                    row = json.loads(line)
                    if isinstance(row, dict):
                        self._keep(row)

    def _keep(self, row: dict[str, Any]) -> None:
        self._rows[_place(row.get("source"), row.get("output"))] = row
        if row.get("status") == "started":
            self._started.add(str(row.get("output")))

    def row_of(self, item: Item) -> dict[str, Any] | None:
        """The last row of an item, None before the first."""
        return self._rows.get(_place(item.name, item.output))

    def is_finished(self, item: Item, options: Mapping[str, Any]) -> bool:
        """Whether this work was done, and its result is still there."""
        row = self.row_of(item) or {}
        return (
            row.get("status") == "done"
            and row.get("key") == _key_of(item, options)
            and os.path.lexists(item.output)
        )

    def is_ours(self, item: Item) -> bool:
        """Whether the file at the place of a result was written by a run of this batch."""
        return item.output in self._started

    def add(
        self, rows: Iterable[tuple[Item, Mapping[str, Any]]], options: Mapping[str, Any]
    ) -> None:
        """Append a row for each item and its fields; all are on the disk when this returns."""
        lines = []
        for item, fields in rows:
            named = {"source": item.name, "output": item.output}
            row = as_json({**named, "key": _key_of(item, options), **fields})
            self._keep(row)
            lines.append(json.dumps(row).encode("ascii") + b"\n")
        try:
            with self.path.open("a+b") as stream:
                # A crash may have left the last line without its end.
                if stream.seek(0, os.SEEK_END):
                    stream.seek(-1, os.SEEK_END)
                    lines[:0] = [] if stream.read(1) == b"\n" else [b"\n"]
                stream.write(b"".join(lines))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as cause:
            raise OutputError(
                f"{self.path} cannot be written: {cause.strerror}", "Free space, and go on."
            ) from cause

    def write_table(self, items: Sequence[Item]) -> Path:
        """batch.csv: a column for each figure; these items, then earlier ones."""
        from MedEnhanceLib.io.atomic import atomic_write

        places = dict.fromkeys([*(_place(item.name, item.output) for item in items), *self._rows])
        rows = [_columns_of(self._rows[place]) for place in places if place in self._rows]
        text = io.StringIO()
        names = [*_FIRST_COLUMNS, *(name for row in rows for name in row)]
        writer = csv.DictWriter(text, [*dict.fromkeys(names)])
        writer.writeheader()
        writer.writerows(rows)
        with atomic_write(self._table, overwrite=True) as temporary:
            # Names of files that are not UTF-8 hold lone surrogates: escapes, as in the ledger.
            temporary.write_bytes(text.getvalue().encode("utf-8", "backslashreplace"))
        return self._table


def _place(source: object, output: object) -> tuple[str, str]:
    """What a row belongs to: its source, and the name of the result in whatever folder."""
    return str(source), Path(str(output)).name


def _key_of(item: Item, options: Mapping[str, Any]) -> str:
    """What a row is about: the source as it is now, and the options."""
    path, state = Path(item.source), list[tuple[str, int, int]]()
    if not is_remote(item.source):
        with suppress(OSError):  # the job will say what is wrong
            # A folder's own time changes with its files' names, not with their bytes.
            members = sorted(path.iterdir()) if path.is_dir() else [path]
            stats = [(member.name, member.stat()) for member in members]
            state = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    text = json.dumps([item.name, state, as_json(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _columns_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table: plain figures, warnings in one text, ml of each label, the noise."""
    columns = {
        name: value
        for name, value in row.items()
        if name != "key" and not isinstance(value, (dict, list))
    }
    if warnings := row.get("warnings"):
        columns["warnings"] = " | ".join(map(str, warnings))
    columns |= {f"{label['label']} ml": label["volume_ml"] for label in row.get("table") or ()}
    noise = (row.get("measured") or {}).get("noise") or {}
    named = {"noise σ": "sigma", "noise confidence": "confidence", "correction": "share_removed"}
    return columns | {name: noise[key] for name, key in named.items() if key in noise}
