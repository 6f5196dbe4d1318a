"""Codes blocks of indices as bytes that a decoder can read alone; `lockstep` is the way back.

indices [K, J, I] → linear prediction → features → network → distribution → ANS → bytes
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.unicompress.integers import Indices
from MedEnhanceLib.unicompress.predictor import rans
from MedEnhanceLib.unicompress.predictor.features import (
    FINE,
    Features,
    Floats,
    Linear,
    features_of,
)
from MedEnhanceLib.unicompress.predictor.fit import fit_linear
from MedEnhanceLib.unicompress.predictor.layout import (
    IN_SLICE,
    NEIGHBOURS,
    Cells,
    Layout,
    Shape,
    layout_of,
    steps_of,
)
from MedEnhanceLib.unicompress.predictor.network import Expected, Network
from MedEnhanceLib.unicompress.predictor.tables import BITS, places_of

Indices64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
#: neighbours [neighbours, n], first [n] → linear prediction [n]
Predict = Callable[..., Floats]

#: version, lanes as a power of two, bits of the linear weights, largest index, index of padding.
_HEAD = struct.Struct("<BBBHH")
_VERSION = 1
_LARGEST_INDEX = (1 << 16) - 1
_MOST_LANES_BITS = 12
_MOST_VOXELS = 1 << 23
_MOST_STEPS = 1 << 14
_WEIGHTS_DTYPE = np.dtype("<i2")
#: Voxels that are looked at in one go: what a processor's cache holds of their features.
_BATCH = 4096
#: The same voxel in the slice before, among the neighbours.
_SLICE_BEFORE = len(IN_SLICE)
#: From one voxel in so many on it pays to look which ones see nothing.
_EMPTY_MATTERS = 12
#: A lane costs about six bytes, and saves rounds: so many voxels for each, and more where a voxel
#: takes few bits. Blocks of one shape mostly get one number, so that they decode side by side.
_VOXELS_PER_LANE, _MORE_VOXELS_PER_LANE = 8_000, 32_000
_FEW_BITS = 1.5
_LANES_BITS = (6, 10)


@dataclass(frozen=True)
class Head:
    """What a block's bytes begin with. start: the index of cells without a voxel to repeat."""

    lanes_bits: int
    start: int
    linear: Linear

    @property
    def lanes(self) -> int:
        """States side by side."""
        return 1 << self.lanes_bits

    def pack(self) -> bytes:
        """As bytes."""
        fields = (_VERSION, self.lanes_bits, self.linear.bits, self.linear.top, self.start)
        return _HEAD.pack(*fields) + self.linear.weights.astype(_WEIGHTS_DTYPE).tobytes()

    @classmethod
    def unpack(cls, data: bytes) -> tuple[Head, bytes]:
        """The head and what follows; raises ValueError for bytes that cannot be."""
        version, lanes_bits, bits, top, start = _HEAD.unpack_from(data)
        size = 2 * len(NEIGHBOURS) * _WEIGHTS_DTYPE.itemsize
        rest = data[_HEAD.size + size :]
        if version != _VERSION or not 4 <= lanes_bits <= _MOST_LANES_BITS:
            raise ValueError(f"version {version} with 2 ** {lanes_bits} lanes")
        if start > top or len(rest) < 8 << lanes_bits or (len(rest) & 3):
            raise ValueError("the stream is cut short")
        weights = np.frombuffer(data, _WEIGHTS_DTYPE, 2 * len(NEIGHBOURS), _HEAD.size)
        linear = Linear(weights.reshape(2, -1).astype(np.float32), bits, top)
        linear.check()
        return cls(lanes_bits, start, linear), rest


def encode_block(indices: Indices, network: Network) -> bytes | None:
    """The bytes of a block; None where it is none for this coder."""
    if not codable(indices):
        return None
    layout = layout_of(indices.shape)
    context = Context.of(indices, layout)
    columns = [_codes(context, network, part) for part in _batches(layout.order)]
    starts, frequencies, extra, bits = (np.concatenate(rows) for rows in zip(*columns, strict=True))
    size = float((BITS - np.log2(frequencies) + bits).sum()) / 8
    head = Head(lanes_for(indices.size, size), context.start, context.linear)
    encoder = rans.Encoder(head.lanes)
    for first, last in reversed(list(_rounds(layout, head.lanes))):
        part = slice(first, last)
        encoder.push(starts[part], frequencies[part], extra[part], bits[part])
    states, words = encoder.finish()
    return head.pack() + states.astype("<u8").tobytes() + words.astype("<u4").tobytes()


def codable(indices: Indices) -> bool:
    """Whether a block can be coded at all: indices of 16 bits, a shape of not too many steps."""
    return (
        indices.dtype.itemsize <= 4 and fits(indices.shape) and int(indices.max()) <= _LARGEST_INDEX
    )


def fits(shape: Shape) -> bool:
    """Whether a block of this shape is one that may be written: a long thin one takes for ever."""
    few_voxels = math.prod(shape) <= _MOST_VOXELS
    return min(shape[1:]) >= 2 and few_voxels and steps_of(shape) <= _MOST_STEPS


