"""Block type 7 from docs/ucv-format.md alone: nothing of the library is used."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Model = Callable[[str], bytes]

HEAD = struct.Struct("<BHBBdd")
OCTAVE = (65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194)
UNITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def decode(chunks: list[bytes], shape: Shape, header: dict[str, Any], model: Model) -> Array:
    """The voxels of a block; it needs no model."""
    (chunk,) = chunks
    axis, top, noise, filtered, low, high = HEAD.unpack_from(chunk)
    _need(axis <= 2 and 1 <= top <= 4095 and noise <= 127 and filtered <= 1, "the head")
    _need(-1e30 < low < high < 1e30, "the range")
    extents = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    rest, parts = chunk[HEAD.size :], 16 if filtered else 1
    size = 5 + int.from_bytes(rest[3:5], "little") if filtered else 0
    frames = _frames(rest[size:], extents).astype(np.int64)
    if filtered:
        frames = _filtered(frames, noise, rest[:size])
    scale = (high - low) / (top * parts)
    values = np.minimum(frames, 4095 * parts) * scale + low
    dtype = np.dtype(header["dtype"])
    voxels = typed(values, dtype)
    if header["range"] is not None:
        voxels = np.clip(voxels, *(dtype.type(end) for end in header["range"]))
    return np.moveaxis(voxels, 0, axis)


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


def _frames(stream: bytes, extents: Shape) -> Array:
    """Samples of the stream, [slices, rows, columns]."""
    count, height, width = extents[0] + 1, max(extents[1], 16), max(extents[2], 16)
    sizes, colored = _sample_sizes(stream), stream[2] >> 5 == 0
    if colored:
        height, width = height + height % 2, width + width % 2
    # As opacities libavif gives the first of three planes unchanged.
    out = np.empty((count, height, width, *([4] if colored else [])), np.uint16)
    _need(len(sizes) == count, f"{len(sizes)} frames, {count} expected")
    kind = _box(b"ftyp", b"avis", bytes(4), b"avismsf1iso8")
    place = len(kind) + len(_movie(sizes, height, width, colored, 0)) + 8
    file = kind + _movie(sizes, height, width, colored, place) + _box(b"mdat", stream)
    imagecodecs.avif_decode(file, out=out)
    out = out[..., 3] if colored else out
    return np.minimum(out[1:, : extents[1], : extents[2]], 4095)


def _sample_sizes(stream: bytes) -> list[int]:
    """Bytes up to and with each shown frame."""
    sizes, start, begun = [], 0, 0
    while start < len(stream):
        kind, place, size, shift = stream[start] >> 3, start + 1, 0, 0
        _need(stream[start] & 0x87 == 2, "a unit with another head")
        while True:
            byte = stream[place]
            size |= (byte & 127) << shift
            place, shift = place + 1, shift + 7
            if byte < 128:
                break
        _need(kind in (1, 3, 6) and 0 < size <= len(stream) - place, "an unknown unit")
        start = place + size
        if kind != 1 and stream[place] & 0x90:
            sizes.append(start - begun)
            begun = start
    _need(begun == len(stream), "a frame that is not shown at the end")
    return sizes


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _movie(sizes: list[int], height: int, width: int, colored: bool, place: int) -> bytes:
    """The box `moov` of an AVIF sequence."""
    times = struct.pack(">6IH10x", 0, 0, 0, 1, len(sizes), 1 << 16, 256)
    movie = times + UNITY + struct.pack(">24xI", 3)
    kinds = [b"pict", b"auxv"][: 1 + colored]
    tracks = (_track(kind, sizes, height, width, colored, place) for kind in kinds)
    return _box(b"moov", _box(b"mvhd", movie), *tracks)


def _track(
    kind: bytes, sizes: list[int], height: int, width: int, colored: bool, place: int
) -> bytes:
    n, opaque = len(sizes), kind == b"auxv"
    name = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
    entry = _box(
        b"av01",
        struct.pack(">6xH16xHHIIIH32xHh", 1, width, height, 72 << 16, 72 << 16, 0, 1, 24, -1),
        _box(b"av1C", bytes([0x81, 0, 0x4C, 0] if colored else [0x81, 0x40, 0x7C, 0])),
        _box(b"auxi", bytes(4), name) if opaque else b"",
    )
    table = _box(
        b"stbl",
        _box(b"stsd", struct.pack(">II", 0, 1), entry),
        _box(b"stts", struct.pack(">4I", 0, 1, n, 1)),
        _box(b"stsc", struct.pack(">5I", 0, 1, 1, n, 1)),
        _box(b"stsz", struct.pack(f">3I{n}I", 0, 0, n, *sizes)),
        _box(b"stco", struct.pack(">3I", 0, 1, place)),
        _box(b"stss", struct.pack(">3I", 0, 1, 1)),
    )
    url = _box(b"url ", struct.pack(">I", 1))
    data = _box(b"dinf", _box(b"dref", struct.pack(">II", 0, 1), url))
    minf = _box(b"minf", _box(b"vmhd", struct.pack(">I8x", 1)), data, table)
    media = _box(
        b"mdia",
        _box(b"mdhd", struct.pack(">5IHH", 0, 0, 0, 1, n, 0x55C4, 0)),
        _box(b"hdlr", struct.pack(">II4s13x", 0, 0, kind)),
        minf,
    )
    sides = struct.pack(">II", width << 16, height << 16)
    head = _box(b"tkhd", struct.pack(">6I16x", 1, 0, 0, 1 + opaque, 0, n), UNITY, sides)
    belongs = _box(b"tref", _box(b"auxl", struct.pack(">I", 1))) if opaque else b""
    return _box(b"trak", head, belongs, media)


# ---------------------------------------------------------------- filter


def _taps() -> list[Shape]:
    """Offsets of all 26, [slices, rows, columns]."""
    near = [(j, i) for j in range(-3, 4) for i in range(-3, 4)]
    later = [(0, j, i) for j, i in near if (j, i) > (0, 0)]
    first = [tap for tap in later if abs(tap[1]) + abs(tap[2]) <= 2]
    first += [(1, j, i) for j, i in near if max(abs(j), abs(i)) <= 1]
    last = [tap for tap in later if abs(tap[1]) + abs(tap[2]) == 3]
    return first + last + [(2, j, i) for j, i in near if abs(j) + abs(i) <= 1]


def _filtered(frames: Array, noise: int, head: bytes) -> Array:
    """Intensities in sixteenths."""
    kind, first, spread = head[:3]
    which, limits, power = kind & 3, kind >> 2 & 3, kind >> 4
    _need(which in (1, 2) and limits > 0 and power <= 4, "the filter's kind")
    taps = _taps()[: (0, 15, 26)[which]]
    terms = len(taps) * limits
    weights = np.frombuffer(zlib.decompress(head[5:]), "i1").astype(np.int64)
    _need(len(weights) == terms << power, "the filter's weights")
    _need(bool((weights > -128).all()), "a weight of -128")
    weights = weights.reshape(terms, 1 << power)
    unit = OCTAVE[noise % 8] << noise // 8
    cuts = [1 << 14, *(min(max(1, n * unit >> 21), 1 << 14) for n in (10, 3))][:limits]
    places = _activities(frames)
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


def _activities(frames: Array) -> Array:
    axes = np.eye(3, dtype=int)
    s = sum(np.abs(_moved(frames, a) + _moved(frames, -a) - 2 * frames) for a in axes)
    span = range(-2, 3)
    return sum(_moved(s, np.array((0, y, x))) for y in span for x in span)


def _need(holds: bool, says: str) -> None:
    if not holds:
        raise ValueError(says)
