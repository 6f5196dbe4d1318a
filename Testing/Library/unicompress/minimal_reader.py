"""A second reader of `.ucv`, written from docs/ucv-format.md alone: nothing of the library is used.

It proves that the page is enough, and would read the files if the library were lost. It reads whole
volumes and stops at the first damage. Models lie in the file, or are given to it.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np

from . import minimal_predictor, minimal_video

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Dtype = np.dtype[Any]
Model = Callable[[str], bytes]

PROLOGUE = struct.Struct("<4sHHQIII")
NO_BLOCK = 0xFFFFFFFF
MOST_BYTES, MOST_MODEL = 1 << 34, 1 << 24
TYPES = ["|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"]


class BadFileError(Exception):
    """The file is damaged, or needs what this reader does not know."""


class Row(NamedTuple):
    """A row of the chunk table."""

    block: int
    type: int
    length: int
    crc: int


def read(path: Path, models: Sequence[bytes] = ()) -> tuple[dict[str, Any], Array, bool]:
    """The header, the voxels, and whether they have the SHA-256 that the header names.

    models: files of models, for a file that does not carry its own.
    """
    data = path.read_bytes()
    header, rows, place = _open(data)
    shape, dtype = tuple(header["shape"]), np.dtype(header["dtype"])
    _need(prod(shape) * dtype.itemsize <= MOST_BYTES, "more voxels than this reader holds")
    voxels = np.empty((1,) * (4 - len(shape)) + shape, dtype)
    count = voxels.shape[0] * prod(header["blocks"])
    known = {hashlib.sha256(model).hexdigest(): model for model in models}
    blocks: dict[int, tuple[int, bytes]] = {}
    for row in rows:
        chunk = data[place : place + row.length]
        place += row.length
        if row.block == NO_BLOCK:  # a model, or something else
            chunk = _inflated(chunk) if row.type == 66 else chunk
            known[hashlib.sha256(chunk).hexdigest()] = chunk
            continue
        _need(zlib.crc32(chunk) == row.crc, f"the chunk of block {row.block} is damaged")
        _need(row.block < count and row.block not in blocks, f"block {row.block} cannot be")
        blocks[row.block] = row.type, chunk

    def model(role: str) -> bytes:
        named = header.get("models", {}).get(role, {})
        _need(named.get("sha256") in known, f"the model {named} ({role}) is missing")
        return known[named["sha256"]]

    _need(len(blocks) == count, f"{count - len(blocks)} blocks have no chunk")
    for number, (kind, chunk) in blocks.items():
        target = voxels[_box(number, voxels.shape, header["blocks"])]
        target[...] = _decode(kind, chunk, target.shape, header, model)
    voxels = voxels.reshape(shape)
    return header, voxels, sha256(voxels) == header["voxels_sha256"]


def sha256(voxels: Array) -> str:
    """Of an array's bytes, in C order."""
    return hashlib.sha256(voxels.tobytes()).hexdigest()


def _inflated(chunk: bytes) -> bytes:
    """A model; nothing where the chunk is damaged, which counts as none."""
    try:
        return zlib.decompressobj().decompress(chunk, MOST_MODEL)
    except zlib.error:
        return b""


# ---------------------------------------------------------------- parts of the file


