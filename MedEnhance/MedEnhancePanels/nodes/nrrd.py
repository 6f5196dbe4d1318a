"""Uncompressed NRRD files for and from the worker, written and read in steps with numpy.

Slicer's storage nodes handle a volume in one piece, which would keep Slicer waiting.
"""

import json
import re

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.texts import tr as _

#: Bytes that one step copies: some 10 ms, also into memory that is used for the first time.
_STEP_BYTES = 4 << 20
_LONGEST_HEADER = 1 << 20
_KEY = "MedEnhance"
_TYPES = {
    "int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "unsigned short",
    "int32": "int", "uint32": "unsigned int", "int64": "long long int",
    "uint64": "unsigned long long int", "float32": "float", "float64": "double",
}  # fmt: skip
_DTYPES = {name: kind for kind, name in _TYPES.items()}


def steps(array):
    """Yield slabs of the first axis that take some milliseconds each."""
    step = max(1, _STEP_BYTES // max(1, array[:1].nbytes))
    for first in range(0, len(array), step):
        yield slice(first, first + step)


def write(path, frames, geometry, tags):
    """Write frames [K, J, I] of one shape and type, several as [T, K, J, I], in steps.

    geometry: of all frames, a Geometry. tags: JSON for the header, see MedEnhanceLib.io.tags.
    """
    first = frames[0]
    try:
        with open(path, "wb") as file:
            file.write(_header(first, len(frames), geometry, tags))
            for number, frame in enumerate(frames):
                if frame.shape != first.shape or frame.dtype != first.dtype:
                    message = _("Frame {frame} differs in size or type from the first")
                    raise PanelError(message.format(frame=number), code="input")
                for slab in steps(frame):
                    file.write(np.ascontiguousarray(frame[slab]).data)
                    yield
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say which one
        raise


def _header(array, frames, geometry, tags):
    sizes, kinds = list(array.shape[::-1]), ["domain"] * 3
    vectors = list(map(_vector, (np.asarray(geometry.direction) * geometry.spacing).T))
    if frames > 1:
        sizes, kinds, vectors = [*sizes, frames], [*kinds, "list"], [*vectors, "none"]
    tags = json.dumps({**tags, "geometry": geometry.to_json()})
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
        f"{_KEY}:={tags.replace(chr(92), 2 * chr(92))}",  # a backslash begins an escape sequence
    )
    return ("\n".join(lines) + "\n\n").encode("ascii")


def _vector(numbers):
    return "(" + ",".join(repr(float(number)) for number in numbers) + ")"


class File:
    """A NRRD that the worker wrote; raises PanelError for one that is damaged.

    voxels: [K, J, I] or [T, K, J, I], read where they are used; frames: those of each, [K, J, I].
    geometry: a Geometry, bit for bit what the library knew. tags: modality, units, history
    (DERIVED) as JSON.
    """

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            head = file.read(_LONGEST_HEADER).partition(b"\n\n")[0]
        fields = dict(re.findall(rb"(?m)^([\w ]+):[= ](.*)$", head))
        try:
            sizes = tuple(map(int, reversed(fields[b"sizes"].split())))
            order = ">" if fields.get(b"endian") == b"big" else "<"
            dtype = np.dtype(_DTYPES[fields[b"type"].decode()]).newbyteorder(order)
            self.voxels = np.memmap(path, dtype, "r", len(head) + 2, sizes)
            self.tags = json.loads(fields[_KEY.encode()].replace(b"\\\\", b"\\"))
            self.geometry = Geometry.from_json(self.tags["geometry"])
        except (KeyError, ValueError) as cause:
            message = _("{path} is damaged or cut short").format(path=path)
            raise PanelError(message, _("Run the job again."), "output") from cause
        self.frames = list(self.voxels) if self.voxels.ndim == 4 else [self.voxels]
