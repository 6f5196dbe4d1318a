"""Blocks in a given number of bytes: SPERR's wavelet and embedded coder, any prefix decodes.

SPERR's library trusts its input: a damaged size field aborts the process or reads past its
buffer. So none of its size fields are stored. A chunk holds mean, step, bit planes and bits;
the stream that the library is given is built around them here, with the sizes known from the
block, and with room behind the bits for all that one pass can read.
Floating point: two machines may differ in the last bit, so nothing exact is built on it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.unicompress.codecs.lossless import Shape, codecs
from MedEnhanceLib.unicompress.spool import Bytes

Floats = npt.NDArray[np.floating[Any]]

_KEPT = struct.Struct("<ddB")  # mean, quantizer step, bit planes
HEAD_BYTES = _KEPT.size
_VOLUME_HEADER = struct.Struct("<BBIIII")  # version, flags, extents i, j, k, bytes that follow
_IMAGE_HEADER_BYTES = 10
_STREAM_HEADER = struct.Struct("<BddBQ")  # conditioner flags, mean, step, bit planes, bits
_SINGLE, _DOUBLE = 0x60, 0x40  # flags: three-dimensional, one piece, float32 or not
_MEAN_REMOVED, _CONSTANT = 0x80, 0x01
_MOST_PLANES = 64
#: Squares of larger values, summed, come near the end of what a double holds.
_LARGEST = 1e30
#: A block of four million voxels takes about 150 MB while it is coded.
MOST_THREADS = 8


@dataclass(frozen=True)
class Stream:
    """A block's code: `head` and as many of the first `bits` as one likes."""

    head: bytes
    bits: Bytes

    def __len__(self) -> int:
        return len(self.head) + len(self.bits)

    def prefix(self, size: int) -> bytes:
        """The first `size` bytes, ready to be a chunk."""
        return self.head + self.bits[: max(size - len(self.head), 0)]


def working_type(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """float32 where it holds every value of `dtype`, else float64."""
    small = dtype.itemsize <= 2 or dtype == np.float32
    return np.float32 if small else np.float64


def encode(block: Floats, bits_per_voxel: float) -> Stream:
    """Code a finite block that is not constant, [K, J, I]; `block` is of `working_type`."""
    image = np.ascontiguousarray(block).reshape(_squeezed_shape(block.shape))
    raw = codecs().sperr_encode(image, bits_per_voxel, "bpp", numthreads=1)
    start = _VOLUME_HEADER.size if image.ndim == 3 else _IMAGE_HEADER_BYTES
    flags, mean, step, planes, _ = _STREAM_HEADER.unpack_from(raw, start)
    if flags != _MEAN_REMOVED:
        raise RuntimeError(f"SPERR wrote a stream of another kind ({flags:#x})")
    return Stream(_KEPT.pack(mean, step, planes), raw[start + _STREAM_HEADER.size :])


def decode(data: bytes, shape: Shape, dtype: type[np.floating[Any]]) -> Floats:
    """The block of a chunk, [K, J, I]; raises ValueError for bytes that cannot be."""
    mean, step, planes = _KEPT.unpack_from(data)
    bits = data[_KEPT.size :]
    if not (math.isfinite(mean) and math.isfinite(step) and step > 0 and planes <= _MOST_PLANES):
        raise ValueError(f"mean {mean}, step {step}, {planes} bit planes")
    if not bits or not planes:
        return np.full(shape, mean, dtype)
    image = np.empty(_squeezed_shape(shape), dtype)
    # One pass reads at most two bits for each voxel and one for each set of eight; the library
    # does not look where its buffer ends, so the buffer is made larger than that.
    room = 8 * len(bits) + 4 * image.size + 1024
    stream = _STREAM_HEADER.pack(_MEAN_REMOVED, mean, step, planes, room) + bits
    if image.ndim == 3:
        kind = _SINGLE if dtype is np.float32 else _DOUBLE
        header = _VOLUME_HEADER.pack(0, kind, *image.shape[::-1], len(stream))
        codecs().sperr_decode(header + stream, out=image, numthreads=1)
    else:
        codecs().sperr_decode(stream, out=image, header=False, numthreads=1)
    if not np.isfinite(image).all():
        raise ValueError("values that are not finite")
    return image.reshape(shape)


def fits(block: Voxels) -> bool:
    """Whether the wavelet can code this block: two axes or more, not constant, none too large."""
    if len(_squeezed_shape(block.shape)) < 2:
        return False
    low, high = float(block.min()), float(block.max())
    return bool(-_LARGEST < low < high < _LARGEST)


def _squeezed_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(extent for extent in shape if extent > 1)
