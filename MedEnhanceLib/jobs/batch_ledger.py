"""The record of a batch, which its shards write side by side, and its table."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.findings import is_nearly_input
from MedEnhanceLib.core.manifest import as_json
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.atomic import atomic_write, flush, make_folder, resolved
from MedEnhanceLib.io.csv_tables import write_table
from MedEnhanceLib.io.volume_files import gradient_tables_of
from MedEnhanceLib.jobs.batch_items import (
    ROWS,
    TABLE,
    Item,
    Shard,
    source_seen_from,
    with_files,
)

_FIRST_COLUMNS = ("task", "source", "output", "status", "seconds", "code", "message", "hint")
#: What the last row of a volume says whose job ended without a result, or with its process.
_BEGUN = ("failed", "cancelled", "started")
#: Options that only let in what fails without them: what is finished without them stays so.
_LET_IN = ("as_intensity", "resample", "complete_frames")
#: Columns of rows that are not in the table.
_NOT_IN_TABLE = ("key", "number")
#: A volume: task, source as seen from the result (both may move together), and result.
_Place = tuple[str, str, str]


def items_in(folder: Path, task: str, shard: Shard | None, *, every: bool) -> list[Item]:
    """Return the volumes whose last rows say that their jobs began, and did not succeed.

    Args:
        folder: of the results, a resolved path.
        task: the kind of job.
        shard: to which the volumes belong; None: all.
        every: whether all volumes of the task are returned, whatever their rows say.
    Raises InputError if there is none of the task.
    """
    rows = {
        _place_in(row): row
        for row in _rows_in(folder)
        if row.get("task") == task and Path(str(row.get("output"))).is_relative_to(folder)
    }
    if not rows:
        raise InputError(
            f"{folder} has no rows of {task}",
            "Name the --out of a batch; where it was moved, run all again.",
        )
    items = [
        Item(
            row["source"].removesuffix(f" (series {row.get('series')})"),
            row["output"],
            row.get("series", ""),
            row.get("left_out", ""),
            row.get("number", 0),
        )
        for row in rows.values()
        if every or (row["status"] in _BEGUN and _is_of(row, shard, folder))
    ]
    return items if every else with_files(items)


def earlier_names(folder: Path, task: str) -> list[tuple[str, str]]:
    """Return the sources that a task has done, as `source_seen_from`, with names of results."""
    done = (row for row in _rows_in(folder) if (row.get("task"), row["status"]) == (task, "done"))
    return [(source, name) for _, source, name in dict.fromkeys(map(_place_in, done))]


def _is_of(row: Mapping[str, Any], shard: Shard | None, folder: Path) -> bool:
    """Return whether a row is of a shard; that of a run without shards, by its result's name."""
    if shard is None or "shard" in row:
        return shard is None or row["shard"] == str(shard)
    return shard.has(Path(row["output"]).relative_to(folder))


