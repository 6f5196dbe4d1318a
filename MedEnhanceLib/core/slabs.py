"""Volumes larger than memory should hold: looked at a few slices at a time."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Voxels

#: Volumes from this size on stay in their files where a way through slabs exists.
LARGE_BYTES = 1 << 28
_SLAB_BYTES = 1 << 24
#: A volume of so many voxels that has so few values is no image: of noise alone it has more.
_LEAST_IMAGE, _MOST_LABELS = 4096, 16


def slabs(voxels: Voxels) -> Iterator[Voxels]:
    """Views [n, J, I] of runs of slices, all frames in order, each of about 16 MiB.

    Those of a mapped file leave this process's memory once the next one is asked for.
    """
    for frame in voxels if voxels.ndim == 4 else (voxels,):
        step = max(1, _SLAB_BYTES // frame[0].nbytes)
        for first in range(0, len(frame), step):
            yield frame[first : first + step]
            let_go(voxels)


def let_go(voxels: Voxels) -> None:
    """Drop the pages of a mapped file; they are read again where they are needed again.

    Does nothing for other arrays, and where the system has no such call.
    """
    owner: Any = voxels
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def trim() -> None:
    """Give memory that was freed back to the system; does nothing where it has no such call.

    Encoders free much in many pieces, of which glibc keeps those of a thread for that thread.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def extremes(voxels: Voxels) -> tuple[Any, Any]:
    """Smallest and largest voxel; NaN where one is NaN."""
    ends = [(part.min(), part.max()) for part in slabs(voxels)]
    return np.min([low for low, _ in ends]), np.max([high for _, high in ends])


def looks_like_labels(voxels: Voxels) -> bool:
    """Whether whole numbers take so few values that they are names, not intensities."""
    if voxels.dtype.kind not in "iu" or voxels.size < _LEAST_IMAGE:
        return False
    values: set[int] = set()
    for part in slabs(voxels):
        values.update(np.unique(part).tolist())
        if len(values) > _MOST_LABELS:
            return False
    return len(values) > 1


def every(voxels: Voxels, step: int) -> npt.NDArray[Any]:
    """Each `step`-th voxel in C order, as a copy."""
    samples, first = [], 0
    for part in slabs(voxels):
        samples.append(part.reshape(-1)[-first % step :: step].copy())
        first += part.size
    return np.concatenate(samples)


def blank(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Voxels:
    """An array of that shape and type that takes no memory: stands where voxels come later."""
    return np.broadcast_to(np.zeros((), dtype), shape)
