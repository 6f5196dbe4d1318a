"""Range asymmetric numeral systems: many states side by side, one for each voxel of a round.

A state is 64 bits, at least 2³² between symbols; it takes and gives words of 32 bits.
Source: Duda, Asymmetric numeral systems, arXiv 1311.2540; Giesen, Interleaved entropy coders,
arXiv 1402.3392. The bits below a symbol's bin pass through the same states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.unicompress.predictor.tables import (
    BITS,
    COARSE,
    REACH,
    Places,
    make_tables,
)

Words = npt.NDArray[np.uint32]
States = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_LOWEST = np.uint64(1 << 32)
_WORD = np.uint64(32)
_MASK = np.uint64((1 << BITS) - 1)
_BITS = np.uint64(BITS)
#: Bits of a voxel that are coded as they are, at most: so that one word always suffices.
_MOST_EXTRA = 16
#: By a number of bits: all of them.
_BELOW = (np.int64(1) << np.arange(_MOST_EXTRA + 1)) - 1


@dataclass(frozen=True)
class Symbols:
    """How voxels are coded: start and frequency of the symbol, and `bits` bits of `extra`."""

    starts: Ints
    frequencies: Ints
    extra: Ints
    bits: Ints

    @property
    def bytes(self) -> float:
        """That they take."""
        return float((BITS - np.log2(self.frequencies) + self.bits).sum()) / 8

    def packed(self) -> Ints:
        """In 64 bits for each voxel: 16, 17 (a frequency may be all), 16 and 5 of them."""
        return self.starts | (self.frequencies << 16) | (self.extra << 33) | (self.bits << 49)

    @classmethod
    def unpacked(cls, words: Ints) -> Symbols:
        """As they were before they were packed."""
        mask = (1 << BITS) - 1
        return cls(
            words & mask, (words >> 16) & ((mask << 1) + 1), (words >> 33) & mask, words >> 49
        )


class Encoder:
    """One block's stream, filled from its end: the last step first."""

    def __init__(self, lanes: int) -> None:
        self._states = np.full(lanes, _LOWEST, np.uint64)
        self._words: list[Words] = []

    def push(self, symbols: Symbols) -> None:
        """A step: rounds of one symbol for each lane, the last one for the first lanes alone."""
        lanes = len(self._states)
        for first in reversed(range(0, len(symbols.starts), lanes)):
            part = slice(first, first + lanes)
            self._push(
                symbols.starts[part].view(np.uint64),
                symbols.frequencies[part].view(np.uint64),
                symbols.extra[part].view(np.uint64),
                symbols.bits[part].view(np.uint64),
            )

    def _push(self, starts: States, frequencies: States, extra: States, bits: States) -> None:
        states = self._states[: len(starts)]
        full = np.flatnonzero(states >= frequencies << (np.uint64(64 - BITS) - bits))
        large = states.take(full)
        self._words.append(large.astype(np.uint32))
        states[full] = large >> _WORD
        states <<= bits
        states |= extra
        quotient = states // frequencies
        # quotient · 2 ** BITS + rest + start
        quotient *= np.uint64(1 << BITS) - frequencies
        states += quotient
        states += starts

    def finish(self) -> tuple[States, Words]:
        """The states that a decoder begins with, and its words."""
        self._words.reverse()
        return self._states, np.concatenate([np.empty(0, np.uint32), *self._words])


