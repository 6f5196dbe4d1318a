"""The lossless coders of a block's indices: one literal table, id → coder.

The ids are part of the format: never given to anything else. Free ids: 8 to 15 for classical
coders; 16 and on for those that need a model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.unicompress import interslice
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.integers import Indices

Shape = tuple[int, int, int]
Encode = Callable[[Indices, Speed], "bytes | None"]
Decode = Callable[[bytes, Shape, np.dtype[Any]], Indices]

_EFFORT = {"normal": 7, "fast": 3, "slow": 7}
_ZSTD_LEVEL = {"normal": 9, "fast": 3, "slow": 9}
#: Measured: on labels and masks the highest level wins 30 %, and is fast; on noise neither.
_ZSTD_BEST = 19
_COMPRESSIBLE = 8.0
_INTERSLICE = struct.Struct("<i9h")


@dataclass(frozen=True)
class Coder:
    """name: for reports; package: what its codec comes from.

    encode: indices [K, J, I] → bytes, None where the coder does not fit them.
    decode: the inverse; shape and type are known, no size in the bytes is believed.
    """

    name: str
    package: str
    encode: Encode
    decode: Decode


def codecs(purpose: str = "Compression") -> ModuleType:
    """The package imagecodecs, or a DependencyError that says how to get it."""
    return require("imagecodecs", purpose=purpose)


def _encode_constant(indices: Indices, _speed: Speed) -> bytes | None:
    return None if indices.any() else b""


def _decode_constant(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Indices:
    if data:
        raise ValueError(f"{len(data)} bytes too many")
    return np.zeros(shape, dtype)


def _encode_zstd(indices: Indices, speed: Speed) -> bytes | None:
    """Of plain and of differences along i, bytes of equal weight together; the smaller one."""
    zstandard = require("zstandard", purpose="Compression")
    shuffled = [_shuffle(indices), _shuffle(_differences(indices))]

    def packed(choice: int, level: int) -> bytes:
        packer = zstandard.ZstdCompressor(level=level, write_checksum=False)
        return bytes([choice]) + bytes(packer.compress(shuffled[choice]))

    best = min((packed(choice, _ZSTD_LEVEL[speed]) for choice in (0, 1)), key=len)
    if speed != "fast" and len(best) * _COMPRESSIBLE < indices.nbytes:
        best = min(best, packed(0, _ZSTD_BEST), packed(1, _ZSTD_BEST), key=len)
    return best


def _decode_zstd(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Indices:
    zstandard = require("zstandard", purpose="Decompression")
    expected = int(np.prod(shape)) * dtype.itemsize
    try:
        if zstandard.frame_content_size(data[1:]) != expected:
            raise ValueError("zstd: not the size of the block")
        plain = zstandard.ZstdDecompressor().decompress(data[1:], max_output_size=expected)
    except zstandard.ZstdError as cause:
        raise ValueError(f"zstd: {cause}") from cause
    columns = np.frombuffer(plain, np.uint8).reshape(dtype.itemsize, -1)
    indices = np.ascontiguousarray(columns.T).view(dtype).reshape(shape)
    if data[0] == 1:
        return _undo_differences(indices)
    if data[0] == 0:
        return indices
    raise ValueError(f"zstd: unknown filter {data[0]}")


def _differences(indices: Indices) -> Indices:
    """Along i, wrapping around, the sign in the lowest bit: 0, −1, 1, −2 … → 0, 1, 2, 3 …"""
    steps = np.diff(indices, axis=-1, prepend=indices.dtype.type(0))
    signed = steps.view(f"i{steps.dtype.itemsize}")
    folded: Indices = ((signed << 1) ^ (signed >> (8 * steps.dtype.itemsize - 1))).view(steps.dtype)
    return folded


def _undo_differences(folded: Indices) -> Indices:
    one = folded.dtype.type(1)
    steps = (folded >> one) ^ (~(folded & one) + one)
    return np.cumsum(steps, axis=-1, dtype=folded.dtype)


def _shuffle(indices: Indices) -> bytes:
    columns = np.ascontiguousarray(indices).view(np.uint8).reshape(-1, indices.dtype.itemsize)
    return columns.T.tobytes()


def _encode_jpegls(indices: Indices, _speed: Speed) -> bytes | None:
    if indices.dtype.itemsize > 2 or max(_stacked(indices).shape) > 65535:
        return None
    # Noise takes more than it had; the package's own guess of the room is too small for it.
    room = 2 * indices.nbytes + 4096
    return bytes(codecs().jpegls_encode(_stacked(indices), out=room))


def _decode_jpegls(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Indices:
    out = np.empty((shape[0] * shape[1], shape[2]), dtype)
    codecs().jpegls_decode(data, out=out)
    return out.reshape(shape)


def _encode_stacked(indices: Indices, speed: Speed) -> bytes | None:
    """JPEG XL of the slices one below the other: one model for the block."""
    return _encode_jpegxl(_stacked(indices), speed) if indices.dtype.itemsize <= 2 else None


def _decode_stacked(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Indices:
    out = np.empty((shape[0] * shape[1], shape[2]), dtype)
    return _decode_jpegxl(data, out).reshape(shape)


def _encode_channels(indices: Indices, speed: Speed) -> bytes | None:
    """JPEG XL of the slices as channels: its model may look at the slices before."""
    if indices.dtype.itemsize > 2 or len(indices) < 2:
        return None
    return _encode_jpegxl(indices, speed, photometric="gray", planar=True)


def _decode_channels(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Indices:
    return _decode_jpegxl(data, np.empty(shape, dtype))


def _encode_interslice(indices: Indices, speed: Speed) -> bytes | None:
    """JPEG XL of what is left when each slice is predicted from the one before."""
    if indices.dtype.itemsize > 2 or len(indices) < 2:
        return None
    weights = interslice.fit_weights(indices)
    residual = interslice.subtract(indices, weights)
    low, high = int(residual.min()), int(residual.max())
    if not weights.any() or high - low > 0xFFFF:
        return None
    shifted = (residual - low).astype(np.min_scalar_type(high - low))
    code = _encode_jpegxl(_stacked(shifted), speed)
    return _INTERSLICE.pack(low, *weights.tolist()) + bytes([shifted.dtype.itemsize]) + code


def _decode_interslice(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Indices:
    low, *weights = _INTERSLICE.unpack_from(data)
    if data[_INTERSLICE.size] not in (1, 2):
        raise ValueError("residuals of neither one byte nor two")
    width = np.dtype(f"u{data[_INTERSLICE.size]}")
    residual = _decode_stacked(data[_INTERSLICE.size + 1 :], shape, width)
    wide = residual.astype(np.int32) + np.int32(low)
    return interslice.add(wide, np.array(weights, np.int32)).astype(dtype)


def _stacked(indices: Indices) -> Indices:
    return np.ascontiguousarray(indices).reshape(-1, indices.shape[-1])


def _encode_jpegxl(image: Indices, speed: Speed, **layout: Any) -> bytes:
    return bytes(
        codecs().jpegxl_encode(image, lossless=True, effort=_EFFORT[speed], numthreads=1, **layout)
    )


def _decode_jpegxl(data: bytes, out: Indices) -> Indices:
    # `out` fixes shape and type: a codestream that claims others is refused before it allocates.
    codecs().jpegxl_decode(data, out=out, numthreads=1)
    return out


CONSTANT, ZSTD, JPEGLS, STACKED, CHANNELS, INTERSLICE, WAVELET, VIDEO = range(8)
#: Blocks of the learned predictor: indices too, but its coder needs the file's model.
LEARNED = 16
#: The implicit network; the only type with layers of refinement.
IMPLICIT = 17
#: Block types that are not in the table below: id → name and package.
VOXEL_TYPES = {
    WAVELET: ("wavelet (SPERR)", "imagecodecs"),
    VIDEO: ("video (AV1)", "imagecodecs"),
    LEARNED: ("learned", "safetensors"),
    IMPLICIT: ("implicit", "torch"),
}
CODERS: dict[int, Coder] = {
    CONSTANT: Coder("constant", "numpy", _encode_constant, _decode_constant),
    ZSTD: Coder("zstd", "zstandard", _encode_zstd, _decode_zstd),
    JPEGLS: Coder("jpeg-ls", "imagecodecs", _encode_jpegls, _decode_jpegls),
    STACKED: Coder("jpeg-xl", "imagecodecs", _encode_stacked, _decode_stacked),
    CHANNELS: Coder("jpeg-xl-channels", "imagecodecs", _encode_channels, _decode_channels),
    INTERSLICE: Coder("jpeg-xl-interslice", "imagecodecs", _encode_interslice, _decode_interslice),
}
#: The variants of JPEG XL: costly, so that most blocks try one of them only.
VARIANTS = (STACKED, CHANNELS, INTERSLICE)


def block_type_name(kind: int) -> str:
    """For reports; ids that this version does not know are told as such."""
    if kind in VOXEL_TYPES:
        return VOXEL_TYPES[kind][0]
    return CODERS[kind].name if kind in CODERS else f"unknown type {kind}"


def block_type_package(kind: int) -> str | None:
    """What must be installed to decode a block of this type; None for an unknown type."""
    if kind in VOXEL_TYPES:
        return VOXEL_TYPES[kind][1]
    return CODERS[kind].package if kind in CODERS else None
