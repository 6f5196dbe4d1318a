"""Texts as people read them: safe for a terminal, without the names of temporary files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

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
