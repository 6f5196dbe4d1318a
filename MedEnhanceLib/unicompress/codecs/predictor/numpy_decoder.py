"""Decoding in NumPy, without the compiled library: slow, the same bits.

The voxels of a step are decoded together. As in native/predictor.c all numbers are integers, exact
also in float32: neither processor nor version of NumPy changes a bit.
"""

from __future__ import annotations

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats, Longs, Mask, Words
from MedEnhanceLib.runtime.ordered import safe_point
from MedEnhanceLib.unicompress.codecs.predictor import tables, wavefront
from MedEnhanceLib.unicompress.codecs.predictor.features import DOWN, FINE, LOG_STEPS, UP, Linear
from MedEnhanceLib.unicompress.codecs.predictor.integer_network import Network

_NEIGHBORS, _SEEN = len(wavefront.NEIGHBORS), len(wavefront.NEIGHBORS + wavefront.ERRORS)
#: Weights of differences, then errors, in the four sums whose logarithms are features.
_SUMS = np.zeros((4, _SEEN), np.float32)
_SUMS[0] = np.repeat((2, 1, 5, 3), (11, 14, 4, 4))
_SUMS[1, :6], _SUMS[2, -8:-4], _SUMS[3, -4:] = 11, 16, 16
_FARTHEST = np.float32(1 << 17)


def decode_in_numpy(
    block: Words, linear: Linear, start: int, network: Network, states: Array, words: Array
) -> int:
    """Decode a block; returns how many words were read, ValueError where they end before it.

    Args:
        block: [K, J, I], to be filled.
        linear: its linear prediction.
        start: see `coder`.
        network: that it was coded with.
        states: [lanes]; they become what coding began with.
        words: of the whole block.
    """
    _, rows, columns = block.shape
    slots, ring = wavefront.ring_of(block.shape)
    lines, own_lines = wavefront.lines_of(block.shape), wavefront.lines_of_rows(block.shape)
    # Indices of the last steps, and errors of their linear prediction.
    cells = np.repeat(np.array([[start], [0]], np.float32), slots * lines, axis=1)
    beside = ring["beside"] + slots * lines * (np.arange(_SEEN) >= _NEIGHBORS)
    times = np.tensordot(wavefront.STEP, np.indices(block.shape, np.int32), 1).reshape(-1)
    order, ends = np.argsort(times, kind="stable"), np.cumsum(np.bincount(times))
    used = 0
    for step, numbers in enumerate(np.split(order, ends[:-1])):
        safe_point()
        at = own_lines[numbers // columns]
        before = (step - ring["lags"]) % slots * lines + beside
        seen = cells.reshape(-1).take(before[:, None] + at)
        predicted, places = _expected(seen, numbers < rows * columns, linear, network)
        index = np.empty(len(numbers), np.int64)
        for first in range(0, len(numbers), len(states)):
            part = slice(first, first + len(states))
            index[part], read = _pulled(states[: len(index[part])], words[used:], places[:, part])
            used += read
        block.reshape(-1)[numbers] = index = index.clip(0, linear.top)
        now = step % slots * lines
        cells[:, now + at] = index, FINE * index - predicted
        known = slice(*ring["padding_starts"][step : step + 2])
        cells[:, ring["padding"][known]] = cells[:, now + ring["sources"][known]]
    return used


def _expected(
    seen: Floats, is_first: Mask, linear: Linear, network: Network
) -> tuple[Floats, Longs]:
    """Compute the linear prediction of voxels, [n], and what their distributions are.

    These are rows of the tables, their least symbols, bits below a bin, first indices, [4, n].

    Args:
        seen: neighbors, and errors of some, [33, n].
        is_first: whether a voxel is in the block's first slice.
        linear: prediction of the block.
        network: of the block.
    """
    sums = np.where(is_first, *(linear.weights @ seen[:_NEIGHBORS]))
    predicted = np.floor(sums * np.float32(FINE / (1 << linear.bits)))
    predicted = predicted.clip(-FINE * linear.top, 2 * FINE * linear.top)
    seen[:_NEIGHBORS] = FINE * seen[:_NEIGHBORS] - predicted
    off = seen.clip(-_FARTHEST, _FARTHEST)
    # The upper bits of a float are its logarithm, with four bits of fraction.
    log, *logs = ((_SUMS @ np.abs(off) + np.float32(128)).view(np.int32) >> 19) - (127 << 4)
    scales = (log - 12 * LOG_STEPS, *(other - log for other in logs))
    level = np.minimum(predicted, _FARTHEST) * DOWN[log]
    layer = np.vstack([off * DOWN[log], *scales, level, 64 * is_first]).astype(np.float32)
    layer = np.floor(layer).clip(-127, 127)
    for number, matrix in enumerate(network.matrices):
        layer = np.floor(matrix[:, :-1] @ layer + matrix[:, -1:])
        layer = layer.clip(0, 255) if number < 2 else layer
    moved = np.floor(UP[log] * layer[0].clip(-511, 511) * np.float32(1 / 4096))
    mean = (moved + predicted).clip(-(1 << 19), 3 << 19).astype(np.int64)
    scale = ((layer[1].astype(np.int64) + log - 6 * LOG_STEPS) >> 2).clip(0, 79)
    bits = tables.BITS_OF[scale]
    center = (mean + FINE // 2) >> (bits + 1)
    row = tables.TABLE_OF[scale] + (center & 7) * 8 + layer[2].clip(0, 7).astype(np.int64)
    least = tables.make_tables()["symbol_of"][tables.REACH - (center >> 3)]
    return predicted, np.stack([row, least, bits, center >> 3 << bits])


def _pulled(states: Array, words: Array, places: Longs) -> tuple[Longs, int]:
    """Take a voxel's index from each state; returns them, and how many words followed."""
    table, (row, least, bits, base) = tables.make_tables(), places
    slots = (states & np.uint64((1 << tables.BITS) - 1)).astype(np.int64)
    found = np.searchsorted(table["starts"], (row << tables.BITS + 1) + slots, side="right") - 1
    first = row * (tables.SYMBOLS + 1)
    symbol = np.maximum(found - first, least)
    low = np.where(symbol == least, 0, table["cumulative"][first + symbol])
    states >>= np.uint64(tables.BITS)
    states *= (table["cumulative"][first + symbol + 1] - low).astype(np.uint64)
    states += (slots - low).astype(np.uint64)
    below = np.minimum(table["extra"][symbol] + bits, 16)
    rest = states.astype(np.int64) & ((1 << below) - 1)
    states >>= below.astype(np.uint64)
    short = np.flatnonzero(states < tables.LOWEST)
    if len(short) > len(words):
        raise ValueError("the stream ends before its block")
    states[short] = states[short] << np.uint64(32) | words[: len(short)]
    return (table["lowest"][symbol] << bits) + base + rest, len(short)
