"""AV1 streams without their container: what is stored of a video, and the file built around it.

An AVIF file spends 800 bytes and more on boxes that follow from the number and size of its
frames. A chunk keeps the stream alone; the boxes are written here, from sizes that the block
gives. The stream itself is looked through first: no size in it is believed.
Source: AV1 Bitstream & Decoding Process Specification, 5.3 to 5.9; ISO/IEC 14496-12 (boxes);
AV1 Image File Format 1.1 (image sequences).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_SEQUENCE, _DELIMITER, _FRAME_HEADER, _FRAME = 1, 2, 3, 6
_PROFILE_OF_12_BITS = 2
_UNITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
#: Marker and version, profile 2, level 0; 12 bits, one plane.
_CONFIGURATION = bytes([0x81, _PROFILE_OF_12_BITS << 5, 0x7C, 0])


def stream_of(file: bytes) -> bytes:
    """The AV1 stream of an image sequence in AVIF, without what can be built anew.

    Raises ValueError for a file whose stream `file_of` could not bring back.
    """
    boxes = dict(_boxes(file, 0, len(file)))
    sizes = _table(file, boxes[b"stsz"], 8)
    places = _table(file, boxes[b"stco"], 4)
    if len(places) != 1:
        raise ValueError("samples in several runs")
    samples = file[places[0] : places[0] + sum(sizes)]
    kept = [data for kind, data in _units(samples) if kind != _DELIMITER]
    return b"".join(kept)


def file_of(stream: bytes, frames: int, height: int, width: int) -> bytes:
    """An AVIF file of `stream`; raises ValueError unless it shows so many frames of that size."""
    sizes = _shown_sizes(stream, height, width)
    if len(sizes) != frames:
        raise ValueError(f"a video of {len(sizes)} slices, {frames} expected")
    brands = b"avis" + bytes(4) + b"avismsf1iso8"
    kind = _box(b"ftyp", brands)
    # The place of the samples takes as many bytes whatever it is.
    size = len(kind) + len(_movie(sizes, height, width, 0)) + 8
    return kind + _movie(sizes, height, width, size) + _box(b"mdat", stream)


def _units(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """The stream's units (OBUs), each with its kind; raises ValueError where it makes no sense."""
    start = 0
    while start < len(stream):
        head = stream[start]
        if head & 0x85 or not head & 0x02:  # forbidden bit, extension, reserved bit; size field
            raise ValueError(f"a unit begins with {head:#x}")
        size, place = 0, start + 1
        for shift in range(0, 35, 7):
            if place >= len(stream):
                raise ValueError("cut short")
            byte = stream[place]
            size |= (byte & 0x7F) << shift
            place += 1
            if not byte & 0x80:
                break
        else:
            raise ValueError("a size of more than five bytes")
        if size > len(stream) - place:
            raise ValueError("cut short")
        yield head >> 3, stream[start : place + size]
        start = place + size


def _payload(unit: bytes) -> bytes:
    place = 1
    while unit[place] & 0x80:
        place += 1
    return unit[place + 1 :]


def _shown_sizes(stream: bytes, height: int, width: int) -> list[int]:
    """Bytes up to each shown frame; checks every size that the stream states."""
    sizes, open_bytes = [], 0
    described = False
    for kind, unit in _units(stream):
        open_bytes += len(unit)
        if kind == _SEQUENCE:
            _check_sequence(_payload(unit), height, width)
            described = True
            continue
        if kind not in (_FRAME, _FRAME_HEADER) or not described:
            raise ValueError(f"a unit of kind {kind}")
        payload = _payload(unit)
        if not payload:
            raise ValueError("a frame without bytes")
        shows_existing, shows = payload[0] & 0x80, payload[0] & 0x10
        if kind == _FRAME_HEADER and not shows_existing:
            raise ValueError("a frame in several units")
        if shows_existing or shows:
            sizes.append(open_bytes)
            open_bytes = 0
    if open_bytes:
        raise ValueError("a frame that is never shown at the end")
    return sizes


def _check_sequence(payload: bytes, height: int, width: int) -> None:
    """Raise ValueError unless a sequence header is of 12 bits, one layer and the block's size."""
    bits = _Bits(payload)
    profile, still, reduced = bits(3), bits(1), bits(1)
    timing, delay, points = bits(1), bits(1), bits(5)
    bits(12)
    if bits(5) > 7:
        bits(1)
    stated_width, stated_height = bits(4) + 1, bits(4) + 1
    stated_width, stated_height = bits(stated_width) + 1, bits(stated_height) + 1
    if profile != _PROFILE_OF_12_BITS or still or reduced or timing or delay or points:
        raise ValueError("a video of another kind")
    if (stated_height, stated_width) != (height, width):
        raise ValueError(f"a video of {stated_height} × {stated_width}, not {height} × {width}")


class _Bits:
    """Reads numbers of so many bits, the highest first; raises ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def __call__(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("a sequence header that is cut short")
        return (self._value >> self._left) & ((1 << count) - 1)


def _boxes(file: bytes, start: int, stop: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Kind, and where its content lies, of each box down to the sample tables."""
    while start + 8 <= stop:
        size = int.from_bytes(file[start : start + 4], "big")
        kind = file[start + 4 : start + 8]
        if not 8 <= size <= stop - start:
            raise ValueError("a box of AVIF beyond its end")
        yield kind, (start + 8, start + size)
        if kind in _CONTAINERS:
            yield from _boxes(file, start + 8, start + size)
        start += size


def _table(file: bytes, place: tuple[int, int], skipped: int) -> list[int]:
    content = file[place[0] : place[1]]
    count = int.from_bytes(content[skipped : skipped + 4], "big")
    return list(struct.unpack_from(f">{count}I", content, skipped + 4))


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags), *parts)


def _movie(sizes: list[int], height: int, width: int, place: int) -> bytes:
    count = len(sizes)
    movie = _full(
        b"mvhd",
        struct.pack(">IIIIIH10x", 0, 0, 1, count, 1 << 16, 1 << 8) + _UNITY + bytes(24),
        struct.pack(">I", 2),
    )
    track = _full(
        b"tkhd",
        struct.pack(">IIIIIQhhhH", 0, 0, 1, 0, count, 0, 0, 0, 0, 0) + _UNITY,
        struct.pack(">II", width << 16, height << 16),
        flags=1,
    )
    media = _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, 1, count, 0x55C4, 0))
    handler = _full(b"hdlr", struct.pack(">I4s12xB", 0, b"pict", 0))
    data = _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1)))
    entry = _box(
        b"av01",
        struct.pack(">6xH16xHHIIIH32xHH", 1, width, height, 72 << 16, 72 << 16, 0, 1, 24, 0xFFFF),
        _box(b"av1C", _CONFIGURATION),
    )
    samples = _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), entry),
        _full(b"stts", struct.pack(">III", 1, count, 1)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, count, 1)),
        _full(b"stsz", struct.pack(f">II{count}I", 0, count, *sizes)),
        _full(b"stco", struct.pack(">II", 1, place)),
        _full(b"stss", struct.pack(">II", 1, 1)),
    )
    minf = _box(b"minf", _full(b"vmhd", bytes(8), flags=1), data, samples)
    return _box(b"moov", movie, _box(b"trak", track, _box(b"mdia", media, handler, minf)))
