"""Chunks of zarr arrays as blocks of `.ucv`: a codec of numcodecs (zarr 2) and one of zarr 3.

Both are found by entry points once MedEnhance is installed; nothing else here imports this file.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.streams import check_array, decode_stream, encode_stream

try:
    from numcodecs.abc import Codec
    from numcodecs.compat import ensure_bytes, ndarray_copy
    from zarr.abc.codec import ArrayBytesCodec
except ImportError as cause:
    raise DependencyError(
        "The codecs for zarr need the package zarr, which is not installed",
        "Install it with: python -m pip install 'medenhance[zarr]'",
    ) from cause

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

NAME = "medenhance"


class MedEnhanceNumcodec(Codec):  # type: ignore[misc]
    """For zarr format 2 and whatever else takes codecs of numcodecs.

    Args:
        max_error: the most that a voxel may be off, in its own units; None is lossless.
        speed: normal or fast.
    """

    codec_id: ClassVar[str] = NAME

    def __init__(self, max_error: float | None = None, speed: Speed = "normal") -> None:
        self.max_error, self.speed = max_error, speed

    def encode(self, buf: Any) -> bytes:
        """An array → a stream; raises as `encode_stream`."""
        return encode_stream(np.asarray(buf), max_error=self.max_error, speed=self.speed)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """A stream → its array, [K, J, I], or into `out`; raises as `decode_stream`."""
        found = decode_stream(ensure_bytes(buf))
        return found if out is None else ndarray_copy(found, out)


@dataclass(frozen=True)
class MedEnhanceCodec(ArrayBytesCodec):  # type: ignore[misc]
    """For zarr format 3: in place of `bytes`, with no compressor behind it.

    Args:
        max_error: the most that a voxel may be off, in its own units; None is lossless.
        speed: normal or fast.
    """

    is_fixed_size: ClassVar[bool] = False

    max_error: float | None = None
    speed: Speed = "normal"

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """From the array's metadata."""
        return cls(**data.get("configuration", {}))

    def to_dict(self) -> dict[str, Any]:
        """For the array's metadata."""
        return {
            "name": NAME,
            "configuration": {"max_error": self.max_error, "speed": self.speed},
        }

    def validate(self, *, shape: Any, dtype: Any, chunk_grid: Any) -> None:
        """Raise InputError, when the array is made, for what no chunk could hold."""
        chunk = getattr(chunk_grid, "chunk_shape", shape)
        check_array(dtype.to_native_dtype().newbyteorder("<"), chunk)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        array = np.asarray(chunk_array.as_ndarray_like())
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        stream = await asyncio.to_thread(
            encode_stream, little, max_error=self.max_error, speed=self.speed
        )
        return chunk_spec.prototype.buffer.from_bytes(stream)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        dtype = chunk_spec.dtype.to_native_dtype()
        array = await asyncio.to_thread(
            decode_stream,
            chunk_bytes.to_bytes(),
            dtype=dtype.newbyteorder("<"),
            shape=chunk_spec.shape,
        )
        native = array.astype(dtype, copy=False)
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(native)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known beforehand."""
        raise NotImplementedError

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        """The same for every array."""
        return replace(self)