def _open(data: bytes) -> tuple[dict[str, Any], list[Row], int]:
    """Header, rows, and where the payload begins."""
    _need(len(data) >= 60 and data[:4] == b"UCV1", "not a .ucv")
    _, major, _, file_bytes, head_bytes, head_crc, crc = PROLOGUE.unpack_from(data)
    _need(zlib.crc32(data[:24]) == crc, "the prologue is damaged")
    _need(major == 1, f"format {major}, this reader knows 1")
    _need(file_bytes == len(data), "the file was cut, or something follows it")
    payload = 28 + head_bytes
    head = data[28:payload]
    _need(zlib.crc32(head) == head_crc, "the head is damaged")
    inflater = zlib.decompressobj()
    text = inflater.decompress(head, (1 << 23) + 1)
    _need(len(text) <= 1 << 23 and inflater.eof, "the head is larger than it may be")
    header = json.loads(text)
    rows = [Row(*values) for values in header.pop("chunks")]
    total = 60 + head_bytes + sum(row.length for row in rows)
    _need(len(rows) <= 1 << 16 and total == file_bytes, "sizes differ")
    shape, counts = header["shape"], header["blocks"]
    _need(len(shape) in (3, 4) and all(1 <= extent <= 1 << 31 for extent in shape), "shape")
    _need(len(counts) == 3, "blocks")
    _need(all(1 <= c <= n for c, n in zip(counts, shape[-3:], strict=True)), "blocks")
    _need(prod(shape[:-3]) * prod(counts) <= 1 << 16, "too many blocks")
    largest = prod(-(-n // c) for c, n in zip(counts, shape[-3:], strict=True))
    _need(largest <= 1 << 24, "blocks are too large")
    _need(header["dtype"] in TYPES, "dtype")
    return header, rows, payload


def _box(number: int, shape: Shape, counts: list[int]) -> tuple[int | slice, ...]:
    ranges: list[slice] = []
    for extent, count in zip(shape[:0:-1], counts[::-1], strict=True):  # i, j, k
        number, n = divmod(number, count)
        ranges.insert(0, slice(extent * n // count, extent * (n + 1) // count))
    return (number, *ranges)


# ---------------------------------------------------------------- blocks


def _decode(kind: int, chunk: bytes, shape: Shape, header: dict[str, Any], model: Model) -> Array:
    """The voxels of a block."""
    if kind == 7:
        return minimal_video.decode(chunk, shape, header)
    _need(kind in INDEX_TYPES, f"block type {kind} is unknown; written by {header['encoder']}")
    record, width = chunk[0], chunk[1]
    _need(width in (1, 2, 4, 8), "indices of an odd width")
    size = {1: 8, 2: 8, 3: 24, 4: 16, 5: 8}[record]
    if record == 5:
        size += struct.unpack_from("<I", chunk, 6)[0]
    fields, code = chunk[2 : 2 + size], chunk[2 + size :]
    indices = INDEX_TYPES[kind](code, shape, np.dtype(f"<u{width}"), model)
    return _voxels(record, fields, indices, np.dtype(header["dtype"]))


def _voxels(record: int, fields: bytes, x: Array, dtype: np.dtype[Any]) -> Array:
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


def _constant(code: bytes, shape: Shape, dtype: Dtype, _: Model) -> Array:
    _need(not code, "a constant block has no bytes")
    return np.zeros(shape, dtype)


def _zstd(code: bytes, shape: Shape, dtype: Dtype, _: Model) -> Array:
    plain = np.empty(prod(shape) * dtype.itemsize, np.uint8)
    _need(len(imagecodecs.zstd_decode(code[1:], out=plain)) == plain.size, "another size")
    planes = plain.reshape(dtype.itemsize, -1)
    folded = np.ascontiguousarray(planes.T).view(dtype).reshape(shape)
    _need(code[0] in (0, 1), "an unknown filter")
    if code[0] == 0:
        return folded
    half = folded // dtype.type(2)
    steps = np.where(folded % dtype.type(2) == 0, half, ~half)  # ~h is −(h + 1), mod 2^(8w)
    return np.cumsum(steps, axis=2, dtype=dtype)


def _stacked(code: bytes, shape: Shape, dtype: Dtype, _: Model) -> Array:
    image = np.empty((shape[0] * shape[1], shape[2]), dtype)
    return np.asarray(imagecodecs.jpegxl_decode(code, out=image)).reshape(shape)


def _learned(code: bytes, shape: Shape, dtype: Dtype, model: Model) -> Array:
    tensors = minimal_predictor.tensors(model("predictor"))
    k, j, i = shape
    return minimal_predictor.decode(code, (k, j, i), tensors).astype(dtype)


Indices = Callable[[bytes, Shape, Dtype, Model], Array]
#: Types that code indices; 7 codes voxels.
INDEX_TYPES: dict[int, Indices] = {
    0: _constant,
    1: _zstd,
    3: _stacked,
    16: _learned,
}


def _need(holds: bool, says: str) -> None:
    if not holds:
        raise BadFileError(says)
