"""Decodes blocks side by side: each step takes the voxels of all of them that are ready.

Numpy's calls cost a microsecond each, whatever they do: wide steps make them cheap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.unicompress.predictor import rans
from MedEnhanceLib.unicompress.predictor.coder import (
    Flags,
    Head,
    View,
    fits,
    go_on,
)
from MedEnhanceLib.unicompress.predictor.features import FINE, Floats
from MedEnhanceLib.unicompress.predictor.layout import Cells, Ring, Shape, ring_of
from MedEnhanceLib.unicompress.predictor.network import Network
from MedEnhanceLib.unicompress.predictor.tables import Places, places_of

#: Voxels that are looked at in one go: what a processor's cache holds of their features.
_BATCH = 3520


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
    decoded: dict[int, npt.NDArray[np.uint16]] = {}
    heads = [Head.unpack(data) for data in chunks]
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
        lanes = self._heads[0].lanes
        states = [np.frombuffer(rest, "<u8", lanes) for _, rest in heads]
        words = [np.frombuffer(rest, "<u4", offset=8 * lanes) for _, rest in heads]
        self._decoder = rans.Decoder(states, words)
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
        # So many voxels at a time that their features stay in the cache.
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
        neighbours: Floats,
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
                predicted[part] = head.linear.predict(neighbours[:, part], first[part])
                begin = end
        return predicted
