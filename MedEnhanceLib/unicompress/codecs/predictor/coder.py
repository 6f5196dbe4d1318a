"""Blocks of indices as bytes that a decoder can read alone, and many of them back at once.

indices [K, J, I] → linear prediction → features → network → distribution → ANS → bytes
Decoding goes in steps: each takes the voxels of all blocks that are ready. Numpy's calls cost a
microsecond each, whatever they do: wide steps make them cheap.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from MedEnhanceLib import native
from MedEnhanceLib.unicompress.codecs.integers import Indices
from MedEnhanceLib.unicompress.codecs.predictor import compiled, rans
from MedEnhanceLib.unicompress.codecs.predictor.features import (
    COUNT,
    FINE,
    SEEN,
    Features,
    Floats,
    Linear,
    features_of,
    fit_linear,
)
from MedEnhanceLib.unicompress.codecs.predictor.network import Expected, Network
from MedEnhanceLib.unicompress.codecs.predictor.rans import Places, places_of
from MedEnhanceLib.unicompress.codecs.predictor.wavefront import (
    IN_SLICE,
    NEIGHBORS,
    Away,
    Cells,
    Layout,
    Ring,
    Shape,
    layout_of,
    ring_of,
    steps_of,
)

Flags = npt.NDArray[np.bool_]
#: neighbors [neighbors, n], first [n] → linear prediction [n]
Predict = Callable[..., Floats]

#: version, lanes as a power of two, bits of the linear weights, largest index, index of padding.
_HEAD = struct.Struct("<BBBHH")
_VERSION = 1
_LARGEST_INDEX = (1 << 16) - 1
_MOST_LANES_BITS = 12
_MOST_VOXELS = 1 << 23
_MOST_STEPS = 1 << 14
_WEIGHTS_DTYPE = np.dtype("<i2")
#: Voxels that are looked at in one go: what a processor's cache holds of their features. Not a
#: power of two: rows of features would lie on top of each other in it.
_BATCH = 3520
#: The same voxel in the slice before, among the neighbors.
_SLICE_BEFORE = len(IN_SLICE)
#: Voxels that see nothing are looked for where at least one in twelve may be one.
_EMPTY_MATTERS = 12
#: Voxels per lane: a lane costs about six bytes, and saves rounds. More where a voxel takes few
#: bits. Blocks of one shape mostly get one number, so that they decode side by side.
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
        size = 2 * len(NEIGHBORS) * _WEIGHTS_DTYPE.itemsize
        rest = data[_HEAD.size + size :]
        if version != _VERSION or not 4 <= lanes_bits <= _MOST_LANES_BITS:
            raise ValueError(f"version {version} with 2 ** {lanes_bits} lanes")
        if start > top or len(rest) < 8 << lanes_bits or (len(rest) & 3):
            raise ValueError("the stream is cut short")
        weights = np.frombuffer(data, _WEIGHTS_DTYPE, 2 * len(NEIGHBORS), _HEAD.size)
        linear = Linear(weights.reshape(2, -1).astype(np.float32), bits, top)
        linear.check()
        return cls(lanes_bits, start, linear), rest

    def split(self, rest: bytes) -> tuple[rans.States, rans.Words]:
        """States and words of what follows the head."""
        return np.frombuffer(rest, "<u8", self.lanes), np.frombuffer(
            rest, "<u4", offset=8 * self.lanes
        )


def go_on() -> None:
    """A safe point that never stops."""


def encode_block(
    indices: Indices, network: Network, check: Callable[[], None] = go_on
) -> bytes | None:
    """The bytes of a block; None where it is none for this coder.

    check: called every few milliseconds; what it raises ends the work.
    """
    if not codable(indices):
        return None
    if (library := _library_for(network)) is not None:
        start, linear, coded = _compiled(library, indices, network, check)
        head = Head(lanes_for(indices.size, coded.bytes), start, linear)
        states, words = compiled.pack(library, coded, head.lanes)
    else:
        head, (states, words) = _encode(indices, layout_of(indices.shape), network, check)
    return head.pack() + states.astype("<u8").tobytes() + words.astype("<u4").tobytes()


def _library_for(network: Network) -> native.Library | None:
    return native.load() if compiled.knows(network) else None


def _encode(
    indices: Indices, layout: Layout, network: Network, check: Callable[[], None]
) -> tuple[Head, tuple[rans.States, rans.Words]]:
    """As the compiled library does it."""
    context = Context.of(indices, layout, check)
    symbols, size = np.empty(indices.size, np.int64), 0.0
    for start, coded in _coded(context, network, check):
        symbols[start : start + len(coded.starts)] = coded.packed()
        size += coded.bytes
    head = Head(lanes_for(indices.size, size), context.start, context.linear)
    encoder = rans.Encoder(head.lanes)
    for step in reversed(range(layout.steps)):
        check()
        numbers = layout.corners.take(layout.ready(step)) + step
        encoder.push(rans.Symbols.unpacked(symbols.take(numbers)))
    return head, encoder.finish()


def _coded(
    context: Context, network: Network, check: Callable[[], None]
) -> Iterator[tuple[int, rans.Symbols]]:
    """The symbols of all voxels, row by row, with the number of the first one."""
    for start, cells in _batches(context.layout):
        check()
        places = places_of(context.expect(network, cells))
        yield start, rans.symbols_of(context.cells[cells].astype(np.int64), places)


def codable(indices: Indices) -> bool:
    """Whether a block can be coded at all: indices of 16 bits, a shape of not too many steps."""
    return (
        indices.dtype.itemsize <= 4 and fits(indices.shape) and int(indices.max()) <= _LARGEST_INDEX
    )


def fits(shape: Shape) -> bool:
    """Whether a block of this shape is one that may be written: a long thin one takes for ever."""
    few_voxels = math.prod(shape) <= _MOST_VOXELS
    return min(shape[1:]) >= 2 and few_voxels and steps_of(shape) <= _MOST_STEPS


def ideal_bytes(indices: Indices, network: Network) -> float:
    """About what `encode_block` would take."""
    if (library := _library_for(network)) is not None:
        return _compiled(library, indices, network, go_on)[-1].bytes
    context = Context.of(indices, layout_of(indices.shape))
    return sum(coded.bytes for _, coded in _coded(context, network, go_on))


def start_of(indices: Indices) -> int:
    """The index of cells that have no voxel to repeat."""
    return int(np.median(indices[0, 0]))


def _compiled(
    library: native.Library, indices: Indices, network: Network, check: Callable[[], None]
) -> tuple[int, Linear, compiled.Sequence]:
    """Start and linear prediction of a block, and its symbols, by the compiled library."""
    layout, start = layout_of(indices.shape), start_of(indices)
    cells = layout.pad(indices.astype(np.float32), start)
    linear = fit_linear(cells, layout, int(indices.max()))
    return start, linear, compiled.symbols_of(library, indices, linear, start, network, check)


@dataclass(frozen=True)
class Context:
    """A whole block that is known: its cells in their frame, and the linear prediction's errors."""

    layout: Layout
    linear: Linear
    start: int
    cells: Floats
    errors: Floats

    @classmethod
    def of(cls, indices: Indices, layout: Layout, check: Callable[[], None] = go_on) -> Context:
        """Fit the linear prediction and take its errors."""
        top, start = int(indices.max()), start_of(indices)
        cells = layout.pad(indices.astype(np.float32), start)
        linear = fit_linear(cells, layout, top)
        # Neighbors of cells that follow each other follow each other; the padding is overwritten.
        errors = np.zeros_like(cells)
        near = np.empty((len(NEIGHBORS), _BATCH), np.float32)
        begin = int(layout.cells_of(np.zeros(1, np.int64))[0])
        for low in range(begin, layout.cells, _BATCH):
            check()
            high = min(low + _BATCH, layout.cells)
            neighbors = near[:, : high - low]
            for row, far in zip(neighbors, layout.away.cells, strict=False):
                row[:] = cells[low + far : high + far]
            predicted = linear.predict(neighbors, np.arange(low, high) < layout.first)
            errors[low:high] = cells[low:high] * FINE - predicted
        return cls(layout, linear, start, cells, layout.pad(layout.inside(errors), 0))

    def features(self, voxels: Cells) -> Features:
        """Of the voxels in these cells."""
        return self._view().features(voxels, voxels < self.layout.first, self._predict)

    def expect(self, network: Network, voxels: Cells) -> Expected:
        """Of the voxels in these cells."""
        first = voxels < self.layout.first
        return self._view().expect(network, voxels, first, self._predict)[0]

    def _predict(self, neighbors: Floats, first: Flags, chosen: Cells | None = None) -> Floats:
        return self.linear.predict(neighbors, first)

    def _view(self) -> View:
        return View(self.cells, self.errors, self.layout.away, self.linear.top)


