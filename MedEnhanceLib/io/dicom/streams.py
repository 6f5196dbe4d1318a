"""Checks that a compressed stream is complete, without decoding it.

libjpeg-turbo fills what is missing with gray, reads codes that do not exist as zero and ignores
bytes that are left over, all in silence. So every marker of a JPEG stream is read, every Huffman
code must exist, and codes and pixels must end together. For lossless JPEG the decoded numbers are
coded again: they must give exactly the bits of the stream. OpenJPEG leaves missing tiles at zero,
so the tiles of a JPEG 2000 stream are counted, each with the length that it states.
Why: docs/decisions/0007-verified-reading.md.
Sources: ITU-T T.81 (JPEG), annexes B, F and H; ITU-T T.87 (JPEG-LS), annex C; ITU-T T.800
(JPEG 2000), annex A; ITU-T T.814 (HTJ2K), annex A.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.io.dicom.structure import DamagedError

_RESTART = re.compile(rb"\xff+([\xd0-\xd7])")
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_MARKER_LS = re.compile(rb"\xff[\x80-\xff]")
_END_OF_BLOCK, _NO_CODE = 128, 200
_SOF_LS = 0xF7
_SOC, _SIZ, _CAP, _SOT, _SOD, _EOC = 0xFF4F, 0xFF51, 0xFF50, 0xFF90, 0xFF93, 0xFFD9
_MOST_TILES = 65535

Pixels = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


@dataclass
class _Scan:
    tables: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    interval: int = 0
    header: bytes = b""
    codes: bytes = b""


@dataclass(frozen=True)
class JpegFrame:
    """What the markers of a JPEG stream say.

    process: the start-of-frame marker, 0xC0 to 0xCF, or 0xF7 for JPEG-LS. precision: bits.
    scan: the Huffman codes and their tables, for verify_blocks and verify_samples.
    """

    process: int
    precision: int
    rows: int
    columns: int
    components: int
    scan: _Scan


def read_frame_header(stream: bytes) -> JpegFrame:
    """Read all markers of a JPEG or JPEG-LS stream with one gray frame.

    Raises:
        DamagedError: a marker is damaged or missing, up to the end marker.
    """
    if stream[:2] != b"\xff\xd8":
        raise DamagedError("its JPEG stream does not begin as one")
    frame: JpegFrame | None = None
    scan = _Scan()
    at = 2
    while True:
        while stream[at : at + 2] == b"\xff\xff":
            at += 1
        if len(stream) < at + 2 or stream[at] != 0xFF:
            raise DamagedError("its JPEG stream is cut short, or damaged between two markers")
        marker = stream[at + 1]
        if marker == 0xD9:
            break
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        body = stream[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2 or marker < 0xC0 or 0xD0 <= marker <= 0xD8:
            raise DamagedError(f"its JPEG stream is damaged at the marker {marker:02X}")
        at += 2 + length
        if marker == 0xC4:
            _read_tables(body, scan.tables)
        elif marker == 0xDD:
            scan.interval = int.from_bytes(body, "big")
        elif (0xC0 <= marker <= 0xCF and marker not in (0xC8, 0xCC)) or marker == _SOF_LS:
            if frame is not None:
                raise DamagedError("its JPEG stream holds two frames")
            frame = _read_frame(marker, body, scan)
        elif marker == 0xDA:
            if frame is None or scan.header:
                raise DamagedError(
                    "its JPEG stream holds scans that do not belong to one gray frame"
                )
            found = (_MARKER_LS if frame.process == _SOF_LS else _MARKER).search(stream, at)
            if found is None:
                raise DamagedError("its JPEG stream is cut short: the end marker is missing")
            scan.header, scan.codes = body, stream[at : found.start()]
            at = found.start()
    if frame is None or not scan.header:
        raise DamagedError("its JPEG stream holds no image")
    if stream[at + 2 :].strip(b"\x00\xff"):
        raise DamagedError("its JPEG stream goes on after its end")
    return frame


def read_jpegls_header(stream: bytes) -> JpegFrame:
    """Read all markers of a JPEG-LS stream, before CharLS sees it.

    CharLS reads on for seconds in a few bytes without an end marker, or with a damaged one.
    Raises:
        DamagedError: a marker is damaged or missing, or the stream is another kind of JPEG.
    """
    frame = read_frame_header(stream)
    if frame.process != _SOF_LS:
        raise DamagedError("its stream is JPEG, not JPEG-LS as its header says")
    return frame


def verify_blocks(frame: JpegFrame) -> None:
    """Follow the Huffman codes of a gray, sequential (lossy) JPEG frame.

    Raises:
        DamagedError: a code does not exist, or pixels and codes do not end together.
    """
    scan = frame.scan
    _verify_scan_header(frame)
    blocks = -(-frame.rows // 8) * -(-frame.columns // 8)
    for part, count in _parts(scan, blocks):
        data = part.replace(b"\xff\x00", b"\xff")
        try:
            end = _follow_blocks(data, scan, count)
        except IndexError:
            end = len(data) * 8 + 1
        if end < 0:
            raise DamagedError("its JPEG stream holds a code that does not exist")
        _verify_end(data, end)


def verify_samples(frame: JpegFrame, values: Pixels) -> None:
    """Code decoded numbers again and compare the bits with those of a lossless JPEG frame.

    Args:
        frame: of the stream that was decoded.
        values: [J, I], unsigned, as the decoder gave them.
    Raises:
        DamagedError: the stream holds other bits, so the decoder guessed.
    """
    scan = frame.scan
    _verify_scan_header(frame)
    rows, columns = values.shape
    if scan.interval % columns:
        raise DamagedError("its JPEG stream is divided inside a row")
    words = _words(scan)
    top = 0
    for part, count in _parts(scan, rows * columns):
        data = part.replace(b"\xff\x00", b"\xff")
        bottom = top + count // columns
        _verify_part(data, values[top:bottom], words, frame)
        top = bottom


def _verify_end(data: bytes, end: int) -> None:
    """The last code must end in the last byte."""
    if not 0 <= len(data) * 8 - end < 8:
        wrong = "codes are missing" if end > len(data) * 8 else "codes are left over"
        raise DamagedError(f"its JPEG stream is damaged: {wrong} at the last pixel")


def _read_frame(marker: int, body: bytes, scan: _Scan) -> JpegFrame:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise DamagedError("the frame header of its JPEG stream is damaged")
    precision, rows, columns, components = struct.unpack_from(">BHHB", body)
    return JpegFrame(marker, precision, rows, columns, components, scan)


def _read_tables(body: bytes, tables: dict[int, tuple[bytes, bytes]]) -> None:
    """Add the Huffman tables of a segment, by class and number: (codes of each length, symbols)."""
    at = 0
    while at < len(body):
        counts = body[at + 1 : at + 17]
        symbols = body[at + 17 : at + 17 + sum(counts)]
        if len(counts) != 16 or len(symbols) != sum(counts):
            raise DamagedError("a Huffman table of its JPEG stream is damaged")
        tables[body[at]] = (counts, symbols)
        at += 17 + len(symbols)


def _verify_scan_header(frame: JpegFrame) -> None:
    scan = frame.scan
    if len(scan.header) != 6 or scan.header[0] != 1 or frame.components != 1:
        raise DamagedError("the scan of its JPEG stream is not that of one gray frame")
    first, last, shift = scan.header[3:]
    if frame.process == 0xC3:
        if not 1 <= first <= 7 or last or shift >= frame.precision:
            raise DamagedError("the scan header of its JPEG stream is damaged")
    elif first or shift or last not in (0, 63):  # 0 in files of old writers, who coded all 63
        raise DamagedError("the scan header of its JPEG stream is damaged")


def _parts(scan: _Scan, units: int) -> list[tuple[bytes, int]]:
    """The scan split at its restart markers: (bytes, number of coded units) of each part."""
    pieces = _RESTART.split(scan.codes)
    parts, marks = pieces[::2], pieces[1::2]
    interval = scan.interval or units
    counts = [min(interval, units - start) for start in range(0, units, interval)]
    expected = [bytes([0xD0 + index % 8]) for index in range(len(counts) - 1)]
    if len(parts) != len(counts) or marks != expected:
        raise DamagedError("its JPEG stream lacks a part: the restart markers are out of order")
    return list(zip(parts, counts, strict=True))


def _codes(scan: _Scan, table: int) -> tuple[Bytes, npt.NDArray[np.int16]]:
    """For every value of the next 16 bits: the length of the code, and its symbol (-1: no code)."""
    if table not in scan.tables:
        raise DamagedError("its JPEG stream lacks a Huffman table")
    lengths = np.zeros(1 << 16, np.uint8)
    symbols = np.full(1 << 16, -1, np.int16)
    start, at = 0, 0
    counts, names = scan.tables[table]
    for length, count in enumerate(counts, 1):
        for name in names[at : at + count]:
            end = start + (1 << (16 - length))
            lengths[start:end], symbols[start:end] = length, name
            start = end
        at += count
    if start > 1 << 16:
        raise DamagedError("a Huffman table of its JPEG stream has too many codes")
    return lengths, symbols


def _at_every_bit(data: bytes, table: npt.NDArray[Any]) -> bytes:
    """`table[w]` for each bit position of `data`; w: the 16 bits from there, padded with 1."""
    row = np.frombuffer(data + b"\xff\xff", np.uint8).astype(np.uint32)
    window = row[:-2] << 16 | row[1:-1] << 8 | row[2:]
    found = np.empty((len(window), 8), np.uint8)
    for bit in range(8):
        found[:, bit] = table[(window >> (8 - bit)) & 0xFFFF]
    return found.tobytes()


def _follow_blocks(data: bytes, scan: _Scan, count: int) -> int:
    """The bit position behind `count` blocks of 8×8 coefficients; -1 for a code that is none."""
    lengths, sizes = _codes(scan, scan.header[2] >> 4)
    dc_at = _at_every_bit(data, np.where((sizes < 0) | (sizes > 16), 0, lengths + sizes))
    lengths, symbols = _codes(scan, 0x10 | (scan.header[2] & 15))
    runs, sizes = symbols >> 4, symbols & 15
    passed = np.where((sizes > 0) | (runs == 15), runs + 1, _NO_CODE)
    passed[symbols == 0] = _END_OF_BLOCK
    passed[symbols < 0] = _NO_CODE
    passed_at = _at_every_bit(data, passed)
    step_at = _at_every_bit(data, np.where(symbols < 0, 0, lengths + sizes))
    position = 0
    for _ in repeat(None, count):
        step = dc_at[position]
        position += step
        done = 1 if step else _NO_CODE
        while done < 64:
            done += passed_at[position]
            position += step_at[position]
        if 64 < done < _END_OF_BLOCK or done >= _NO_CODE:
            return -1
    return position


#: Samples at a time: they stay in the cache, and large images need little memory.
_AT_ONCE = 1 << 15
_BIT_LENGTH = np.array([number.bit_length() for number in range((1 << 15) + 1)], np.uint8)


def _words(scan: _Scan) -> tuple[Pixels, Pixels]:
    """The code word of every difference modulo 2¹⁶, and its number of bits (0: no code).

    A word is the Huffman code of the difference's number of bits, followed by these bits.
    """
    lengths, symbols = _codes(scan, scan.header[2] >> 4)
    code, length = np.zeros(17, np.uint64), np.zeros(17, np.uint64)
    for symbol, at in zip(*np.unique(symbols, return_index=True), strict=True):
        if 0 <= symbol <= 16:
            length[symbol] = lengths[at]
            code[symbol] = at >> (16 - int(lengths[at]))
    differences = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int32)
    size = _BIT_LENGTH[np.abs(differences)]
    own = np.where(size < 16, size, 0).astype(np.uint64)  # 32768 needs no bits of its own
    low = (differences - (differences < 0)) & ((1 << own.astype(np.int32)) - 1)
    bits = np.where(length[size] > 0, length[size] + own, 0).astype(np.uint64)
    return code[size] << own | low.astype(np.uint64), bits


def _verify_part(
    data: bytes, values: Pixels, words: tuple[Pixels, Pixels], frame: JpegFrame
) -> None:
    # The next 64 bits from every byte: more than the longest word plus 7 bits.
    windows: Pixels = np.ndarray((len(data),), ">u8", data + b"\xff" * 8, strides=(1,))
    position = 0
    rows = max(1, _AT_ONCE // values.shape[1])
    for top in range(0, len(values), rows):
        differences = _differences(values, top, min(top + rows, len(values)), frame).ravel()
        expected, bits = words[0][differences], words[1][differences]
        if not bits.all():
            raise DamagedError("its JPEG stream holds a code that does not exist")
        ends = position + np.cumsum(bits)
        position = int(ends[-1])
        if position > len(data) * 8:
            raise DamagedError("its JPEG stream is damaged: codes are missing at the last pixel")
        starts = ends - bits
        found = windows[starts >> 3].astype(np.uint64) << (starts & 7) >> (64 - bits)
        if not np.array_equal(found, expected):
            raise DamagedError("its JPEG stream holds a code that does not exist")
    _verify_end(data, position)


def _differences(values: Pixels, top: int, bottom: int, frame: JpegFrame) -> Pixels:
    """The prediction errors of rows `top` to `bottom`, modulo 2¹⁶."""
    predictor, shift = frame.scan.header[3], frame.scan.header[5]
    samples = values[max(top - 1, 0) : bottom].astype(np.int32) >> shift
    predicted = np.empty_like(samples)
    # The first row is predicted from the left, the first column from above.
    predicted[0, 0] = 1 << (frame.precision - shift - 1)
    predicted[0, 1:] = samples[0, :-1]
    predicted[1:, 0] = samples[:-1, 0]
    left, above, corner = samples[1:, :-1], samples[:-1, 1:], samples[:-1, :-1]
    predicted[1:, 1:] = _PREDICTORS[predictor](left, above, corner)
    differences = (samples - predicted).astype(np.uint16)
    return differences[1:] if top else differences


#: By number, from left, above and the corner between them (T.81, table H.1).
_PREDICTORS: dict[int, Callable[[Pixels, Pixels, Pixels], Pixels]] = {
    1: lambda left, _above, _corner: left,
    2: lambda _left, above, _corner: above,
    3: lambda _left, _above, corner: corner,
    4: lambda left, above, corner: left + above - corner,
    5: lambda left, above, corner: left + ((above - corner) >> 1),
    6: lambda left, above, corner: above + ((left - corner) >> 1),
    7: lambda left, above, _corner: (left + above) >> 1,
}


@dataclass(frozen=True)
class J2kImage:
    """The main header of a JPEG 2000 stream; precision: bits; high_throughput: HTJ2K (part 15)."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool
    high_throughput: bool


