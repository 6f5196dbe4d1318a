"""Lines between worker and client: JSON objects, `{"v": 1, "job": "<id>", "event": "<kind>", …}`.

They go over plain file descriptors: the same on Windows, macOS and Linux.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from MedEnhanceLib.core.manifest import as_json
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.json_input import parse_json

#: Version of the protocol: the "v" of every line.
PROTOCOL = 1
#: Longer lines are refused; volumes are passed as files.
LONGEST_LINE = 1024 * 1024
#: Most bytes that are read in one call.
_AT_ONCE = 1 << 16


def write_line(descriptor: int, fields: Mapping[str, Any]) -> None:
    """Write a JSON object as one line of ASCII; OSError if the reader is gone."""
    text = json.dumps(as_json({"v": PROTOCOL, **fields}), allow_nan=False)
    rest = memoryview(text.encode("ascii") + b"\n")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_lines(descriptor: int) -> Iterator[bytes | None]:
    """Yield each line as it comes; None stands for one that is too long.

    Ends with the stream; text after the last line break is dropped, as it may be cut short. The
    stream is not buffered: a process that exits would hang on the lock of the buffer.
    """
    line = bytearray()
    with open(descriptor, "rb", buffering=0, closefd=False) as stream:
        while piece := stream.read(_AT_ONCE):  # returns what there is
            for part in re.findall(rb"[^\n]*\n|[^\n]+", piece):
                line += part[: LONGEST_LINE - len(line)]
                if part.endswith(b"\n"):
                    yield bytes(line.strip()) if line.endswith(b"\n") else None
                    line.clear()


def parse_line(line: bytes | None) -> dict[str, Any]:
    """Return the JSON object of a line; raises ConfigError for anything else."""
    if line is None:
        raise ConfigError(
            f"a line of more than {LONGEST_LINE} bytes", "Send volumes through files, by path."
        )

    what = "that is not an object"
    try:
        fields = parse_json(line)
        if isinstance(fields, dict):
            return fields
    except ValueError as cause:
        what = f"that is not JSON ({cause})"
    raise ConfigError(f"a line {what}: {line[:60]!r}", "Send one JSON object per line.")


def check_version(fields: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the line is of this protocol's version."""
    version = fields.get("v")
    if version != PROTOCOL or isinstance(version, bool):
        raise ConfigError(
            f"a line of protocol version {version!r}",
            f'This MedEnhance speaks {{"v": {PROTOCOL}, …}}.',
        )
