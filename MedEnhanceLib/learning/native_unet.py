"""A residual U-Net in C (native/unet.c), for inference on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Array, Floats, Mask

_MOST_LEVELS = 6
#: As in unet.c: rows of which the same columns are needed.
_BAND = 8
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
        *((name, ctypes.c_void_p) for name in ("input", "change", "needed", "network", "memory")),
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

    def change(self, images: Floats, needed: Mask | None = None) -> Floats:
        """Compute a change, [M, W], from images [channels, M, W].

        Args:
            images: of any size.
            needed: [M, W], where the change is needed, with the same bits as without; it is 0
                elsewhere.
        """
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
        mask = np.ones((rows, columns), np.bool_) if needed is None else needed
        bands = _columns_of(mask, columns)
        task.input, task.change = images.ctypes.data, change.ctypes.data
        task.needed = bands.ctypes.data
        self._call(task)
        self._free.append((task, memory))
        if needed is not None:
            change[~needed] = 0
        return change

    def region(self, part: slice, size: int, around: int = 0) -> slice:
        """Widen a part of an axis so that images of the result give the same change in the part.

        The bits are the same as with images of the whole axis. In single precision a result begins
        at a border of tiles at all levels, and a pixel depends, by rounding, on all of its tile
        (`side_at` in unet.c).

        Args:
            part: in which the change is needed.
            size: pixels of the axis.
            around: pixels to each side that a pixel of the images depends on.
        """
        is_tiled = self._library.width not in native.BFLOAT_WIDTHS
        sides = [(4 if level < 2 else 2) if is_tiled else 1 for level in range(len(self.widths))]
        reaches = [max(2, side) << level for level, side in enumerate(sides)]  # of a block
        start, stop = part.start - 1, part.stop + 1  # as the last convolution sees
        for level, reach in enumerate(reaches):
            side, blocks = sides[level] << level, level < len(sides) - 1
            start = start // side * side - reach * blocks
            stop = -(-stop // side) * side + reach * blocks
        down = self.depth * sum(reaches) + 1 + around  # with the first convolution
        multiple = max(side << level for level, side in enumerate(sides))
        return slice(max(0, (start - down) // multiple * multiple), min(size, stop + down))

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


def _columns_of(needed: Mask, columns: int) -> Array:
    """Return the first and the last column, excluded, that are needed in each band of rows.

    Args:
        needed: [M, W].
        columns: of the image.
    """
    bands = np.logical_or.reduceat(needed, np.arange(0, len(needed), _BAND), axis=0)
    first, after = bands.argmax(1), columns - bands[:, ::-1].argmax(1)
    return np.stack([first, np.where(bands.any(1), after, 0)], 1).astype(np.int32)


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
