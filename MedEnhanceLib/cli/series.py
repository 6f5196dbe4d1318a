"""Several series in one place, shown as a table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from MedEnhanceLib.cli.text import columns
from MedEnhanceLib.errors import MedEnhanceError

_LONGEST = 40


def series_rows(args: argparse.Namespace, path: str) -> list[dict[str, Any]]:
    """The series at `path`; none where it is no DICOM, or cannot be listed."""
    try:
        with args.console.without_warnings():
            fields = args.console.run("series", {"input": path})
    except MedEnhanceError:
        return []
    rows: list[dict[str, Any]] = fields["series"]
    return rows


def series_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per series; patient and study where they differ."""
    heads = ["", "modality", "description", "size", "date", "files"]
    fields = ["number", "modality", None, "size", "date", "files"]
    for name in ("patient", "study"):
        if len({row[name] for row in rows}) > 1:
            heads.append(name)
            fields.append(name)
    lines = [
        [
            *(_named(row) if name is None else _short(str(row[name])) for name in fields),
            "" if row["readable"] else f"not read: {row['reason']}",
        ]
        for row in rows
    ]
    return columns([*heads, ""], lines, left=len(heads) + 1)


def _named(row: Mapping[str, Any]) -> str:
    description = _short(row["description"]) or "–"
    return f"{description} ({row['part']})" if row["part"] else description


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
