"""How messages about many files and slices are worded."""

from __future__ import annotations

from collections.abc import Sequence

COPY_AGAIN = "Copy or export the file again."
_MOST_NAMED = 6


def named(names: Sequence[str], most: int = _MOST_NAMED, *, between: str = ", ") -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{between.join(names[:most])}{more}"


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
