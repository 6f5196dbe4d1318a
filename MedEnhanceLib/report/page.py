"""Parts of what people read: the folder of a report, sizes and times as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def make_folder(folder: str | Path) -> Path:
    """Make a folder unless it exists; raises OSError where it cannot be made."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    return target


def cell_text(value: Any) -> str:
    """Return a value as a table shows it: numbers with four digits, nothing as a dash."""
    if isinstance(value, int | float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "–" if value is None else str(value)


def size_text(count: int) -> str:
    """Return a number of bytes as text: "17.1 MB" (decimal, as file managers count)."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.{0 if count >= 100 * size else 1}f} {unit}"
    return f"{count} bytes"


def duration_text(seconds: float) -> str:
    """Return a time as a person says it: "40 s", "3 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
