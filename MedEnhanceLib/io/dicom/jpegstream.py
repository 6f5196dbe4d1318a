"""Walks a JPEG stream by its markers and its codes, without decoding a pixel.

The decoders of JPEG repair what is damaged and go on: a stream that was cut is filled with grey,
codes that do not exist count as zero. Nobody would notice. So a stream is held against what was
made of it: each code must exist, and the codes must be as many as there are pixels. Of a lossless
one, the codes of the decoded numbers must be the very bits that stand there.
Source: ITU-T T.81 (JPEG), annexes B, F and H; ITU-T T.87 (JPEG-LS), annex C.
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

from MedEnhanceLib.io.dicom.samples import DamagedError, Pixels

_RESTART = re.compile(rb"\xff+([\xd0-\xd7])")
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_MARKER_LS = re.compile(rb"\xff[\x80-\xff]")
_END_OF_BLOCK, _NO_CODE = 128, 200
_SOF_LS = 0xF7

Bytes = npt.NDArray[np.uint8]


@dataclass
class _Scan:
    tables: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    interval: int = 0
    header: bytes = b""
    codes: bytes = b""


@dataclass(frozen=True)
class JpegFrame:
    """What the markers of a stream say.

    process: the start-of-frame marker, 0xC0 … 0xCF, 0xF7 for JPEG-LS. precision: bits.
    scan: what verify_blocks and verify_samples need of the codes.
    """

    process: int
    precision: int
    rows: int
    columns: int
    components: int
    scan: _Scan


def read_frame_header(stream: bytes) -> JpegFrame:
    """The frame of a JPEG or JPEG-LS stream, all of whose markers are in order up to its end."""
    return _walk(stream)


def verify_blocks(frame: JpegFrame) -> None:
    """Follow the Huffman codes of a grey, sequential stream.

    Raises DamagedError where a code does not exist, or where pixels and codes do not end together.
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
    """Code decoded numbers [J, I] again: a lossless stream must hold exactly these bits.

    Raises DamagedError where it does not.
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


def _walk(stream: bytes) -> JpegFrame:
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
                    "its JPEG stream holds scans that do not belong to one grey frame"
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


def _read_frame(marker: int, body: bytes, scan: _Scan) -> JpegFrame:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise DamagedError("the frame header of its JPEG stream is damaged")
    precision, rows, columns, components = struct.unpack_from(">BHHB", body)
    return JpegFrame(marker, precision, rows, columns, components, scan)


def _read_tables(body: bytes, tables: dict[int, tuple[bytes, bytes]]) -> None:
    """Huffman tables by class and number: how many codes have each length, and their symbols."""
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
        raise DamagedError("the scan of its JPEG stream is not that of one grey frame")
    first, last, shift = scan.header[3:]
    if frame.process == 0xC3:
        if not 1 <= first <= 7 or last or shift >= frame.precision:
            raise DamagedError("the scan header of its JPEG stream is damaged")
    elif first or shift or last not in (0, 63):  # 0 in files of old writers, who coded all 63
        raise DamagedError("the scan header of its JPEG stream is damaged")


def _parts(scan: _Scan, units: int) -> list[tuple[bytes, int]]:
    """The scan cut at its restart markers, each part with the units that it codes."""
    pieces = _RESTART.split(scan.codes)
    parts, marks = pieces[::2], pieces[1::2]
    interval = scan.interval or units
    counts = [min(interval, units - start) for start in range(0, units, interval)]
    expected = [bytes([0xD0 + index % 8]) for index in range(len(counts) - 1)]
    if len(parts) != len(counts) or marks != expected:
        raise DamagedError("its JPEG stream lacks a part: the restart markers are out of order")
    return list(zip(parts, counts, strict=True))


def _codes(scan: _Scan, table: int) -> tuple[Bytes, npt.NDArray[np.int16]]:
    """For each 16 bits that can come next: the length of the code there, and its symbol or -1."""
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
    """The table's byte for the 16 bits from each bit of `data` on, as if ones came behind it."""
    row = np.frombuffer(data + b"\xff\xff", np.uint8).astype(np.uint32)
    window = row[:-2] << 16 | row[1:-1] << 8 | row[2:]
    found = np.empty((len(window), 8), np.uint8)
    for bit in range(8):
        found[:, bit] = table[(window >> (8 - bit)) & 0xFFFF]
    return found.tobytes()


def _follow_blocks(data: bytes, scan: _Scan, count: int) -> int:
    """The bit where `count` blocks of 8×8 coefficients end; -1 where a code does not exist."""
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


# ------------------------------------------------------------ lossless


#: Samples at a time: they stay near the processor, and large images need little memory.
_AT_ONCE = 1 << 15
_BIT_LENGTH = np.array([number.bit_length() for number in range((1 << 15) + 1)], np.uint8)


def _words(scan: _Scan) -> tuple[Pixels, Pixels]:
    """For each difference modulo 2¹⁶: the bits that stand for it, and how many; 0 without a code.

    They are a Huffman code of how many bits the difference has, and then those bits.
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
    # From each byte on, the next 64 bits: more than any word, wherever in the byte it begins.
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
    """What is coded of the rows: their numbers less what their neighbours foretell, modulo 2¹⁶."""
    predictor, shift = frame.scan.header[3], frame.scan.header[5]
    samples = values[max(top - 1, 0) : bottom].astype(np.int32) >> shift
    foretold = np.empty_like(samples)
    # The first row knows only what is left of it, the first column only what is above.
    foretold[0, 0] = 1 << (frame.precision - shift - 1)
    foretold[0, 1:] = samples[0, :-1]
    foretold[1:, 0] = samples[:-1, 0]
    left, above, corner = samples[1:, :-1], samples[:-1, 1:], samples[:-1, :-1]
    foretold[1:, 1:] = _PREDICTORS[predictor](left, above, corner)
    differences = (samples - foretold).astype(np.uint16)
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
