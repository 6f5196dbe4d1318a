"""Texts as people read them: safe for a terminal, without the names of temporary files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from MedEnhanceLib.errors import MedEnhanceError

#: Control characters but tab and line feed, what turns the direction of writing, and the lone
#: surrogates that stand for bytes of file names which are not UTF-8.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with what commands a terminal, or cannot be encoded, as escapes such as "x1b"."""
    return CONTROLS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class Names:
    """What temporary files are called in what people read.

    names: the path of a file or folder, with its last separator → what stands in its place.
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = dict(names or {})

    def add(self, path: object, name: str) -> None:
        """From now on `path` is called `name`."""
        self._names[str(path)] = name

    def of(self, value: Any) -> Any:
        """A text, or the texts in a list or an object of JSON, with these names."""
        if isinstance(value, str | os.PathLike):
            text = os.fspath(value)
            for path, name in self._names.items():
                text = text.replace(path, name)
            return text
        if isinstance(value, Mapping):
            return {name: self.of(entry) for name, entry in value.items()}
        return [self.of(entry) for entry in value] if isinstance(value, list | tuple) else value

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """Errors that leave it have these names."""
        try:
            yield
        except MedEnhanceError as error:
            error.message, error.hint = self.of(error.message), self.of(error.hint)
            raise