@dataclass(frozen=True)
class View:
    """What the predictor may look at: cells, and errors of the linear prediction, of some blocks.

    away: where they lie, from the voxels' cells. top: the largest index of all.
    """

    cells: Floats
    errors: Floats
    away: Away
    top: int

    def features(self, voxels: Cells, first: Flags, predict: Predict) -> Features:
        """Of n voxels. first: whether they lie in a first slice."""
        values = np.empty((COUNT, len(voxels)), np.float32)
        near = values[: len(NEIGHBORS)]
        self._look(voxels, values)
        return features_of(values, first, predict(near, first), self.top)

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
        maybe = np.arange(len(voxels))
        for near in (0, 1, _SLICE_BEFORE):
            seen = self.cells.take(voxels[maybe] + (self.away.far[near] + self.away.lowest))
            maybe = maybe[seen == 0]
            if len(maybe) * _EMPTY_MATTERS < len(voxels):
                return None
        values = np.empty((SEEN, len(maybe)), np.float32)
        self._look(voxels[maybe], values)
        empty = np.zeros(len(voxels), bool)
        empty[maybe] = ~values.any(axis=0)
        return empty

    def _look(self, voxels: Cells, rows: Floats) -> None:
        """Neighbors into the first rows, errors into the next ones."""
        lowest = voxels + self.away.lowest
        for number, far in enumerate(self.away.far):
            values = self.cells if number < len(NEIGHBORS) else self.errors
            # Never beyond the end; unlike the others this mode writes without a copy.
            values[far:].take(lowest, out=rows[number], mode="clip")


