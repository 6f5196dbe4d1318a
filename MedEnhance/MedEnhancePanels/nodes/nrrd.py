"""Uncompressed NRRD files for and from the worker, read and written in steps with numpy.

Only for files that are exchanged with the worker.
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


def write(path, arrays, tags):
    """Write frames of one shape and type; a generator of fractions.

    Args:
        path: of the file.
        arrays: one array [K, J, I] per frame; several are written as [T, K, J, I].
        tags: modality, units and geometry (a Geometry) of the volume, frame_interval_s if known.
    """
    try:
        yield from _write(path, arrays, tags)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say which one
        raise


def _write(path, arrays, tags):
    first = arrays[0]
    with Path(path).open("wb") as file:
        file.write(_header(first, len(arrays), tags))
        for frame, array in enumerate(arrays):
            if array.shape != first.shape or array.dtype != first.dtype:
                raise PanelError(
                    _("Frame {frame} differs in size or type from the first").format(frame=frame),
                    code="input",
                )
            for done in _writeArray(file, array):
                yield (frame + done) / len(arrays)


def _writeArray(file, array):
    step = max(1, _STEP_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        file.write(np.ascontiguousarray(array[start : start + step]).data)
        yield min(1.0, (start + step) / len(array))


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
        f"{_KEY}:={_escaped(json.dumps({**tags, 'geometry': geometry.to_json()}))}",
    ]
    return ("\n".join(lines) + "\n\n").encode("ascii")


def _escaped(text):
    """Escaped as NRRD requires, where a backslash starts an escape sequence."""
    return text.replace("\\", "\\\\")


def _unescaped(text):
    return re.sub(r"\\([\\n])", lambda mark: "\n" if mark[1] == "n" else mark[1], text)


def _vector(numbers):
    return "(" + ",".join(repr(float(number)) for number in numbers) + ")"


class Reader:
    """A NRRD that the worker wrote.

    shape: [K, J, I], or [T, K, J, I]. dtype: numpy's. geometry: a Geometry, bit for bit what the
    library knew. tags: modality, units, history (DERIVED) as JSON.
    """

    def __init__(self, path):
        self.path = path
        with Path(path).open("rb") as file:
            head = file.read(_LONGEST_HEADER)
        end = head.find(b"\n\n")
        if not head.startswith(b"NRRD000") or end < 0:
            raise PanelError(
                _("{path} is not a NRRD file").format(path=path), _("Run the job again."), "output"
            )
        fields = dict(_fields(head[:end].decode("utf-8", "replace")))
        self._start = end + 2
        self.shape = tuple(int(size) for size in fields["sizes"].split())[::-1]
        order = ">" if fields.get("endian") == "big" else "<"
        self.dtype = np.dtype(_DTYPES[fields["type"]]).newbyteorder(order)
        self.tags = json.loads(_unescaped(fields.get(_KEY, "{}")))
        self.geometry = Geometry.from_json(self.tags["geometry"])

    def frames(self):
        """How many frames there are, and the shape of each."""
        return (self.shape[0], self.shape[1:]) if len(self.shape) == 4 else (1, self.shape)

    def readInto(self, array, frame=0):
        """Fill `array` [K, J, I] of the same size with a frame; a generator of fractions."""
        _count, shape = self.frames()
        if array.shape != shape:
            raise PanelError(
                _("The result has {shape} voxels, the volume {there}").format(
                    shape=shape, there=array.shape
                ),
                _("The volume was changed in the meantime; run it again."),
                "input",
            )
        size = int(np.prod(shape[1:])) * self.dtype.itemsize
        step = max(1, _STEP_BYTES // max(1, size))
        with Path(self.path).open("rb") as file:
            file.seek(self._start + frame * size * shape[0])
            for start in range(0, shape[0], step):
                stop = min(shape[0], start + step)
                count = (stop - start) * size // self.dtype.itemsize
                values = np.fromfile(file, self.dtype, count)
                if len(values) != count:
                    raise PanelError(
                        _("{path} is cut short").format(path=self.path),
                        _("Run the job again."),
                        "output",
                    )
                array[start:stop] = values.reshape(stop - start, *shape[1:])
                yield stop / shape[0]


def _fields(text):
    for line in text.splitlines()[1:]:
        if line.startswith("#"):
            continue
        for mark in (":=", ": "):
            key, found, value = line.partition(mark)
            if found and ":" not in key:
                yield key, value
                break
