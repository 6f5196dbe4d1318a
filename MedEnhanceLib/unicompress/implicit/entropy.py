"""Codes as bytes: a small causal model in integers, and a coder from constriction.

Layers are coded one after the other. Within one, cells of eight phases, by which of their three
indices are odd: a cell knows the codes of its neighbours of earlier phases on both sides along
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
from MedEnhanceLib.runtime.dependencies import require

Codes = npt.NDArray[np.int64]
Arrays = Mapping[str, npt.NDArray[Any]]
Numbers = npt.NDArray[np.float64]

#: Logits are binary logarithms, in parts of so many.
STEPS = 64
#: A code's weight is at least 1 and at most 2^16; what is 16 halvings down gets 1.
OCTAVES = 16
#: Biases are in steps of so many.
BIAS_STEP = 8
HIDDEN_TOP = 1023
VECTOR_TOP = 1023
#: Cells whose tables are made at once.
_BATCH = 4096


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
    """Numbers of a context: neighbours along three axes, two layers before; which axes are odd."""
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
        if codes.shape[1 + axis] % 2 == 0:  # the last cell has nobody behind it
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
    family = _family()
    constriction = require("constriction", purpose="Implicit blocks")
    found = []
    for row in range(len(codes)):
        coder = constriction.stream.stack.AnsCoder()
        for phase in reversed(list(phases(codes.shape[1:]))):
            symbols = codes[row][phase].ravel().astype(np.int32)
            contexts = contexts_of(model, codes, row, phase)
            for start in reversed(range(0, len(symbols), _BATCH)):
                some = slice(start, start + _BATCH)
                weights = model.weights(row, contexts[some])
                coder.encode_reverse(symbols[some], family, weights)
        found.append(coder.get_compressed().astype("<u4").tobytes())
    return found


def decode_codes(model: CodeModel, datas: list[bytes], grid: tuple[int, int, int]) -> Codes:
    """Codes [layers, k, j, i] of the first `len(datas)` layers; the others stay 0.

    Bytes that were never written give codes that mean nothing, and never fail, but for a length
    that is no whole number of words or far more than codes can take: ValueError.
    """
    family = _family()
    constriction = require("constriction", purpose="Implicit blocks")
    if len(datas) > model.layers:
        raise ValueError(f"{len(datas)} layers of codes, the model has {model.layers}")
    codes = np.zeros((model.layers, *grid), np.int64)
    for row, data in enumerate(datas):
        if len(data) % 4 or len(data) > 8 + 8 * math.prod(grid):
            raise ValueError(f"{len(data)} bytes cannot be codes of {math.prod(grid)} cells")
        words = np.frombuffer(data, "<u4").astype(np.uint32)
        # The coder takes its last word to be the top of its state, which is never zero.
        if len(words) and not words[-1]:
            raise ValueError("codes that end in nothing")
        coder = constriction.stream.stack.AnsCoder(words)
        for phase in phases(grid):
            contexts = contexts_of(model, codes, row, phase)
            symbols = [
                coder.decode(family, model.weights(row, contexts[start : start + _BATCH]))
                for start in range(0, len(contexts), _BATCH)
            ]
            target = codes[row][phase]
            codes[row][phase] = np.concatenate(symbols).reshape(target.shape)
    return codes


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


def _family() -> Any:
    constriction = require("constriction", purpose="Implicit blocks")
    # Not `perfect`: that one takes logarithms, whose last bit is a machine's own.
    return constriction.stream.model.Categorical(perfect=False)


def _halved(x: Numbers, times: int) -> Numbers:
    """floor(x / 2^times + ½)."""
    halved: Numbers = np.floor(x * 2.0**-times + 0.5)
    return halved
