"""Writing and reading of uncompressed NRRD files in steps of a few milliseconds.

For a program that must stay responsive, such as Slicer: each generator yields between the slabs of
a volume. All other NRRD files are read by nrrd.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Array
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.errors import InputError, OutputError
from MedEnhanceLib.io.header_lines import LONGEST_HEADER
from MedEnhanceLib.io.tags import KEY

#: Bytes copied in one step: some 10 ms, even into memory that is used for the first time.
_STEP_BYTES = 4 << 20
_TYPES = {
    "int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "unsigned short",
    "int32": "int", "uint32": "unsigned int", "int64": "long long int",
    "uint64": "unsigned long long int", "float32": "float", "float64": "double",
}  # fmt: skip
_DTYPES = {name: kind for kind, name in _TYPES.items()}


def steps(array: Array) -> Iterator[slice]:
    """Yield slabs of the first axis that take some milliseconds each."""
    step = max(1, _STEP_BYTES // max(1, array[:1].nbytes))
    for first in range(0, len(array), step):
        yield slice(first, first + step)


def write(
    path: str | Path, frames: Sequence[Array], geometry: Geometry, tags: Mapping[str, Any]
) -> Iterator[None]:
    """Write frames as a volume, several as a sequence; yields after each slab.

    Args:
        path: of the file, which is replaced.
        frames: [K, J, I] each, of one shape and type; several become [T, K, J, I].
        geometry: of all frames.
        tags: JSON for the header, see io.tags.
    Raises:
        InputError: a frame differs from the first in size or type.
        OSError: the file cannot be written.
    """
    first = frames[0]
    try:
        with Path(path).open("wb") as file:
            file.write(_header(first, len(frames), geometry, tags))
            for number, frame in enumerate(frames):
                if frame.shape != first.shape or frame.dtype != first.dtype:
                    raise InputError(f"frame {number} differs in size or type from the first")
                for slab in steps(frame):
                    file.write(np.ascontiguousarray(frame[slab]).data)
                    yield
    except OSError as error:
        error.filename = error.filename or str(path)  # the error of a full disk names none
        raise


def _header(array: Array, frames: int, geometry: Geometry, tags: Mapping[str, Any]) -> bytes:
    sizes, kinds = list(array.shape[::-1]), ["domain"] * 3
    vectors = list(map(_vector, (np.asarray(geometry.direction) * geometry.spacing).T))
    if frames > 1:
        sizes, kinds, vectors = [*sizes, frames], [*kinds, "list"], [*vectors, "none"]
    text = json.dumps({**tags, "geometry": geometry.to_json()})
    lines = (
        "NRRD0004",
        f"type: {_TYPES[str(array.dtype)]}",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {' '.join(kinds)}",
        f"endian: {'little' if array.dtype.newbyteorder('=').str[0] in '<|' else 'big'}",
        "encoding: raw",
        f"space origin: {_vector(geometry.origin)}",
        f"{KEY}:={text.replace(chr(92), 2 * chr(92))}",  # a backslash begins an escape sequence
    )
    return ("\n".join(lines) + "\n\n").encode("ascii")


def _vector(numbers: Sequence[float]) -> str:
    return "(" + ",".join(repr(float(number)) for number in numbers) + ")"


class NrrdFile:
    """An uncompressed NRRD that a job wrote.

    Attributes:
        voxels: [K, J, I] or [T, K, J, I], read from the file when they are used.
        frames: the voxels of each frame, [K, J, I].
        geometry: as the job wrote it, bit for bit.
        tags: modality, units, history (DERIVED) as JSON.
    Raises OutputError for a file that is damaged or cut short.
    """

    def __init__(self, path: str | Path) -> None:
        with Path(path).open("rb") as file:
            head = file.read(LONGEST_HEADER).partition(b"\n\n")[0]
        fields = dict(re.findall(rb"(?m)^([\w ]+):[= ](.*)$", head))
        try:
            sizes = tuple(map(int, reversed(fields[b"sizes"].split())))
            dtype = np.dtype(_DTYPES[fields[b"type"].decode()])
            dtype = dtype.newbyteorder(">" if fields.get(b"endian") == b"big" else "<")
            self.voxels: Array = np.memmap(path, dtype, "r", len(head) + 2, sizes)
            self.tags: dict[str, Any] = json.loads(fields[KEY.encode()].replace(b"\\\\", b"\\"))
            self.geometry = Geometry.from_json(self.tags["geometry"])
        except (KeyError, ValueError) as cause:
            raise OutputError(f"{path} is damaged or cut short", "Run the job again.") from cause
        self.frames = list(self.voxels) if self.voxels.ndim == 4 else [self.voxels]
