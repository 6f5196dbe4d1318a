"""Blocks coded by the compiled library (native/predictor.c), bit for bit as `coder` codes them.

A block's steps follow each other: there is nothing wide for numpy, and a compiled loop takes a
tenth of its time.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.native import BAD_STREAM, Library
from MedEnhanceLib.unicompress.codecs.integers import Indices
from MedEnhanceLib.unicompress.codecs.predictor import rans
from MedEnhanceLib.unicompress.codecs.predictor.features import DOWN, FINE, UP, Linear
from MedEnhanceLib.unicompress.codecs.predictor.network import Network
from MedEnhanceLib.unicompress.codecs.predictor.wavefront import Shape, ring_of

Array = npt.NDArray[Any]

#: Nodes of a hidden layer for which the library has room; every model that ships has 32.
_MOST_WIDTH = 64
#: Steps between two safe points: some hundredths of a second.
_STEPS_AT_ONCE = 64
_WHOLE = (
    *("bytes", "slices", "rows", "columns", "slots", "slice_lines", "from_step", "to_step"),
    *("is_known", "top", "lanes", "words", "next", "done", "cost", "width_0", "width_1"),
)
_ARRAYS = (
    *("lags", "beside", "padding", "sources", "padding_starts", "linear"),
    *("layer_0", "layer_1", "layer_2", "down", "up", "cumulative", "coarse", "symbol_of"),
    *("lowest", "extra", "bits_of", "table_of", "costs", "cells", "errors", "block"),
    *("states", "stream", "symbols", "counts"),
)


class _Task(ctypes.Structure):
    """As `struct predict_task` in predictor.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _WHOLE),
        *((name, ctypes.c_void_p) for name in _ARRAYS),
        ("linear_scale", ctypes.c_float),
        ("unused", ctypes.c_float),
    )


class _PackTask(ctypes.Structure):
    """As `struct pack_task` in predictor.c."""

    _fields_ = (
        *((n, ctypes.c_int64) for n in ("bytes", "steps", "voxels", "lanes", "capacity", "first")),
        *((name, ctypes.c_void_p) for name in ("symbols", "counts", "states", "words")),
    )


@dataclass(frozen=True)
class Sequence:
    """Symbols of a block in the order of coding, packed as `rans.Symbols.packed`.

    counts: of each step. bytes: that they will take, about.
    """

    symbols: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.int32]
    bytes: float


def knows(network: Network) -> bool:
    """Whether the library has room for a network."""
    return max(len(matrix) for matrix in network.matrices) <= _MOST_WIDTH


def symbols_of(
    library: Library,
    indices: Indices,
    linear: Linear,
    start: int,
    network: Network,
    check: Callable[[], None],
) -> Sequence:
    """The symbols of a block [K, J, I] that `coder.codable` accepts.

    start: the index of cells without a voxel to repeat. check: as in `coder.encode_block`.
    """
    block = np.ascontiguousarray(indices, np.uint16)
    walk = _Walk(indices.shape, linear, start, network, block)
    symbols = np.empty(block.size, np.uint64)
    counts = np.zeros(walk.steps, np.int32)
    walk.give(symbols=symbols, counts=counts)
    walk.task.is_known = 1
    walk.run(library, check)
    return Sequence(symbols, counts, rans.bytes_of(walk.task.cost))


def pack(library: Library, sequence: Sequence, lanes: int) -> tuple[rans.States, rans.Words]:
    """The states that a decoder begins with, and its words."""
    states = np.full(lanes, rans.LOWEST, np.uint64)
    words = np.empty(sequence.symbols.size, np.uint32)  # a voxel takes one word at most
    task = _PackTask(
        ctypes.sizeof(_PackTask),
        len(sequence.counts),
        sequence.symbols.size,
        lanes,
        words.size,
        0,
        *(a.ctypes.data for a in (sequence.symbols, sequence.counts, states, words)),
    )
    if library.call("pack", task):
        raise ValueError("symbols that cannot be packed")
    return states, words[task.first :].copy()


