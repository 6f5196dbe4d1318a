"""Uncompressed NRRD files for and from the worker, read and written in steps with numpy.

Slicer's storage nodes write and read a volume in one piece, which would keep Slicer waiting.
"""

import json
import re
from pathlib import Path

import numpy as np
from slicer.i18n import tr as _

from MedEnhanceLib.core.geometry import Geometry
from MedEnhancePanels.errors import PanelError

#: Bytes that one step copies: some 10 ms, also into memory that is used for the first time.
_STEP_BYTES = 4 << 20
_LONGEST_HEADER = 1 << 20
_KEY = "MedEnhance"
_TYPES = {
    "int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "unsigned short",
    "int32": "int", "uint32": "unsigned int", "int64": "long long int",
    "uint64": "unsigned long long int", "float32": "float", "float64": "double",
}  # fmt: skip
_DTYPES = {name: kind for kind, name in _TYPES.items()} | {
    "long long": "int64", "int64": "int64", "unsigned long long": "uint64", "uchar": "uint8",
    "int16": "int16", "uint16": "uint16", "ushort": "uint16", "int32": "int32", "uint": "uint32",
}  # fmt: skip


def steps(array):
    """(slab, fraction done) for slabs of the first axis that take some milliseconds each."""
    count, step = len(array), max(1, _STEP_BYTES // max(1, array[:1].nbytes))
    for first in range(0, count, step):
        yield slice(first, first + step), min(1.0, (first + step) / count)


def write(path, arrays, tags):
    """Write frames of one shape and type; a generator of fractions.

    Args:
        path: of the file.
        arrays: one array [K, J, I] per frame; several are written as [T, K, J, I].
        tags: modality, units and geometry (a Geometry) of the volume, frame_interval_s if known.
    """
    first = arrays[0]
    try:
        with Path(path).open("wb") as file:
            file.write(_header(first, len(arrays), tags))
            for frame, array in enumerate(arrays):
                if array.shape != first.shape or array.dtype != first.dtype:
                    raise PanelError(
                        _("Frame {frame} differs in size or type from the first").format(
                            frame=frame
                        ),
                        code="input",
                    )
                for slab, done in steps(array):
                    file.write(np.ascontiguousarray(array[slab]).data)
                    yield (frame + done) / len(arrays)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say which one
        raise


def _header(array, frames, tags):
    geometry = tags["geometry"]
    columns = (np.asarray(geometry.direction) * np.asarray(geometry.spacing)).T
    sizes, vectors, origin = list(array.shape[::-1]), columns.tolist(), list(geometry.origin)
    space = "space: left-posterior-superior"
    if frames > 1:
        interval = float(tags.get("frame_interval_s") or 1.0)
        sizes.append(frames)
        vectors = [[*vector, 0.0] for vector in vectors] + [[0.0, 0.0, 0.0, interval]]
        origin.append(0.0)
        space = "space dimension: 4"
    said = json.dumps({**tags, "geometry": geometry.to_json()})
    lines = [
        "NRRD0004",
        f"type: {_TYPES[str(array.dtype)]}",
        f"dimension: {len(sizes)}",
        space,
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join(map(_vector, vectors))}",
        f"kinds: {' '.join(['domain'] * len(sizes))}",
        f"endian: {'little' if array.dtype.newbyteorder('=').str[0] in '<|' else 'big'}",
        "encoding: raw",
        f"space origin: {_vector(origin)}",
        f"{_KEY}:={said.replace(chr(92), 2 * chr(92))}",  # a backslash begins an escape sequence
    ]
    return ("\n".join(lines) + "\n\n").encode("ascii")


def _vector(numbers):
    return "(" + ",".join(repr(float(number)) for number in numbers) + ")"


class File:
    """A NRRD that the worker wrote.

    voxels: [K, J, I] or [T, K, J, I], read where they are used. geometry: a Geometry, bit for bit
    what the library knew. tags: modality, units, history (DERIVED) as JSON.
    """

    def __init__(self, path):
        with Path(path).open("rb") as file:
            head = file.read(_LONGEST_HEADER)
        end = head.find(b"\n\n")
        if not head.startswith(b"NRRD000") or end < 0:
            raise PanelError(
                _("{path} is not a NRRD file").format(path=path), _("Run the job again."), "output"
            )
        fields = dict(_fields(head[:end].decode("utf-8", "replace")))
        shape = tuple(int(size) for size in fields["sizes"].split())[::-1]
        order = ">" if fields.get("endian") == "big" else "<"
        dtype = np.dtype(_DTYPES[fields["type"]]).newbyteorder(order)
        try:
            self.voxels = np.memmap(path, dtype, "r", end + 2, shape)
        except ValueError as cause:
            raise PanelError(
                _("{path} is cut short").format(path=path), _("Run the job again."), "output"
            ) from cause
        escaped = re.compile(r"\\([\\n])")
        said = escaped.sub(lambda mark: "\n" if mark[1] == "n" else mark[1], fields.get(_KEY, "{}"))
        self.tags = json.loads(said)
        self.geometry = Geometry.from_json(self.tags["geometry"])

    @property
    def frames(self):
        """The voxels of each frame, [K, J, I]."""
        return list(self.voxels) if self.voxels.ndim == 4 else [self.voxels]


def _fields(text):
    for line in text.splitlines()[1:]:
        if line.startswith("#"):
            continue
        for mark in (":=", ": "):
            key, found, value = line.partition(mark)
            if found and ":" not in key:
                yield key, value
                break