def lanes_for(voxels: int, size: float) -> int:
    """How many lanes a block takes whose code has about `size` bytes, as a power of two."""
    many = 8 * size / voxels > _FEW_BITS
    per_lane = _VOXELS_PER_LANE if many else _MORE_VOXELS_PER_LANE
    return int(np.clip(np.rint(np.log2(voxels / per_lane)), *_LANES_BITS))


def _batches(layout: Layout) -> Iterator[tuple[int, Cells]]:
    """The cells of all voxels, row by row, with the number of the first one."""
    cells = layout.inside(np.arange(layout.cells, dtype=np.int32)).reshape(-1)
    for start in range(0, len(cells), _BATCH):
        yield start, cells[start : start + _BATCH].astype(np.int64)


def decode_blocks(
    chunks: Sequence[bytes],
    shapes: Sequence[Shape],
    network: Network,
    check: Callable[[], None] = go_on,
) -> list[npt.NDArray[np.uint16]]:
    """The indices of several blocks, decoded side by side.

    Each is what it would be alone. check: called every few milliseconds; what it raises ends the
    work. Raises ValueError for bytes that cannot be.
    """
    if not all(map(fits, shapes)):
        raise ValueError("a block of a shape that is never written")
    heads = [Head.unpack(data) for data in chunks]
    if (library := _library_for(network)) is not None:
        return [
            compiled.decode(
                library, shape, head.linear, head.start, head.split(rest), network, check
            )
            for (head, rest), shape in zip(heads, shapes, strict=True)
        ]
    decoded: dict[int, npt.NDArray[np.uint16]] = {}
    alike: dict[tuple[Shape, int], list[int]] = {}
    for number, ((head, _), shape) in enumerate(zip(heads, shapes, strict=True)):
        alike.setdefault((shape, head.lanes_bits), []).append(number)
    for (shape, _), numbers in alike.items():
        group = _Group([heads[n] for n in numbers], ring_of(shape), network)
        decoded |= dict(zip(numbers, group.decode(check), strict=True))
    return [decoded[number] for number in range(len(chunks))]


