"""Distributions as integer frequencies, and range asymmetric numeral systems that code with them.

A voxel's distribution is a mixture of two logistic ones with one center. Its scale is one of a
few classes, the center is cut to eighths of a bin (its phase), the share of the wide component is
one of a few shapes. Bins are one index wide; from a scale of four indices on 2, 4, 8 …, with the
lower bits coded as they are. Sixteen bins either side of the center stand for themselves, those
further out get wider, four to an octave: so every index has a symbol.
The coder has many states side by side, one for each voxel of a round. A state is 64 bits, at least
2³² between symbols; it takes and gives words of 32 bits.
Source: Duda, Asymmetric numeral systems, arXiv 1311.2540; Giesen, Interleaved entropy coders,
arXiv 1402.3392.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.unicompress.codecs.predictor.network import SCALE_CLASSES, SHAPES, Expected

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

#: Frequencies of a distribution add up to 2 ** BITS.
BITS = 16
_PHASES = 8
#: From this class of scale on, four classes an octave are used again and bins get wider.
_NARROW = 20
_SCALES = _NARROW + 4
_NEAR = 16
_OCTAVES = 13
_SYMBOLS = 2 * (_NEAR + 4 * _OCTAVES)
#: Differences to the center's bin, in bins, that have a symbol.
REACH = 1 << 17
#: Slots are looked up by their upper bits first.
COARSE = 10
#: By class of scale: an index's bits below its bin, and its first distribution.
BITS_OF = np.maximum((np.arange(SCALE_CLASSES) - _NARROW) >> 2, 0)
TABLE_OF = np.where(BITS_OF > 0, _NARROW + np.arange(SCALE_CLASSES) % 4, np.arange(SCALE_CLASSES))
TABLE_OF *= _PHASES * SHAPES
#: e ** 1.3: how much wider the wide component is.
WIDER = 3.6692966676192444
#: Shares of the wide component: e ** x / (1 + e ** x) for x = −4, −3.25 … 1.25.
SHARES = (
    0.01798620996209156,
    0.037326887344129457,
    0.07585818002124355,
    0.14804719803168948,
    0.26894142136999512,
    0.43782349911420193,
    0.62245933120185459,
    0.77729986117469108,
)

#: Bits of a symbol's cost behind the point.
_COST_BITS = 16
CUT_SHORT = "the stream ends before its block"
NOT_WRITTEN = "the stream is not one that was written"

Words = npt.NDArray[np.uint32]
States = npt.NDArray[np.uint64]
LOWEST = np.uint64(1 << 32)
_WORD = np.uint64(32)
_MASK = np.uint64((1 << BITS) - 1)
_BITS = np.uint64(BITS)
#: Bits of a voxel that are coded as they are, at most: so that one word always suffices.
_MOST_EXTRA = 16
#: By a number of bits: all of them.
_BELOW = (np.int64(1) << np.arange(_MOST_EXTRA + 1)) - 1


@dataclass(frozen=True)
class Tables:
    """cumulative: [distributions · (symbols + 1)], flat. ends: the same from the second one on.
    coarse: [distributions · 2 ** 10], the first symbol that reaches into a run of slots.
    symbol_of: by difference in bins + reach. lowest, extra: a symbol's smallest difference in
    bins, and its bits of which one.
    """

    cumulative: Ints
    ends: Ints
    coarse: npt.NDArray[np.uint8]
    symbol_of: npt.NDArray[np.uint8]
    lowest: Ints
    extra: Ints


@dataclass(frozen=True)
class Places:
    """How voxels are coded; arrays of one shape.

    row: where a distribution begins in `cumulative`; run: in `coarse`. floor: of index 0, the
    smallest that there is, in `cumulative`. bits: of an index that are below its bin. base: the
    index where the bins' count begins.
    """

    row: Ints
    run: Ints
    floor: Ints
    bits: Ints
    base: Ints

    def columns(self, chosen: slice) -> Places:
        """Of [rows, columns] some columns."""
        fields = (self.row, self.run, self.floor, self.bits, self.base)
        return Places(*(field[:, chosen] for field in fields))

    @classmethod
    def join(cls, parts: Sequence[Places], rows: int) -> Places:
        """One after the other, as [rows, columns]."""
        names = ("row", "run", "floor", "bits", "base")
        columns = ([getattr(part, name) for part in parts] for name in names)
        return cls(*(np.concatenate(column).reshape(rows, -1) for column in columns))


def places_of(expected: Expected) -> Places:
    """Which distribution each voxel takes, and where it lies."""
    tables = make_tables()
    scale = expected.scale
    bits = BITS_OF.take(scale)
    center = expected.mean.astype(np.int64)
    center += 8  # indices reach half a step to either side
    center >>= bits + 1
    base = center >> 3
    center &= _PHASES - 1
    table = TABLE_OF.take(scale)
    table += center * SHAPES
    table += expected.shape
    row = table * (_SYMBOLS + 1)
    # A mean is within reach of every index: see `network`.
    floor: Ints = np.add(row, tables.symbol_of.take(REACH - base))
    table <<= COARSE
    base <<= bits
    return Places(row, table, floor, bits, base)


@cache
def make_tables() -> Tables:
    """All distributions; a second's work, done once."""
    cumulative = np.empty((_SCALES, _PHASES, SHAPES, _SYMBOLS + 1), np.uint32)
    rows = np.arange(_SYMBOLS + 1)
    scales = _quarter_octaves(_SCALES)
    edges = _edges()
    for scale in range(_SCALES):
        for phase in range(_PHASES):
            centred = edges - (phase + 0.5) / _PHASES
            near = _logistic(centred / scales[scale])
            wide = _logistic(centred / (scales[scale] * WIDER))
            for shape, share in enumerate(SHARES):
                below = near * (1 - share) + wide * share
                below[0], below[-1] = 0.0, 1.0
                counts = np.floor(below * ((1 << BITS) - _SYMBOLS)).astype(np.int64) + rows
                cumulative[scale, phase, shape] = counts
    flat = cumulative.reshape(-1, _SYMBOLS + 1)
    counts = flat.reshape(-1).astype(np.int64)
    return Tables(
        counts,
        counts[1:],
        _coarse(flat),
        _symbol_of(),
        _lowest().astype(np.int64),
        _extra().astype(np.int64),
    )


