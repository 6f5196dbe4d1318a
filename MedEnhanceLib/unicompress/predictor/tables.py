"""Distributions as integer frequencies: the same on every machine.

A voxel's distribution is a mixture of two logistic ones with one centre. Its scale is one of a
few classes, the centre is cut to eighths of a bin (its phase), the share of the wide component is
one of a few shapes. Bins are one index wide; from a scale of four indices on 2, 4, 8 …, with the
lower bits coded as they are. Sixteen bins either side of the centre stand for themselves, those
further out get wider, four to an octave: so every index has a symbol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.unicompress.predictor.network import SHAPES, Expected

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
#: Differences to the centre's bin, in bins, that have a symbol.
_REACH = 1 << 17
#: Slots are looked up by their upper bits first.
_COARSE = 10
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


@dataclass(frozen=True)
class Tables:
    """cumulative: [distributions · (symbols + 1)], flat. coarse: [distributions · 2 ** 10], the
    first symbol that reaches into a run of slots. symbol_of: by difference in bins + reach.
    lowest, extra: a symbol's smallest difference in bins, and its bits of which one."""

    cumulative: npt.NDArray[np.uint32]
    coarse: npt.NDArray[np.uint8]
    symbol_of: npt.NDArray[np.uint8]
    lowest: npt.NDArray[np.int32]
    extra: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Places:
    """How n voxels are coded. table: where a distribution begins in `cumulative`, over its
    length; bits: of an index that are below its bin; base: the index where the bins' count
    begins; floor: the symbol that holds index 0, the smallest that there is."""

    table: npt.NDArray[np.int32]
    bits: npt.NDArray[np.int32]
    base: npt.NDArray[np.int32]
    floor: npt.NDArray[np.uint8]

    def columns(self, chosen: slice, rows: int) -> Places:
        """The voxels, as [rows, …], of some columns."""

        def cut(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return values.reshape(rows, -1)[:, chosen].ravel()

        return Places(cut(self.table), cut(self.bits), cut(self.base), cut(self.floor))

    @classmethod
    def join(cls, parts: Sequence[Places]) -> Places:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.table for part in parts]),
            np.concatenate([part.bits for part in parts]),
            np.concatenate([part.base for part in parts]),
            np.concatenate([part.floor for part in parts]),
        )


def places_of(expected: Expected) -> Places:
    """Which distribution each voxel takes, and where it lies."""
    tables = make_tables()
    scale = expected.scale
    bits = np.maximum((scale - _NARROW) >> 2, 0)
    narrow = np.minimum(scale, _NARROW + (scale & 3))
    centre = expected.mean + 8  # indices reach half a step to either side
    base = centre >> (bits + 4)
    phase = (centre >> (bits + 1)) & (_PHASES - 1)
    table = (narrow * _PHASES + phase) * SHAPES + expected.shape
    low = np.maximum(-base, -_REACH)
    np.minimum(low, _REACH - 1, out=low)
    floor = tables.symbol_of.take(low + _REACH)
    return Places(table, bits, base << bits, floor)


@cache
def make_tables() -> Tables:
    """All distributions; a second's work, done once."""
    steps = np.concatenate([_edges(), [1.0]])
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
    del steps
    flat = cumulative.reshape(-1, _SYMBOLS + 1)
    return Tables(flat.reshape(-1), _coarse(flat), _symbol_of(), _lowest(), _extra())


def symbol_count() -> int:
    """Of every distribution."""
    return _SYMBOLS


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
    differences = np.arange(-_REACH, _REACH)
    found = np.searchsorted(_lowest(), differences, side="right") - 1
    return np.clip(found, 0, _SYMBOLS - 1).astype(np.uint8)


def _coarse(cumulative: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    first = np.arange(1 << _COARSE) << (BITS - _COARSE)
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
