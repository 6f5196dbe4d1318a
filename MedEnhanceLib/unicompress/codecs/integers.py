"""Blocks of any type as unsigned integers and back: the input of every lossless coder.

    voxels → (indices, record) → voxels

indices: unsigned, of the smallest of 8, 16, 32, 64 bits that holds them, smallest value 0.
record: a few bytes that undo it. With a bound, no restored voxel is off by more than the bound.
All arithmetic is exact or IEEE double, operation by operation: every machine reads the same.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.arrays import Longs, Voxels
from MedEnhanceLib.unicompress.container import inflate

Indices = npt.NDArray[np.unsignedinteger[Any]]

# Kinds of record: the ids are part of the format.
_OFFSET = 1  # integers, or floats that hold integers: offset + index
_BITS = 2  # the bits of a float, as an integer: offset + index
_STEPS = 3  # as _OFFSET, in steps: offset + min(index · step, top)
_FLOAT_STEPS = 4  # floats: base + index · step
_TABLE = 5  # the index-th of the values that occur

_KIND = struct.Struct("<BB")  # kind, bytes of an index
_WORD = struct.Struct("<Q")
_STEPS_FIELDS = struct.Struct("<QQQ")
_FLOAT_FIELDS = struct.Struct("<dd")
_TABLE_FIELDS = struct.Struct("<II")  # values, bytes of the deflated table
# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/compression.py.
# Half of _PRESENT costs 12 % in one MR, nothing in another and a CT; twice costs nothing.
#: Most values of a table, and least mean number of uses of a value.
_MOST_VALUES, _LEAST_USES = 1 << 16, 4
#: Rows of a block that are sampled first, and most different floats in them for a table.
_SAMPLED_ROWS, _MOST_SAMPLED = 64, 1 << 13
#: Integers get a table if at most this share of the values in their central range occurs, and if it
#: saves this many times its own size: some values are missing by chance.
_PRESENT, _PAYS = 0.75, 4
_COMMON = (0.01, 0.99)


@dataclass(frozen=True)
class Coded:
    """A block as integers.

    Attributes:
        record: bytes by which a decoder turns them into voxels.
    """

    indices: Indices
    record: bytes

    def decoded(self, block: Voxels) -> Voxels:
        """Decode as a reader does; block: what was coded."""
        if self.record[0] not in (_STEPS, _FLOAT_STEPS):
            return block
        return from_integers(self.record, self.indices, block.dtype, block.shape)


def to_integers(block: Voxels) -> Coded:
    """Convert any type without loss; NaN keeps its bits and zero its sign."""
    integers = _as_integers(block)
    table = _table(block, is_whole=integers is not None)
    if table is not None:
        return table
    if integers is not None:
        kind, words = _OFFSET, integers
    else:
        kind, words = _BITS, block.view(f"u{block.itemsize}")
    offset = int(words.min())
    indices = _narrow(_above(words, offset))
    return Coded(indices, _record(kind, indices, _WORD, offset % (1 << 64)))


def to_bounded_integers(block: Voxels, bound: float | None) -> Coded:
    """Convert with no voxel off by more than `bound`; without loss for None or if no step fits."""
    if bound is None:
        return to_integers(block)
    integers = _as_integers(block)
    if integers is None:
        return _float_steps(block, bound) or to_integers(block)
    step = 2 * math.floor(bound) + 1
    if step == 1:
        return to_integers(block)
    offset, top = int(integers.min()), int(integers.max()) - int(integers.min())
    # A larger step changes nothing, and may not fit its field.
    step = min(step, 2 * top + 1, (1 << 64) - 1)
    words = _above(integers, offset)
    words = words if step < 1 << 8 * words.dtype.itemsize else words.astype(np.uint64)
    # Adding half a step before dividing could overflow.
    indices, rest = np.divmod(words, words.dtype.type(step))
    indices += rest > words.dtype.type(step // 2)
    narrow = _narrow(indices)
    return Coded(narrow, _record(_STEPS, narrow, _STEPS_FIELDS, offset % (1 << 64), step, top))


def from_integers(
    record: bytes, indices: Indices, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Voxels:
    """Undo `to_integers` or `to_bounded_integers`; raises ValueError for an invalid record.

    Args:
        record: without the indices.
        indices: of any shape, in C order.
        dtype: of the voxels.
        shape: of the block.
    """
    kind, _ = _KIND.unpack_from(record)
    fields = record[_KIND.size :]
    if kind == _STEPS:
        offset, step, top = _STEPS_FIELDS.unpack(fields)
        # index · step may pass 2⁶⁴ where the last step is not a whole one.
        whole = np.uint64(top // max(step, 1))
        words = indices.astype(np.uint64)
        above = np.where(words > whole, np.uint64(top), words * np.uint64(step))
        return _from_offset(above, offset, dtype, as_bits=False).reshape(shape)
    if kind in (_OFFSET, _BITS):
        (offset,) = _WORD.unpack(fields)
        return _from_offset(indices, offset, dtype, as_bits=kind == _BITS).reshape(shape)
    if kind == _TABLE:
        values = _values_of(fields, dtype)
        if int(indices.max()) >= len(values):
            raise ValueError("an index beyond the table of values")
        return values.take(indices).reshape(shape)
    if kind == _FLOAT_STEPS and dtype.kind == "f":
        base, step = _FLOAT_FIELDS.unpack(fields)
        return _from_steps(indices, base, step, dtype).reshape(shape)
    raise ValueError(f"unknown record {kind} for {dtype}")


def split_record(data: bytes) -> tuple[bytes, np.dtype[Any], bytes]:
    """Split a chunk's bytes into record, type of the indices, and the coder's bytes."""
    kind, width = _KIND.unpack_from(data)
    sizes = {_OFFSET: _WORD, _BITS: _WORD, _STEPS: _STEPS_FIELDS, _FLOAT_STEPS: _FLOAT_FIELDS}
    sizes[_TABLE] = _TABLE_FIELDS
    if kind not in sizes or width not in (1, 2, 4, 8):
        raise ValueError(f"unknown record {kind} with indices of {width} bytes")
    end = _KIND.size + sizes[kind].size
    if kind == _TABLE:
        end += _TABLE_FIELDS.unpack_from(data, _KIND.size)[1]
    if len(data) < end:
        raise ValueError("the record is cut short")
    return data[:end], np.dtype(f"<u{width}"), data[end:]


def _table(block: Voxels, *, is_whole: bool) -> Coded | None:
    """Convert to indices into the values that occur; None if that saves nothing.

    Scanners store integers; rescaling them later leaves gaps, or floats with only some thousand
    different values.
    """
    words = _ordered(block)
    sample = words.reshape(-1, words.shape[-1])
    sample = sample[:: max(1, len(sample) // _SAMPLED_ROWS)]
    if is_whole and not _saved_bits(*np.unique(sample, return_counts=True)):
        return None
    if not is_whole and np.unique(sample).size > _MOST_SAMPLED:
        return None
    values, counts = np.unique(words, return_counts=True)
    if values.size > min(_MOST_VALUES, words.size // _LEAST_USES):
        return None
    steps = np.diff(values.astype(np.uint64), prepend=np.uint64(0))
    table = zlib.compress(steps.astype("<u8").view(np.uint8).reshape(-1, 8).T.tobytes(), 9)
    if is_whole and _saved_bits(values, counts) < _PAYS * 8 * len(table):
        return None
    indices = _narrow(np.searchsorted(values, words).astype(np.uint32))
    return Coded(indices, _record(_TABLE, indices, _TABLE_FIELDS, values.size, len(table)) + table)


def _saved_bits(values: Indices, counts: Longs) -> float:
    """Estimate the bits that a table of the values saves; 0 if few values are missing.

    values, counts: as np.unique gives them.
    """
    # The most frequent value is mostly air, which costs almost nothing either way.
    counts = np.where(np.arange(counts.size) == counts.argmax(), 0, counts)
    below = np.cumsum(counts)
    low, high = np.searchsorted(below, np.array(_COMMON) * below[-1])
    span, present = int(values[high]) - int(values[low]) + 1, int(high - low) + 1
    return 0.0 if present > _PRESENT * span else float(below[-1]) * math.log2(span / present)


def _ordered(block: Voxels) -> Indices:
    """Turn the bits of voxels into unsigned integers in the order of their values."""
    unsigned = np.dtype(f"u{block.dtype.itemsize}")
    words: Indices = np.ascontiguousarray(block).view(unsigned)
    sign = unsigned.type(1 << (8 * unsigned.itemsize - 1))
    if block.dtype.kind == "f":
        words = np.where(words & sign, ~words, words | sign)
    return words ^ sign if block.dtype.kind == "i" else words


def _values_of(fields: bytes, dtype: np.dtype[Any]) -> Voxels:
    """Unpack the values of a record's table; raises ValueError for an invalid table."""
    count, size = _TABLE_FIELDS.unpack_from(fields)
    data = inflate(fields[_TABLE_FIELDS.size :], 8 * _MOST_VALUES)
    if not 1 <= count <= _MOST_VALUES or len(data) != 8 * count:
        raise ValueError(f"a table of {count} values in {size} bytes")
    steps = np.frombuffer(data, np.uint8).reshape(8, -1).T.copy().view("<u8").ravel()
    words = np.cumsum(steps, dtype=np.uint64)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    if (words[1:] <= words[:-1]).any() or int(words[-1]) >> (8 * dtype.itemsize):
        raise ValueError("a table whose values do not rise")
    words = words.astype(unsigned)
    sign = unsigned.type(1 << (8 * unsigned.itemsize - 1))
    if dtype.kind == "f":
        words = np.where(words & sign, words ^ sign, ~words)
    return np.asarray(words ^ sign if dtype.kind == "i" else words).view(dtype)


