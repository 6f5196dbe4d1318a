"""The rows of a batch: one JSON line each, kept as it goes, so that a batch can go on."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedEnhanceLib.cli.console import plain
from MedEnhanceLib.cli.gather import Item
from MedEnhanceLib.errors import OutputError

ROWS, TABLE = "batch.jsonl", "batch.csv"
_PATIENT = "patient"
_FIRST_COLUMNS = ("source", "output", "status", "seconds", "code", "message", "hint")


class Ledger:
    """batch.jsonl in the folder of the results; the last row of a source counts.

    status of a row: started, done, failed or cancelled. A row belongs to a key: the source with
    its size and time, and the options; with other options the work is done again.
    """

    def __init__(self, out: Path) -> None:
        """Read what an earlier run left; a line that was cut off by a crash is left out."""
        self.path, self._table = out / ROWS, out / TABLE
        self.rows: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._take(line)

    def is_finished(self, item: Item, options: Mapping[str, Any]) -> bool:
        """Whether this work was done, and its result is still there."""
        row = self.rows.get(item.name)
        return (
            row is not None
            and row.get("status") == "done"
            and row.get("key") == key_of(item, options)
            and item.output.exists()
        )

    def is_ours(self, item: Item) -> bool:
        """Whether a result that lies there comes from an earlier run that did not finish it."""
        row = self.rows.get(item.name)
        return row is not None and row.get("output") == str(item.output)

    def add(self, item: Item, options: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
        """Append a row; it is on the disk when this returns."""
        row = plain(
            {
                "source": item.name,
                "output": item.output,
                **({_PATIENT: item.patient} if item.patient else {}),
                "key": key_of(item, options),
                **fields,
            }
        )
        self.rows[item.name] = row
        try:
            with self.path.open("a+b") as stream:
                stream.write(_line_start(stream) + json.dumps(row).encode("ascii") + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as cause:
            raise OutputError(
                f"{self.path} cannot be written: {cause.strerror}", "Free space, and go on."
            ) from cause

    def write_table(self, items: Sequence[Item]) -> Path:
        """batch.csv: the rows of these items, a column for each figure; patients first."""
        from MedEnhanceLib.io.atomic import atomic_write

        rows = [self.rows[item.name] for item in items if item.name in self.rows]
        figures = [
            name
            for row in rows
            for name, value in row.items()
            if name not in (*_FIRST_COLUMNS, "key") and not isinstance(value, (dict, list))
        ]
        text = io.StringIO()
        whose = [_PATIENT] if _PATIENT in figures else []
        names = dict.fromkeys([*whose, *_FIRST_COLUMNS, *figures])
        writer = csv.DictWriter(text, [*names], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        with atomic_write(self._table, overwrite=True) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
        return self._table

    def _take(self, line: str) -> None:
        try:
            row = json.loads(line)
        except ValueError:
            return
        if isinstance(row, dict) and isinstance(row.get("source"), str):
            self.rows[row["source"]] = row


def key_of(item: Item, options: Mapping[str, Any]) -> str:
    """What a row is about: the source as it is now, and the options."""
    try:
        # A folder's own time changes with its files' names, not with their bytes.
        files = sorted(item.source.iterdir()) if item.source.is_dir() else [item.source]
        states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError:
        states = []
    text = json.dumps([item.name, states, plain(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _line_start(stream: io.BufferedRandom) -> bytes:
    """A newline, where a crash left the last line without one."""
    if stream.seek(0, os.SEEK_END) == 0:
        return b""
    stream.seek(-1, os.SEEK_END)
    return b"" if stream.read(1) == b"\n" else b"\n"
