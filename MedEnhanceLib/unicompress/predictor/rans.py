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
    Places,
    make_tables,
    symbol_count,
)

Words = npt.NDArray[np.uint32]
States = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int32]

_LOWEST = np.uint64(1 << 32)
_WORD = np.uint64(32)
_MASK = np.uint64((1 << BITS) - 1)
_BITS = np.uint64(BITS)
_COARSE_BITS = 10
#: Bits of a voxel that are coded as they are, at most: so that one word always suffices.
_MOST_EXTRA = 16


class Encoder:
    """One block's stream, filled from its end: the last round first."""

    def __init__(self, lanes: int) -> None:
        self._states = np.full(lanes, _LOWEST, np.uint64)
        self._words: list[Words] = []

    def push(self, starts: Words, frequencies: Words, extra: Words, bits: Words) -> None:
        """A round, one symbol for each of the first lanes, with `bits` bits of `extra`."""
        states = self._states[: len(starts)]
        wide = frequencies.astype(np.uint64)
        full = states >= wide << (np.uint64(64 - BITS) - bits.astype(np.uint64))
        self._words.append((states[full] & np.uint64(0xFFFFFFFF)).astype(np.uint32))
        states[full] >>= _WORD
        raised = (states << bits.astype(np.uint64)) | extra
        quotient = raised // wide
        states[:] = (quotient << _BITS) + (raised - quotient * wide) + starts

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
        """The indices of a round.

        places: of [blocks · n] voxels, block after block, one for each of the first n lanes.
        tops: [blocks, 1], the largest index of each block.
        """
        tables = self._tables
        states = self._states[:, : len(places.table) // len(self._states)]
        slots = (states & _MASK).astype(np.int64).ravel()
        symbols = self._symbols(slots, places)
        at = places.table * np.int32(symbol_count() + 1) + symbols
        starts = tables.cumulative.take(at)
        starts[symbols == places.floor] = 0
        frequencies = tables.cumulative.take(at + 1) - starts
        extra_bits = np.minimum(tables.extra.take(symbols) + places.bits, _MOST_EXTRA)
        lower = (slots - starts).reshape(states.shape).astype(np.uint64)
        new = (states >> _BITS) * frequencies.reshape(states.shape) + lower
        wide_bits = extra_bits.reshape(states.shape).astype(np.uint64)
        kept = new >> wide_bits
        extra = (new - (kept << wide_bits)).astype(np.int32).ravel()
        self._refill(kept)
        states[...] = kept
        indices = (tables.lowest.take(symbols) << places.bits) + places.base + extra
        shaped = indices.reshape(states.shape)
        np.maximum(shaped, 0, out=shaped)
        return np.minimum(shaped, tops, out=shaped).reshape(-1)

    def finish(self) -> None:
        """Raise ValueError unless every stream was read to its end, and to its beginning."""
        if (self._next != self._ends).any() or (self._states != _LOWEST).any():
            raise ValueError("the stream is not one that was written")

    def _symbols(self, slots: npt.NDArray[np.int64], places: Places) -> Ints:
        tables = self._tables
        runs = (places.table << np.int32(_COARSE_BITS)) + (slots >> (BITS - _COARSE_BITS))
        symbols = tables.coarse.take(runs).astype(np.int32)
        np.maximum(symbols, places.floor, out=symbols)
        rows = places.table * np.int32(symbol_count() + 1) + 1
        low = np.flatnonzero(tables.cumulative.take(rows + symbols) <= slots)
        while low.size:
            symbols[low] += 1
            still = tables.cumulative.take(rows[low] + symbols[low]) <= slots[low]
            low = low[still]
        return symbols

    def _refill(self, states: States) -> None:
        """Where a state fell below its lowest, take the block's next word."""
        needs = states < _LOWEST
        counts = np.cumsum(needs, axis=1)
        at = self._next[:, None] + counts - 1
        # Past its end a stream reads on in the next one's: harmless, and `finish` finds it.
        words = self._words.take(at[needs], mode="clip")
        states[needs] = (states[needs] << _WORD) | words
        self._next += counts[:, -1]


def symbols_of(indices: Ints, places: Places) -> tuple[Words, Words, Words, Words]:
    """Start, frequency, extra bits' value and their number, of each voxel."""
    tables = make_tables()
    above = indices - places.base
    symbols = tables.symbol_of.take((above >> places.bits) + (1 << 17)).astype(np.int32)
    at = places.table * np.int32(symbol_count() + 1) + symbols
    starts = tables.cumulative.take(at)
    starts[symbols == places.floor] = 0
    frequencies = tables.cumulative.take(at + 1) - starts
    extra = above - (tables.lowest.take(symbols) << places.bits)
    bits = tables.extra.take(symbols) + places.bits
    return starts, frequencies, extra.astype(np.uint32), bits.astype(np.uint32)