def _as_integers(block: Voxels) -> Voxels | None:
    """Return the block as integers, or None for floats with other values or negative zero."""
    if block.dtype.kind == "b":
        return block.view(np.uint8)
    if block.dtype.kind in "iu":
        return block
    limit = 2.0 ** (np.finfo(block.dtype).nmant + 1)
    with np.errstate(invalid="ignore"):
        whole = (np.abs(block) <= limit) & (block == np.rint(block))
    is_integer = whole.all() and not (np.signbit(block) & (block == 0)).any()
    return block.astype(np.int64) if is_integer else None


def _above(integers: Voxels, offset: int) -> Indices:
    """Subtract the least value: never negative, in the unsigned type of the same width."""
    unsigned = np.dtype(f"u{integers.dtype.itemsize}")
    low = unsigned.type(offset % (1 << 8 * unsigned.itemsize))
    # Unsigned subtraction wraps around, which is what the extremes of a signed type need.
    difference: Indices = np.ascontiguousarray(integers).view(unsigned) - low
    return difference


def _narrow(words: Indices) -> Indices:
    smallest: Indices = words.astype(np.min_scalar_type(int(words.max())), copy=False)
    return smallest


def _record(kind: int, indices: Indices, fields: struct.Struct, *values: float) -> bytes:
    return _KIND.pack(kind, indices.dtype.itemsize) + fields.pack(*values)