def read_j2k(stream: bytes) -> J2kImage:
    """Read the main header of a JPEG 2000 codestream and check that all its tiles are there.

    Raises:
        DamagedError: a header or a tile is damaged or missing, up to the end marker.
    """
    if stream[:4] != struct.pack(">HH", _SOC, _SIZ):
        raise DamagedError("its JPEG 2000 stream does not begin as one")
    image, tiles = _read_size(_segment(stream, 2))
    at, capable = 2, False
    while (marker := _marker(stream, at)) != _SOT:
        capable |= marker == _CAP
        at = _behind(stream, at)
    seen: set[int] = set()
    while _marker(stream, at) == _SOT:
        body = _segment(stream, at)
        if len(body) != 8:
            raise DamagedError("a tile header of its JPEG 2000 stream is damaged")
        tile, length = struct.unpack_from(">HI", body)
        if tile >= tiles:
            raise DamagedError(f"its JPEG 2000 stream holds tile {tile} of {tiles}")
        seen.add(tile)
        end = at + length if length else len(stream.rstrip(b"\x00\xff")) - 1
        if not at + 14 <= end <= len(stream) - 2:
            raise DamagedError("its JPEG 2000 stream is cut short, or a tile's length is damaged")
        _verify_tile_header(stream, at + 12, end)
        at = end
    if _marker(stream, at) != _EOC:
        raise DamagedError(
            "its JPEG 2000 stream is damaged: no tile begins where the last one ends"
        )
    if stream[at + 2 :].strip(b"\x00\xff"):
        raise DamagedError("its JPEG 2000 stream goes on after its end")
    if len(seen) != tiles:
        raise DamagedError(f"its JPEG 2000 stream holds {len(seen)} of {tiles} tiles")
    return J2kImage(*image, capable)


