"""The rows that are kept of a batch: batch.jsonl as it goes, batch.csv as a table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.jobs.addresses import is_remote
from MedEnhanceLib.jobs.batch_items import Item
from MedEnhanceLib.jobs.worker.events import as_json

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
        """Whether what lies at the place of a result comes from a run of this batch."""
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
