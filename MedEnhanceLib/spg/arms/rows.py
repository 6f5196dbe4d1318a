"""What was measured is kept, a line each, so that a comparison that was stopped goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.atomic import output_error

Row = dict[str, Any]


class RowStore:
    """Rows by a key, in a file to which lines are added.

    A last line that was not written whole is measured again; any other one that is no row of ours
    raises InputError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = dict(self._read())

    def find(self, key: str) -> Row | None:
        """The row of that key; None where there is none yet."""
        return self._rows.get(key)

    def add(self, key: str, row: Row) -> Row:
        """Keep a row; the same is returned."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "row": row}, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as cause:
            raise output_error(self._path, cause) from cause
        self._rows[key] = row
        return row

    def _read(self) -> list[tuple[str, Row]]:
        if not self._path.is_file():
            return []
        text = self._path.read_text(encoding="utf-8", errors="replace")
        whole, _, torn = text.rpartition("\n")
        if torn:  # else the next row would be added to it
            with self._path.open("r+b") as file:
                file.truncate(len((whole + "\n").encode()) if whole else 0)
        found = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                found.append((str(entry["key"]), dict(entry["row"])))
            except (ValueError, KeyError, TypeError) as cause:
                raise InputError(
                    f"{self._path}, line {number} is damaged", "Delete that line, or the file."
                ) from cause
        return found
