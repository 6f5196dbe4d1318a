"""Block type 7 from docs/ucv-format.md alone: nothing of the library is used."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import av
import imagecodecs
import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

HEAD = struct.Struct("<BHBBdd")
OCTAVE = (65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194)


def decode(chunk: bytes, shape: Shape, header: dict[str, Any]) -> Array:
    """The voxels of a block."""
    bits, top, noise, filtered, low, high = HEAD.unpack_from(chunk)
    _need(bits in (10, 12) and 1 <= top <= 4095 and noise <= 127 and filtered <= 1, "the head")
    _need(-1e30 < low < high < 1e30, "the range")
    rest, parts = chunk[HEAD.size :], 16 if filtered else 1
    size = 5 + int.from_bytes(rest[3:5], "little") if filtered else 0
    frames = _frames(rest[size:], bits, shape).astype(np.int64)
    if filtered:
        frames = apply_filter(frames, noise, rest[:size])
    scale = (high - low) / (top * parts)
    values = np.minimum(frames, 4095 * parts) * scale + low
    dtype = np.dtype(header["dtype"])
    voxels = typed(values, dtype)
    if header["range"] is not None:
        voxels = np.clip(voxels, *(dtype.type(end) for end in header["range"]))
    return voxels


def typed(values: Array, dtype: np.dtype[Any]) -> Array:
    """Rounded to nearest, ties to even, and clipped to the type."""
    if dtype.kind == "b":
        return values >= 0.5
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(dtype)
    limits, whole = np.iinfo(dtype), np.rint(values.astype(np.float64))
    above, below = whole >= float(limits.max), whole <= float(limits.min)
    inside = np.where(above | below, 0, whole).astype(dtype)
    inside[above], inside[below] = limits.max, limits.min
    return inside


# ---------------------------------------------------------------- the stream


def _frames(stream: bytes, bits: int, extents: Shape) -> Array:
    """Samples of the stream, [slices, rows, columns]."""
    count, height, width = extents[0] + 1, max(extents[1], 16), max(extents[2], 16)
    if bits == 12:
        out = np.empty((count, height, width), np.uint16)
        imagecodecs.avif_decode(zlib.decompress(stream), out=out)
    else:
        decoder = av.CodecContext.create("libdav1d", "r")
        frames = [*decoder.decode(av.Packet(stream)), *decoder.decode(None)]
        out = np.stack([frame.to_ndarray()[: frame.height] for frame in frames])
        even = (height + height % 2, width + width % 2)
        _need(out.shape == (count, *even), f"frames of {out.shape}")
    return np.minimum(out[1:, : extents[1], : extents[2]], 4095)


# ---------------------------------------------------------------- filter


def _taps() -> list[Shape]:
    """Offsets of all 26, [slices, rows, columns]."""
    near = [(j, i) for j in range(-3, 4) for i in range(-3, 4)]
    later = [(0, j, i) for j, i in near if (j, i) > (0, 0)]
    first = [tap for tap in later if abs(tap[1]) + abs(tap[2]) <= 2]
    first += [(1, j, i) for j, i in near if max(abs(j), abs(i)) <= 1]
    last = [tap for tap in later if abs(tap[1]) + abs(tap[2]) == 3]
    return first + last + [(2, j, i) for j, i in near if abs(j) + abs(i) <= 1]


def apply_filter(frames: Array, noise: int, head: bytes) -> Array:
    """Intensities in sixteenths."""
    power, first, spread = head[:3]
    _need(power <= 4, "the filter's classes")
    taps = _taps()
    terms = len(taps) * 3
    weights = np.frombuffer(zlib.decompress(head[5:]), "i1").astype(np.int64)
    _need(len(weights) == terms << power, "the filter's weights")
    _need(bool((weights > -128).all()), "a weight of -128")
    weights = weights.reshape(terms, 1 << power)
    unit = OCTAVE[noise % 8] << noise // 8
    cuts = [1 << 14, *(min(max(1, n * unit >> 21), 1 << 14) for n in (10, 3))]
    places = activities(frames)
    octaves = [divmod(first + n * spread, 8) for n in range(15)]
    bounds = [min(OCTAVE[e] << o >> 16, 1 << 30) for o, e in octaves]
    places = sum((places >= bound).astype(np.int64) for bound in bounds) >> (4 - power)
    total = np.zeros_like(frames)
    for n, (tap, cut) in enumerate((tap, cut) for tap in taps for cut in cuts):
        two = [
            np.clip(_moved(frames, sign * np.array(tap)) - frames, -cut, cut) for sign in (1, -1)
        ]
        total += 16 * weights[n][places] * (two[0] + two[1])
    return np.maximum(16 * frames + (total >> 7), 0)


def _moved(frames: Array, by: Array) -> Array:
    """At each place, what lies some slices, rows and columns further."""
    near = (np.clip(np.arange(n) + d, 0, n - 1) for n, d in zip(frames.shape, by, strict=True))
    return frames[np.ix_(*near)]


def activities(frames: Array) -> Array:
    axes = np.eye(3, dtype=int)
    s = sum(np.abs(_moved(frames, a) + _moved(frames, -a) - 2 * frames) for a in axes)
    span = range(-2, 3)
    return sum(_moved(s, np.array((0, y, x))) for y in span for x in span)


def _need(holds: bool, says: str) -> None:
    if not holds:
        raise ValueError(says)