def _edges() -> Doubles:
    """Lower edges of all symbols in bins, and the last one's upper edge."""
    return np.concatenate([_lowest(), [1 << (_OCTAVES + 4)]]).astype(np.float64)


def _lowest() -> npt.NDArray[np.int32]:
    far = [(4 + quarter) << (octave + 2) for octave in range(_OCTAVES) for quarter in range(4)]
    above = np.concatenate([np.arange(_NEAR), far])
    ends = np.concatenate([above[1:], [1 << (_OCTAVES + 4)]])
    return np.concatenate([-ends[::-1], above]).astype(np.int32)


def _extra() -> npt.NDArray[np.int32]:
    far = np.concatenate([np.zeros(_NEAR, np.int64), np.repeat(np.arange(_OCTAVES) + 2, 4)])
    return np.concatenate([far[::-1], far]).astype(np.int32)


def _symbol_of() -> npt.NDArray[np.uint8]:
    differences = np.arange(-REACH, REACH)
    found = np.searchsorted(_lowest(), differences, side="right") - 1
    return np.clip(found, 0, _SYMBOLS - 1).astype(np.uint8)


def _coarse(cumulative: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    first = np.arange(1 << COARSE) << (BITS - COARSE)
    # One search for all rows: each row's counts are moved behind the row before.
    moved = cumulative.astype(np.int64) + (np.arange(len(cumulative))[:, None] << (BITS + 1))
    wanted = first + (np.arange(len(cumulative))[:, None] << (BITS + 1))
    found = np.searchsorted(moved.ravel(), wanted.ravel(), side="right") - 1
    symbols = found.reshape(wanted.shape) - np.arange(len(cumulative))[:, None] * (_SYMBOLS + 1)
    return symbols.astype(np.uint8).reshape(-1)


def _quarter_octaves(count: int) -> Doubles:
    """2 ** (n / 4 − 4), at the middle of each class, by square roots: the same everywhere."""
    eighth = np.sqrt(np.sqrt(np.sqrt(np.float64(2))))
    values = [eighth / 16]
    for _ in range(count - 1):
        values.append(values[-1] * eighth * eighth)
    return np.array(values)


def _logistic(x: Doubles) -> Doubles:
    """1 / (1 + e^−x) by additions, products and quotients alone: the same bits everywhere.

    Libraries' own exponential functions differ in the last bit.
    """
    size = np.minimum(np.abs(x), 60.0) / 1024
    # e^−size by its series, then ten squarings.
    term, power = np.ones_like(size), np.ones_like(size)
    for order in range(1, 9):
        term = term * size / order
        power = power - term if order % 2 else power + term
    for _ in range(10):
        power = power * power
    return np.where(x > 0, 1 / (1 + power), power / (1 + power))


@cache
def costs() -> Words:
    """By a symbol's frequency: what it takes, in 1/65536 bit. Whole: sums of any order agree."""
    frequencies = np.arange(1, (1 << BITS) + 1)
    costs = np.rint((BITS - np.log2(frequencies)) * (1 << _COST_BITS))
    return np.concatenate([[0], costs]).astype(np.uint32)


def bytes_of(cost: int) -> float:
    """Of a sum of `costs`."""
    return cost / (8 << _COST_BITS)


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
        return bytes_of(int(costs().take(self.frequencies).sum() + (self.bits.sum() << _COST_BITS)))

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
        self._states = np.full(lanes, LOWEST, np.uint64)
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

    def __init__(self, streams: Sequence[tuple[States, Words]]) -> None:
        """Of each block its states, all of one length, and words; too many show in `finish`."""
        self._states = np.stack([states for states, _ in streams])
        self._words = [words.astype(np.uint64) for _, words in streams]
        self._next = [0] * len(streams)
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
        if self._next != lengths or (self._states != LOWEST).any():
            raise ValueError(NOT_WRITTEN)

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
        (needs,) = (flat < LOWEST).nonzero()
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
                raise ValueError(CUT_SHORT)
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
