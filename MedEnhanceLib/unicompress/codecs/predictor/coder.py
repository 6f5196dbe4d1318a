"""Blocks of indices as bytes that a decoder can read alone, coded in C (native/predictor.c).

indices [K, J, I] → linear prediction → features → network → distribution → ANS → bytes
Without the compiled library no such block is written, and `numpy_decoder` reads them. `start`, the
median index of a block's first row, stands for neighbors that are read before any voxel is known.
"""

from __future__ import annotations

import ctypes
import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Array, Longs, Shape, Words
from MedEnhanceLib.runtime.ordered import safe_point
from MedEnhanceLib.unicompress.codecs.integers import Indices
from MedEnhanceLib.unicompress.codecs.predictor import tables, wavefront
from MedEnhanceLib.unicompress.codecs.predictor.features import (
    COUNT,
    DOWN,
    FINE,
    UP,
    Linear,
    fit_linear,
)
from MedEnhanceLib.unicompress.codecs.predictor.integer_network import Network
from MedEnhanceLib.unicompress.codecs.predictor.numpy_decoder import decode_in_numpy

States = npt.NDArray[np.uint64]
Parts = npt.NDArray[np.uint32]

#: version, log2 of the lanes, bits of the linear weights, largest index, `start`.
_HEAD = struct.Struct("<BBBHH")
_VERSION = 1
_LARGEST_INDEX = (1 << 16) - 1
_MOST_LANES_BITS = 12
_MOST_VOXELS = 1 << 23
_MOST_STEPS = 1 << 14
_WEIGHTS_DTYPE = np.dtype("<i2")
# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/compression.py.
# Halved or doubled, they change lossless files of a CT and two MR by −.12 to +.24 %.
#: Voxels per lane: a lane costs about six bytes, and saves rounds. More where a voxel takes few
#: bits.
_VOXELS_PER_LANE, _MORE_VOXELS_PER_LANE = 8_000, 32_000
_FEW_BITS = 1.5
_LANES_BITS = (6, 10)
#: Steps between two safe points: some hundredths of a second.
_STEPS_AT_ONCE = 64
#: Voxels that the compiled library predicts at once, and the longest vector: so far beyond its end
#: a stream, and an array of neighbors, may be read.
_BATCH, _VECTOR = 64, 16
_PURPOSE = "The learned predictor"
_WHOLE = (
    *("bytes", "slices", "rows", "columns", "slots", "slice_lines", "from_step", "to_step"),
    *("is_known", "top", "lanes", "words", "next", "done", "cost", "width_0", "width_1"),
    *("bits_0", "bits_1", "bits_2"),
)
#: Arrays of a task, and their types.
_ARRAYS: dict[str, Any] = {
    **dict.fromkeys(("lags", "beside"), np.int64),
    **dict.fromkeys(("padding", "sources", "padding_starts"), np.int32),
    "linear": np.float32,
    **dict.fromkeys(("layer_0", "layer_1", "layer_2"), np.int32),
    **dict.fromkeys(("down", "up"), np.float32),
    "cumulative": np.uint32,
    **dict.fromkeys(("coarse", "symbol_of"), np.uint8),
    **dict.fromkeys(("lowest", "extra"), np.int32),
    "costs": np.uint32,
    **dict.fromkeys(("cells", "errors"), np.float32),
    "block": np.uint16,
    "states": np.uint64,
    "stream": np.uint32,
    "symbols": np.uint64,
    "counts": np.int32,
    "picked": np.int32,
    "features": np.int8,
    "predicted": np.float32,
    "logs": np.int32,
}


