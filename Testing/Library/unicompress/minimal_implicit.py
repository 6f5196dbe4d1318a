"""Block type 17 from docs/ucv-format.md alone, in 64-bit integers: nothing of the library."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Model = Callable[[str], bytes]
Tensors = dict[str, Array]

TYPES = {"I8": "i1", "I16": "<i2", "I32": "<i4"}
#: Cells with even k, j, i first; then those of which i alone is odd; then j …
PHASES = list(product((0, 1), repeat=3))


def decode(chunks: list[bytes], shape: Shape, header: dict[str, Any], model: Model) -> Array:
    """The voxels of a block from its layers. model: gives the file of the role `implicit`."""
    tensors, facts = _read(model("implicit"))
    dtype = np.dtype(header["dtype"])
    flags, offset, scale = struct.unpack_from("<BiI", chunks[0])
    _need(flags in (0, 1) and 1 <= scale < 1 << 31 and dtype.kind in "iu", "the head")
    _need(dtype.itemsize <= 4, "voxels of 64 bits")
    thick = 2 if flags else 1
    grid = (-(-shape[0] * thick // 8), -(-shape[1] // 8), -(-shape[2] // 8))
    codes = _codes([chunks[0][9:], *chunks[1:]], grid, tensors)
    y = Network(tensors, facts, codes).values(shape, thick)
    low, high = header["range"]
    voxels: Array = np.clip(offset + ((y * scale + 2048) >> 12), low, high).astype(dtype)
    return voxels


def _read(data: bytes) -> tuple[Tensors, dict[str, str]]:
    size = int.from_bytes(data[:8], "little")
    rows = json.loads(data[8 : 8 + size])
    facts = rows.pop("__metadata__")
    _need(facts["layout"] == "1", "another layout")
    found = {}
    for name, row in rows.items():
        start, stop = (8 + size + offset for offset in row["data_offsets"])
        tensor = np.frombuffer(data[start:stop], TYPES[row["dtype"]]).reshape(row["shape"])
        found[name] = tensor.astype(np.int64)
    return found, facts


# ---------------------------------------------------------------- codes


def _codes(layers: list[bytes], grid: Shape, tensors: Tensors) -> list[Array]:
    """The codes of each layer, [k, j, i]."""
    found: list[Array] = []
    vectors: list[Array] = []
    for n, data in enumerate(layers):
        words = np.frombuffer(data, "<u4").tolist()
        _need(not words or words[-1] > 0, "codes that end in nothing")
        state = words.pop() if words else 0
        state = state << 32 | words.pop() if words else state
        book = tensors["codebooks"][n]
        codes, c = np.zeros(grid, np.int64), np.zeros((*grid, book.shape[1]), np.int64)
        for phase in PHASES:
            cells = list(product(*(range(odd, g, 2) for odd, g in zip(phase, grid, strict=True))))
            contexts = [_context(c, vectors, cell) for cell in cells]
            if not cells:
                continue
            weights = _weights(np.array(contexts), n, book, tensors)
            for cell, weight in zip(cells, weights, strict=True):
                state, code = _pull(state, weight, words)
                codes[cell] = code
                c[cell] = book[code]
        found.append(codes)
        vectors.append(c)
    return found


def _pull(state: int, weights: Array, words: list[int]) -> tuple[int, int]:
    """The state after a code, and the code; words: what is left, the next one last."""
    below = np.concatenate([[0.0], np.cumsum(weights)])
    count = len(weights)
    lower = np.floor(below * (((1 << 24) - count) / below[-1])).astype(np.int64)
    lower += np.arange(count + 1)
    lower[-1] = 1 << 24
    t = state % (1 << 24)
    code = int(np.searchsorted(lower, t, side="right")) - 1
    state = int(lower[code + 1] - lower[code]) * (state >> 24) + t - int(lower[code])
    if state < 1 << 32 and words:
        state = state << 32 | words.pop()
    return state, code


def _context(c: Array, before: list[Array], cell: tuple[int, ...]) -> Array:
    """c: vectors of the layer as far as they are known; before: of the layers before."""
    nothing = np.zeros(c.shape[-1], np.int64)
    parts = []
    for axis in range(3):
        if cell[axis] % 2 == 0:
            parts.append(nothing)
            continue
        left, right = list(cell), list(cell)
        left[axis] -= 1
        right[axis] += 1 if cell[axis] + 1 < c.shape[axis] else -1
        parts.append(c[tuple(left)] + c[tuple(right)])
    parts += [before[-back][cell] if len(before) >= back else nothing for back in (1, 2)]
    return np.concatenate([*parts, [64 * (place % 2) for place in cell]])


def _weights(contexts: Array, n: int, book: Array, tensors: Tensors) -> Array:
    """Weights of all codes, [cells, codes]."""
    down, up, last = tensors["entropy.shifts"][n]
    h = _halved(contexts @ tensors["entropy.first"][n].T, down) + tensors["entropy.first_bias"][n]
    h = np.clip(h, 0, 1023)
    v = np.clip(_halved(h @ tensors["entropy.second"][n].T, up), -1023, 1023)
    logits = _halved(v @ book.T, last) + 8 * tensors["entropy.bias"][n]
    d = np.minimum(logits.max(axis=1, keepdims=True) - logits, 1024)
    weights: Array = np.maximum(1, tensors["entropy.powers"][d % 64] >> (d // 64))
    return weights.astype(np.float64)


def _halved(x: Array, shift: Any) -> Array:
    """floor(x / 2^shift + ½); a negative shift multiplies."""
    half: Array = np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)
    return _floor(x + half, shift)


def _floor(x: Array, shift: Any) -> Array:
    """floor(x / 2^shift); a negative shift multiplies."""
    result: Array = (x >> np.maximum(shift, 0)) << np.maximum(-shift, 0)
    return result


# ---------------------------------------------------------------- network


class Network:
    """A model and the keys and values of all cells."""

    def __init__(self, tensors: Tensors, facts: dict[str, str], codes: list[Array]) -> None:
        self.t = tensors
        self.heads, self.depth, self.scaled = (int(facts[n]) for n in ("heads", "depth", "scaled"))
        self.keys, self.values_of = [], []
        orders = sorted(product(range(8), repeat=3), key=lambda m: (sum(n * n for n in m), m))
        self.orders = np.array(orders[: len(tensors["value.0.weight"])])
        for b in (0, 1):
            books, ups = tensors["codebooks"], tensors["up.weight"]
            latent: Array = np.zeros((*codes[0].shape, ups.shape[1]), np.int64)
            for n in (n for n in range(len(codes)) if facts["order"][n] == str(b)):
                shift = tensors["up.exponent"][n] + tensors["codebooks.exponent"][n] - 7
                latent += _halved(books[n][codes[n]] @ ups[n].T, shift)
            latent = np.clip(latent, -1023, 1023)
            self.keys.append(np.clip(self.apply(f"key.{b}", latent, 7, 4), -127, 127))
            self.values_of.append(np.clip(self.apply(f"value.{b}", latent, 7, 6), -511, 511))

    def apply(self, name: str, a: Array, bits: int, wanted: int) -> Array:
        """A matrix: bits after the point of what goes in, and of what is wanted."""
        shift = self.t[f"{name}.exponent"] + bits - wanted
        return _halved(a @ self.t[f"{name}.weight"].T, shift) + self.t[f"{name}.bias"]

    def sine(self, index: Array) -> Array:
        sines: Array = self.t["sine"][index % 1024]
        return sines

    def values(self, shape: Shape, thick: int) -> Array:
        """The result at every voxel, [k, j, i], a slice at a time: positions are their centers."""
        step = np.array([16 * thick, 16, 16])
        centres: Array = np.moveaxis(np.indices(shape), 0, -1) * step + step // 2
        return np.stack([self.at(slab.reshape(-1, 3)) for slab in centres]).reshape(shape)

    def at(self, p: Array) -> Array:
        """At positions [N, 3] in sixteenths of a unit."""
        phases = p[:, :, None] << np.arange(6)
        waves = np.concatenate([self.sine(phases), self.sine(phases + 256)], axis=2)
        features = _halved(waves, 3).reshape(len(p), -1)
        fused, turned = self.fused(p, np.clip(self.apply("query", features, 7, 4), -127, 127))
        a, bits = features, 7
        for n in range(self.depth):
            phase = self.apply(f"wave.{n}", a, bits, 11 if n < self.scaled else 14)
            if n < self.scaled:
                scale = np.clip(self.apply(f"scale.{n}", fused, 6, 8), -255, 255)
                phase = _halved(np.clip(phase, -16383, 16383) * (256 + scale), 5)
            phase = phase + self.apply(f"shift.{n}", fused, 6, 14)
            a, bits = self.sine(_halved(phase, 4)), 10
        a = _halved(a * np.clip(self.apply("gain", fused, 6, 8), -511, 511), 8)
        y: Array = self.apply("out", a, 10, 12)[:, 0]
        return y + _halved((turned * self.cosines(p)).sum(axis=1), 2)

    def cosines(self, p: Array) -> Array:
        """Products of cosines at positions [N, 3], [N, latent]."""
        inside, result = (p - 64) % 128, np.array(256)
        for axis, m in enumerate(self.orders.T):
            wave = _halved(self.sine(4 * m * inside[:, axis, None] + np.where(m % 2, 0, 256)), 2)
            result = _halved(result * wave, 8)
        return result

    def fused(self, p: Array, query: Array) -> list[Array]:
        """The feature [N, …] of the sixteen cells around each position, and the turned one."""
        base, level = (p - 64) // 128, np.clip((p - 64) % 128 // 2 - 24, 0, 16)
        last = np.array(self.keys[0].shape[:3])[:, None] - 1
        found = []
        for b, corner in product((0, 1), PHASES):
            cell = tuple(np.clip((base + corner).T, 0, last))
            near = np.where(corner, level, 16 - level).prod(axis=1)
            value, odd = self.values_of[b][cell], self.orders @ corner % 2
            found.append((self.keys[b][cell], near, value, value * (1 - 2 * odd)))
        keys, nears, *both = (np.stack(parts, axis=1) for parts in zip(*found, strict=True))
        size, part = query.shape[1] // self.heads, both[0].shape[2] // self.heads
        features = [np.zeros((len(p), self.heads * part), np.int64) for _ in both]
        for head in range(self.heads):
            mine = slice(head * size, (head + 1) * size)
            scores = self.t["slots"][head]
            scores = scores + np.einsum("nc,nsc->ns", query[:, mine], keys[..., mine])
            d = np.minimum((scores.max(axis=1, keepdims=True) - scores) // 4, 640)
            share = self.t["power"][d] * nears
            total = share.sum(axis=1, keepdims=True)
            x = np.frexp(total.astype(np.float64))[1] - 10
            share = _halved(_floor(share, x) * self.t["reciprocal"][_floor(total, x)], 10)
            mine = slice(head * part, (head + 1) * part)
            for feature, values in zip(features, both, strict=True):
                mixed = np.einsum("ns,nsc->nc", share, values[..., mine])
                feature[:, mine] = np.clip(_halved(mixed, 8), -511, 511)
        return features


def _need(holds: bool, says: str) -> None:
    if not holds:
        raise ValueError(says)
