"""Parity (docs/ucv-format.md, section 6) for the minimal reader: by logarithms, all at once."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

PROLOGUE = struct.Struct("<4sHHQQIIIIII12sI")
HEAD = struct.Struct("<4sIIIIQI")
ORDER = 65535
#: x^n in the field, and n of each x^n.
POWERS = [1]
while len(POWERS) < ORDER:
    POWERS.append(POWERS[-1] << 1 ^ (0x1002D if POWERS[-1] >> 15 else 0))
EXP = np.array(POWERS)
LOG = np.zeros(ORDER + 1, int)
LOG[EXP] = range(ORDER)
Array = np.ndarray[Any, Any]
Head = tuple[int, int, int, int, int]


def repaired(data: bytes) -> bytes:
    """The file with all damage undone that can be; as it is where it has no parity."""
    for place in (0, len(data) - 96):
        raw = data[max(place, 0) :][:64]
        if len(raw) == 64 and zlib.crc32(raw[:60]) == int.from_bytes(raw[60:], "little"):
            fields = PROLOGUE.unpack(raw)
            end = 64 + fields[4] + fields[5] + fields[7]
            for head in _heads(data[:end]):
                if _fits(head, end - head[4]):
                    return _mended(data[: head[4]], data[head[4] : end], head) + data[head[4] :]
    return data


def _heads(data: bytes) -> list[Head]:
    """The last head, else any whose own place is what it says."""
    places = [len(data) - 36]
    while (found := data.find(b"UCVR", places[-1] + 1 if len(places) > 1 else 0)) >= 0:
        places.append(found)
    heads = []
    for place in places:
        raw = data[max(place, 0) :][:32]
        if len(raw) == 32 and raw[:4] == b"UCVR":
            _, page, pages, stripe, rows, covered, crc = HEAD.unpack(raw)
            if zlib.crc32(raw[:28]) == crc and place in (covered, len(data) - 36):
                heads.append((page, pages, stripe, rows, covered))
    return heads


def _fits(head: Head, length: int) -> bool:
    page, pages, stripe, rows, covered = head
    if page < 1024 or stripe < 2 or page % 2 or stripe % 2 or rows > 23:
        return False
    count = -(-covered // stripe)
    if page > stripe:
        good = page % stripe == 0 and pages == rows == 1 and covered <= 1 << 20 and count <= 512
    else:
        good = stripe % page == 0 and (not rows or count <= 1 << 14)
    size = 68 + rows * stripe + 4 * (pages + rows * (stripe // min(page, stripe)))
    return good and covered <= page * pages < covered + page + 4096 and size == length


def _mended(body: bytes, chunk: bytes, head: Head) -> bytes:
    page, pages, stripe, rows, covered = head
    unit, table = min(page, stripe), 32 + rows * stripe
    parity = chunk[32:table]
    checksums = struct.unpack(f"<{(len(chunk) - 36 - table) // 4}I", chunk[table:-36])
    places = range(0, covered, page)
    lost = [n for n, at in enumerate(places) if zlib.crc32(body[at : at + page]) != checksums[n]]
    intact = np.array(
        [zlib.crc32(parity[n * unit :][:unit]) == crc for n, crc in enumerate(checksums[pages:])]
    )
    if not lost or not rows:
        return body
    if page > stripe:
        return _tried(body, parity, checksums[0]) if intact.all() else body
    count, columns, words = -(-covered // stripe), stripe // page, page // 2
    padded = np.frombuffer(body.ljust(count * stripe, b"\0"), "<u2").astype(int)
    pieces = padded.reshape(count, columns, words).copy()
    code = np.frombuffer(parity, "<u2").astype(int).reshape(rows, columns, words)
    for number in lost:
        pieces[number // columns, number % columns] = 0
    for column in {number % columns for number in lost}:
        gone = [number // columns for number in lost if number % columns == column]
        good = [row for row in range(rows) if intact.reshape(rows, columns)[row, column]]
        weights = [[EXP[row * (count - 1 - n) % ORDER] for n in range(count)] for row in good]
        known = [
            code[row, column] ^ np.bitwise_xor.reduce(_times(pieces[:, column], weight))
            for row, weight in zip(good, np.array(weights)[..., None], strict=True)
        ]
        left = np.array(weights)[:, gone]
        for n, value in zip(gone, _solution(left, np.array(known)), strict=False):
            at = (n * columns + column) * page
            piece = value.astype("<u2").tobytes()[: covered - at]
            if zlib.crc32(piece) == checksums[n * columns + column]:
                body = body[:at] + piece + body[at + len(piece) :]
    return body


def _times(a: Array, b: Array) -> Array:
    return np.where((a == 0) | (b == 0), 0, EXP[(LOG[a] + LOG[b]) % ORDER])


def _solution(left: Array, right: Array) -> Array:
    """The unknowns of left · unknowns = right, by elimination; none where they are not fixed."""
    for column in range(left.shape[1]):
        found = np.flatnonzero(left[column:, column])
        if not len(found):
            return right[:0]
        swap = [column, column + found[0]]
        left[swap], right[swap] = left[swap[::-1]], right[swap[::-1]]
        inverse = EXP[-LOG[left[column, column]] % ORDER]
        left[column], right[column] = _times(left[column], inverse), _times(right[column], inverse)
        for n in range(len(left)):
            if n != column:
                factor = left[n, column]
                left[n] ^= _times(left[column], factor)
                right[n] ^= _times(right[column], factor)
    return right[: left.shape[1]]


def _tried(body: bytes, parity: bytes, crc: int) -> bytes:
    """One run of damaged bytes, at most as long as the row, wherever it begins."""
    size = len(parity)
    padded = np.frombuffer(body.ljust(-(-len(body) // size) * size, b"\0"), np.uint8)
    folded = np.bitwise_xor.reduce(padded.reshape(-1, size)) ^ np.frombuffer(parity, np.uint8)
    wrong = np.flatnonzero(folded)
    if not len(wrong):
        return body
    gaps = np.diff(wrong, prepend=wrong[-1] - size)
    for start in range(int(wrong[gaps.argmax()]) - size, len(body), size):
        run = np.arange(max(start, 0), min(start + size - int(gaps.max()) + 1, len(body)))
        tried = np.frombuffer(body, np.uint8).copy()
        tried[run] ^= folded[run % size]
        if zlib.crc32(tried) == crc:
            return tried.tobytes()
    return body
