"""Bytes that wait for their place in a file: in memory, or on a disk where they are many."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

#: What a volume of usual size needs stays in memory; a disk is only asked beyond it.
_IN_MEMORY = 64 << 20


class Spool:
    """A store of bytes in a file without a name: gone with its process, however that ends.

    Use as a context; what it keeps can be read until it is left.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(folder))  # noqa: SIM115 - closed by __exit__
        self._end = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def keep(self, data: bytes) -> Kept:
        """Take `data` out of memory; raises OSError where the disk is full."""
        with self._lock:
            start = self._end
            self._file.seek(start)
            self._file.write(data)
            self._end += len(data)
        return Kept(self, start, self._end)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`."""
        with self._lock:
            self._file.seek(start)
            data: bytes = self._file.read(stop - start)
        return data


class Kept:
    """Bytes in a spool: their length costs nothing, `bytes(kept)` reads them."""

    def __init__(self, spool: Spool, start: int, stop: int) -> None:
        self._spool, self._start, self._stop = spool, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __bytes__(self) -> bytes:
        return self._spool.read(self._start, self._stop)


Bytes = bytes | Kept
#: Takes a code and gives it back, from memory (`bytes`) or from a spool (`Spool.keep`).
Keep = Callable[[bytes], Bytes]
