"""Messages for people, which fail no work: there may be nobody to read them."""

from __future__ import annotations

import contextlib
import os
from typing import Any, TextIO


class Messages:
    """A stream that drops what its own stream does not take.

    There is no stderr (None) under pythonw and in windowed programs; it may be closed, as in
    daemons, or its reader may be gone.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: Any = stream
        self._failing = contextlib.suppress(AttributeError, OSError, ValueError)

    def write(self, text: str) -> int:
        """Write text, if possible; returns its length."""
        with self._failing:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, if possible."""
        with self._failing:
            self._stream.flush()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        with self._failing:
            return bool(self._stream.isatty())
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_missing_streams() -> None:
    """Open the null device in place of standard streams that are closed.

    A file that is opened would take the number of one, and get what C libraries print.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