class Decoder:
    """Streams of several blocks, read step by step.

    Rounds are narrow, and numpy's calls cost a microsecond each: whatever can be done for a whole
    step is not done in a round.
    """

    def __init__(self, states: list[States], words: list[Words]) -> None:
        """states: of each block, all of one length. A state or word too many shows in `finish`."""
        self._states = np.stack(states)
        self._words = [one.astype(np.uint64) for one in words]
        self._next = [0] * len(words)
        self._tables = make_tables()

    def pull(self, places: Places, tops: Ints) -> Ints:
        """The indices of a step, [blocks, n]; raises ValueError where a stream is at its end.

        places: of [blocks, n] voxels; rounds of one for each lane, the last one for the first
        lanes alone. tops: [blocks, 1], the largest index of each block.
        """
        tables = self._tables
        width, lanes = places.row.shape[1], self._states.shape[1]
        symbols, extra = np.empty_like(places.row), np.empty_like(places.row)
        for first in range(0, width, lanes):
            part = slice(first, min(first + lanes, width))
            states = np.ascontiguousarray(self._states[:, : part.stop - part.start])
            symbols[:, part], extra[:, part] = self._round(
                states,
                places.row[:, part],
                places.run[:, part],
                places.floor[:, part],
                places.bits[:, part],
            )
            self._states[:, : part.stop - part.start] = states
        indices = tables.lowest.take(symbols)
        indices <<= places.bits
        indices += places.base
        indices += extra
        np.maximum(indices, np.int64(0), out=indices)
        return np.minimum(indices, tops, out=indices)

    def _round(
        self, states: States, row: Ints, run: Ints, floor: Ints, bits: Ints
    ) -> tuple[Ints, Ints]:
        """Symbols, and the bits below them, of one voxel for each state; these move on."""
        tables = self._tables
        slots = (states & _MASK).view(np.int64)
        at, ends = self._symbols(slots, row, run, floor)
        starts = tables.cumulative.take(at)
        starts[at == floor] = 0
        ends -= starts
        slots -= starts
        states >>= _BITS
        states *= ends.view(np.uint64)
        states += slots.view(np.uint64)
        at -= row
        below = tables.extra.take(at)
        below += bits
        np.minimum(below, _MOST_EXTRA, out=below)
        extra = _BELOW.take(below)
        extra &= states.view(np.int64)
        states >>= below.view(np.uint64)
        self._refill(states)
        return at, extra

    def finish(self) -> None:
        """Raise ValueError unless every stream was read to its end, and to its beginning."""
        lengths = [len(words) for words in self._words]
        if self._next != lengths or (self._states != _LOWEST).any():
            raise ValueError("the stream is not one that was written")

    def _symbols(self, slots: Ints, row: Ints, run: Ints, floor: Ints) -> tuple[Ints, Ints]:
        """Where the symbols' counts are, and the counts at their ends."""
        tables = self._tables
        coarse = slots >> (BITS - COARSE)
        coarse += run
        at = row + tables.coarse.take(coarse)
        np.maximum(at, floor, out=at)
        ends = tables.ends.take(at)
        # The first symbol of a run is most often the one.
        (low,) = (ends <= slots).reshape(-1).nonzero()
        if low.size:
            flat_at, flat_ends, flat_slots = at.reshape(-1), ends.reshape(-1), slots.reshape(-1)
            wanted = flat_slots.take(low)
            further = flat_at.take(low)
            while True:
                further += 1
                end = tables.ends.take(further)
                flat_at[low] = further
                flat_ends[low] = end
                (still,) = (end <= wanted).nonzero()
                if not still.size:
                    break
                low, wanted, further = low.take(still), wanted.take(still), further.take(still)
        return at, ends

    def _refill(self, states: States) -> None:
        """Where a state fell below its lowest, take the block's next word."""
        flat = states.reshape(-1)
        (needs,) = (flat < _LOWEST).nonzero()
        if not needs.size:
            return
        blocks, lanes = states.shape
        stops = needs.searchsorted(np.arange(1, blocks + 1) * lanes).tolist()
        words, before = [], 0
        for block, stop in enumerate(stops):
            start = self._next[block]
            end = self._next[block] = start + stop - before
            before = stop
            if end > len(self._words[block]):
                raise ValueError("the stream ends before its block")
            words.append(self._words[block][start:end])
        filled = flat.take(needs)
        filled <<= _WORD
        filled |= words[0] if blocks == 1 else np.concatenate(words)
        flat[needs] = filled


def symbols_of(indices: Ints, places: Places) -> Symbols:
    """Of each voxel."""
    tables = make_tables()
    above = indices - places.base
    symbols = tables.symbol_of.take((above >> places.bits) + REACH)
    at = places.row + symbols
    starts = tables.cumulative.take(at)
    starts[at == places.floor] = 0
    frequencies = tables.cumulative.take(at + 1) - starts
    extra = above - (tables.lowest.take(symbols) << places.bits)
    return Symbols(starts, frequencies, extra, tables.extra.take(symbols) + places.bits)
