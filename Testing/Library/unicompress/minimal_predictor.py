"""Block type 16 from docs/ucv-format.md alone, voxel by voxel: slow, and nothing of the library."""

from __future__ import annotations

import json
import struct
from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Model = dict[str, Array]

NEAR = [(0, 0, -1), (0, -1, 0), (0, -1, -1), (0, -1, 1), (0, 0, -2), (0, -2, 0), (0, -1, -2),
        (0, -1, 2), (0, -2, -1), (0, -2, 1), (0, 0, -3), (-1, 0, 0), (-1, 0, 1), (-1, 1, 0),
        (-1, 0, -1), (-1, -1, 0), (-1, 1, 1), (-1, 1, -1), (-1, -1, 1), (-1, -1, -1), (-1, 0, 2),
        (-1, 0, -2), (-2, 0, 0), (-2, 0, 1), (-2, 1, 0)]  # fmt: skip
ERRORS = [*NEAR[:4], *NEAR[11:14], (-1, 1, 1)]
SUMS = np.array([[2] * 11 + [1] * 14 + [5] * 4 + [3] * 4, [11] * 6 + [0] * 27,
                 [0] * 25 + [16] * 4 + [0] * 4, [0] * 29 + [16] * 4])  # fmt: skip
TYPES = {"I8": "i1", "I16": "<i2", "I32": "<i4"}


