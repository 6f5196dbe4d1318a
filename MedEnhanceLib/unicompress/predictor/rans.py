"""Range asymmetric numeral systems: many states side by side, one for each voxel of a round.

A state is 64 bits, at least 2³² between symbols; it takes and gives words of 32 bits.
Source: Duda, Asymmetric numeral systems, arXiv 1311.2540; Giesen, Interleaved entropy coders,
arXiv 1402.3392. The bits below a symbol's bin pass through the same states.
"""

from __future__ import annotations

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


class Encoder:
    """One block's stream, filled from its end: the last round first."""

    def __init__(self, lanes: int) -> None:
        self._states = np.full(lanes, _LOWEST, np.uint64)
        self._words: list[Words] = []

    def push(self, starts: Ints, frequencies: Ints, extra: Ints, bits: Ints) -> None:
        """A round, one symbol for each of the first lanes, with `bits` bits of `extra`."""
        states = self._states[: len(starts)]
        wide, shift = frequencies.view(np.uint64), bits.view(np.uint64)
        full = states >= wide << (np.uint64(64 - BITS) - shift)
        self._words.append(states[full].astype(np.uint32))
        states[full] >>= _WORD
        states <<= shift
        states |= extra.view(np.uint64)
        quotient = states // wide
        # quotient · 2 ** BITS + rest + start
        states += quotient * (np.uint64(1 << BITS) - wide)
        states += starts.view(np.uint64)

    def finish(self) -> tuple[States, Words]:
        """The states that a decoder begins with, and its words."""
        self._words.reverse()
        return self._states, np.concatenate([np.empty(0, np.uint32), *self._words])


class Decoder:
    """Streams of several blocks, read round by round."""

    def __init__(self, states: list[States], words: list[Words]) -> None:
        """states: of each block, all of one length. A state or word too many shows in `finish`."""
        self._states = np.stack(states)
        lengths = np.array([len(one) for one in words])
        self._words = np.concatenate([*words, np.zeros(1, np.uint32)]).astype(np.uint64)
        self._ends = np.cumsum(lengths)
        self._next = self._ends - lengths
        self._tables = make_tables()

    def pull(self, places: Places, tops: Ints) -> Ints:
        """The indices of a round, [blocks, n].

        places: of [blocks, n] voxels, one for each of the first n lanes. tops: [blocks, 1], the
        largest index of each block.
        """
        tables = self._tables
        states = self._states[:, : places.row.shape[1]]
        slots = (states & _MASK).view(np.int64)
        at, ends = self._symbols(slots, places)
        starts = tables.cumulative.take(at)
        starts[at == places.floor] = 0
        ends -= starts
        slots -= starts
        states >>= _BITS
        states *= ends.view(np.uint64)
        states += slots.view(np.uint64)
        at -= places.row
        bits = tables.extra.take(at)
        bits += places.bits
        np.minimum(bits, _MOST_EXTRA, out=bits)
        extra = states.view(np.int64) & ((1 << bits) - 1)
        states >>= bits.view(np.uint64)
        self._refill(states)
        indices = tables.lowest.take(at)
        indices <<= places.bits
        indices += places.base
        indices += extra
        np.maximum(indices, np.int64(0), out=indices)
        return np.minimum(indices, tops, out=indices)

    def finish(self) -> None:
        """Raise ValueError unless every stream was read to its end, and to its beginning."""
        if (self._next != self._ends).any() or (self._states != _LOWEST).any():
            raise ValueError("the stream is not one that was written")

    def _symbols(self, slots: Ints, places: Places) -> tuple[Ints, Ints]:
        """Where the symbols' counts are, and the counts at their ends."""
        tables = self._tables
        at = tables.coarse.take((slots >> (BITS - COARSE)) + places.run) + places.row
        np.maximum(at, places.floor, out=at)
        ends = tables.cumulative.take(at + 1)
        low = np.flatnonzero(ends <= slots)
        flat_at, flat_ends, flat_slots = at.ravel(), ends.ravel(), slots.ravel()
        while low.size:
            further = flat_at[low] + 1
            flat_at[low] = further
            end = tables.cumulative.take(further + 1)
            flat_ends[low] = end
            low = low[end <= flat_slots[low]]
        return at, ends

    def _refill(self, states: States) -> None:
        """Where a state fell below its lowest, take the block's next word."""
        needs = states < _LOWEST
        counts = np.cumsum(needs, axis=1)
        counts += self._next[:, None]
        # Past its end a stream reads on in the next one's: harmless, and `finish` finds it.
        words = self._words.take(counts[needs] - 1, mode="clip")
        states[needs] = (states[needs] << _WORD) | words
        self._next = counts[:, -1].copy()


def symbols_of(indices: Ints, places: Places) -> tuple[Ints, Ints, Ints, Ints]:
    """Start, frequency, extra bits' value and their number, of each voxel."""
    tables = make_tables()
    above = indices - places.base
    symbols = tables.symbol_of.take((above >> places.bits) + REACH)
    at = places.row + symbols
    starts = tables.cumulative.take(at)
    starts[at == places.floor] = 0
    frequencies = tables.cumulative.take(at + 1) - starts
    extra = above - (tables.lowest.take(symbols) << places.bits)
    return starts, frequencies, extra, tables.extra.take(symbols) + places.bits
