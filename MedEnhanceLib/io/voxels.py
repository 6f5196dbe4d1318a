"""Voxels of a file: exactly as many as its header declares, rescaled once to intensities.

nibabel and SimpleITK are not used for this. ITK returns garbage for a MetaImage whose compressed
voxels are damaged, and accepts a NRRD file without its checksum; nibabel does not check the
checksum of a .nii.gz; neither can decompress to disk to save memory, or be canceled.
"""

from __future__ import annotations

import contextlib
import errno
import math
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from MedEnhanceLib.core import arrays
from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.errors import DeviceMemoryError, InputError, MissingFileError
from MedEnhanceLib.io.atomic import output_error
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.tolerance import IfSupported

_PIECE = 1 << 20
_COPY_AGAIN = "Copy or download the file again."
#: The largest compression ratio of Deflate: a header that declares more voxels is damaged.
LARGEST_RATIO = 1032
#: For zlib: the data begin with a header of gzip or of zlib.
_ANY_HEADER = zlib.MAX_WBITS | 32
_GZIP = b"\x1f\x8b"


@contextlib.contextmanager
def readable(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for reading; errors of reading or decompressing it become InputErrors."""
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as cause:
        raise input_error(path, cause) from cause
    except zlib.error as cause:
        raise InputError(
            f"{path.name} is damaged: its compressed data cannot be decompressed ({cause})",
            _COPY_AGAIN,
        ) from cause


def refuse_pipe(path: Path) -> None:
    """Raise InputError for a pipe, a socket or a device: reading it might never end."""
    try:
        mode = path.stat().st_mode
    except OSError as cause:
        raise input_error(path, cause) from cause
    except ValueError as cause:
        raise InputError(f"{str(path)!r}: invalid path ({cause})", "Check the path.") from cause
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path} is a pipe or a device", "Give a file or a folder.")


def input_error(path: Path, cause: OSError) -> InputError:
    """Return the error with the reason why `path` cannot be read, and the remedy."""
    if isinstance(cause, FileNotFoundError | NotADirectoryError):
        return MissingFileError(f"{path} does not exist", "Check the path.")
    if isinstance(cause, IsADirectoryError):
        return InputError(f"{path} is a folder", "Name a file inside it.")
    if cause.errno == errno.ENAMETOOLONG:
        return InputError(f"{path.name:.80}…: the name is too long for a file", "Check the path.")
    if isinstance(cause, PermissionError):
        return InputError(f"{path}: no permission to read it", "Ask its owner for access.")
    return InputError(f"{path} cannot be read: {cause.strerror or cause}", "Copy the file again.")


def read_start(path: Path, count: int) -> tuple[bytes, bool]:
    """Return the first `count` bytes, decompressed, and whether the file is compressed by gzip.

    Its first bytes decide that, not its name. A shorter file gives fewer bytes.
    """
    with readable(path) as stream:
        is_packed = stream.read(2) == _GZIP
        stream.seek(0)
        if not is_packed:
            return stream.read(count), False
        start = b""
        with contextlib.suppress(EOFError):
            for piece in _unpacked(stream, count):
                start += piece
                if len(start) >= count:
                    break
        return start[:count], True


@dataclass(frozen=True)
class Payload:
    """The place of a file's voxels, as its header declares; nothing of it is verified yet.

    Attributes:
        path: the file.
        shape: in voxels, slowest axis first.
        dtype: with the file's byte order.
        is_packed: whether the data from `begin` on are compressed, by zlib or gzip.
        begin: the byte of the file where the (compressed) data begins.
        skip: uncompressed bytes from there to the first voxel; a .nii.gz packs its header too.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_packed: bool
    begin: int = 0
    skip: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels, as a Python integer: a header's sizes may overflow int64."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_voxels(payload: Payload, monitor: Monitor, scratch: Path | None = None) -> Voxels:
    """Read the voxels of a payload, in its shape and this machine's byte order.

    Sizes are compared with the file before memory is allocated. A compressed file is read up to its
    checksum. Memory holds the voxels once.

    Args:
        payload: place of the voxels.
        monitor: may cancel, after each MiB.
        scratch: a folder; if given, the voxels of a large file stay on disk: they are read from the
            file itself when they are used, or decompressed into an unnamed file in that folder.
    Raises InputError if the file is cut short or damaged, DeviceMemoryError if the voxels do not
    fit into memory.
    """
    path, begin = payload.path, payload.begin + payload.skip
    size = path.stat().st_size - payload.begin
    if not payload.is_packed and size < payload.skip + payload.nbytes:
        raise _cut_short(payload, max(0, size - payload.skip))
    if size * LARGEST_RATIO < payload.nbytes:
        raise InputError(
            f"{path.name} is cut short or damaged: its header declares {payload.nbytes} bytes of "
            f"voxels, which {size} compressed bytes cannot hold",
            _COPY_AGAIN,
        )
    is_mappable = payload.dtype.isnative and not payload.is_packed
    if scratch is not None and payload.nbytes >= arrays.LARGE_BYTES and is_mappable:
        with IfSupported():
            return np.memmap(path, payload.dtype, "r", begin, payload.shape)
    try:
        voxels = arrays.empty(payload.shape, payload.dtype, scratch)
    except (MemoryError, ValueError) as cause:  # ValueError: more than any array can have
        raise DeviceMemoryError(
            f"{path.name}: its voxels need {payload.nbytes / 2**30:.1f} GiB of memory",
            "Close other programs, or crop the volume.",
        ) from cause
    except OSError as cause:
        raise output_error((scratch or Path()) / path.name, cause) from cause
    _fill(voxels, payload, monitor)
    if payload.dtype.isnative:
        return voxels
    return voxels.byteswap(inplace=True).view(payload.dtype.newbyteorder("="))


def _fill(voxels: Voxels, payload: Payload, monitor: Monitor) -> None:
    """Read the voxels' bytes into an array; InputError if there are too few."""
    target, skip, filled = voxels.reshape(-1).view(np.uint8), payload.skip, 0
    count = payload.skip + payload.nbytes
    with readable(payload.path) as stream:
        stream.seek(payload.begin)
        try:
            for piece in _unpacked(stream, count) if payload.is_packed else _plain(stream, count):
                monitor.check()
                part = np.frombuffer(piece, np.uint8)[skip : skip + payload.nbytes - filled]
                skip = max(0, skip - len(piece))
                target[filled : filled + len(part)] = part
                filled += len(part)
                arrays.let_go(voxels)
        except EOFError:
            raise _cut_short(payload, filled) from None
    if filled < payload.nbytes:  # the file changed meanwhile
        raise _cut_short(payload, filled)


def _cut_short(payload: Payload, size: int) -> InputError:
    return InputError(
        f"{payload.path.name} is cut short: its header declares {payload.nbytes} bytes of voxels, "
        f"it holds {size}{' and no checksum' if size == payload.nbytes else ''}",
        _COPY_AGAIN,
    )


def _plain(stream: BinaryIO, count: int) -> Iterator[bytes]:
    while count > 0 and (piece := stream.read(min(count, _PIECE))):
        count -= len(piece)
        yield piece


def _unpacked(stream: BinaryIO, count: int) -> Iterator[bytes]:
    """Yield at least `count` bytes of zlib or gzip data, up to the checksum after them.

    Raises EOFError if the data end before, zlib.error if they are damaged.
    """
    unpacker, packed = zlib.decompressobj(_ANY_HEADER), b""
    while not unpacker.eof or (packed := _next_member(stream, unpacker.unused_data)):
        if unpacker.eof:
            if count <= 0:
                return
            unpacker = zlib.decompressobj(_ANY_HEADER)
        packed = packed or stream.read(_PIECE)
        if not packed:
            raise EOFError
        piece = unpacker.decompress(packed, _PIECE)
        packed = unpacker.unconsumed_tail
        count -= len(piece)
        yield piece
    if count > 0:
        raise EOFError


def _next_member(stream: BinaryIO, data: bytes) -> bytes:
    """Return the beginning of the next gzip member, after padding zeros; b"" if there is none."""
    while len(data := data.lstrip(b"\0")) < len(_GZIP) and (more := stream.read(_PIECE)):
        data += more
    if data and not data.startswith(_GZIP):
        raise zlib.error("other bytes follow its end")
    return data


#: Types that the formats lack → wider types that hold all of their values.
_WIDER = {"bool": "uint8", "float16": "float32"}


def written_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which files keep voxels of a type: its own, or a wider one."""
    return np.dtype(_WIDER.get(dtype.name, dtype)).newbyteorder("=")


_INTEGERS = tuple(np.dtype(name) for name in ("int16", "uint16", "int32", "uint32", "int64"))
#: Whole slopes and intercepts from this size on are treated as floats.
_LARGEST_WHOLE = 2.0**62


def rescale_slices(
    slices: Voxels,
    slopes: Sequence[float],
    intercepts: Sequence[float],
    *,
    overwrite: bool = False,
) -> Voxels:
    """Rescale stored numbers to intensities: stored × slope + intercept, rounded once.

    Example: int16 with slope 1 and intercept -1024 stays int16; with slope 0.5 it becomes float32.

    Args:
        slices: [K, J, I]; returned as they are if every slope is 1 and every intercept 0.
        slopes: one for each slice.
        intercepts: one for each slice.
        overwrite: whether the result may take the memory of `slices`, where its integers fit there.
    Returns [K, J, I] in one type: of whole slopes and intercepts the smallest integers that hold
    every value, beginning with int16; else float32, or float64 where float32 would merge values:
    of stored numbers of more than 16 bits, and of a slope that is small against the intercept.
    """
    if all(slope == 1 and shift == 0 for slope, shift in zip(slopes, intercepts, strict=True)):
        return slices
    dtype = _target_type(slices, slopes, intercepts)
    fits = dtype.kind in "iu" and dtype.itemsize == slices.dtype.itemsize
    result = slices.view(dtype) if overwrite and fits else np.empty(slices.shape, dtype)
    if dtype.kind in "iu":  # modulo 2ⁿ, in place: exact, because the result fits
        words = result.view(f"u{dtype.itemsize}")
        modulus = 1 << 8 * dtype.itemsize
        for part, slope, shift, out in zip(slices, slopes, intercepts, words, strict=True):
            out[...] = part
            if slope != 1:
                out *= words.dtype.type(int(slope) % modulus)
            out += words.dtype.type(int(shift) % modulus)
    else:  # in float64, rounded once
        for part, slope, shift, out in zip(slices, slopes, intercepts, result, strict=True):
            with np.errstate(over="ignore"):  # the caller refuses infinities
                out[...] = part * np.float64(slope) + np.float64(shift)
    return result


def rescale(voxels: Voxels, slope: float, intercept: float) -> Voxels:
    """Rescale as `rescale_slices`, by one slope and intercept for all voxels.

    Args:
        voxels: [..., J, I].
        slope: of all voxels: intensity = stored × slope + intercept.
        intercept: of all voxels.
    """
    slices = voxels.reshape(-1, *voxels.shape[-2:])
    count = len(slices)
    return rescale_slices(slices, [slope] * count, [intercept] * count).reshape(voxels.shape)


def _target_type(
    slices: Voxels, slopes: Sequence[float], intercepts: Sequence[float]
) -> np.dtype[Any]:
    stored = slices.dtype
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
    if stored.itemsize > 2:
        return np.dtype(np.float64)
    stored_most = float(max(-np.iinfo(stored).min, np.iinfo(stored).max))
    most = stored_most * max(map(abs, slopes)) + max(map(abs, intercepts))
    step = np.spacing(np.float32(min(most, 1e38)))  # of larger values it would overflow
    return np.dtype(np.float32 if step <= min(map(abs, slopes)) / 2 else np.float64)
