"""Voxels of a file: exactly as many as its header declares, rescaled once to intensities."""

from __future__ import annotations

import contextlib
import errno
import gzip
import math
import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
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
_PIECE = 1 << 20
_COPY_AGAIN = "Copy or download the file again."
#: Deflate cannot do better: a header that declares more than this is damaged.
_LARGEST_RATIO = 1032


@contextlib.contextmanager
def readable(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for reading; raise InputError with its name if that fails."""
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as cause:
        raise input_error(path, cause) from cause


def refuse_pipe(path: Path) -> None:
    """Raise InputError for a pipe, a socket or a device: reading it might wait for ever."""
    try:
        mode = path.stat().st_mode
    except OSError as cause:
        raise input_error(path, cause) from cause
    except ValueError as cause:
        raise InputError(f"{str(path)!r} is no path: {cause}", "Check the path.") from cause
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path} is a pipe or a device", "Give a file or a folder.")


@contextlib.contextmanager
def utf8_name(path: Path) -> Iterator[str]:
    """A name of a file, in UTF-8, for libraries that take no other and end the process at one.

    Args:
        path: of a file that is there.
    Yields:
        Its path; else that of a link to it, while the context lasts.
    """
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / f"file{path.suffix}"
            link.symlink_to(path.absolute())
            yield str(link)
    else:
        yield str(path)


def input_error(path: Path, cause: OSError) -> InputError:
    """Say why `path` cannot be read, and the remedy."""
    if isinstance(cause, FileNotFoundError | NotADirectoryError):
        return InputError(f"{path} does not exist", "Check the path.")
    if isinstance(cause, IsADirectoryError):
        return InputError(f"{path} is a folder", "Name a file inside it.")
    if cause.errno == errno.ELOOP:
        return InputError(f"{path} is a link that leads to itself", "Name a file.")
    if cause.errno == errno.ENAMETOOLONG:
        return InputError(f"{path.name:.80}…: the name is too long for a file", "Check the path.")
    if isinstance(cause, PermissionError):
        return InputError(f"{path}: no permission to read it", "Ask its owner for access.")
    return InputError(f"{path} cannot be read: {cause.strerror or cause}", "Copy the file again.")


def compression_of(path: Path) -> Compression:
    """Decided by the file's first bytes, not by its name."""
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
    """Where a file keeps its voxels, as its header declares; nothing of it is verified yet.

    Attributes:
        path: the file.
        shape: in voxels, slowest axis first.
        dtype: with the file's byte order.
        compression: of the data from `begin` on.
        begin: the byte of the file where the (compressed) data begins.
        skip: uncompressed bytes from there to the first voxel; a .nii.gz packs its header too.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    compression: Compression
    begin: int = 0
    skip: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels, as a Python integer: a header's sizes may overflow int64."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_voxels(
    payload: Payload, monitor: Monitor, scratch: Path | None = None
) -> npt.NDArray[Any]:
    """Read the voxels, in this machine's byte order.

    Sizes are compared with the file before memory is taken for them. A compressed file is read up
    to its checksum. The voxels are in memory once.

    Args:
        payload: where they are, as the header declares.
        monitor: may cancel, after each MiB.
        scratch: a folder; if given, large voxels stay outside memory: they are read from the file
            itself as they are needed, or unpacked into an unnamed file in that folder.
    Returns:
        The voxels, of the payload's shape.
    Raises:
        InputError: the file is cut short or damaged.
        DeviceMemoryError: they do not fit into memory.
    """
    _refuse_impossible(payload)
    if scratch is not None and payload.nbytes >= LARGE_BYTES:
        return _on_disk(payload, scratch, monitor)
    voxels = _empty(payload)
    target, filled = voxels.reshape(-1).view(np.uint8).data, 0
    for piece in _voxel_bytes(payload, monitor):
        target[filled : filled + len(piece)] = piece
        filled += len(piece)
    if payload.dtype.isnative:
        return voxels
    return voxels.byteswap(inplace=True).view(payload.dtype.newbyteorder("="))


def _on_disk(payload: Payload, scratch: Path, monitor: Monitor) -> npt.NDArray[Any]:
    """The voxels in the file itself, or in an unnamed file that is removed with the array."""
    native = payload.dtype.newbyteorder("=")
    if payload.compression == "none":
        begin = payload.begin + payload.skip
        mapped = np.memmap(payload.path, payload.dtype, "r", begin, payload.shape)
        if payload.dtype.isnative:
            return mapped
        swapped = (part.astype(native).tobytes() for part in slabs(mapped))
        return _unpacked_to(scratch, swapped, native, payload, monitor)
    voxels = _unpacked_to(scratch, _voxel_bytes(payload, monitor), payload.dtype, payload, monitor)
    return voxels if payload.dtype.isnative else voxels.astype(native)


def _unpacked_to(
    folder: Path,
    pieces: Iterable[bytes],
    dtype: np.dtype[Any],
    payload: Payload,
    monitor: Monitor,
) -> npt.NDArray[Any]:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for piece in pieces:
                monitor.check()
                file.write(piece)
            file.flush()
            return np.memmap(file, dtype, "r", 0, payload.shape)
    except OSError as cause:
        raise output_error(folder / payload.path.name, cause) from cause


def _voxel_bytes(payload: Payload, monitor: Monitor) -> Iterator[bytes]:
    """The bytes of the voxels, up to the checksum; InputError if there are too few."""
    missing, skip = payload.nbytes, payload.skip
    with readable(payload.path) as stream:
        stream.seek(payload.begin)
        for piece in _pieces(stream, payload.path, payload.compression):
            monitor.check()
            used = piece[skip : skip + missing]
            skip = max(0, skip - len(piece))
            missing -= len(used)
            yield used
            if not missing and payload.compression == "none":
                break
    if missing:
        raise _cut_short(payload.path, payload.nbytes, payload.nbytes - missing)


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
            f"{payload.path.name} is cut short or damaged: its header declares "
            f"{payload.nbytes} bytes of voxels, which {size} compressed bytes cannot hold",
            _COPY_AGAIN,
        )


def _cut_short(path: Path, expected: int, found: int) -> InputError:
    return InputError(
        f"{path.name} is cut short: its header declares {expected} bytes of voxels, "
        f"it holds {found}",
        _COPY_AGAIN,
    )


def _pieces(
    stream: BinaryIO, path: Path, compression: Compression, *, strict: bool = True
) -> Iterator[bytes]:
    try:
        yield from _unpacked(stream, compression)
    except EOFError:
        if strict:
            raise InputError(
                f"{path.name} is cut short: its compressed data ends too early",
                _COPY_AGAIN,
            ) from None
    except (gzip.BadGzipFile, zlib.error) as cause:
        raise InputError(
            f"{path.name} is damaged: its compressed data does not unpack ({cause})",
            _COPY_AGAIN,
        ) from cause


def _unpacked(stream: BinaryIO, compression: Compression) -> Iterator[bytes]:
    """Plain bytes, up to the checksum; EOFError where compressed data end before it."""
    if compression == "none":
        while piece := stream.read(_PIECE):
            yield piece
    elif compression == "gzip":
        # read1: what was unpacked before the end of a truncated file, such as a header, counts.
        unpacked = gzip.GzipFile(fileobj=stream, mode="rb")
        while piece := unpacked.read1(_PIECE):
            yield piece
    else:
        unpacker = zlib.decompressobj()
        while not unpacker.eof:
            packed = unpacker.unconsumed_tail or stream.read(_PIECE)
            piece = unpacker.decompress(packed, _PIECE)
            if not packed and not piece:
                raise EOFError
            yield piece


_INTEGERS = tuple(np.dtype(name) for name in ("int16", "uint16", "int32", "uint32", "int64"))
#: Whole slopes and intercepts from here on are dealt with as floats.
_LARGEST_WHOLE = 2.0**62


def rescale_slices(
    slices: Sequence[npt.NDArray[Any]] | npt.NDArray[Any],
    slopes: Sequence[float],
    intercepts: Sequence[float],
) -> npt.NDArray[Any]:
    """Rescale stored numbers to intensities: stored × slope + intercept, rounded once.

    Example: int16 with slope 1 and intercept -1024 stays int16; with slope 0.5 it becomes float32.

    Args:
        slices: [J, I] each, or one array [K, J, I], which is returned as it is if every slope is
            1 and every intercept 0.
        slopes: one for each slice.
        intercepts: one for each slice.
    Returns:
        [K, J, I] in one type: of whole slopes and intercepts the smallest integers that hold every
        value, beginning with int16; else float32, or float64 if the stored numbers have more than
        16 bits.
    """
    stored = np.result_type(*[part.dtype for part in slices])
    if all(slope == 1 and shift == 0 for slope, shift in zip(slopes, intercepts, strict=True)):
        if isinstance(slices, np.ndarray):
            return slices
        return np.stack([part.astype(stored, copy=False) for part in slices])
    dtype = _target_type(stored, slices, slopes, intercepts)
    result = np.empty((len(slices), *slices[0].shape), dtype)
    for part, slope, shift, out in zip(slices, slopes, intercepts, result, strict=True):
        if dtype.kind in "iu":  # the result fits: overflows on the way cancel out
            out[...] = part.astype(np.int64) * int(slope) + int(shift)
        else:  # in float64, rounded once
            with np.errstate(over="ignore"):  # the caller refuses infinities
                out[...] = part * np.float64(slope) + np.float64(shift)
    return result


def _target_type(
    stored: np.dtype[Any],
    slices: Sequence[npt.NDArray[Any]] | npt.NDArray[Any],
    slopes: Sequence[float],
    intercepts: Sequence[float],
) -> np.dtype[Any]:
    if stored.kind == "f":
        return stored
    numbers = (*slopes, *intercepts)
    if all(float(number).is_integer() and abs(number) < _LARGEST_WHOLE for number in numbers):
        ends = [
            int(end) * int(slope) + int(shift)
            for part, slope, shift in zip(slices, slopes, intercepts, strict=True)
            for end in (part.min(), part.max())
        ]
        for dtype in _INTEGERS:
            if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
                return dtype
    return np.dtype(np.float32 if stored.itemsize <= 2 else np.float64)