class _PredictTask(ctypes.Structure):
    """Structure `predict_task` of predictor.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _WHOLE),
        *((name, ctypes.c_void_p) for name in _ARRAYS),
        ("linear_scale", ctypes.c_float),
        ("unused", ctypes.c_float),
    )


class _PackTask(ctypes.Structure):
    """Structure `pack_task` of predictor.c."""

    _fields_ = (
        *((n, ctypes.c_int64) for n in ("bytes", "steps", "voxels", "lanes", "capacity", "first")),
        *((name, ctypes.c_void_p) for name in ("symbols", "counts", "states", "words")),
    )


def encode_block(indices: Indices, network: Network) -> bytes | None:
    """Encode a block; None if this coder does not support it.

    Raises DependencyError without the compiled library, and what `safe_point` raises.
    """
    if not codable(indices):
        return None
    walk = _encoding_walk(indices, network)
    has_many_bits = 8 * walk.bytes / indices.size > _FEW_BITS
    per_lane = _VOXELS_PER_LANE if has_many_bits else _MORE_VOXELS_PER_LANE
    lanes_bits = int(np.clip(np.rint(np.log2(indices.size / per_lane)), *_LANES_BITS))
    states, words = walk.packed(1 << lanes_bits)
    linear = walk.linear
    return b"".join(
        [
            _HEAD.pack(_VERSION, lanes_bits, linear.bits, linear.top, walk.start),
            linear.weights.astype(_WEIGHTS_DTYPE).tobytes(),
            states.astype("<u8").tobytes(),
            words.astype("<u4").tobytes(),
        ]
    )


def decode_block(data: bytes, shape: Shape, network: Network) -> Words:
    """Decode the indices of a block.

    Args:
        data: from `encode_block`.
        shape: that the block has in the header's grid, [K, J, I].
        network: the one that it was encoded with.
    Raises ValueError if the data are invalid, and what `safe_point` raises.
    """
    if not fits(shape):
        raise ValueError("unsupported block shape")
    version, lanes_bits, bits, top, start = _HEAD.unpack_from(data)
    count = 2 * len(wavefront.NEIGHBORS)
    rest = data[_HEAD.size + count * _WEIGHTS_DTYPE.itemsize :]
    if version != _VERSION or not 4 <= lanes_bits <= _MOST_LANES_BITS:
        raise ValueError(f"unknown version {version}, or 2 ** {lanes_bits} lanes")
    if start > top or len(rest) < 8 << lanes_bits or (len(rest) & 3):
        raise ValueError("the stream is cut short")
    weights = np.frombuffer(data, _WEIGHTS_DTYPE, count, _HEAD.size)
    linear = Linear(weights.reshape(2, -1).astype(np.float32), bits, top)
    if not linear.is_exact:
        raise ValueError("weights of the linear prediction that would not be exact")
    states = np.array(np.frombuffer(rest, "<u8", 1 << lanes_bits), np.uint64)
    words = np.array(np.frombuffer(rest, "<u4", offset=8 << lanes_bits), np.uint32)
    block = np.empty(shape, np.uint16)
    if native.find(native.HERE)[0] is None:
        used = decode_in_numpy(block, linear, start, network, states, words)
    else:
        walk = _Walk(block, linear, start)
        walk.code_with(network)
        walk.give(states=states, stream=np.append(words, np.zeros(_BATCH, np.uint32)))
        walk.task.lanes, walk.task.words = len(states), len(words)
        walk.run()
        used = walk.task.next
    if used != len(words) or (states != tables.LOWEST).any():
        raise ValueError("the stream is damaged")
    return block


def ideal_bytes(indices: Indices, network: Network) -> float:
    """Estimate the bytes of `encode_block`."""
    return _encoding_walk(indices, network).bytes


def codable(indices: Indices) -> bool:
    """Return whether a block can be coded: indices below 2¹⁶, a shape that `fits`."""
    return (
        indices.dtype.itemsize <= 4 and fits(indices.shape) and int(indices.max()) <= _LARGEST_INDEX
    )


def fits(shape: Shape) -> bool:
    """Return whether a block of this shape can be coded: long thin ones take too many steps."""
    few_voxels = math.prod(shape) <= _MOST_VOXELS
    return min(shape[1:]) >= 2 and few_voxels and wavefront.steps_of(shape) <= _MOST_STEPS


def start_of(indices: Indices) -> int:
    """Compute the index for cells that have no voxel to repeat, see `coder`."""
    return int(np.median(indices[0, 0]))


def network_input(
    indices: Indices, numbers: Longs, linear: Linear | None = None
) -> tuple[Array, Array, Array]:
    """Compute a network's input for some of a block's voxels, without coding the block.

    Args:
        indices: the block, one that is `codable`.
        numbers: of n voxels, in C order; rising.
        linear: the prediction; None fits it to the block.
    Returns:
        Features [n, COUNT], integers within ±127; the linear prediction [n], in sixteenths of an
        index; the logarithm of the local scale [n], in 1/16 octave.
    """
    start = start_of(indices)
    linear = linear or fit_linear(indices)
    walk = _Walk(np.ascontiguousarray(indices, np.uint16), linear, start)
    count, picked = len(numbers), np.full(indices.size, -1, np.int32)
    picked[numbers] = np.arange(count)
    features = np.empty((count, COUNT), np.int8)
    predicted, logs = np.empty(count, np.float32), np.empty(count, np.int32)
    walk.give(picked=picked, features=features, predicted=predicted, logs=logs)
    walk.run()
    return features, predicted, logs


def _encoding_walk(indices: Indices, network: Network) -> _Walk:
    """Walk over a known block to compute its symbols."""
    start = start_of(indices)
    linear = fit_linear(indices)
    walk = _Walk(np.ascontiguousarray(indices, np.uint16), linear, start)
    walk.code_with(network)
    walk.give(symbols=np.empty(indices.size, np.uint64), counts=np.zeros(walk.steps, np.int32))
    walk.task.is_known = 1
    walk.run()
    return walk


class _Walk:
    """Pass of the compiled library over a block, step by step."""

    def __init__(self, block: Array, linear: Linear, start: int) -> None:
        self._library = native.require(_PURPOSE)
        self.linear, self.start, shape = linear, start, block.shape
        slots, ring = wavefront.ring_of(shape)
        self.steps, cells = wavefront.steps_of(shape), slots * wavefront.lines_of(shape)
        self.task = _PredictTask(
            bytes=ctypes.sizeof(_PredictTask),
            slices=shape[0],
            rows=shape[1],
            columns=shape[2],
            slots=slots,
            slice_lines=wavefront.lines_of_slice(shape),
            top=linear.top,
            linear_scale=1 / (1 << linear.bits),
        )
        self._kept: dict[str, Array] = {}
        self.give(
            **ring,
            linear=linear.weights,
            down=DOWN,
            up=UP,
            cells=np.full(cells + _VECTOR, FINE * start, np.float32),
            errors=np.zeros(cells + _VECTOR, np.float32),
            block=block,
        )

    def code_with(self, network: Network) -> None:
        """Set the network that predicts voxels, and its tables."""
        self.task.width_0, self.task.width_1, _ = map(len, network.matrices)
        self.task.bits_0, self.task.bits_1, self.task.bits_2 = (x.bits for x in network.layers)
        layers = {f"layer_{number}": packed for number, packed in enumerate(network.packed)}
        made = {name: table for name, table in tables.make_tables().items() if name in _ARRAYS}
        self.give(**layers, **made)

    def give(self, **arrays: Array) -> None:
        """Pass pointers to arrays to the library, and keep the arrays alive."""
        for name, array in arrays.items():
            if array.dtype != _ARRAYS[name] or not array.flags.c_contiguous:
                raise ValueError(f"{name} of {array.dtype} does not suit the compiled predictor")
            setattr(self.task, name, array.ctypes.data)
        self._kept |= arrays

    def run(self) -> None:
        """Take all steps; raises ValueError where a stream ends before its block."""
        for first in range(0, self.steps, _STEPS_AT_ONCE):
            safe_point()
            self.task.from_step = first
            self.task.to_step = min(first + _STEPS_AT_ONCE, self.steps)
            status = self._library.call("predict", self.task)
            if status == native.BAD_STREAM:
                raise ValueError("the stream ends before its block")
            if status:
                raise ValueError("the compiled predictor refuses its arguments")
        if self.task.done != math.prod(self._kept["block"].shape):
            raise ValueError("the compiled predictor left voxels out")

    @property
    def bytes(self) -> float:
        """Approximate bytes of the symbols."""
        return float(self.task.cost / (8 << tables.COST_BITS))

    def packed(self, lanes: int) -> tuple[States, Parts]:
        """Pack the symbols: the states that a decoder begins with, and its words."""
        symbols, counts = self._kept["symbols"], self._kept["counts"]
        states = np.full(lanes, tables.LOWEST, np.uint64)
        words = np.empty(symbols.size, np.uint32)  # a voxel takes one word at most
        task = _PackTask(
            ctypes.sizeof(_PackTask),
            len(counts),
            symbols.size,
            lanes,
            words.size,
            0,
            *(a.ctypes.data for a in (symbols, counts, states, words)),
        )
        if self._library.call("pack", task):
            raise ValueError("symbols that cannot be packed")
        return states, words[task.first :].copy()
