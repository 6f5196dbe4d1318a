"""Reads exactly the voxels that a header promises, and says so when a file holds fewer."""

from __future__ import annotations

import contextlib
import math
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.slabs import LARGE_BYTES, slabs
from MedEnhanceLib.errors import DeviceMemoryError, InputError
from MedEnhanceLib.io.atomic import output_error
from MedEnhanceLib.runtime.progress import Monitor

Compression = Literal["none", "gzip", "zlib"]
_WINDOW_BITS = {"gzip": 31, "zlib": 15}
_PIECE = 1 << 20
_COPY_AGAIN = "Copy or download the file again."
#: Deflate cannot do better; a header that promises more than this is not telling the truth.
_LARGEST_RATIO = 1032


@contextlib.contextmanager
def readable(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for reading; InputError names it where that fails."""
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as cause:
        raise input_error(path, cause) from cause


def input_error(path: Path, cause: OSError) -> InputError:
    """Say why `path` cannot be read, and the remedy."""
    if isinstance(cause, FileNotFoundError | NotADirectoryError):
        return InputError(f"{path} does not exist", "Check the path.")
    if isinstance(cause, PermissionError):
        return InputError(f"{path}: no permission to read it", "Ask its owner for access.")
    return InputError(f"{path} cannot be read: {cause.strerror or cause}", "Copy the file again.")


def compression_of(path: Path) -> Compression:
    """What the file's first bytes say, whatever its name says."""
    with readable(path) as stream:
        return "gzip" if stream.read(2) == b"\x1f\x8b" else "none"


def read_start(path: Path, count: int, compression: Compression = "none") -> bytes:
    """The first `count` bytes, unpacked; fewer where the file ends before."""
    with readable(path) as stream:
        start = b""
        pieces = _pieces(stream, path, compression, strict=False)
        for piece in pieces:
            start += piece
            if len(start) >= count:
                break
    return start[:count]


@dataclass(frozen=True)
class Payload:
    """Where a file keeps its voxels, as its header promises; nothing of it is trusted yet.

    shape: slowest axis first. begin: the byte of the file where the (packed) data begins.
    skip: unpacked bytes from there to the first voxel; a .nii.gz packs its header as well.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    compression: Compression
    begin: int = 0
    skip: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels, in Python's own integers: a header's sizes may overflow int64."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_voxels(
    payload: Payload, monitor: Monitor, scratch: Path | None = None
) -> npt.NDArray[Any]:
    """The voxels, in this machine's byte order.

    scratch: a folder; where it is given, large voxels stay outside memory: they are read from the
    file itself as they are needed, or unpacked into a file without a name in that folder.
    Raises InputError for a file that is cut short or damaged; sizes are held against the file
    before memory is taken for them, and a compressed file is read to its checksum.
    """
    path, expected = payload.path, payload.nbytes
    _refuse_impossible(payload)
    if scratch is not None and expected >= LARGE_BYTES:
        return _on_disk(payload, scratch, monitor)
    voxels = _empty(payload)
    target = voxels.reshape(-1).view(np.uint8).data
    filled, to_skip = 0, payload.skip
    with readable(path) as stream:
        stream.seek(payload.begin)
        for piece in _pieces(stream, path, payload.compression):
            monitor.check()
            used = piece[to_skip : to_skip + expected - filled]
            to_skip = max(0, to_skip - len(piece))
            target[filled : filled + len(used)] = used
            filled += len(used)
            if filled == expected and payload.compression == "none":
                break
    if filled < expected:
        raise _cut_short(path, expected, filled)
    return voxels.astype(payload.dtype.newbyteorder("="), copy=False)


def _on_disk(payload: Payload, scratch: Path, monitor: Monitor) -> npt.NDArray[Any]:
    native = payload.dtype.newbyteorder("=")
    if payload.compression == "none":
        begin = payload.begin + payload.skip
        mapped = np.memmap(payload.path, payload.dtype, "r", begin, payload.shape)
        if payload.dtype.isnative:
            return mapped
        turned = (part.astype(native).tobytes() for part in slabs(mapped))
        return _unpacked_to(scratch, turned, native, payload, monitor)
    with readable(payload.path) as stream:
        stream.seek(payload.begin)
        pieces = _without_start(_pieces(stream, payload.path, payload.compression), payload.skip)
        voxels = _unpacked_to(scratch, pieces, payload.dtype, payload, monitor)
    return voxels if payload.dtype.isnative else voxels.astype(native)


def _without_start(pieces: Iterable[bytes], skip: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[skip:]
        skip = max(0, skip - len(piece))


def _unpacked_to(
    folder: Path,
    pieces: Iterable[bytes],
    dtype: np.dtype[Any],
    payload: Payload,
    monitor: Monitor,
) -> npt.NDArray[Any]:
    """The voxels in a file without a name, gone when the array is."""
    expected, filled = payload.nbytes, 0
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for piece in pieces:
                monitor.check()
                filled += file.write(piece[: expected - filled])
            file.flush()
            if filled < expected:
                raise _cut_short(payload.path, expected, filled)
            return np.memmap(file, dtype, "r", 0, payload.shape)
    except OSError as cause:
        raise output_error(folder / payload.path.name, cause) from cause


def _empty(payload: Payload) -> npt.NDArray[Any]:
    try:
        return np.empty(payload.shape, payload.dtype)
    except (MemoryError, ValueError) as cause:  # ValueError: more than an array can ever have
        raise DeviceMemoryError(
            f"{payload.path.name}: its voxels need {payload.nbytes / 2**30:.1f} GiB of memory",
            "Close other programs, or crop the volume.",
        ) from cause


def _refuse_impossible(payload: Payload) -> None:
    size = payload.path.stat().st_size - payload.begin
    if payload.compression == "none" and size < payload.skip + payload.nbytes:
        raise _cut_short(payload.path, payload.nbytes, max(0, size - payload.skip))
    if size * _LARGEST_RATIO < payload.nbytes:
        raise InputError(
            f"{payload.path.name} is cut short or damaged: its header promises "
            f"{payload.nbytes} bytes of voxels, which {size} compressed bytes cannot hold",
            _COPY_AGAIN,
        )


def _cut_short(path: Path, expected: int, found: int) -> InputError:
    return InputError(
        f"{path.name} is cut short: its header promises {expected} bytes of voxels, "
        f"it holds {found}",
        _COPY_AGAIN,
    )


def _pieces(
    stream: BinaryIO, path: Path, compression: Compression, *, strict: bool = True
) -> Iterator[bytes]:
    if compression == "none":
        while piece := stream.read(_PIECE):
            yield piece
        return
    try:
        yield from _unpacked(stream, _WINDOW_BITS[compression])
    except EOFError:
        if strict:
            raise InputError(
                f"{path.name} is cut short: its compressed data ends too early",
                _COPY_AGAIN,
            ) from None
    except zlib.error as cause:
        raise InputError(
            f"{path.name} is damaged: its compressed data does not unpack ({cause})",
            _COPY_AGAIN,
        ) from cause


def _unpacked(stream: BinaryIO, window_bits: int) -> Iterator[bytes]:
    """Unpack member after member; what follows the last one and is no member is left alone."""
    unpacker = zlib.decompressobj(window_bits)
    packed = stream.read(_PIECE)
    while piece := unpacker.decompress(packed, _PIECE):
        yield piece
        packed = unpacker.unconsumed_tail
        if unpacker.eof:
            packed = unpacker.unused_data or stream.read(_PIECE)
            if not packed.startswith(b"\x1f\x8b"):
                return
            unpacker = zlib.decompressobj(window_bits)
        packed = packed or stream.read(_PIECE)
    if not unpacker.eof:
        raise EOFError