def _read_size(body: bytes) -> tuple[tuple[int, int, int, int, bool], int]:
    """(rows, columns, components, precision, signed), and the number of tiles."""
    if len(body) < 39 or len(body) != 36 + 3 * struct.unpack_from(">H", body, 34)[0]:
        raise DamagedError("the size in its JPEG 2000 stream is damaged")
    right, bottom, left, top = struct.unpack_from(">4I", body, 2)
    tile_width, tile_height, tile_left, tile_top = struct.unpack_from(">4I", body, 18)
    components, depth, step_x, step_y = struct.unpack_from(">HBBB", body, 34)
    if (
        not (tile_left <= left < right and tile_top <= top < bottom)
        or 0 in (tile_width, tile_height)
        or (step_x, step_y) != (1, 1)
    ):
        raise DamagedError("the size in its JPEG 2000 stream is damaged")
    across, down = -(-(right - tile_left) // tile_width), -(-(bottom - tile_top) // tile_height)
    if across * down > _MOST_TILES:
        raise DamagedError(f"its JPEG 2000 stream states {across * down} tiles")
    size = (bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80))
    return size, across * down


def _verify_tile_header(stream: bytes, at: int, end: int) -> None:
    while (marker := _marker(stream, at)) != _SOD:
        if marker in (_SOT, _EOC):
            raise DamagedError("a tile of its JPEG 2000 stream holds no data")
        at = _behind(stream, at)
        if at > end:
            raise DamagedError("a tile header of its JPEG 2000 stream is damaged")


def _marker(stream: bytes, at: int) -> int:
    marker = int.from_bytes(stream[at : at + 2], "big")
    if marker < 0xFF4F:
        raise DamagedError("its JPEG 2000 stream is cut short, or damaged between two markers")
    return marker


def _segment(stream: bytes, at: int) -> bytes:
    length = int.from_bytes(stream[at + 2 : at + 4], "big")
    body = stream[at + 4 : at + 2 + length]
    if length < 2 or len(body) != length - 2:
        raise DamagedError("a header of its JPEG 2000 stream is damaged")
    return body


def _behind(stream: bytes, at: int) -> int:
    """The byte after a marker segment."""
    return at + 4 + len(_segment(stream, at))
