"""Bytes that wait for their place in a file: in memory, or on a disk where they are many."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: What a volume of usual size needs stays in memory; a disk is only asked beyond it.
_IN_MEMORY = 64 << 20


class Spool:
    """A store of bytes in a file without a name: gone with its process, however that ends.

    Use as a context; what it keeps can be read until it is left.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(folder))  # noqa: SIM115 - closed by __exit__
        self.lock = threading.Lock()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def keep(self, data: bytes) -> Kept:
        """Take `data` out of memory; raises OSError where the disk is full."""
        with self.lock:
            start = self._file.seek(0, 2)
            self._file.write(data)
        return Kept(self._file, self.lock, start, len(data))


@dataclass(frozen=True)
class Kept:
    """Bytes in a spool: their length costs nothing, `bytes(kept)` reads them."""

    file: Any
    lock: threading.Lock
    start: int
    size: int

    def __len__(self) -> int:
        return self.size

    def __bytes__(self) -> bytes:
        with self.lock:
            self.file.seek(self.start)
            data: bytes = self.file.read(self.size)
        return data


Bytes = bytes | Kept
#: Takes a code and gives it back, from memory (`bytes`) or from a spool (`Spool.keep`).
Keep = Callable[[bytes], Bytes]