def ideal_bytes(indices: Indices, network: Network, share: int) -> float:
    """About what `encode_block` would take, from one batch of voxels in `share`."""
    layout = layout_of(indices.shape)
    context = Context.of(indices, layout)
    bits, voxels = 0.0, 0
    for part in list(_batches(layout.order))[::share]:
        _, frequencies, _, below = _codes(context, network, part)
        bits += float((BITS - np.log2(frequencies) + below).sum())
        voxels += len(part)
    return bits / 8 * indices.size / voxels


@dataclass(frozen=True)
class Context:
    """A whole block that is known: its cells in their frame, and the linear prediction's errors."""

    layout: Layout
    linear: Linear
    start: int
    cells: Floats
    errors: Floats

    @classmethod
    def of(cls, indices: Indices, layout: Layout) -> Context:
        """Fit the linear prediction and take its errors."""
        top, start = int(indices.max()), int(np.median(indices[0, 0]))
        cells = layout.pad(indices.astype(np.float32), start)
        linear = fit_linear(cells, layout, top)
        errors = np.zeros_like(cells)
        for part in _batches(layout.order):
            neighbours = cells.take(part + layout.neighbours[:, None])
            predicted = linear.predict(neighbours, part < layout.first)
            errors[part] = cells[part] * np.float32(FINE) - predicted
        errors[layout.padding] = errors[layout.sources]
        return cls(layout, linear, start, cells, errors)

    def features(self, voxels: Cells) -> Features:
        """Of the voxels in these cells."""
        return self._view().features(voxels, voxels < self.layout.first, self._predict)

    def expect(self, network: Network, voxels: Cells) -> Expected:
        """Of the voxels in these cells."""
        first = voxels < self.layout.first
        return self._view().expect(network, voxels, first, self._predict)[0]

    def _predict(self, neighbours: Floats, first: Flags, chosen: Cells | None = None) -> Floats:
        return self.linear.predict(neighbours, first)

    def _view(self) -> View:
        return View(self.layout, self.cells, self.errors, self.linear.top)


@dataclass(frozen=True)
class View:
    """What the predictor may look at: cells, and errors of the linear prediction, of some blocks.

    top: the largest index of all.
    """

    layout: Layout
    cells: Floats
    errors: Floats
    top: int

    def features(self, voxels: Cells, first: Flags, predict: Predict) -> Features:
        """Of n voxels. first: whether they lie in a first slice."""
        neighbours = self.cells.take(voxels + self.layout.neighbours[:, None])
        errors = self.errors.take(voxels + self.layout.errors[:, None])
        return features_of(neighbours, errors, first, predict(neighbours, first), self.top)

    def expect(
        self, network: Network, voxels: Cells, first: Flags, predict: Predict
    ) -> tuple[Expected, Floats]:
        """What to expect of n voxels, and their linear prediction.

        Where all that is seen is 0, as in the air around a patient, the network always says the
        same: it is asked once.
        """
        empty = self._empty(voxels)
        if empty is None:
            features = self.features(voxels, first, predict)
            return network.expect(features), features.linear
        expected = network.in_emptiness(first)
        linear = np.zeros(len(voxels), np.float32)
        full = np.flatnonzero(~empty)
        if full.size:
            features = self.features(voxels[full], first[full], partial(predict, chosen=full))
            expected.put(full, network.expect(features))
            linear[full] = features.linear
        return expected, linear

    def _empty(self, voxels: Cells) -> Flags | None:
        """Which voxels see nothing but 0; None where too few do to matter."""
        empty: Flags = self.cells.take(voxels + self.layout.neighbours[0]) == 0
        for near in (self.layout.neighbours[1], self.layout.neighbours[_SLICE_BEFORE]):
            empty &= self.cells.take(voxels + near) == 0
        maybe = np.flatnonzero(empty)
        if len(maybe) * _EMPTY_MATTERS < len(voxels):
            return None
        at = voxels[maybe]
        seen = self.cells.take(at + self.layout.neighbours[:, None]).any(axis=0)
        seen |= self.errors.take(at + self.layout.errors[:, None]).any(axis=0)
        empty[maybe[seen]] = False
        return empty


def lanes_for(voxels: int, size: float) -> int:
    """How many lanes a block takes whose code has about `size` bytes, as a power of two."""
    many = 8 * size / voxels > _FEW_BITS
    per_lane = _VOXELS_PER_LANE if many else _MORE_VOXELS_PER_LANE
    return int(np.clip(np.rint(np.log2(voxels / per_lane)), *_LANES_BITS))


def _codes(
    context: Context, network: Network, part: npt.NDArray[np.int64]
) -> tuple[Indices64, ...]:
    places = places_of(context.expect(network, part))
    return rans.symbols_of(context.cells[part].astype(np.int64), places)


def _batches(order: npt.NDArray[np.int64], size: int = _BATCH) -> Iterator[npt.NDArray[np.int64]]:
    for first in range(0, len(order), size):
        yield order[first : first + size]


def _rounds(layout: Layout, lanes: int) -> Iterator[tuple[int, int]]:
    """From where to where in the order each round goes: one voxel for a lane, of one step."""
    for start, stop in zip(layout.starts[:-1].tolist(), layout.starts[1:].tolist(), strict=True):
        for first in range(start, stop, lanes):
            yield first, min(first + lanes, stop)
