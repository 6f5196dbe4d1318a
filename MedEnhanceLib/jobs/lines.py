"""Lines over pipes, on bare file descriptors: the same on Windows, macOS and Linux."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

#: No honest line is longer; a volume goes through a file.
LONGEST_LINE = 16 * 1024 * 1024
_PIECE = 65_536


def read_lines(descriptor: int, longest: int = LONGEST_LINE) -> Iterator[bytes | None]:
    """Yield each line without its end, as it comes; None stands for one that is too long.

    Ends with the stream; what follows the last line's end is dropped, for it may be cut short.
    Blocks in os.read, not in a buffered file, whose lock would hang a process that exits.
    """
    pending, skipping = bytearray(), False
    while piece := os.read(descriptor, _PIECE):
        *ends, rest = piece.split(b"\n")
        for end in ends:
            line = bytes(pending) + end
            pending.clear()
            if not skipping:
                yield line.rstrip(b"\r") if len(line) <= longest else None
            skipping = False
        if not skipping:
            pending += rest
        if len(pending) > longest:
            pending.clear()
            skipping = True
            yield None


class LineWriter:
    """Writes whole lines from several threads to a descriptor.

    on_broken: called once when nobody reads any more; later lines are dropped in silence, and
    the work that speaks them is to be stopped by `on_broken`.
    """

    def __init__(self, descriptor: int, on_broken: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._on_broken = on_broken
        self._lock = threading.Lock()
        self._broken = False

    def write(self, line: bytes) -> None:
        """Write one line, its end included."""
        with self._lock:
            if self._broken:
                return
            try:
                _write_all(self._descriptor, line)
            except OSError:
                self._broken = True
        if self._broken:
            self._on_broken()


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