class _Group:
    """Blocks of one shape and number of lanes, in lockstep."""

    def __init__(self, heads: Sequence[tuple[Head, bytes]], ring: Ring, network: Network) -> None:
        self._heads = [head for head, _ in heads]
        self._ring, self._network = ring, network
        self._layout = layout = ring.layout
        self._decoder = rans.Decoder([head.split(rest) for head, rest in heads])
        self._tops = np.array([[head.linear.top] for head in self._heads], np.int64)
        self._top = int(self._tops.max())
        # Of every block its ring of indices, then of every block its ring of errors.
        self._rings = np.zeros((2, len(heads), ring.cells), np.float32)
        self._rings[0] = np.array([[head.start] for head in self._heads])
        self._cells, self._errors = self._rings.reshape(2, -1)
        self._corners = np.arange(len(heads))[:, None] * ring.cells
        self._both = np.arange(2 * len(heads))[:, None] * ring.cells
        voxels = math.prod(layout.shape)
        self._starts = np.arange(len(heads))[:, None] * voxels
        self._blocks = np.empty(len(heads) * voxels, np.uint16)

    def decode(self, check: Callable[[], None]) -> list[npt.NDArray[np.uint16]]:
        for step in range(self._layout.steps):
            check()
            lines = self._layout.ready(step)
            if len(lines):
                self._step(step, lines)
                self._repeat(step)
        self._decoder.finish()
        return list(self._blocks.reshape(-1, *self._layout.shape))

    def _step(self, step: int, lines: Cells) -> None:
        """All blocks' voxels of one step: [block, voxel]."""
        count, width = len(self._heads), len(lines)
        cells = (self._corners + lines).reshape(-1)
        in_first = np.zeros((count, width), bool)
        in_first[:, : lines.searchsorted(self._layout.first_lines)] = True
        first = in_first.reshape(-1)
        view = View(self._cells, self._errors, self._ring.away(step), self._top)
        linear, parts = [], []
        # A batch of voxels at a time, whose features stay in the cache.
        size = -(-len(cells) // -(-len(cells) // _BATCH))
        for start in range(0, len(cells), size):
            part = slice(start, start + size)
            predict = partial(self._predict, start, width)
            expected, predicted = view.expect(self._network, cells[part], first[part], predict)
            linear.append(predicted)
            parts.append(places_of(expected))
        indices = self._decoder.pull(Places.join(parts, count), self._tops)
        # Flat and of one type is the quick way to write.
        numbers = self._starts + (self._layout.corners.take(lines) + step)
        self._blocks[numbers.reshape(-1)] = indices.astype(np.uint16).reshape(-1)
        values = indices.astype(np.float32).reshape(-1)
        cells += self._ring.slot(step)
        self._cells[cells] = values
        values *= FINE
        values -= linear[0] if len(linear) == 1 else np.concatenate(linear)
        self._errors[cells] = values

    def _repeat(self, step: int) -> None:
        """Fill the padding with what was decoded in this step."""
        part = slice(*self._ring.padding_starts[step : step + 2])
        if part.start < part.stop:
            both = self._rings.reshape(-1)
            sources = self._ring.sources[part] + self._ring.slot(step)
            both[self._ring.padding[part] + self._both] = both.take(sources + self._both)

    def _predict(
        self,
        start: int,
        width: int,
        neighbors: Floats,
        first: Flags,
        chosen: Cells | None = None,
    ) -> Floats:
        """The linear prediction of voxels from number `start` of a step on, or of the chosen ones
        of them; each block has `width` of them, and weights of its own.
        """
        ends = np.arange(1, len(self._heads) + 1) * width - start
        ends = np.clip(ends, 0, len(first)) if chosen is None else chosen.searchsorted(ends)
        predicted = np.empty(len(first), np.float32)
        begin = 0
        for head, end in zip(self._heads, ends.tolist(), strict=True):
            if begin < end:
                part = slice(begin, end)
                predicted[part] = head.linear.predict(neighbors[:, part], first[part])
                begin = end
        return predicted