def tensors(data: bytes) -> Model:
    """The arrays of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    rows = json.loads(data[8 : 8 + size])
    found = {}
    for name, row in rows.items():
        if name != "__metadata__":
            start, stop = (8 + size + offset for offset in row["data_offsets"])
            found[name] = np.frombuffer(data[start:stop], TYPES[row["dtype"]]).reshape(row["shape"])
    return found


def decode(code: bytes, shape: tuple[int, int, int], model: Model) -> Array:
    """The indices of a block."""
    _, lanes, bits, top, start = struct.unpack_from("<BBBHH", code)
    weights = np.frombuffer(code, "<i2", 50, 7).reshape(2, 25).astype(np.int64)
    states = np.frombuffer(code, "<u8", 1 << lanes, 107).tolist()
    words = iter(np.frombuffer(code, "<u4", offset=107 + (8 << lanes)).tolist())
    indices, errors = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    steps: dict[int, list[tuple[int, int, int]]] = {}
    for place in np.ndindex(shape):
        steps.setdefault(7 * place[0] + 3 * place[1] + place[2], []).append(place)
    for step in sorted(steps):
        for number, (k, j, i) in enumerate(steps[step]):
            near = [_place(k + a, j + b, i + c, shape) for a, b, c in NEAR]
            off = [_place(k + a, j + b, i + c, shape) for a, b, c in ERRORS]
            x = np.array([start if at is None else indices[at] for at in near])
            e = np.array([0 if at is None else errors[at] for at in off])
            total = int(weights[0 if k == 0 else 1] @ x)
            linear = min(max((16 * total) >> bits, -16 * top), 32 * top)
            lane = number % (1 << lanes)
            mean, scale, form = _expect(x, e, linear, k == 0, model)
            states[lane], index = _pull(states[lane], mean, scale, form, words)
            indices[k, j, i] = min(max(index, 0), top)
            errors[k, j, i] = 16 * indices[k, j, i] - linear
    if any(state != 1 << 32 for state in states) or next(words, None) is not None:
        raise ValueError("the stream is not one that was written")
    return indices


def _place(k: int, j: int, i: int, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    if k < 0:
        k, j = 0, j - 2
    j = min(j, shape[1] - 1)
    if j < 0:
        k, j = k - 1, 0
    if i < 0:
        k, j, i = (k - 1, 0, 0) if j == 0 else (k, j - 1, 0)
    return None if k < 0 else (k, j, min(i, shape[2] - 1))


def _expect(x: Array, e: Array, linear: int, first: bool, model: Model) -> tuple[int, int, int]:
    d = np.clip(np.concatenate([16 * x - linear, e]), -(1 << 17), 1 << 17)
    logs, fractions = [], []
    for total in (SUMS @ np.abs(d) + 128).tolist():
        octave = total.bit_length() - 1
        fractions.append(((total << 4) >> octave) - 16)
        logs.append(16 * octave + fractions[-1])
    octave, fraction = logs[0] // 16, fractions[0]
    r = np.float32(
        ((2 * 8192 + 33 + 2 * fraction) // (2 * (33 + 2 * fraction))) * 2.0 ** (2 - octave)
    )
    values = [np.floor(d.astype(np.float32) * r), [logs[0] - 192]]
    values += [[log - logs[0] for log in logs[1:]]]
    values += [[np.floor(np.float32(min(linear, 1 << 17)) * r), 64 if first else 0]]
    v = np.clip(np.concatenate(values), -127, 127).astype(np.int64)
    for layer in range(3):
        sums = model[f"weights{layer}"].astype(np.int64) @ v + model[f"bias{layer}"]
        v = sums >> int(model["bits"][layer])
        v = np.clip(v, 0, 255) if layer < 2 else v
    shift = min(max(int(v[0]), -511), 511) * (33 + 2 * fraction)
    moved = shift << (octave - 17) if octave >= 17 else shift >> (17 - octave)
    mean = min(max(linear + moved, -(1 << 19)), 3 << 19)
    scale = min(max((int(v[1]) + logs[0] - 96) >> 2, 0), 79)
    return mean, scale, min(max(int(v[2]), 0), 7)


def _pull(state: int, mean: int, scale: int, form: int, words: Any) -> tuple[int, int]:
    center = mean + 8
    bits = max((scale - 20) >> 2, 0)
    base = (center >> (bits + 4)) << bits
    phase = (center >> (bits + 1)) & 7
    counts = _counts(min(scale, 20 + (scale & 3)), phase, form).copy()
    first, extra = _symbols()
    floor = int(np.searchsorted(first, (-base) >> bits, side="right")) - 1
    floor = min(max(floor, 0), 135)
    counts[: floor + 1] = 0
    slot = state & 0xFFFF
    symbol = int(np.searchsorted(counts, slot, side="right")) - 1
    low, high = int(counts[symbol]), int(counts[symbol + 1])
    state = (high - low) * (state >> 16) + slot - low
    below = min(int(extra[symbol]) + bits, 16)
    value = state & ((1 << below) - 1)
    state >>= below
    if state < 1 << 32:
        state = (state << 32) + next(words)
    return state, (int(first[symbol]) << bits) + base + value


@cache
def _symbols() -> tuple[Array, Array]:
    far = [((4 + q) << (o + 2), o + 2) for o in range(13) for q in range(4)]
    above = [(n, 0) for n in range(16)] + far
    ends = [start for start, _ in above[1:]] + [1 << 17]
    below = [(-end, extra) for end, (_, extra) in zip(ends, above, strict=True)][::-1]
    first, extra = zip(*below, *above, strict=True)
    return np.array(first), np.array(extra)


@cache
def _counts(scale: int, phase: int, form: int) -> Array:
    edges = np.append(_symbols()[0], 1 << 17).astype(np.float64) - (phase + 0.5) / 8
    sigma = 2.0 ** (scale / 4 - 4 + 1 / 8)
    share = float(_logistic(np.array([-4 + 0.75 * form]))[0])
    near, wide = _logistic(edges / sigma), _logistic(edges / (sigma * 3.6692966676192444))
    below = (1 - share) * near + share * wide
    below[0], below[-1] = 0, 1
    return np.floor(below * ((1 << 16) - 136)).astype(np.int64) + np.arange(137)


def _logistic(x: Array) -> Array:
    small = np.minimum(np.abs(x), 60) / 1024
    term, power = np.ones_like(small), np.ones_like(small)
    for order in range(1, 9):
        term = term * small / order
        power = power + (-1) ** order * term
    power = power**1024
    return np.where(x > 0, 1 / (1 + power), power / (1 + power))