def decode(
    library: Library,
    shape: Shape,
    linear: Linear,
    start: int,
    stream: tuple[rans.States, rans.Words],
    network: Network,
    check: Callable[[], None],
) -> npt.NDArray[np.uint16]:
    """The indices of a block. stream: its states and words. Raises ValueError as `coder` does."""
    states, words = np.array(stream[0], np.uint64), np.ascontiguousarray(stream[1], np.uint32)
    block = np.empty(shape, np.uint16)
    walk = _Walk(shape, linear, start, network, block)
    walk.give(states=states, stream=words)
    walk.task.lanes, walk.task.words = len(states), len(words)
    walk.run(library, check)
    if walk.task.next != len(words) or (states != rans.LOWEST).any():
        raise ValueError(rans.NOT_WRITTEN)
    return block


class _Walk:
    """A block on its way through its steps."""

    def __init__(
        self, shape: Shape, linear: Linear, start: int, network: Network, block: Array
    ) -> None:
        ring = ring_of(shape)
        self.steps = ring.layout.steps
        tables, matrices = _tables(), network.matrices
        self.task = _Task(
            bytes=ctypes.sizeof(_Task),
            slices=shape[0],
            rows=shape[1],
            columns=shape[2],
            slots=ring.slots,
            slice_lines=ring.layout.frame[1],
            top=linear.top,
            width_0=len(matrices[0]),
            width_1=len(matrices[1]),
            linear_scale=FINE / (1 << linear.bits),
        )
        self._kept: dict[str, Array] = {}
        self.give(
            lags=ring.lags,
            beside=ring.beside,
            padding=ring.padding,
            sources=ring.sources,
            padding_starts=ring.padding_starts,
            linear=linear.weights,
            **{f"layer_{number}": matrix for number, matrix in enumerate(matrices)},
            **tables,
            cells=np.full(ring.cells, start, np.float32),
            errors=np.zeros(ring.cells, np.float32),
            block=block,
        )

    def give(self, **arrays: Array) -> None:
        """Point to arrays, and keep them alive."""
        for name, array in arrays.items():
            if array.dtype != _TYPES[name] or not array.flags.c_contiguous:
                raise ValueError(f"{name} of {array.dtype} does not suit the compiled predictor")
            setattr(self.task, name, array.ctypes.data)
        self._kept |= arrays

    def run(self, library: Library, check: Callable[[], None]) -> None:
        """All steps; raises ValueError where a stream ends before its block."""
        for first in range(0, self.steps, _STEPS_AT_ONCE):
            check()
            self.task.from_step = first
            self.task.to_step = min(first + _STEPS_AT_ONCE, self.steps)
            status = library.call("predict", self.task)
            if status == BAD_STREAM:
                raise ValueError(rans.CUT_SHORT)
            if status:
                raise ValueError("the compiled predictor refuses its arguments")
        if self.task.done != math.prod(self._kept["block"].shape):
            raise ValueError("the compiled predictor left voxels out")


_TYPES = {
    **dict.fromkeys(("lags", "beside", "padding", "sources", "padding_starts"), np.int64),
    **dict.fromkeys(("linear", "layer_0", "layer_1", "layer_2"), np.float32),
    **dict.fromkeys(("down", "up", "cells", "errors"), np.float32),
    **dict.fromkeys(("cumulative", "costs", "stream"), np.uint32),
    **dict.fromkeys(("coarse", "symbol_of"), np.uint8),
    **dict.fromkeys(("lowest", "extra", "bits_of", "table_of", "counts"), np.int32),
    **dict.fromkeys(("states", "symbols"), np.uint64),
    "block": np.uint16,
}


@cache
def _tables() -> dict[str, Array]:
    """Of `rans` and `features`, in the types of the library."""
    tables = rans.make_tables()
    found = {
        "cumulative": tables.cumulative,
        "coarse": tables.coarse,
        "symbol_of": tables.symbol_of,
        "lowest": tables.lowest,
        "extra": tables.extra,
        "bits_of": rans.BITS_OF,
        "table_of": rans.TABLE_OF,
        "costs": rans.costs(),
        "down": DOWN,
        "up": UP,
    }
    return {name: np.ascontiguousarray(array, _TYPES[name]) for name, array in found.items()}
