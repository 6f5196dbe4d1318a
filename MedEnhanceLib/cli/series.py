"""Several series in one place: shown as a table, and asked for where somebody can answer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from MedEnhanceLib.cli.text import columns
from MedEnhanceLib.errors import InputError, MedEnhanceError

_LONGEST = 40
_TRIES = 3


def run_on_series(args: argparse.Namespace, kind: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Run a job; where its input holds several series and a person is there, ask which."""
    try:
        fields: dict[str, Any] = args.console.run(kind, params, isolated=args.isolated)
    except InputError:
        if getattr(args, "series", "") is not None or not _can_ask(args):
            raise
        rows = series_rows(args, params["input"])
        readable = [row for row in rows if row["readable"]]
        if len(readable) < 2:
            raise
        from MedEnhanceLib.jobs.addresses import shown

        name = shown(params["input"])
        args.console.note(f"{name} holds several series:\n\n{series_table(rows)}\n")
        number = _ask([row["number"] for row in readable])
        if number is None:
            raise
        again = {**params, "series": str(number)}
        fields = args.console.run(kind, again, isolated=args.isolated)
    return fields


def series_rows(args: argparse.Namespace, path: str) -> list[dict[str, Any]]:
    """The series at `path`; none where it is no DICOM, or cannot be listed."""
    try:
        with args.console.without_warnings():
            fields = args.console.run("series", {"input": path}, isolated=args.isolated)
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


def _can_ask(args: argparse.Namespace) -> bool:
    return not args.console.as_json and sys.stdin.isatty() and sys.stderr.isatty()


def _ask(numbers: Sequence[int]) -> int | None:
    """The number that is typed; None for an empty line, the end, or nothing that fits."""
    for _ in range(_TRIES):
        print("Which series? (its number, or Enter to stop) ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline().strip()
        if not answer:
            return None
        if answer.isdecimal() and int(answer) in numbers:
            return int(answer)
        known = ", ".join(map(str, numbers))
        print(f"{answer!r} is none of {known}.", file=sys.stderr, flush=True)
    return None
