"""One array as a stream of its own: a block of `.ucv` without its file.

For stores that cut arrays into chunks themselves (zarr, HDF5). Block types that need a model are
not used, so that a stream can be read alone. The layout: docs/ucv-format.md, section 12.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import CodecError, ConfigError, InputError
from MedEnhanceLib.unicompress.codecs.lossless import (
    CODERS,
    STACKED,
    VARIANTS,
    code_block,
    expected_block,
)
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.decode import FOREIGN_ERRORS, decode_data
from MedEnhanceLib.unicompress.header import DTYPES
from MedEnhanceLib.unicompress.models import DecodeContext

_MAGIC = b"UCB1"
#: Magic, number of the voxel type, block type, K, J, I; the CRC of all other bytes follows.
_HEAD = struct.Struct("<4sBBIII")
_CRC = struct.Struct("<I")
MOST_VOXELS = 1 << 24
Array = npt.NDArray[Any]


def encode_stream(
    array: Array, *, max_error: float | None = None, speed: Speed = "normal"
) -> bytes:
    """Code an array so that `decode_stream` gives it back; proved by decoding it once.

    Args:
        array: of any shape with 1 to 2²⁴ voxels; the last three axes are predicted along.
        max_error: the most that a voxel may be off, in its own units; None or 0 is lossless.
        speed: fast tries fewer block types.
    Raises:
        ConfigError: the bound is negative or not finite.
        InputError: a type that containers do not hold, or too many voxels.
        CodecError: what was coded does not decode to what it should.
    """
    bound = max_error or None
    if bound is not None and not (math.isfinite(bound) and bound > 0):
        raise ConfigError(f"max_error is {max_error}", "Use a number from 0 up, or none.")
    block = np.ascontiguousarray(array).reshape(_extents(array.shape))
    check_array(block.dtype, block.shape)
    variants = (STACKED,) if speed == "fast" else VARIANTS
    code = code_block(block, bound, speed=speed, variants=variants)
    head = _HEAD.pack(_MAGIC, DTYPES.index(block.dtype.str), code.kind, *block.shape)
    data = bytes(code.data)
    stream = head + _CRC.pack(zlib.crc32(data, zlib.crc32(head))) + data
    expected = expected_block(block, bound, code)
    if decode_stream(stream).tobytes() != expected.tobytes():
        raise CodecError(
            "a chunk does not decode to what was coded", "Report this, with the data if possible."
        )
    return stream


def decode_stream(
    stream: bytes, *, dtype: np.dtype[Any] | None = None, shape: tuple[int, ...] | None = None
) -> Array:
    """The array of a stream.

    Args:
        stream: as `encode_stream` gave it.
        dtype: that it must have; None: whatever the stream says.
        shape: that it must have; None: [K, J, I], leading axes joined in K.
    Raises:
        CodecError: damaged, or of another type or shape.
    """
    if len(stream) < _HEAD.size + _CRC.size or stream[:4] != _MAGIC:
        raise CodecError("not a chunk of MedEnhance", "Check which codec wrote the array.")
    _, number, kind, *extents = _HEAD.unpack_from(stream)
    (stated,) = _CRC.unpack_from(stream, _HEAD.size)
    data = stream[_HEAD.size + _CRC.size :]
    if zlib.crc32(data, zlib.crc32(stream[: _HEAD.size])) != stated:
        raise CodecError("a chunk is damaged: its checksum is wrong", "Copy the array again.")
    if number >= len(DTYPES) or kind not in CODERS or not 0 < math.prod(extents) <= MOST_VOXELS:
        raise CodecError(
            f"a chunk of type {number}, block type {kind} and {extents} voxels",
            "Install the MedEnhance that wrote it, or a newer one.",
        )
    found = np.dtype(DTYPES[number])
    wanted = _extents(shape) if shape is not None else tuple(extents)
    if (dtype is not None and dtype != found) or wanted != tuple(extents):
        raise CodecError(
            f"a chunk holds {found} of {extents}, {dtype or found} of {list(wanted)} expected",
            "The array's description does not belong to its chunks: copy it again.",
        )
    try:
        block = decode_data(
            kind, data, (wanted[0], wanted[1], wanted[2]), DecodeContext(found, None)
        )
    except FOREIGN_ERRORS as cause:
        raise CodecError(f"a chunk is damaged: {cause}", "Copy the array again.") from cause
    return block if shape is None else block.reshape(shape)


def check_array(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raise InputError unless an array can be a stream."""
    if dtype.str not in DTYPES:
        raise InputError(
            f"voxels of type {dtype} are not coded",
            "Use bool, integers of up to 64 bits or floats, little-endian.",
        )
    if not 0 < math.prod(shape) <= MOST_VOXELS:
        raise InputError(
            f"a chunk of {math.prod(shape)} voxels",
            f"Use chunks of 1 to {MOST_VOXELS}, for example 64 × 256 × 256.",
        )


def _extents(shape: tuple[int, ...]) -> tuple[int, ...]:
    """K, J, I of an array: leading axes joined, missing ones 1."""
    last = (1, 1, *shape)[-2:]
    return (math.prod(shape[:-2]), *last)
