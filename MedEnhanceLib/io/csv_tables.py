"""Tables as text that spreadsheets and statistics read: .csv and .tsv."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.runtime.text import csv_cell


def write_table(
    path: Path, rows: Sequence[Mapping[str, Any]], *, first: Sequence[str] = (), overwrite: bool
) -> None:
    """Write a table, tabs between its cells in a .tsv; raises as `atomic_write` does.

    Args:
        path: of the file.
        rows: cells by column; a missing one stays empty.
        first: columns at the left; the others come in the order in which rows have them.
        overwrite: whether the file may be replaced.
    """
    lines = [{csv_cell(name): csv_cell(value) for name, value in row.items()} for row in rows]
    names = dict.fromkeys([*first, *(name for line in lines for name in line)])
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names], delimiter="\t" if path.suffix == ".tsv" else ",")
    writer.writeheader()
    writer.writerows(lines)
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(text.getvalue().encode())
