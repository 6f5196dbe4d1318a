"""Distributions as integer frequencies, for the coder in C (native/predictor.c).

A voxel's distribution is a mixture of two logistic ones with one center. Its scale is one of a
few classes, the center is cut to eighths of a bin (its phase), the share of the wide component is
one of a few shapes. Bins are one index wide; from a scale of four indices on 2, 4, 8 …, with the
lower bits stored unchanged. Sixteen bins on each side of the center have a symbol each, those
further out share symbols, four to an octave: so every index has a symbol.
The coder has many states side by side, one for each voxel of a round. A state has 64 bits and is at
least 2³² between symbols; it exchanges words of 32 bits with the stream.
Source: Duda, Asymmetric numeral systems, arXiv 1311.2540; Giesen, Interleaved entropy coders,
arXiv 1402.3392.
"""

from __future__ import annotations

import numpy as np

from MedEnhanceLib.core.arrays import Array, Bytes, Doubles, Ints
from MedEnhanceLib.runtime.shared_setting import computed_once
from MedEnhanceLib.unicompress.codecs.predictor.integer_network import SCALE_CLASSES, SHAPES

#: Frequencies of a distribution add up to 2 ** BITS.
BITS = 16
_PHASES = 8
#: From this class of scale on, four classes an octave are used again and bins get wider.
_NARROW = 20
_SCALES = _NARROW + 4
_NEAR = 16
_OCTAVES = 13
SYMBOLS = 2 * (_NEAR + 4 * _OCTAVES)
#: Upper edge of the last symbol, in bins.
_END = 1 << (_OCTAVES + 4)
#: Differences to the center's bin, in bins, that have a symbol.
REACH = 1 << 17
#: Upper bits of a slot, by which it is looked up first.
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

#: Fractional bits of a symbol's cost.
COST_BITS = 16

#: Where every state begins and ends.
LOWEST = np.uint64(1 << 32)


@computed_once
def make_tables() -> dict[str, Array]:
    """Make all distributions, as the coder in C takes them.

    cumulative: [distributions · (symbols + 1)], flat; starts: rising, for NumPy's search. coarse:
    [distributions · 2 ** 10], the first symbol that reaches into a run of slots. symbol_of: by
    difference in bins + reach. lowest, extra: a symbol's smallest difference in bins, and its bits
    of which one. costs: by a symbol's frequency, what it takes in 1/65536 bit; whole, so that sums
    of any order agree.
    """
    cumulative = np.empty((_SCALES, _PHASES, SHAPES, SYMBOLS + 1), np.uint32)
    rows = np.arange(SYMBOLS + 1)
    scales, lowest = _quarter_octaves(_SCALES), _lowest()
    edges = np.append(lowest, _END).astype(np.float64)
    centered = edges - (np.arange(_PHASES)[:, None, None] + 0.5) / _PHASES
    shares = np.array(SHARES)[:, None]
    for scale, distributions in zip(scales, cumulative, strict=True):
        near, wide = _logistic(centered / scale), _logistic(centered / (scale * WIDER))
        below = near * (1 - shares) + wide * shares
        below[..., 0], below[..., -1] = 0.0, 1.0
        distributions[:] = np.floor(below * ((1 << BITS) - SYMBOLS)).astype(np.int64) + rows
    flat = cumulative.reshape(-1, SYMBOLS + 1)
    # For one search in all rows, each row's counts are moved behind the row before.
    moved = np.arange(len(flat))[:, None] << (BITS + 1)
    far = np.concatenate([np.zeros(_NEAR, np.int64), np.repeat(np.arange(_OCTAVES) + 2, 4)])
    widths = np.diff(np.concatenate([[-REACH], lowest[1:], [REACH]]))
    frequencies = np.arange(1, (1 << BITS) + 1)
    costs = np.rint((BITS - np.log2(frequencies)) * (1 << COST_BITS))
    return {
        "cumulative": flat.reshape(-1),
        "starts": (flat + moved).reshape(-1),
        "coarse": _coarse(flat),
        "symbol_of": np.arange(SYMBOLS, dtype=np.uint8).repeat(widths),
        "lowest": lowest,
        "extra": np.concatenate([far[::-1], far]).astype(np.int32),
        "costs": np.concatenate([[0], costs]).astype(np.uint32),
    }


def _lowest() -> Ints:
    """Compute the lower edges of all symbols, in bins."""
    far = [(4 + quarter) << (octave + 2) for octave in range(_OCTAVES) for quarter in range(4)]
    above = np.concatenate([np.arange(_NEAR), far])
    return np.concatenate([-np.append(above[1:], _END)[::-1], above]).astype(np.int32)


def _coarse(cumulative: Array) -> Bytes:
    """Find the symbol of the first slot of each run; cumulative: [distributions, symbols + 1]."""
    runs = 1 << COARSE
    first = -(
        -cumulative[:, :SYMBOLS].astype(np.int64) // (1 << (BITS - COARSE))
    )  # that begins in it
    rows = np.arange(len(cumulative))[:, None] * (runs + 1)
    begun = np.bincount((first + rows).ravel(), minlength=rows.size * (runs + 1))
    return (begun.reshape(-1, runs + 1)[:, :runs].cumsum(axis=1) - 1).astype(np.uint8).ravel()


def _quarter_octaves(count: int) -> Doubles:
    """Compute 2 ** (n / 4 − 4) mid-class, by square roots: the same everywhere."""
    eighth = np.sqrt(np.sqrt(np.sqrt(np.float64(2))))
    values = [eighth / 16]
    for _ in range(count - 1):
        values.append(values[-1] * eighth * eighth)
    return np.array(values)


def _logistic(x: Doubles) -> Doubles:
    """Compute 1 / (1 + e^−x) by additions, products and quotients alone: the same bits everywhere.

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
