"""Events on the wire: one JSON object per line, `{"v": 1, "job": "<id>", "event": "<kind>", …}`.

Lines go over bare file descriptors: the same on Windows, macOS and Linux.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.progress import Event


def event_to_line(job: str | None, event: Event) -> bytes:
    """The event of the job as a line. `job` is None where a line could not be understood."""
    return line_of({"v": PROTOCOL, "job": job, "event": event.kind, **event.fields})


def line_of(fields: Mapping[str, Any]) -> bytes:
    """A JSON object as one line of ASCII."""
    return json.dumps(as_json(fields), allow_nan=False).encode("ascii") + b"\n"


def as_json(value: Any) -> Any:
    """The nearest thing that JSON can say.

    Numpy numbers and arrays, paths, tuples and dataclasses become plain; NaN and infinity,
    which JSON lacks, become null.
    """
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return as_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_json(
            {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
        )
    return str(value) if isinstance(value, PurePath) else value


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


#: Version of the line protocol: the "v" of every line.
PROTOCOL = 1


def check_version(fields: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the line is of this protocol's version."""
    version = fields.get("v")
    if version != PROTOCOL or isinstance(version, bool):
        raise ConfigError(
            f"a line of protocol version {version!r}",
            f'This MedEnhance speaks {{"v": {PROTOCOL}, …}}.',
        )
