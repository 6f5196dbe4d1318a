"""Arrays: names of their types, large ones a few slices at a time, interpolation, cosines."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.runtime.tolerance import IfSupported

Array = npt.NDArray[Any]
#: Voxels of a volume, [K, J, I], or of a sequence, [T, K, J, I].
Voxels = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Chars = npt.NDArray[np.int8]
Shorts = npt.NDArray[np.int16]
Words = npt.NDArray[np.uint16]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.intp]
#: Numbers of slices, rows and columns; and a box in a volume, in the same order.
Shape = tuple[int, int, int]
Where = tuple[slice, slice, slice]
#: Rows and columns of a box in slices, and those of all voxels.
Region = tuple[slice, slice]
WHOLE: Region = (slice(None), slice(None))
#: Volumes from this size on stay in their files where they can be processed in slabs.
LARGE_BYTES = 1 << 28
SLAB_BYTES = 1 << 24
#: Slices that pass from stage to stage of a filter at a time, and voxels whose float32 values stay
#: in a processor's cache through several steps.
SLICES_AT_ONCE, _IN_CACHE = 4, 1 << 16
#: A volume with at least this many voxels and at most this many values holds labels: the noise of
#: an image alone gives more values.
_LEAST_IMAGE, _MOST_LABELS = 4096, 16


def interpolated(values: Floats, places: Sequence[Array]) -> Floats:
    """Interpolate linearly on a grid; beyond the outer voxels the values are constant.

    values: [K, J, I]. places: for each axis the positions, in voxels from its first voxel.
    """
    for axis, at in enumerate(places):
        last = values.shape[axis] - 1
        at = np.clip(at, 0, last)
        low = np.minimum(at.astype(np.intp), max(last - 1, 0))
        share = (at - low).astype(np.float32)
        share = share.reshape([-1 if other == axis else 1 for other in range(3)])
        below, above = values.take(low, axis), values.take(np.minimum(low + 1, last), axis)
        values = below + share * (above - below)
    return values


def widened(part: slice, reach: int, side: int) -> slice:
    """Widen a part of an axis.

    Args:
        part: to widen.
        reach: voxels to add at both ends.
        side: voxels of the axis, within which the result stays.
    """
    start, stop, _ = part.indices(side)
    return slice(max(0, start - reach), min(side, stop + reach))


def within(region: Region, outer: Region) -> Region:
    """Return a region as a part of an outer one."""
    rows, columns = (
        slice(part.start - start, part.stop - start)
        for part, start in zip(region, [of.start or 0 for of in outer], strict=True)
    )
    return rows, columns


def cubic_spline(distance: Doubles) -> Doubles:
    """Return the weights of samples by the cubic B-spline; distance: from each, in samples."""
    distance = np.abs(distance)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far)


def cosine_matrix(side: int) -> Doubles:
    """Return the orthonormal cosine transform (DCT-II), [frequencies, samples]."""
    places, frequencies = np.arange(side) + 0.5, np.arange(side)[:, None]
    matrix: Doubles = np.cos(np.pi / side * frequencies * places)
    matrix *= np.sqrt(2 / side)
    matrix[0] /= np.sqrt(2)
    return matrix


def slabs(voxels: Voxels) -> Iterator[Voxels]:
    """Iterate over views [n, J, I] of consecutive slices, about 16 MiB each, all frames in order.

    Slabs of a mapped file leave this process's memory when the next one is requested.
    """
    for frame in voxels if voxels.ndim == 4 else (voxels,):
        step = max(1, SLAB_BYTES // frame[0].nbytes)
        for first in range(0, len(frame), step):
            yield frame[first : first + step]
            let_go(voxels)


def let_go(voxels: Voxels) -> None:
    """Drop the pages of a mapped file from memory, where possible; they are read again on use."""
    owner: Any = voxels
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], scratch: Path | None) -> Voxels:
    """Make an array to be filled.

    Args:
        shape: of the array.
        dtype: of the array.
        scratch: folder for arrays of LARGE_BYTES or more, each in an unnamed file that is removed
            with the array; None: all are in memory, as where files cannot be mapped.
    Raises OSError if there is no space, or no permission.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if scratch is None or nbytes < LARGE_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=scratch) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk would end the process later
            with IfSupported():
                os.posix_fallocate(file.fileno(), 0, nbytes)
        with IfSupported():
            return np.memmap(file, dtype, "w+", 0, shape)
    return np.empty(shape, dtype)


def trim() -> None:
    """Return memory to the system that glibc retains after many small allocations (encoders)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def extremes(voxels: Voxels) -> tuple[Any, Any]:
    """Find the smallest and largest voxel value; NaN if any voxel is NaN."""
    ends = [(part.min(), part.max()) for part in slabs(voxels)]
    return np.min([low for low, _ in ends]), np.max([high for _, high in ends])


def sample_of(voxels: Voxels) -> Array:
    """Return about 200,000 evenly spread voxels, or all of fewer."""
    return voxels.flat[:: max(1, voxels.size // 200_000)]


def foreground(voxels: Array) -> Mask:
    """Mark the voxels above the mean, which finds a head in air; all voxels of a constant."""
    above: Mask = voxels > voxels.mean(dtype=np.float64)
    return above if above.any() else np.ones_like(above)


def robust_max(voxels: Array) -> float:
    """Return the 99.5th percentile of the foreground, in the unit of `voxels`."""
    return float(np.percentile(voxels[foreground(voxels)], 99.5))


def looks_like_labels(voxels: Voxels) -> bool:
    """Return whether voxels are labels: 4096 or more integers with 2 to 16 different values."""
    if voxels.dtype.kind not in "iu" or voxels.size < _LEAST_IMAGE:
        return False
    values: set[int] = set()
    for part in slabs(voxels):
        values.update(np.unique(part).tolist())
        if len(values) > _MOST_LABELS:
            return False
    return len(values) > 1


def parts_of(first: int, end: int, at_once: int | None = None) -> Iterator[slice]:
    """Divide the indices from `first` to `end` into consecutive ranges.

    Args:
        first: index of the first slice.
        end: index after the last slice.
        at_once: slices in a range; None: SLICES_AT_ONCE.
    """
    at_once = at_once or SLICES_AT_ONCE
    for begin in range(first, end, at_once):
        yield slice(begin, min(begin + at_once, end))


def cached_parts(slices: Array) -> Iterator[slice]:
    """Divide slices, [n, J, I], into ranges that stay in a processor's cache, at least one each."""
    return parts_of(0, len(slices), max(1, _IN_CACHE // slices[0].size))
