"""Texts as people read them: sizes, times, what is safe for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from MedEnhanceLib.errors import MedEnhanceError

#: Control characters but tab and line feed, what turns the direction of writing, and the lone
#: surrogates that stand for bytes of file names which are not UTF-8.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Escape what commands a terminal, or cannot be encoded, such as "x1b"."""
    return CONTROLS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


@contextmanager
def renamed_in_errors(path: object, name: str) -> Iterator[None]:
    """Let errors that leave it call the temporary file `path` by `name`."""
    try:
        yield
    except MedEnhanceError as error:
        error.message = error.message.replace(str(path), name)
        error.hint = error.hint.replace(str(path), name)
        raise


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
