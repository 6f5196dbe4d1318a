"""Codes as bytes: a small causal model in integers, and an entropy coder (ANS).

Layers are coded one after the other. Within one, cells of eight phases, by which of their three
indices are odd: a cell knows the codes of its neighbors of earlier phases on both sides along
each axis in which it is odd, and the two layers before at its own place. From their vectors a
network of two matrices predicts the vector to come; a code is the likelier the more its own
vector agrees. Everything is integers: writers and readers on any machine make the same tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import ModelError

Codes = npt.NDArray[np.int64]
Arrays = Mapping[str, npt.NDArray[Any]]
Numbers = npt.NDArray[np.float64]

#: Parts of one that logits, binary logarithms, are counted in.
STEPS = 64
#: A code's weight is at least 1 and at most 2^16; what is 16 halvings down gets 1.
OCTAVES = 16
#: Those parts that biases are in steps of.
BIAS_STEP = 8
HIDDEN_TOP = 1023
VECTOR_TOP = 1023
#: Cells whose tables are made at once.
_BATCH = 4096
#: Bits of probabilities, and a word of the stack.
_PRECISION, _WORD = 24, (1 << 32) - 1


class CodeModel:
    """Tables of the probabilities of codes, from a model's file.

    All products are of integers in doubles, far from where doubles stop being exact.
    Raises ModelError for a file that is incomplete.
    """

    def __init__(self, arrays: Arrays) -> None:
        try:
            self.books = arrays["codebooks"].astype(np.float64)
            self.layers = len(self.books)
            self.first = arrays["entropy.first"].astype(np.float64)
            self.first_bias = arrays["entropy.first_bias"].astype(np.float64)
            self.second = arrays["entropy.second"].astype(np.float64)
            self.bias = arrays["entropy.bias"].astype(np.float64) * BIAS_STEP
            self.shifts = arrays["entropy.shifts"].astype(np.int64)
            self.powers = _all_powers(arrays["entropy.powers"])
            self._check()
        except (KeyError, ValueError, IndexError) as cause:
            raise ModelError(
                f"the implicit model's entropy tables cannot be used: {cause}", "Import it again."
            ) from cause

    def _check(self) -> None:
        rows, codes, size = self.books.shape
        hidden = self.first.shape[1]
        wanted = {
            "first": (rows, hidden, context_size(size)),
            "first_bias": (rows, hidden),
            "second": (rows, size, hidden),
            "bias": (rows, codes),
            "shifts": (rows, 3),
            "powers": (STEPS * OCTAVES + 1,),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} of shape {getattr(self, name).shape}")
        if self.shifts.min() < 0 or self.shifts.max() > 30:
            raise ValueError("shifts out of range")

    def book(self, row: int) -> Numbers:
        """The codebook of a layer of the file."""
        vectors: Numbers = self.books[row]
        return vectors

    def weights(self, row: int, contexts: Numbers) -> Numbers:
        """Weights ≥ 1 of all codes, [N, codes], from contexts [N, context_size]; whole numbers."""
        down, up, logit = (int(shift) for shift in self.shifts[row])
        hidden = _halved(contexts @ self.first[row].T, down) + self.first_bias[row]
        hidden = np.clip(hidden, 0, HIDDEN_TOP)
        vector = np.clip(_halved(hidden @ self.second[row].T, up), -VECTOR_TOP, VECTOR_TOP)
        logits = _halved(vector @ self.book(row).T, logit) + self.bias[row]
        below = logits.max(axis=1, keepdims=True) - logits
        steps = np.minimum(below, STEPS * OCTAVES).astype(np.int64)
        weights: Numbers = self.powers[steps]
        return weights


def context_size(code_size: int) -> int:
    """Numbers of a context: neighbors along three axes, two layers before; which axes are odd."""
    return 5 * code_size + 3


def phases(grid: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """The cells of each phase that has any."""
    for number in range(8):
        odd = (number >> 2 & 1, number >> 1 & 1, number & 1)
        if all(n > start for n, start in zip(grid, odd, strict=True)):
            yield tuple(slice(start, None, 2) for start in odd)


def contexts_of(model: CodeModel, codes: Codes, row: int, phase: tuple[slice, ...]) -> Numbers:
    """Contexts [N, context_size] of the cells of a phase; codes [rows, k, j, i], known so far."""
    vectors = model.book(row)[codes[row]]
    parts = []
    for axis in range(3):
        if not phase[axis].start:
            parts.append(np.zeros_like(vectors[phase]))
            continue
        before = np.roll(vectors, 1, axis=axis)[phase]
        after = np.roll(vectors, -1, axis=axis)[phase]
        if codes.shape[1 + axis] % 2 == 0:  # the last cell has none behind it
            index = [slice(None)] * 4
            index[axis] = slice(-1, None)
            after = after.copy()
            after[tuple(index)] = before[tuple(index)]
        parts.append(before + after)
    for back in (1, 2):
        known = row - back >= 0
        earlier = model.book(row - back)[codes[row - back]][phase] if known else None
        parts.append(np.zeros_like(vectors[phase]) if earlier is None else earlier)
    odd = [np.full((*parts[0].shape[:3], 1), 64.0 * axis.start) for axis in phase]
    joined: Numbers = np.concatenate([*parts, *odd], axis=-1)
    return joined.reshape(-1, joined.shape[-1])


def encode_codes(model: CodeModel, codes: Codes) -> list[bytes]:
    """The bytes of each layer of codes [rows, k, j, i], each readable once those before it are."""
    found = []
    for row in range(len(codes)):
        stack = AnsStack()
        for phase in reversed(list(phases(codes.shape[1:]))):
            symbols = codes[row][phase].ravel()
            contexts = contexts_of(model, codes, row, phase)
            for start in reversed(range(0, len(symbols), _BATCH)):
                some = slice(start, start + _BATCH)
                stack.push(symbols[some], model.weights(row, contexts[some]))
        found.append(stack.data)
    return found


def decode_codes(model: CodeModel, datas: list[bytes], grid: tuple[int, int, int]) -> Codes:
    """Codes [layers, k, j, i] of the first `len(datas)` layers; the others stay 0.

    Bytes that were never written give codes that mean nothing, and never fail, but for a length
    that is no whole number of words or far more than codes can take: ValueError.
    """
    if len(datas) > model.layers:
        raise ValueError(f"{len(datas)} layers of codes, the model has {model.layers}")
    codes = np.zeros((model.layers, *grid), np.int64)
    for row, data in enumerate(datas):
        if len(data) % 4 or len(data) > 8 + 8 * math.prod(grid):
            raise ValueError(f"{len(data)} bytes cannot be codes of {math.prod(grid)} cells")
        stack = AnsStack(data)
        for phase in phases(grid):
            contexts = contexts_of(model, codes, row, phase)
            symbols = [
                stack.pop(model.weights(row, contexts[start : start + _BATCH]))
                for start in range(0, len(contexts), _BATCH)
            ]
            target = codes[row][phase]
            codes[row][phase] = np.concatenate(symbols).reshape(target.shape)
    return codes


class AnsStack:
    """Asymmetric numeral systems: a state of 64 bits over a stack of words of 32 bits.

    What was pushed last is popped first. Same bytes as constriction's `AnsCoder` with
    `Categorical(perfect=False)`. Source: Duda, arXiv 1311.2540.
    """

    def __init__(self, data: bytes = b"") -> None:
        """Raises ValueError for bytes that no stack ends in."""
        self._words: list[int] = np.frombuffer(data, "<u4").tolist()
        # The last word is the top of the state, which is never zero.
        if self._words and not self._words[-1]:
            raise ValueError("codes that end in nothing")
        self._state = 0
        for _ in self._words[-2:]:
            self._state = self._state << 32 | self._words.pop()

    @property
    def data(self) -> bytes:
        """All that is on the stack."""
        state = [self._state & _WORD, self._state >> 32]
        while state and not state[-1]:
            state.pop()
        return np.array(self._words + state, "<u4").tobytes()

    def push(self, symbols: Codes, weights: Numbers) -> None:
        """Symbols [N], the last one first. weights: whole numbers ≥ 1, [N, K]."""
        bounds = _bounds(weights)
        rows = np.arange(len(symbols))
        lows, highs = bounds[rows, symbols], bounds[rows, symbols + 1]
        state = self._state
        for low, size in zip(
            lows[::-1].astype(int).tolist(), (highs - lows)[::-1].astype(int).tolist(), strict=True
        ):
            if state >= size << 64 - _PRECISION:
                self._words.append(state & _WORD)
                state >>= 32
            whole, rest = divmod(state, size)
            state = (whole << _PRECISION) + rest + low
        self._state = state

    def pop(self, weights: Numbers) -> Codes:
        """Symbols [N] that were pushed with the same weights [N, K]."""
        symbols, state, words = np.empty(len(weights), np.int64), self._state, self._words
        for n, row in enumerate(_bounds(weights)):
            place = state & (1 << _PRECISION) - 1
            symbols[n] = symbol = int(row.searchsorted(place, side="right")) - 1
            low = int(row[symbol])
            state = (int(row[symbol + 1]) - low) * (state >> _PRECISION) + place - low
            if state <= _WORD and words:
                state = state << 32 | words.pop()
        self._state = state
        return symbols


def _bounds(weights: Numbers) -> Numbers:
    """Where each symbol begins among 2^24 places, [N, K + 1]; whole numbers, each at least one."""
    count = weights.shape[1]
    bounds = np.zeros((len(weights), count + 1))
    np.cumsum(weights, axis=1, out=bounds[:, 1:])
    bounds *= ((1 << _PRECISION) - count) / bounds[:, -1:]
    np.floor(bounds, out=bounds)
    bounds += np.arange(count + 1)
    bounds[:, -1] = 1 << _PRECISION
    return bounds


def code_bits(model: CodeModel, codes: Codes) -> list[float]:
    """What each layer takes, in bits, but for the last word."""
    bits = []
    for row in range(len(codes)):
        total = 0.0
        for phase in phases(codes.shape[1:]):
            weights = model.weights(row, contexts_of(model, codes, row, phase))
            taken = weights[np.arange(len(weights)), codes[row][phase].ravel()]
            total += float(np.log2(weights.sum(axis=1) / taken).sum())
        bits.append(total)
    return bits


def powers() -> npt.NDArray[np.int32]:
    """2^(16 − n/64) of one octave. Files of models hold them: no machine makes its own."""
    rounded = np.floor(2.0 ** (OCTAVES - np.arange(STEPS) / STEPS) + 0.5)
    return rounded.astype(np.int32)


def _all_powers(octave: npt.NDArray[Any]) -> Numbers:
    """Of all octaves, at least 1, by halving the first."""
    if octave.shape != (STEPS,) or octave.min() < 1 or octave.max() > 1 << OCTAVES:
        raise ValueError("powers that are none")
    steps = np.arange(STEPS * OCTAVES + 1)
    halved = octave.astype(np.int64)[steps % STEPS] >> (steps // STEPS)
    all_of_them: Numbers = np.maximum(halved, 1).astype(np.float64)
    return all_of_them


def _halved(x: Numbers, times: int) -> Numbers:
    """floor(x / 2^times + ½)."""
    halved: Numbers = np.floor(x * 2.0**-times + 0.5)
    return halved
