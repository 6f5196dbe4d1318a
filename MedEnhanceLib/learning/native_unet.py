"""A residual U-Net in C (native/unet.c), for inference on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Array, Floats

_MOST_LEVELS = 6
#: Bytes of a line of the processor's cache, at whose multiples its memory starts.
_LINE = 64


class _UNetTask(ctypes.Structure):
    """Structure `unet_task` of unet.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("bytes", "channels", "rows", "columns")),
        *((name, ctypes.c_int64) for name in ("levels", "depth")),
        ("widths", ctypes.c_int64 * _MOST_LEVELS),
        ("weights", ctypes.c_void_p),
        ("weight_count", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("input", "change", "memory")),
        *((name, ctypes.c_int64) for name in ("size", "is_laid_out")),
    )


class NativeUNet:
    """A network; thread-safe.

    Memory for one image, with its weights, is kept for the next one of the same size.

    Attributes:
        channels, widths, depth: as in `ResidualUNet`.
        multiple: to which images are filled up.
        reach: pixels to each side, at most, that a pixel of the change depends on.
    """

    def __init__(
        self,
        weights: Mapping[str, Array],
        channels: int,
        widths: Sequence[int],
        depth: int,
        library: native.Library,
    ) -> None:
        """Take the weights by their names in a bundle; others are attributes."""
        self._library, self.channels = library, channels
        self.widths, self.depth = widths, depth
        self._weights = _packed(weights, len(widths), depth)
        self._free: list[tuple[_UNetTask, Array]] = []
        last = len(widths) - 1
        self.multiple = 1 << last
        blocks = sum(2 * (depth + (level < last)) << level for level in range(len(widths)))
        self.reach = blocks + self.multiple + 1

    def change(self, images: Floats) -> Floats:
        """Compute a change, [M, W], from images [channels, M, W]."""
        images = np.ascontiguousarray(images, np.float32)
        channels, rows, columns = images.shape
        if channels != self.channels:
            raise ValueError(f"{channels} images, and {self.channels} are needed")
        try:
            task, memory = self._free.pop()
        except IndexError:
            task, memory = self._new_task(rows, columns)
        if (task.rows, task.columns) != (rows, columns):
            task, memory = self._new_task(rows, columns)
        change = np.empty((rows, columns), np.float32)
        task.input, task.change = images.ctypes.data, change.ctypes.data
        self._call(task)
        self._free.append((task, memory))
        return change

    def _new_task(self, rows: int, columns: int) -> tuple[_UNetTask, Array]:
        """Return a task for images of a size, and its memory."""
        levels = len(self.widths)
        task = _UNetTask(
            ctypes.sizeof(_UNetTask), self.channels, rows, columns, levels, self.depth,
            (ctypes.c_int64 * _MOST_LEVELS)(*self.widths),
            self._weights.ctypes.data, len(self._weights),
        )  # fmt: skip
        self._call(task)  # which computes the size
        memory = np.zeros(task.size + _LINE, np.uint8)
        task.memory = memory.ctypes.data + -memory.ctypes.data % _LINE
        return task, memory

    def _call(self, task: _UNetTask) -> None:
        if self._library.call("unet", task):
            raise ValueError("the compiled unet refuses its arguments")


def _packed(weights: Mapping[str, Array], levels: int, depth: int) -> Floats:
    """Join the weights in the order of unet.c."""
    parts: list[Array] = []

    def add(*names: str) -> None:
        parts.extend(weights[f"{name}.{kind}"] for name in names for kind in ("weight", "bias"))

    add("first")
    for block in (f"down.{level}.{number}" for level in range(levels) for number in range(depth)):
        add(f"{block}.one", f"{block}.two")
    for level in range(levels - 1):
        add(f"shrink.{level}")
        # A linear layer for each of the four pixels that a pixel becomes: weights [b, a, 2, 2].
        for weight in weights[f"grow.{level}.weight"].transpose(2, 3, 1, 0).reshape(4, -1):
            parts += [weight, weights[f"grow.{level}.bias"]]
        add(f"up.{level}.one", f"up.{level}.two")
    add("last")
    return np.concatenate([each.reshape(-1) for each in parts])
