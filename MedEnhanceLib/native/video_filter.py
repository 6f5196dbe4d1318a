"""The filter of decoded videos in compiled code, for unicompress/codecs/video/wiener.py.

The C functions trust their pointers, so all arrays are checked here before a call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Array, Bytes, Chars, Ints, Shorts, Words

#: As in video_filter.c: voxels that are computed together, and reach of taps in plane and across.
LANES, REACH, DEPTH = 32, 3, 2
_SLICES = 2 * DEPTH + 1
_LARGEST = 4095

_SIZES = ("bytes", "height", "width", "stride", "classes", "taps", "limits")
_POINTERS = ("bounds", "place", "tap", "limit", "weight", "total", "sums")


class _FilterTask(ctypes.Structure):
    """Structure `filter_task` of video_filter.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _SIZES),
        ("slices", ctypes.c_void_p * _SLICES),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    )


class CompiledFilter:
    """Compiled functions for slices of one size; each thread needs its own object."""

    def __init__(self, height: int, width: int, library: native.Library) -> None:
        """Allocate for slices of `height` × `width` voxels."""
        self._library = library
        wide = -(-width // LANES) * LANES
        self._shape, self._padded = (height, width), (height + 2 * REACH, wide + 2 * REACH)
        self._place = np.zeros((height, wide), np.uint8)
        self._room = np.zeros((2, height, wide), np.int32)

    def padded(self, image: Words) -> Shorts:
        """Pad a slice [H, W], 0 to 4095, by its edge values, as the functions require."""
        if image.shape != self._shape or int(image.max()) > _LARGEST:
            raise ValueError(f"a slice of {image.shape} up to {int(image.max())}")
        missing = self._padded[1] - 2 * REACH - self._shape[1]
        sides = (REACH, REACH), (REACH, missing + REACH)
        return np.pad(image, sides, mode="edge").astype(np.int16)

    def classes(self, window: Sequence[Shorts], bounds: Sequence[int]) -> Bytes:
        """Classify each voxel of the middle one of five padded slices, [H, W].

        bounds: at most 15, not decreasing: least activities of the classes after the first.
        """
        array = np.asarray(bounds, np.int32)  # referenced until the call returns
        task = self._task(window, classes=len(bounds) + 1, taps=0, limits=0)
        task.bounds, task.sums = array.ctypes.data, self._room.ctypes.data
        self._run("filter_classes", task)
        return self._place[:, : self._shape[1]]

    def sums(
        self,
        window: Sequence[Shorts],
        place: Bytes,
        taps: Sequence[tuple[int, int, int]],
        limits: Sequence[int],
        weights: Chars,
    ) -> Ints:
        """Sum differences to the middle one of five padded slices, weighted by class, [H, W].

        Args:
            window: five padded slices.
            place: the class of each voxel, [H, W].
            taps: at most 26: offsets in slices, rows and columns; each includes the opposite one.
            limits: at most 3, not increasing: that differences are clipped to.
            weights: [taps · limits, classes].
        Raises ValueError: an argument does not fit the others.
        """
        classes = weights.shape[1]
        fits = (
            weights.shape[0] == len(taps) * len(limits)
            and weights.dtype == np.int8
            and all(1 <= limit <= 1 << 14 for limit in limits)
            and place.shape == self._shape
            and int(place.max()) < classes
        )
        if not fits:
            raise ValueError(f"weights {weights.shape} for {len(taps)} taps, {len(limits)} limits")
        if not weights.size:
            return np.zeros(self._shape, np.int32)
        self._place[:, : self._shape[1]] = place
        self._place[:, self._shape[1] :] = 0
        total = np.empty(self._shape, np.int32)
        arrays: list[Array] = [
            np.asarray(taps, np.int32),
            np.asarray(limits, np.int32),
            np.ascontiguousarray(weights),
            total,
        ]
        task = self._task(window, classes=classes, taps=len(taps), limits=len(limits))
        task.tap, task.limit, task.weight, task.total = (array.ctypes.data for array in arrays)
        self._run("filter_sums", task)
        return total

    def _run(self, name: str, task: _FilterTask) -> None:
        if self._library.call(name, task):
            raise ValueError("the compiled filter refuses its arguments")

    def _task(self, window: Sequence[Shorts], **sizes: int) -> Any:
        fits = len(window) == _SLICES and all(
            padded.shape == self._padded and padded.dtype == np.int16 and padded.flags.c_contiguous
            for padded in window
        )
        if not fits:
            raise ValueError("slices were not made by `padded`")
        height, width = self._shape
        task = _FilterTask(ctypes.sizeof(_FilterTask), height, width, self._padded[1], **sizes)
        task.slices = (ctypes.c_void_p * _SLICES)(*(padded.ctypes.data for padded in window))
        task.place = self._place.ctypes.data
        return task