def _float_steps(block: Voxels, bound: float) -> Coded | None:
    """Convert to steps a little below 2 · bound; None if a voxel then misses the bound."""
    with np.errstate(invalid="ignore"):  # a signaling NaN is no reason to warn
        wide = block.astype(np.float64)
    base, top = float(wide.min()), float(wide.max())
    if not (math.isfinite(base) and math.isfinite(top) and math.isfinite(top - base)):
        return None
    largest = block.dtype.type(max(abs(base), abs(top)))
    with np.errstate(over="ignore"):
        rounding = float(np.spacing(largest)) + 4 * float(np.spacing(np.float64(largest)))
    step = 2 * (bound - rounding)
    if not step > 0 or (top - base) / step >= 1 << 52:
        return None
    indices = _narrow(np.rint((wide - base) / step).astype(np.uint64))
    decoded = _from_steps(indices, base, step, block.dtype).astype(np.float64)
    if not (np.abs(decoded - wide) <= bound).all():
        return None
    return Coded(indices, _record(_FLOAT_STEPS, indices, _FLOAT_FIELDS, base, step))


def _from_steps(indices: Indices, base: float, step: float, dtype: np.dtype[Any]) -> Voxels:
    with np.errstate(over="ignore", invalid="ignore"):
        voxels: Voxels = (indices.astype(np.float64) * step + base).astype(dtype)
    return voxels


def _from_offset(above: Indices, offset: int, dtype: np.dtype[Any], *, as_bits: bool) -> Voxels:
    """Undo `_above`, wrapping around as it did."""
    holds_integers = dtype.kind == "f" and not as_bits
    width = 8 if holds_integers else dtype.itemsize
    unsigned = np.dtype(f"u{width}")
    words: Voxels = above.astype(unsigned) + unsigned.type(offset % (1 << 8 * width))
    if dtype.kind == "b":
        return np.not_equal(words, 0)
    return words.view(np.int64).astype(dtype) if holds_integers else words.view(dtype)