def _rows_in(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of all shards, the oldest first; a line cut off by a crash is skipped."""
    rows = []
    for path in [*sorted(folder.glob(f"shard-*.{ROWS}")), *folder.glob(ROWS)]:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict) and "status" in row:
                    rows.append(row)
    return sorted(rows, key=lambda row: str(row.get("time", "")))


class Ledger:
    """The record of a batch: batch.jsonl, in which the last row of a volume counts.

    Each shard appends to a file of its own, and reads all. A row's status is waiting (in shards),
    started, done, failed or cancelled. It has a key: a hash of the sizes and times of the source,
    or of the files of its series, and of the options; with other options a volume is processed
    again. Several commands may share the folder, as those for one dataset of BIDS do.

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
        shard: Shard | None = None,
    ) -> None:
        """Read the rows of earlier runs.

        folder: of the rows and the table. stated: parameters of the task for all volumes.
        overwrite: whether finished volumes are processed again and their files replaced.
        shard: to which the items belong.
        """
        self.task, self._items, self._stated, self._overwrite = task, items, stated, overwrite
        self._rows: dict[_Place, dict[str, Any]] = {}
        self._started: set[_Place] = set()
        self._bytes: dict[_Place, int] = {}  # as this batch left the results
        self._shard = {"shard": str(shard)} if shard else {}
        self._path = folder / f"{shard.prefix if shard else ''}{ROWS}"
        self._is_cut_off = False  # by a crash, in its last line
        if self._path.exists():
            if self._path.is_symlink():  # rows are appended: what it leads to may be shared
                with atomic_write(self._path, overwrite=True) as temporary:
                    shutil.copyfile(self._path, temporary)
            self._is_cut_off = not self._path.read_bytes().endswith(b"\n")
        for row in _rows_in(folder):
            self._keep(row)
        self.todo = [item for item in items if overwrite or not self._is_finished(item)]
        if shard:
            self._path.touch()
            new = [item for item in self.todo if self._place_of(item) not in self._rows]
            self.end((item, {"status": "waiting"}) for item in new)

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
            key = self._keys_of(item)[0]
            if "output_bytes" in fields and self._is_changed(item):  # its job was refused
                fields = {
                    **fields,
                    "message": "the result was changed after this batch left it",
                    "hint": "Move it away to make it alone again; --force makes all results again.",
                }
                del fields["output_bytes"]  # the earlier one counts
            about = {"key": key, "time": datetime.now(UTC).isoformat(), **self._shard, **left_out}
            row = as_json({**self._names_of(item), **about, **fields})
            self._keep(row)
            lines.append(json.dumps(row) + "\n")
        if lines:
            self._append("".join(lines))

    def finish(self) -> dict[str, Any]:
        """Return counts of volumes by outcome, the rows, and the path of the table.

        The table has the volumes of this run, then earlier ones. A shard writes none, and leaves
        empty folders, which another one may be about to fill.
        """
        table = self._path
        if not self._shard:
            self._remove_empty_folders()
            table = table.with_name(TABLE)
            places = dict.fromkeys([*map(self._place_of, self._items), *self._rows])
            known = [_columns_of(self._rows[place]) for place in places if place in self._rows]
            write_table(table, known, first=_FIRST_COLUMNS, overwrite=True)
        rows = [row for item in self._items if (row := self._rows.get(self._place_of(item)))]
        return {
            "total": len(self._items),
            "done": sum(row["status"] == "done" for row in rows),
            "already_done": len(self._items) - len(self.todo),
            "hardly_changed": sum(map(_is_hardly_changed, rows)),
            "failed": sum(row["status"] == "failed" for row in rows),
            "table": str(table),
            "rows": rows,
            **self._shard,
        }

    def open_shards(self) -> list[str]:
        """Return shards that never ran or did not end, of as many as there were last."""
        rows = [row for row in self._rows.values() if "shard" in row]
        latest = max(rows, key=lambda row: str(row["time"]), default={"shard": "0/0"})
        count = int(latest["shard"].partition("/")[2])
        is_open = {row["shard"] for row in rows if row["status"] not in ("done", "failed")}
        return [
            str(shard)
            for shard in (Shard(index + 1, count) for index in range(count))
            if str(shard) in is_open or not self._path.with_name(f"{shard.prefix}{ROWS}").exists()
        ]

    def _keep(self, row: dict[str, Any]) -> None:
        place = _place_in(row)
        self._rows[place] = row
        if row.get("status") == "started":
            self._started.add(place)
            self._bytes.pop(place, None)  # after a crash it is unknown
        if "output_bytes" in row:
            self._bytes[place] = row["output_bytes"]

    def _remove_empty_folders(self) -> None:
        """Remove the folders that were made for results of jobs that failed."""
        top = resolved(self._path.parent)
        for item in self._items:
            folder = Path(item.output).parent
            with suppress(OSError):  # it is not empty
                while top in folder.parents:
                    folder.rmdir()
                    folder = folder.parent

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="ascii", newline="") as stream:
            stream.write("\n" * self._is_cut_off + text)
            flush(stream)
        self._is_cut_off = False

    def _is_finished(self, item: Item) -> bool:
        """Return whether a volume was processed with these options, and its result still exists."""
        row = self._rows.get(self._place_of(item), {})
        if row.get("status") != "done":
            return False
        keys = self._keys_of(item)
        if (row.get("measured") or {}).get("taken_as", {}).get("left_alone"):
            keys = keys[:1]  # phase by its looks was copied; as_intensity changes it
        return (
            row.get("key") in keys and os.path.lexists(item.output) and not self._is_changed(item)
        )

    def _is_changed(self, item: Item) -> bool:
        """Return whether a result has another size than when this batch was done with it."""
        size = self._bytes.get(self._place_of(item))
        return size not in (None, bytes_of(item.output)) and os.path.lexists(item.output)

    def _names_of(self, item: Item) -> dict[str, Any]:
        series = {"series": item.series, "number": item.number} if item.series else {}
        return {"task": self.task, "source": item.name, "output": item.output, **series}

    def _place_of(self, item: Item) -> _Place:
        return _place_in(self._names_of(item))

    def _keys_of(self, item: Item) -> list[str]:
        """Hash the source as it is now, and the options.

        Returns this key, then those with less of the options that only let volumes in.
        """
        state = self._state_of(item)
        without = [names for n in range(4) for names in itertools.combinations(_LET_IN, n)]
        keys = []
        for names in without:
            options = as_json({"task": self.task, **_without(self._stated, names)})
            text = json.dumps([state, options], sort_keys=True)
            keys.append(hashlib.sha256(text.encode()).hexdigest()[:16])
        return keys

    def _state_of(self, item: Item) -> list[tuple[str, int, int]]:
        """Return names, sizes and times of the files that a result is made of."""
        path = Path(item.source)
        try:
            members = [Path(file) for file in item.files]
            if not members:
                # A folder's own time changes with its files' names, not with their bytes.
                others = path.iterdir() if path.is_dir() else [path, *gradient_tables_of(path)]
                members += sorted({*others} - {*members}) if path.is_dir() else others
            stats = [(os.path.relpath(member, path), member.stat()) for member in members]
            out = self._path.parent.stat()  # it may lie there, and changes with every result
        except OSError:  # the job reports the error
            return []
        stats = [(name, stat) for name, stat in stats if not os.path.samestat(stat, out)]
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _without(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Leave options out, also those of the configuration."""
    config = options.get("config") or {}
    kept = {name: value for name, value in options.items() if name not in (*names, "config")}
    config = {name: value for name, value in config.items() if name not in names}
    return kept | ({"config": config} if config else {})


def _place_in(row: Mapping[str, Any]) -> _Place:
    task, source, output = (str(row.get(name)) for name in ("task", "source", "output"))
    folder, name = os.path.split(output)
    return task, source_seen_from(folder, source), name


def _is_hardly_changed(row: Mapping[str, Any]) -> bool:
    """Return whether the result of a volume is nearly its input."""
    noise = (row.get("measured") or {}).get("noise") or {}
    return row["status"] == "done" and is_nearly_input(noise, row.get("strength", 1.0))


def _columns_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Make a row of the table: single figures, warnings as one text, ml of labels, noise."""
    columns = {
        name: value
        for name, value in row.items()
        if name not in _NOT_IN_TABLE and not isinstance(value, (dict, list))
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
    return {name: _rounded(value) for name, value in columns.items()}


def _rounded(value: Any) -> Any:
    """Round to four digits, as in reports, but not whole digits; batch.jsonl has all digits."""
    if not isinstance(value, float) or not value or not math.isfinite(value):
        return value
    return round(value, max(0, 3 - math.floor(math.log10(abs(value)))))


def bytes_of(output: str) -> int:
    """Return the size of a file, or of the files in a folder."""
    files = (Path(output), *Path(output).glob("*"))
    return sum(file.stat().st_size for file in files if file.is_file())
