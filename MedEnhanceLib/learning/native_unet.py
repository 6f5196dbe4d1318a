"""A residual U-Net in C (native/unet.c), for inference on the CPU."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Array, Floats
from MedEnhanceLib.learning.unet import ResidualUNet

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
    """A copy of a network; thread-safe.

    Memory for one image, with its weights, is kept for the next one of the same size.

    Attributes:
        widths, depth, channels: as in `ResidualUNet`.
    """

    def __init__(self, network: ResidualUNet, library: native.Library) -> None:
        self._library = library
        self.widths, self.depth = network.widths, network.depth
        self.channels = network.first.in_channels
        self._weights = np.concatenate([each.numpy().reshape(-1) for each in _tensors(network)])
        self._free: list[tuple[_UNetTask, Array]] = []

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


def _tensors(network: Any) -> list[torch.Tensor]:
    """List the weights of a network in the order of unet.c."""

    def of(*layers: Any) -> list[torch.Tensor]:
        return [each.detach() for layer in layers for each in (layer.weight, layer.bias)]

    tensors = of(network.first)
    for blocks in network.down:
        for block in blocks:
            tensors += of(block.one, block.two)
    for shrink, grow, up in zip(network.shrink, network.grow, network.up, strict=True):
        tensors += of(shrink)
        # A linear layer for each of the four pixels that a pixel becomes: weights [b, a, 2, 2].
        for weight in grow.weight.detach().permute(2, 3, 1, 0).flatten(0, 1):
            tensors += [weight, grow.bias.detach()]
        tensors += of(up.one, up.two)
    return [*tensors, *of(network.last)]
