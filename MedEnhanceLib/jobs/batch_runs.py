"""Runs of a batch's jobs, one after another here or on Dask workers, and their ledger."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.findings import is_nearly_input
from MedEnhanceLib.core.manifest import as_json
from MedEnhanceLib.errors import Cancelled, MedEnhanceError
from MedEnhanceLib.io.atomic import atomic_write, flush, make_folder
from MedEnhanceLib.io.volume_files import gradient_tables_of
from MedEnhanceLib.jobs.batch_items import ROWS, TABLE, Item
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor, attend
from MedEnhanceLib.runtime.text import csv_cell

_POLL_SECONDS = 0.05
#: How long a scheduler may take to pass on a cancel and to close the connection.
_LEAVE_SECONDS = 0.5
#: Jobs that are sent ahead: for each thread of a Dask cluster, and at least in all.
_AHEAD, _FEWEST_AHEAD = 4, 16
_FIRST_COLUMNS = ("task", "source", "output", "status", "seconds", "code", "message", "hint")


def run_here(ledger: Ledger, monitor: Monitor) -> None:
    """Run the jobs one after another in this process; each reports a share of the progress."""
    count = len(ledger.todo)
    for index, item in enumerate(ledger.todo):
        if monitor.cancelled:
            return
        part = monitor.part(index / count, (index + 1) / count)
        name = Path(item.name).name
        listener = partial(_pass_on, part, name, f"{index + 1} of {count}, {name}")
        (params,) = ledger.begin([item])
        ledger.end([(item, run_into_row(ledger.task, params, lambda: monitor.cancelled, listener))])


def _pass_on(part: Monitor, name: str, stage: str, event: Event) -> None:
    if event.kind == "progress":
        part.progress(event.fields["fraction"], f"{stage}: {event.fields['stage']}")
    elif event.kind == "warning":
        part.warn(f"{name}: {event.fields['message'].removeprefix(f'{name}: ')}")


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
        pending, ended = iter(ledger.todo), 0
        while ended < count:
            threads = sum(attend(client.nthreads, monitor).values())
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
            warnings.append(str(event.fields["message"]))
        if progress is not None:
            progress(event)

    try:
        fields = {**run_job(JobSpec(kind, params), listen, cancel).fields, "status": "done"}
    except MedEnhanceError as error:
        fields = _row_of_error(error)
    if warnings:
        fields["warnings"] = list(dict.fromkeys(warnings))
    fields["output_bytes"] = _bytes_of(params["output"])
    return {"seconds": round(time.monotonic() - began, 3), **fields}


def _row_of_error(error: MedEnhanceError) -> dict[str, Any]:
    status = "cancelled" if isinstance(error, Cancelled) else "failed"
    return {"status": status, "code": error.code, "message": error.message, "hint": error.hint}


def _bytes_of(output: str) -> int:
    """Return the size of a file, or of the files in a folder."""
    files = (Path(output), *Path(output).glob("*"))
    return sum(file.stat().st_size for file in files if file.is_file())


class Ledger:
    """The record of a batch: batch.jsonl, in which the last row of a volume counts.

    A row's status is started, done, failed or cancelled. It has a key: a hash of the source's size
    and time, and of the options; with other options a volume is processed again. Several commands
    may share the folder, as those for one dataset of BIDS do.

    Attributes:
        task: the kind of job.
        todo: the volumes that are not done.
    """

    def __init__(
        self,
        folder: Path,
        items: Sequence[Item],
        task: str,
        stated: Mapping[str, Any],
        *,
        overwrite: bool,
    ) -> None:
        """Read the rows of an earlier run; a line that was cut off by a crash is skipped.

        folder: of the rows and the table. stated: parameters of the task for all volumes.
        overwrite: whether finished volumes are processed again and their files replaced.
        """
        self.task, self._items, self._stated, self._overwrite = task, items, stated, overwrite
        self._rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._started: set[tuple[str, str, str]] = set()
        self._bytes: dict[tuple[str, str, str], int] = {}  # as this batch left the results
        self._path, self._table = folder / ROWS, folder / TABLE
        if self._path.exists():
            if self._path.is_symlink():  # rows are appended: what it leads to may be shared
                with atomic_write(self._path, overwrite=True) as temporary:
                    shutil.copyfile(self._path, temporary)
            text = self._path.read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                with suppress(ValueError, RecursionError):
                    row = json.loads(line)
                    if isinstance(row, dict):
                        self._keep(row)
            if not text.endswith("\n"):
                self._append("\n")
        self.todo = [item for item in items if overwrite or not self._is_finished(item)]

    def begin(self, items: Sequence[Item], *, repeats: bool = False) -> list[dict[str, Any]]:
        """Return the parameters of the jobs of these volumes, and mark these as started.

        A result that an earlier run of this batch has begun may be replaced, unless its size has
        changed since. The job refuses to replace any other one, and its volume is not marked.

        repeats: whether a job is run again if its worker is lost, and may find its own result.
        """
        params, started = [], []
        for item in items:
            make_folder(Path(item.output).parent)
            is_ours = self._place_of(item) in self._started and not self._is_changed(item)
            may_replace = self._overwrite or is_ours
            is_taken = any(map(os.path.lexists, (item.output, f"{item.output}.json")))
            if may_replace or not is_taken:
                started.append((item, {"status": "started"}))
                may_replace |= repeats
            params.append({**item.params, **self._stated, "overwrite": may_replace})
        self.end(started)
        return params

    def end(self, rows: Iterable[tuple[Item, Mapping[str, Any]]]) -> None:
        """Append a row for each volume and its fields; all are on the disk when this returns."""
        lines = []
        for item, fields in rows:
            left_out = {"left_out": item.left_out} if item.left_out else {}
            key = self._key_of(item)
            if "output_bytes" in fields and self._is_changed(item):  # its job was refused
                fields = {
                    **fields,
                    "message": "the result was changed after this batch left it",
                    "hint": "Move it away to make it alone again; --force makes all results again.",
                }
                del fields["output_bytes"]  # the earlier one counts
            row = as_json({**self._names_of(item), "key": key, **left_out, **fields})
            self._keep(row)
            lines.append(json.dumps(row) + "\n")
        if lines:
            self._append("".join(lines))

    def finish(self) -> dict[str, Any]:
        """Write the table; returns counts of volumes by outcome, the table's path, and the rows."""
        self._write_table()
        rows = [row for item in self._items if (row := self._rows.get(self._place_of(item)))]
        return {
            "total": len(self._items),
            "done": sum(row["status"] == "done" for row in rows),
            "already_done": len(self._items) - len(self.todo),
            "hardly_changed": sum(map(_is_hardly_changed, rows)),
            "failed": sum(row["status"] == "failed" for row in rows),
            "table": str(self._table),
            "rows": rows,
        }

    def _keep(self, row: dict[str, Any]) -> None:
        place = _place_in(row)
        self._rows[place] = row
        if row.get("status") == "started":
            self._started.add(place)
            self._bytes.pop(place, None)  # after a crash it is unknown
        if "output_bytes" in row:
            self._bytes[place] = row["output_bytes"]

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="ascii", newline="") as stream:
            stream.write(text)
            flush(stream)

    def _is_finished(self, item: Item) -> bool:
        """Return whether a volume was processed with these options, and its result still exists."""
        row = self._rows.get(self._place_of(item), {})
        return (
            row.get("status") == "done"
            and row.get("key") == self._key_of(item)
            and os.path.lexists(item.output)
            and not self._is_changed(item)
        )

    def _is_changed(self, item: Item) -> bool:
        """Return whether a result has another size than when this batch was done with it."""
        size = self._bytes.get(self._place_of(item))
        return size not in (None, _bytes_of(item.output)) and os.path.lexists(item.output)

    def _names_of(self, item: Item) -> dict[str, str]:
        return {"task": self.task, "source": item.name, "output": item.output}

    def _place_of(self, item: Item) -> tuple[str, str, str]:
        return _place_in(self._names_of(item))

    def _key_of(self, item: Item) -> str:
        """Hash the source as it is now, and the options."""
        path, state = Path(item.source), list[tuple[str, int, int]]()
        with suppress(OSError):  # the job reports the error
            # A folder's own time changes with its files' names, not with their bytes.
            members = sorted(path.iterdir()) if path.is_dir() else [path, *gradient_tables_of(path)]
            stats = [(member.name, member.stat()) for member in members]
            out = self._path.parent.stat()  # it may lie there, and changes with every result
            stats = [(name, stat) for name, stat in stats if not os.path.samestat(stat, out)]
            state = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
        options = as_json({"task": self.task, **self._stated})
        text = json.dumps([state, options], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _write_table(self) -> None:
        """Write batch.csv: a column for each figure; the volumes of this run, then earlier ones."""
        places = dict.fromkeys([*map(self._place_of, self._items), *self._rows])
        rows = [_columns_of(self._rows[place]) for place in places if place in self._rows]
        text = io.StringIO()
        names = [*_FIRST_COLUMNS, *(name for row in rows for name in row)]
        writer = csv.DictWriter(text, [*dict.fromkeys(names)])
        writer.writeheader()
        writer.writerows(rows)
        with atomic_write(self._table, overwrite=True) as temporary:
            temporary.write_bytes(text.getvalue().encode())


def _place_in(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return task, source as seen from the result (both may move together), and result."""
    task, source, output = (str(row.get(name)) for name in ("task", "source", "output"))
    folder, name = os.path.split(output)
    with suppress(ValueError):  # on Windows, another drive
        source = os.path.relpath(source, folder)
    return task, source, name


def _is_hardly_changed(row: Mapping[str, Any]) -> bool:
    """Return whether the result of a volume is nearly its input."""
    noise = (row.get("measured") or {}).get("noise") or {}
    return row["status"] == "done" and is_nearly_input(noise, row.get("strength", 1.0))


def _columns_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Make a row of the table: single figures, warnings as one text, ml of labels, noise."""
    columns = {
        name: value
        for name, value in row.items()
        if name != "key" and not isinstance(value, (dict, list))
    }
    for name in ("warnings", "segmentation_limits"):
        if texts := row.get(name):
            columns[name] = " | ".join(map(str, texts))
    columns |= {f"{label['label']} ml": label["volume_ml"] for label in row.get("table") or ()}
    noise = (row.get("measured") or {}).get("noise") or {}
    headings = {
        "verdict": "verdict",
        "SNR": "snr",
        "noise (1 SD)": "sigma",
        "noise confidence": "confidence",
    }
    columns |= {heading: noise[key] for heading, key in headings.items() if key in noise}
    if "changed" in noise:
        columns["tissue changed (1 SD)"] = row.get("strength", 1.0) * noise["changed"]
    return {csv_cell(name): csv_cell(_rounded(value)) for name, value in columns.items()}


def _rounded(value: Any) -> Any:
    """Round to four digits, as in reports, but not whole digits; batch.jsonl has all digits."""
    if not isinstance(value, float) or not value or not math.isfinite(value):
        return value
    return round(value, max(0, 3 - math.floor(math.log10(abs(value)))))
