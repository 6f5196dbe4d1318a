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
from dataclasses import dataclass

_SEQUENCE, _DELIMITER, _FRAME_HEADER, _METADATA, _FRAME, _PADDING = 1, 2, 3, 5, 6, 15
#: 10 bits, with colours of half the resolution that say nothing; 12 bits, one plane.
PROFILE_OF_10_BITS, PROFILE_OF_12_BITS = 0, 2
HIGHEST = 4095
#: libaom wants some room; smaller slices are continued to this by their edge.
_LEAST_SIDE = 16
_UNITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_OPACITY = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
#: Marker and version; profile and level 0; bits, planes and where colours lie.
_CONFIGURATION = {
    PROFILE_OF_10_BITS: bytes([0x81, PROFILE_OF_10_BITS << 5, 0x4C, 0]),
    PROFILE_OF_12_BITS: bytes([0x81, PROFILE_OF_12_BITS << 5, 0x7C, 0]),
}


def frame_sides(profile: int, height: int, width: int) -> tuple[int, int]:
    """Extents of the frames that slices of height × width are coded as."""
    even = profile == PROFILE_OF_10_BITS
    rows, columns = (max(side, _LEAST_SIDE) for side in (height, width))
    return rows + (rows % 2 if even else 0), columns + (columns % 2 if even else 0)


def stream_of(file: bytes) -> bytes:
    """The AV1 stream of an image sequence in AVIF, without what can be built anew.

    Raises ValueError for a file whose stream `file_of` could not bring back.
    """
    boxes = dict(_boxes(file, 0, len(file)))
    sizes = _table(file, boxes[b"stsz"], 8)
    places = _table(file, boxes[b"stco"], 4)
    if len(places) != 1:
        raise ValueError("samples in several runs")
    return bare(file[places[0] : places[0] + sum(sizes)])


def bare(samples: bytes) -> bytes:
    """An AV1 stream as it is stored: its sequence headers and its frames."""
    left_out = (_DELIMITER, _METADATA, _PADDING)
    return b"".join(data for kind, data in _units(samples) if kind not in left_out)


@dataclass(frozen=True)
class Rebuilt:
    """An AVIF file of a stream. profile: of AV1; height, width: of its frames."""

    file: bytes
    profile: int
    height: int
    width: int


def file_of(stream: bytes, frames: int, height: int, width: int) -> Rebuilt:
    """An AVIF file of `stream`; raises ValueError unless it shows so many frames of that size.

    height, width: of the slices that its frames hold.
    """
    sizes, profile = _shown_sizes(stream, height, width)
    if len(sizes) != frames:
        raise ValueError(f"a video of {len(sizes)} slices, {frames} expected")
    sides = frame_sides(profile, height, width)
    brands = b"avis" + bytes(4) + b"avismsf1iso8"
    kind = _box(b"ftyp", brands)
    # The place of the samples takes as many bytes whatever it is.
    size = len(kind) + len(_movie(sizes, *sides, profile, 0)) + 8
    file = kind + _movie(sizes, *sides, profile, size) + _box(b"mdat", stream)
    return Rebuilt(file, profile, *sides)


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


def _shown_sizes(stream: bytes, height: int, width: int) -> tuple[list[int], int]:
    """Bytes up to each shown frame, and the profile; checks every size that the stream states."""
    sizes, open_bytes = [], 0
    profile: int | None = None
    for kind, unit in _units(stream):
        open_bytes += len(unit)
        if kind == _SEQUENCE:
            stated = _check_sequence(_payload(unit), height, width)
            if profile not in (None, stated):
                raise ValueError("a video of two kinds")
            profile = stated
            continue
        if kind not in (_FRAME, _FRAME_HEADER) or profile is None:
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
    if open_bytes or profile is None:
        raise ValueError("a frame that is never shown at the end")
    return sizes, profile


def _check_sequence(payload: bytes, height: int, width: int) -> int:
    """The profile of a sequence header.

    Raises ValueError unless it is of one layer, of frames for height × width, full range, and of
    12 bits in one plane or 10 bits in three.
    """
    bits = _Bits(payload)
    profile, still, reduced = bits(3), bits(1), bits(1)
    timing, delay, points = bits(1), bits(1), bits(5)
    bits(12)
    if bits(5) > 7:
        bits(1)
    stated_width, stated_height = bits(4) + 1, bits(4) + 1
    stated_width, stated_height = bits(stated_width) + 1, bits(stated_height) + 1
    if profile not in _CONFIGURATION or still or reduced or timing or delay or points:
        raise ValueError("a video of another kind")
    if (stated_height, stated_width) != frame_sides(profile, height, width):
        raise ValueError(f"a video of {stated_height} × {stated_width} for {height} × {width}")
    _skip_tools(bits)
    is_high, is_twelve = bits(1), profile == PROFILE_OF_12_BITS and bits(1)
    is_mono = bits(1)
    if bits(1):  # how colours are meant
        bits(24)
    is_full_range = bits(1)
    wanted = profile == PROFILE_OF_12_BITS
    if not (is_high and is_full_range) or (bool(is_twelve), bool(is_mono)) != (wanted, wanted):
        raise ValueError("a video of other bits or planes")
    return profile


def _skip_tools(bits: _Bits) -> None:
    """Go past what a sequence header says between the frames' size and their colours."""
    if bits(1):  # frame numbers
        bits(7)
    bits(7)
    ordered = bits(1)
    if ordered:
        bits(2)
    chosen = bits(1)
    forced = 2 if chosen else bits(1)
    if forced and not bits(1):  # whole motion vectors: chosen by frame, or stated here
        bits(1)
    if ordered:
        bits(3)
    bits(3)


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


def _movie(sizes: list[int], height: int, width: int, profile: int, place: int) -> bytes:
    count = len(sizes)
    movie = _full(
        b"mvhd",
        struct.pack(">IIIIIH10x", 0, 0, 1, count, 1 << 16, 1 << 8) + _UNITY + bytes(24),
        struct.pack(">I", 3),
    )
    tracks = [_track(1, b"pict", sizes, height, width, profile, place)]
    if profile == PROFILE_OF_10_BITS:
        # Decoders turn three planes into colours, and round. Of a video that is a track of
        # opacities they give the first plane as it is.
        tracks.append(_track(2, b"auxv", sizes, height, width, profile, place))
    return _box(b"moov", movie, *tracks)


def _track(
    number: int, handler: bytes, sizes: list[int], height: int, width: int, profile: int, place: int
) -> bytes:
    count, is_opacity = len(sizes), handler == b"auxv"
    head = _full(
        b"tkhd",
        struct.pack(">IIIIIQhhhH", 0, 0, number, 0, count, 0, 0, 0, 0, 0) + _UNITY,
        struct.pack(">II", width << 16, height << 16),
        flags=1,
    )
    belongs = _box(b"tref", _box(b"auxl", struct.pack(">I", 1))) if is_opacity else b""
    media = _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, 1, count, 0x55C4, 0))
    handled = _full(b"hdlr", struct.pack(">I4s12xB", 0, handler, 0))
    data = _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1)))
    entry = _box(
        b"av01",
        struct.pack(">6xH16xHHIIIH32xHH", 1, width, height, 72 << 16, 72 << 16, 0, 1, 24, 0xFFFF),
        _box(b"av1C", _CONFIGURATION[profile]),
        _full(b"auxi", _OPACITY) if is_opacity else b"",
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
    return _box(b"trak", head, belongs, _box(b"mdia", media, handled, minf))
