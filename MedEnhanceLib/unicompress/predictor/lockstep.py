"""Decodes blocks side by side: each step takes the voxels of all of them that are ready.

Numpy's calls cost a microsecond each, whatever they do: wide steps make them cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.unicompress.predictor import rans
from MedEnhanceLib.unicompress.predictor.coder import (
    Flags,
    Head,
    Indices64,
    View,
    fits,
)
from MedEnhanceLib.unicompress.predictor.features import FINE, Floats
from MedEnhanceLib.unicompress.predictor.layout import Cells, Layout, Shape, layout_of
from MedEnhanceLib.unicompress.predictor.network import Network
from MedEnhanceLib.unicompress.predictor.tables import Places, places_of

#: Voxels that are looked at in one go: what a processor's cache holds of their features.
_BATCH = 4096


def decode_blocks(
    chunks: Sequence[bytes], shapes: Sequence[Shape], network: Network
) -> list[npt.NDArray[np.uint16]]:
    """The indices of several blocks, decoded side by side.

    Each is what it would be alone. Raises ValueError for bytes that cannot be.
    """
    if not all(map(fits, shapes)):
        raise ValueError("a block of a shape that is never written")
    decoded: dict[int, npt.NDArray[np.uint16]] = {}
    heads = [Head.unpack(data) for data in chunks]
    alike: dict[tuple[Shape, int], list[int]] = {}
    for number, ((head, _), shape) in enumerate(zip(heads, shapes, strict=True)):
        alike.setdefault((shape, head.lanes_bits), []).append(number)
    for (shape, _), numbers in alike.items():
        group = _Group([heads[n] for n in numbers], layout_of(shape), network)
        decoded |= dict(zip(numbers, group.decode(), strict=True))
    return [decoded[number] for number in range(len(chunks))]


class _Group:
    """Blocks of one shape and number of lanes, in lockstep."""

    def __init__(
        self, heads: Sequence[tuple[Head, bytes]], layout: Layout, network: Network
    ) -> None:
        self._heads = [head for head, _ in heads]
        self._layout, self._network = layout, network
        lanes = self._heads[0].lanes
        states = [np.frombuffer(rest, "<u8", lanes) for _, rest in heads]
        words = [np.frombuffer(rest, "<u4", offset=8 * lanes) for _, rest in heads]
        self._decoder = rans.Decoder(states, words)
        self._tops = np.array([[head.linear.top] for head in self._heads], np.int64)
        self._top = int(self._tops.max())
        starts = [np.full(layout.cells, head.start, np.float32) for head in self._heads]
        self._cells = np.concatenate(starts)
        self._errors = np.zeros_like(self._cells)
        self._corners = np.arange(len(heads))[:, None] * layout.cells

    def decode(self) -> list[npt.NDArray[np.uint16]]:
        layout = self._layout
        for step in range(layout.steps):
            voxels = layout.order[layout.starts[step] : layout.starts[step + 1]]
            if not len(voxels):
                continue
            self._step(voxels)
            part = slice(layout.padding_starts[step], layout.padding_starts[step + 1])
            if part.start < part.stop:
                target = layout.padding[part] + self._corners
                source = layout.sources[part] + self._corners
                self._cells[target] = self._cells[source]
                self._errors[target] = self._errors[source]
        self._decoder.finish()
        blocks = self._cells.reshape(len(self._heads), -1)
        return [layout.inside(block).astype(np.uint16) for block in blocks]

    def _step(self, voxels: npt.NDArray[np.int64]) -> None:
        """All blocks' voxels of one step: [block, voxel]."""
        count, width = len(self._heads), len(voxels)
        cells = self._corners + voxels
        linear = np.empty((count, width), np.float32)
        # So many blocks at a time that their features stay in the cache.
        at_once = max(1, _BATCH // width)
        first = voxels < self._layout.first
        view = View(self._layout, self._cells, self._errors, self._top)
        parts = []
        for number in range(0, count, at_once):
            blocks = slice(number, min(number + at_once, count))
            rows = cells[blocks].ravel()
            predict = partial(self._predict, self._heads[blocks], width)
            firsts = np.tile(first, blocks.stop - blocks.start)
            expected, predicted = view.expect(self._network, rows, firsts, predict)
            linear[blocks] = predicted.reshape(-1, width)
            parts.append(places_of(expected))
        indices = self._pull(Places.join(parts, count), width)
        values = indices.astype(np.float32)
        self._cells[cells] = values
        self._errors[cells] = values * np.float32(FINE) - linear

    def _pull(self, places: Places, width: int) -> Indices64:
        lanes = self._heads[0].lanes
        rounds = [
            self._decoder.pull(places.columns(slice(first, first + lanes)), self._tops)
            for first in range(0, width, lanes)
        ]
        return rounds[0] if len(rounds) == 1 else np.concatenate(rounds, axis=1)

    @staticmethod
    def _predict(
        heads: Sequence[Head],
        width: int,
        neighbours: Floats,
        first: Flags,
        chosen: Cells | None = None,
    ) -> Floats:
        """The linear prediction of some blocks' voxels, or of the chosen ones of them."""
        if len(heads) == 1:
            return heads[0].linear.predict(neighbours, first)
        every = np.arange(len(heads) + 1) * width
        ends = every if chosen is None else np.searchsorted(chosen, every)
        parts = [slice(start, stop) for start, stop in pairwise(ends.tolist())]
        return np.concatenate(
            [
                head.linear.predict(neighbours[:, part], first[part])
                for head, part in zip(heads, parts, strict=True)
            ]
        )
