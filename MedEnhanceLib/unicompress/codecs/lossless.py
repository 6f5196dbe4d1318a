"""Coders of a block's indices that need no model: constant, zstd, JPEG XL; and their registry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Shape, Voxels
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.unicompress.codecs.integers import (
    Coded,
    Indices,
    to_bounded_integers,
    to_integers,
)
from MedEnhanceLib.unicompress.config import Speed

# Tuned on open volumes (decision 0071). Measured again by Benchmarks/compression.py.
_EFFORT = {"normal": 7, "fast": 3, "fastest": 1}
#: Measured: on labels and masks the highest level wins 30 %, and is fast.
_ZSTD_LEVEL = {"normal": 19, "fast": 3, "fastest": 1}
CONSTANT, ZSTD, JPEGXL = 0, 1, 3
#: zstd's full effort is spent if its quick result is below this many times the best size.
_ZSTD_NEAR = 1.4


def codecs() -> ModuleType:
    """Import imagecodecs; DependencyError, which says how to install it, if it is missing."""
    return require("imagecodecs", purpose="Compression")


def encode_constant(indices: Indices, _speed: Speed) -> bytes | None:
    """Code indices of zeros as nothing; None for others."""
    return None if indices.any() else b""


def decode_constant(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Indices:
    """Return indices of zeros.

    Args:
        data: empty, else ValueError.
        shape: of the block.
        dtype: as of `decode_zstd`.
    """
    if data:
        raise ValueError(f"{len(data)} bytes too many")
    return np.zeros(shape, dtype)


def encode_zstd(indices: Indices, speed: Speed) -> bytes:
    """Code indices or their differences along i, the smaller; bytes grouped by significance."""
    codes = []
    for choice, words in enumerate((indices, _differences(indices))):
        columns = np.ascontiguousarray(words).view(np.uint8).reshape(-1, words.dtype.itemsize)
        packed = codecs().zstd_encode(columns.T.tobytes(), level=_ZSTD_LEVEL[speed])
        codes.append(bytes([choice]) + bytes(packed))
    return min(codes, key=len)


def decode_zstd(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Indices:
    """Decode what `encode_zstd` coded; ValueError if the data are invalid.

    Args:
        data: of the chunk, after its record.
        shape: that the block has in the header's grid, [K, J, I].
        dtype: of the indices, as the record says.
    """
    columns = np.empty((dtype.itemsize, math.prod(shape)), np.uint8)
    try:
        # `out` is all that is written: a code that holds more is refused.
        size = len(codecs().zstd_decode(data[1:], out=columns.reshape(-1)))
    except RuntimeError as cause:
        raise ValueError(f"zstd: damaged, or not the size of the block ({cause})") from cause
    if size != columns.size:
        raise ValueError("zstd: not the size of the block")
    indices = np.ascontiguousarray(columns.T).view(dtype).reshape(shape)
    if data[0] > 1:
        raise ValueError(f"zstd: unknown filter {data[0]}")
    if data[0] == 0:
        return indices
    unit = dtype.type(1)
    steps = (indices >> unit) ^ (~(indices & unit) + unit)
    return np.cumsum(steps, axis=-1, dtype=dtype)


def _differences(indices: Indices) -> Indices:
    """Take differences along i, with the sign in the lowest bit: 0, −1, 1, −2 … → 0, 1, 2, 3 …"""
    steps = np.diff(indices, axis=-1, prepend=indices.dtype.type(0))
    signed = steps.view(f"i{steps.dtype.itemsize}")
    folded: Indices = ((signed << 1) ^ (signed >> (8 * steps.dtype.itemsize - 1))).view(steps.dtype)
    return folded


def encode_jpegxl(indices: Indices, speed: Speed) -> bytes | None:
    """Code the slices, stacked to one image, as JPEG XL: one adaptive model for the block.

    Returns None for indices of more than 16 bits, and for those that the codec fails on.
    """
    if indices.dtype.itemsize > 2:
        return None
    image, effort = np.ascontiguousarray(indices).reshape(-1, indices.shape[-1]), _EFFORT[speed]
    try:
        return bytes(codecs().jpegxl_encode(image, lossless=True, effort=effort, numthreads=1))
    except RuntimeError:
        return None


def decode_jpegxl(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Indices:
    """Decode slices that were coded as JPEG XL; ValueError if the data are invalid.

    Args:
        data: of the chunk, after its record.
        shape: as of `decode_zstd`.
        dtype: as of `decode_zstd`.
    """
    # `out` fixes shape and type: a codestream that claims others is refused before it allocates.
    out = np.empty((shape[0] * shape[1], shape[2]), dtype)
    codecs().jpegxl_decode(data, out=out, numthreads=1)
    return out.reshape(shape)


@dataclass(frozen=True)
class Coder:
    """A lossless coder of indices, which is tried on every block, and may be chosen for it.

    Attributes:
        id: of its block type.
        name: for reports.
        package: that decoding needs.
        encode: codes indices; None where it cannot, or has no chance.
        decode: decodes bytes to indices of a shape and type, trusting no size in the bytes; raises
            one of FOREIGN_ERRORS of `block_types.py` if they are invalid.
    """

    id: int
    name: str
    package: str
    encode: Callable[[Indices, Speed], bytes | None]
    decode: Callable[[bytes, Shape, np.dtype[Any]], Indices]


#: Ids are part of the format: docs/ucv-format.md lists free ones.
CODERS = (
    Coder(CONSTANT, "constant", "numpy", encode_constant, decode_constant),
    Coder(ZSTD, "zstd", "imagecodecs", encode_zstd, decode_zstd),
    Coder(JPEGXL, "jpeg-xl", "imagecodecs", encode_jpegxl, decode_jpegxl),
)


@dataclass(frozen=True)
class BlockCode:
    """A coded block.

    Attributes:
        kind: id of the block type.
        data: the bytes of the chunk.
        coded: the indices in them.
    """

    kind: int
    data: bytes
    coded: Coded


def code_block(block: Voxels, bound: float | None, *, speed: Speed) -> BlockCode:
    """Code a block by the type that takes the fewest bytes.

    Args:
        block: [K, J, I].
        bound: the largest error, in stored units; None is lossless.
        speed: "fast" takes less time and more bytes, "fastest" again.
    """
    code = _shortest(to_bounded_integers(block, bound), speed)
    if bound is None or block.dtype.kind != "f":
        return code
    # Floats that repeat may take fewer bits as they are than as steps.
    return min(code, _shortest(to_integers(block), speed), key=lambda code: len(code.data))


def _shortest(coded: Coded, speed: Speed) -> BlockCode:
    """Code by every coder; by zstd quickly first, and with full effort only where that may win."""
    codes: dict[int, bytes] = {}
    for coder in CODERS:
        quickly = coder.id == ZSTD and speed == "normal"
        data = coder.encode(coded.indices, "fast" if quickly else speed)
        if data is not None:
            codes[coder.id] = data
        if data == b"":  # nothing is shorter
            break
    kind, shortest = min(codes.items(), key=lambda code: len(code[1]))
    if speed == "normal" and ZSTD in codes and len(codes[ZSTD]) < _ZSTD_NEAR * len(shortest):
        full = encode_zstd(coded.indices, speed)
        if len(full) < len(shortest):
            kind, shortest = ZSTD, full
    return BlockCode(kind, coded.record + shortest, coded)
