"""Records (docs/ucv-format.md, section 4) for the minimal reader: indices to voxels."""

from __future__ import annotations

import struct
import zlib
from itertools import accumulate
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def voxels(record: int, fields: bytes, x: Array, dtype: np.dtype[Any]) -> Array:
    """Indices → voxels."""
    if record == 4:
        base, step = struct.unpack("<dd", fields)
        with np.errstate(over="ignore"):
            found: Array = (x.astype(np.float64) * step + base).astype(dtype)
        return found
    if record == 5:
        return _table(fields, dtype)[x]
    x = x.astype(np.uint64)
    offset, *more = struct.unpack(f"<{len(fields) // 8}Q", fields)
    if record == 3:
        step, top = more
        beyond = x > np.uint64(top // max(step, 1))
        x = np.where(beyond, np.uint64(top), x * np.uint64(step))
    total = x + np.uint64(offset)  # wraps around at 2⁶⁴; smaller types keep the low bytes
    if dtype.kind == "b":
        return np.not_equal(total.astype(np.uint8), 0)
    if dtype.kind == "f" and record != 2:
        return total.view(np.int64).astype(dtype)
    return total.astype(f"<u{dtype.itemsize}").view(dtype)


def _table(fields: bytes, dtype: np.dtype[Any]) -> Array:
    """The values that occur, smallest first."""
    count, size = struct.unpack_from("<II", fields)
    if len(fields) != 8 + size or not 1 <= count <= 1 << 16:
        raise ValueError("a table of an odd size")
    planes = zlib.decompress(fields[8:])
    if len(planes) != 8 * count:
        raise ValueError("a table with other values than it says")
    steps = [int.from_bytes(planes[n::count], "little") for n in range(count)]
    words = list(accumulate(steps))
    sign = 1 << (8 * dtype.itemsize - 1)
    if words[-1] >= 2 * sign or not all(steps[1:]):
        raise ValueError("a table whose values do not rise")
    if dtype.kind == "f":
        words = [word - sign if word & sign else 2 * sign - 1 - word for word in words]
    elif dtype.kind == "i":
        words = [word ^ sign for word in words]
    return np.array(words, f"<u{dtype.itemsize}").view(dtype)
