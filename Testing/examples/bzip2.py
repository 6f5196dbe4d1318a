"""Coder of indices by bzip2: their bytes, grouped by significance."""

from __future__ import annotations

import bz2
import math
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Shape
from MedEnhanceLib.unicompress.codecs.integers import Indices
from MedEnhanceLib.unicompress.config import Speed

BZIP2 = 2


def encode_bzip2(indices: Indices, speed: Speed) -> bytes:
    """Code indices, with less memory where time counts."""
    columns = np.ascontiguousarray(indices).view(np.uint8).reshape(-1, indices.dtype.itemsize)
    return bz2.compress(columns.T.tobytes(), 1 if speed == "fast" else 9)


def decode_bzip2(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Indices:
    """Decode what `encode_bzip2` coded; ValueError if the data are invalid.

    Args:
        data: of the chunk, after its record.
        shape: of the block, [K, J, I].
        dtype: of the indices.
    """
    unpacker, size = bz2.BZ2Decompressor(), math.prod(shape) * dtype.itemsize
    try:
        plain = unpacker.decompress(data, size + 1)
    except OSError as cause:
        raise ValueError(f"bzip2: damaged ({cause})") from cause
    if len(plain) != size or not unpacker.eof or unpacker.unused_data:
        raise ValueError("bzip2: not the size of the block")
    columns = np.frombuffer(plain, np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(columns.T).view(dtype).reshape(shape)
