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
        *((name, ctypes.c_void_p) for name in ("input", "change", "network", "memory")),
        *((name, ctypes.c_int64) for name in ("network_size", "size")),
    )


class NativeUNet:
    """A network; thread-safe.

    Its weights are shared by threads. The memory of an image is kept for the next one of its size.

    Attributes:
        channels, widths, depth: as in `ResidualUNet`.
    """

    def __init__(
        self,
        tensors: Mapping[str, Array],
        channels: int,
        widths: Sequence[int],
        depth: int,
        library: native.Library,
    ) -> None:
        """Take weights by their names in a bundle; ValueError where they are of other sizes."""
        self._library, self.channels = library, channels
        self.widths, self.depth = widths, depth
        weights = _packed(tensors, len(widths), depth)
        task = self._task(1, 1)
        task.weights, task.weight_count = weights.ctypes.data, len(weights)
        self._call(task)  # computes the size
        self._network = _zeros(task.network_size)
        task.network = self._network.ctypes.data
        self._call(task)  # packs the weights
        self._free: list[tuple[_UNetTask, Array]] = []

    def change(self, images: Floats) -> Floats:
        """Compute a change, [M, W], from images [channels, M, W] of any size."""
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
        task = self._task(rows, columns)
        task.network = self._network.ctypes.data
        self._call(task)  # computes the size
        memory = _zeros(task.size)
        task.memory = memory.ctypes.data
        return task, memory

    def _task(self, rows: int, columns: int) -> _UNetTask:
        """Return a task for images of a size, without weights and memory."""
        return _UNetTask(
            ctypes.sizeof(_UNetTask), self.channels, rows, columns, len(self.widths), self.depth,
            (ctypes.c_int64 * _MOST_LEVELS)(*self.widths),
        )  # fmt: skip

    def _call(self, task: _UNetTask) -> None:
        if self._library.call("unet", task):
            raise ValueError("the compiled unet refuses its arguments")


def _zeros(size: int) -> Array:
    """Return memory of some bytes, which starts at a line of the processor's cache."""
    memory = np.zeros(size + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + size]


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
