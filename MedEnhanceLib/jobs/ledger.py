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
from MedEnhanceLib.jobs.addresses import exists, filesystem, is_remote, shown
from MedEnhanceLib.jobs.batch_items import Item
from MedEnhanceLib.jobs.worker.events import as_json

_ROWS, _TABLE = "batch.jsonl", "batch.csv"
WARNINGS = "warnings"
#: Of a row that failed: something lay at its output that no run of this batch had made.
FOREIGN = "foreign"
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
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, RecursionError):
                    row = json.loads(line)
                    if isinstance(row, dict):
                        self._rows[_place(row.get("source"), row.get("output"))] = row

    def row_of(self, item: Item) -> dict[str, Any] | None:
        """The last row of an item, None before the first."""
        return self._rows.get(_place(item.name, item.output))

    def is_finished(self, item: Item, options: Mapping[str, Any]) -> bool:
        """Whether this work was done, and its result is still there."""
        row = self.row_of(item)
        return (
            row is not None
            and row.get("status") == "done"
            and row.get("key") == key_of(item, options)
            and exists(item.output)
        )

    def is_ours(self, item: Item) -> bool:
        """Whether a result that lies there comes from an earlier run of this batch."""
        row = self.row_of(item)
        if row is None or row.get(FOREIGN):
            return False
        return bool(row.get("output") == shown(item.output))

    def add(
        self, rows: Iterable[tuple[Item, Mapping[str, Any]]], options: Mapping[str, Any]
    ) -> None:
        """Append a row for each item and its fields; all are on the disk when this returns."""
        lines = []
        for item, fields in rows:
            row = as_json(
                {
                    "source": item.name,
                    "output": shown(item.output),
                    "key": key_of(item, options),
                    **fields,
                }
            )
            self._rows[_place(item.name, item.output)] = row
            lines.append(json.dumps(row).encode("ascii") + b"\n")
        try:
            with self.path.open("a+b") as stream:
                stream.write(_line_start(stream) + b"".join(lines))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as cause:
            raise OutputError(
                f"{self.path} cannot be written: {cause.strerror}", "Free space, and go on."
            ) from cause

    def write_table(self, items: Sequence[Item]) -> Path:
        """batch.csv: a column for each figure; these items, then earlier ones."""
        from MedEnhanceLib.io.atomic import atomic_write

        own = [_place(item.name, item.output) for item in items]
        places = dict.fromkeys([*own, *self._rows])
        rows = [_with_text(self._rows[place]) for place in places if place in self._rows]
        figures = [
            name
            for row in rows
            for name, value in row.items()
            if name != "key" and not isinstance(value, (dict, list))
        ]
        text = io.StringIO()
        names = [*dict.fromkeys([*_FIRST_COLUMNS, *figures])]
        writer = csv.DictWriter(text, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        with atomic_write(self._table, overwrite=True) as temporary:
            # Names of files that are not UTF-8 hold lone surrogates: escapes, as in the ledger.
            temporary.write_bytes(text.getvalue().encode("utf-8", "backslashreplace"))
        return self._table


def _place(source: object, output: object) -> tuple[str, str]:
    """What a row belongs to: its source, and the name of the result in whatever folder."""
    return str(source), Path(shown(str(output))).name


def _with_text(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: its warnings in one column."""
    warnings = row.get(WARNINGS)
    return row | {WARNINGS: " | ".join(map(str, warnings))} if isinstance(warnings, list) else row


def key_of(item: Item, options: Mapping[str, Any]) -> str:
    """What a row is about: the source as it is now, and the options."""
    states: Any = []
    with suppress(Exception):  # whatever a store raises; the job will say what is wrong
        states = _state_there(item.source) if is_remote(item.source) else _state_here(item.source)
    text = json.dumps([item.name, states, as_json(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _state_there(address: str) -> str:
    files, key = filesystem(address)
    return str(files.ukey(key))


def _state_here(source: str) -> list[tuple[str, int, int]]:
    path = Path(source)
    # A folder's own time changes with its files' names, not with their bytes.
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _line_start(stream: io.BufferedRandom) -> bytes:
    """A newline, where a crash left the last line without one."""
    if stream.seek(0, os.SEEK_END) == 0:
        return b""
    stream.seek(-1, os.SEEK_END)
    return b"" if stream.read(1) == b"\n" else b"\n"


def columns_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What lists and objects of a row have for the table: each label's ml, the measured noise."""
    columns = {f"{row['label']} ml": row["volume_ml"] for row in fields.get("table") or ()}
    noise = (fields.get("measured") or {}).get("noise") or {}
    named = {"noise σ": "sigma", "noise confidence": "confidence", "correction": "share_removed"}
    return columns | {name: noise[key] for name, key in named.items() if key in noise}
