"""Reads exactly the voxels that a header promises, and says so when a file holds fewer."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import DeviceMemoryError, InputError
from MedEnhanceLib.progress import Monitor

Compression = Literal["none", "gzip", "zlib"]
_WINDOW_BITS = {"gzip": 31, "zlib": 15}
_PIECE = 1 << 20
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


def read_voxels(
    path: Path,
    *,
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    compression: Compression,
    monitor: Monitor,
) -> npt.NDArray[Any]:
    """The array of `shape` that begins `offset` bytes into the (uncompressed) file.

    Raises InputError for a file that is cut short or damaged, before or after the memory is
    taken: a length in a header is checked against the file first.
    """
    expected = payload_bytes(shape, dtype)
    _refuse_impossible(path, path.stat().st_size, offset + expected, compression)
    try:
        voxels = np.empty(shape, dtype)
    except MemoryError as cause:
        raise DeviceMemoryError(
            f"{path.name}: its voxels need {expected / 2**30:.1f} GiB of memory",
            "Close other programs, or crop the volume.",
        ) from cause
    target = voxels.reshape(-1).view(np.uint8).data
    filled, skipped = 0, 0
    with readable(path) as stream:
        for piece in _pieces(stream, path, compression):
            monitor.check()
            skip = min(offset - skipped, len(piece))
            skipped += skip
            wanted = min(len(piece) - skip, expected - filled)
            target[filled : filled + wanted] = piece[skip : skip + wanted]
            filled += wanted
            if filled == expected and compression == "none":
                break
    if filled < expected:
        raise cut_short(path, offset + expected, skipped + filled)
    return voxels


def check_payload(
    path: Path, *, offset: int, expected: int, compression: Compression, monitor: Monitor
) -> None:
    """Raise InputError unless `expected` bytes of voxels follow from byte `offset` of the file.

    A compressed payload is unpacked once, in small pieces, so that its checksum speaks.
    """
    size = path.stat().st_size
    _refuse_impossible(path, size - offset, expected, compression)
    if compression == "none":
        return
    found = 0
    with readable(path) as stream:
        stream.seek(offset)
        for piece in _pieces(stream, path, compression):
            monitor.check()
            found += len(piece)
    if found < expected:
        raise cut_short(path, expected, found)


def payload_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of an array, in Python's own integers: a header's sizes may overflow int64."""
    count = dtype.itemsize
    for size in shape:
        count *= int(size)
    return count


def cut_short(path: Path, expected: int, found: int) -> InputError:
    """The error for a file that ends too early."""
    return InputError(
        f"{path.name} is cut short: its header promises {expected} bytes, it holds {found}",
        "Copy or download the file again.",
    )


def _refuse_impossible(path: Path, size: int, expected: int, compression: Compression) -> None:
    if compression == "none" and size < expected:
        raise cut_short(path, expected, size)
    if size * _LARGEST_RATIO < expected:
        raise cut_short(path, expected, size * _LARGEST_RATIO)


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
                "Copy or download the file again.",
            ) from None
    except zlib.error as cause:
        raise InputError(
            f"{path.name} is damaged: its compressed data does not unpack ({cause})",
            "Copy or download the file again.",
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
