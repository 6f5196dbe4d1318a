"""Parity of a `.ucv`: checksums find damaged bytes, and parity restores them, up to a number.

    head       32 bytes: how long the parts are (`_HEAD`)
    rows       parity: `rows` times `stripe` bytes
    checksums  CRC-32 of each page of what is covered, then of each page of the rows
    head       once more
    CRC-32     of all of this, so that the chunk's own checksum is `RESIDUE`, whatever it holds

Covered is the file from its first byte to the repair chunk. It is cut into stripes, and row j is
what Horner's rule makes of them at x^j in GF(2¹⁶): a Reed–Solomon code. Columns of pages are
independent; in each, as many lost pages come back as there are rows. A small file has one row and
one checksum: the place of a single run of damaged bytes is found by trying.

This module knows bytes only. No length in a repair chunk is believed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

#: CRC-32 of any bytes that end with their own CRC-32.
RESIDUE = 0x2144DF1C

# magic, page, pages, stripe, rows, covered, CRC of all this
_HEAD = struct.Struct("<4sIIIIQI")
_MAGIC = b"UCVR"
_CRC_BYTES = 4
#: What disks and file systems lose at a time.
_PAGE = 4096
#: x^11 is the highest power by which `_times` multiplies; more rows take a second step.
_HIGHEST = 11
_MOST_ROWS = 2 * _HIGHEST + 1
#: What a reader takes on: ours have pages of 4096 bytes, up to 1,400 stripes, 300 to be tried, and
#: a hundredth of what they cover.
_LEAST_PAGE = 1024
_MOST_STRIPES = 1 << 14
_MOST_TRIES, _MOST_TRIED_BYTES = 1 << 9, 1 << 20
_LARGEST_SHARE = 8
#: A repair chunk takes at most this share of a file, its row of the table (twice) included.
_SHARE = 100
_ROW_BYTES = 30
#: Below this many bytes a row of a small file repairs nothing worth its bytes.
_LEAST_STRIPE = 64
#: Header and table may turn out this much longer than they were estimated.
_SLACK = 64

Words = npt.NDArray[np.uint16]
#: Bytes of a file: read(offset, length) gives as many, zeros for those that cannot be read.
Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Layout:
    """How long the parts of a repair chunk are, in bytes; pages and rows are counted.

    Where `page` divides `stripe`, checksums say which pages are lost. Where there is one page, of
    several stripes and one row, the place is found by trying. Without rows damage is only found.
    """

    page: int
    pages: int
    stripe: int
    rows: int

    @classmethod
    def of_size(cls, covered: int) -> Layout | None:
        """For about `covered` bytes; None where it would take more than its share of them."""
        room = covered // _SHARE - _ROW_BYTES - _FIXED
        pages = -(-(covered + _SLACK) // _PAGE)
        if room < _CRC_BYTES * pages:
            return None
        spare = (room - _CRC_BYTES * pages) // (_PAGE + _CRC_BYTES)
        if spare >= 2:
            columns = max(1, spare // (_HIGHEST + 1))
            return cls(_PAGE, pages, columns * _PAGE, spare // columns)
        stripe = (room - 2 * _CRC_BYTES) // 2 * 2
        if stripe < _LEAST_STRIPE:
            return None
        return cls(-(-(covered + _SLACK) // stripe) * stripe, 1, stripe, 1)

    @property
    def unit(self) -> int:
        """Bytes of a row that have a checksum of their own."""
        return min(self.page, self.stripe)

    @property
    def tries(self) -> bool:
        """Whether the place of damage has to be found by trying."""
        return self.page > self.stripe

    @property
    def chunk_bytes(self) -> int:
        """Of the whole repair chunk."""
        checksums = self.pages + self.rows * (self.stripe // self.unit)
        return _FIXED + self.rows * self.stripe + _CRC_BYTES * checksums

    def fits(self, covered: int, length: int) -> bool:
        """Whether a chunk of that length can have this layout; nothing is believed before."""
        page, pages, stripe, rows = self.page, self.pages, self.stripe, self.rows
        if page < _LEAST_PAGE or stripe < 2 or page % 2 or stripe % 2 or rows > _MOST_ROWS:
            return False
        most = _MOST_STRIPES
        if self.tries:
            if page % stripe or (pages, rows) != (1, 1) or covered > _MOST_TRIED_BYTES:
                return False
            most = _MOST_TRIES
        elif stripe % page:
            return False
        if rows and -(-covered // stripe) > most:
            return False
        return (
            covered <= page * pages < covered + page + _PAGE
            and self.chunk_bytes == length <= covered // _LARGEST_SHARE
        )

    def placeholder(self) -> bytes:
        """A chunk of the right length and checksum, to lay a file out with."""
        return _with_crc(bytes(self.chunk_bytes - _CRC_BYTES))

    def chunk(self, parts: Iterable[bytes], covered: int) -> bytes:
        """The repair chunk of `covered` bytes, given in parts of any size."""
        code = _Code(self, parts)
        checksums = code.checksums + [0] * (self.pages - len(code.checksums))
        rows = [row.tobytes() for row in code.sums]
        for row in rows:
            starts = range(0, self.stripe, self.unit)
            checksums += [zlib.crc32(row[at : at + self.unit]) for at in starts]
        table = struct.pack(f"<{len(checksums)}I", *checksums)
        fields = self.page, self.pages, self.stripe, self.rows, covered
        head = _with_crc(_HEAD.pack(_MAGIC, *fields, 0)[:-_CRC_BYTES])
        return _with_crc(b"".join([head, *rows, table, head]))


_FIXED = 2 * _HEAD.size + _CRC_BYTES


def most_bytes(file_bytes: int) -> int:
    """The most that the repair chunk of a file of at most that size adds to it."""
    return file_bytes // _SHARE if Layout.of_size(file_bytes) else 0


@dataclass(frozen=True)
class Damage:
    """A run of bytes that are not as they were written; `repaired`: as they were, or None."""

    offset: int
    length: int
    repaired: bytes | None


class RepairChunk:
    """The repair chunk of an open file, as far as it is intact."""

    def __init__(self, layout: Layout, covered: int, raw: bytes) -> None:
        self.layout, self.covered = layout, covered
        rows, unit = layout.rows * layout.stripe, layout.unit
        self._rows = raw[_HEAD.size : _HEAD.size + rows]
        table = raw[_HEAD.size + rows : -_HEAD.size - _CRC_BYTES]
        checksums = struct.unpack(f"<{len(table) // _CRC_BYTES}I", table)
        self._checksums = checksums[: layout.pages]
        #: Number of a page of the rows → whether it is as it was written.
        self._intact = [
            zlib.crc32(self._rows[number * unit : (number + 1) * unit]) == crc
            for number, crc in enumerate(checksums[layout.pages :])
        ]

    @classmethod
    def at(cls, read: Read, offset: int, length: int) -> RepairChunk | None:
        """The chunk at a place of a file; None where it is none, or both of its heads are lost."""
        if length < _FIXED:
            return None
        for place in (offset, offset + length - _CRC_BYTES - _HEAD.size):
            layout, covered = _parsed(read(place, _HEAD.size))
            if layout is not None and covered == offset and layout.fits(covered, length):
                return cls(layout, covered, read(offset, length))
        return None

    def find(self, read: Read) -> list[Damage]:
        """All damage to the covered bytes, repaired as far as that is possible; reads them all."""
        lost = self._lost_pages(read)
        if not lost or not self.layout.rows:
            return [self._damage(page, None) for page in lost]
        if self.layout.tries:
            return [self._found_by_trying(read)]
        return self._solved(read, lost)

    def _page(self, read: Read, page: int) -> bytes:
        offset = page * self.layout.page
        return read(offset, min(self.layout.page, self.covered - offset))

    def _lost_pages(self, read: Read) -> list[int]:
        pages = range(-(-self.covered // self.layout.page))
        return [
            page for page in pages if zlib.crc32(self._page(read, page)) != self._checksums[page]
        ]

    def _damage(self, page: int, repaired: bytes | None) -> Damage:
        offset = page * self.layout.page
        length = min(self.layout.page, self.covered - offset)
        return Damage(offset, length, None if repaired is None else repaired[:length])

    def _differences(self, parts: Iterable[bytes]) -> Words:
        """What the covered bytes, as they are, leave of each row: zeros where nothing is lost."""
        rows = np.frombuffer(self._rows, "<u2").reshape(self.layout.rows, -1)
        differences: Words = _Code(self.layout, parts).sums ^ rows
        return differences

    def _solved(self, read: Read, lost: list[int]) -> list[Damage]:
        """Lost pages are unknowns, a set of equations for each column of pages."""
        layout, gone = self.layout, set(lost)

        parts = (self._page(read, page) for page in range(-(-self.covered // layout.page)))
        differences = self._differences(
            bytes(len(part)) if page in gone else part for page, part in enumerate(parts)
        )
        columns, last = layout.stripe // layout.page, -(-self.covered // layout.stripe) - 1
        words = layout.page // 2
        found = {}
        for column in sorted({page % columns for page in lost}):
            pages = [page for page in lost if page % columns == column]
            rows = [row for row in range(layout.rows) if self._intact[row * columns + column]]
            if len(pages) > len(rows):
                continue
            places = [last - page // columns for page in pages]
            matrix = [[_power(row * place) for place in places] for row in rows]
            part = slice(column * words, (column + 1) * words)
            solved = _solve(matrix, [differences[row][part] for row in rows])
            for page, values in zip(pages, solved, strict=False):
                whole = self._damage(page, values.astype("<u2").tobytes())
                if zlib.crc32(whole.repaired or b"") == self._checksums[page]:
                    found[page] = whole
        return [found.get(page) or self._damage(page, None) for page in lost]

    def _found_by_trying(self, read: Read) -> Damage:
        """One run of at most a stripe's length, wherever it begins."""
        data, stripe = bytearray(read(0, self.covered)), self.layout.stripe
        (difference,) = self._differences([bytes(data)])
        raw = difference.astype("<u2").tobytes()
        wrong = np.flatnonzero(np.frombuffer(raw, np.uint8))
        whole = Damage(0, self.covered, None)
        if not all(self._intact) or not len(wrong):
            return whole
        # The run begins behind the longest stretch, around the end, in which nothing is wrong.
        gaps = np.diff(wrong, prepend=wrong[-1] - stripe)
        begin = int(wrong[int(gaps.argmax())])
        length = stripe - int(gaps.max()) + 1
        turned = np.frombuffer((raw[begin:] + raw[:begin])[:length], np.uint8)
        for start in range(begin - stripe, self.covered, stripe):
            first, stop = max(start, 0), min(start + length, self.covered)
            if first >= stop:
                continue
            old = bytes(data[first:stop])
            change = turned[first - start : stop - start]
            data[first:stop] = (np.frombuffer(old, np.uint8) ^ change).tobytes()
            if zlib.crc32(data) == self._checksums[0]:
                return Damage(first, stop - first, bytes(data[first:stop]))
            data[first:stop] = old
        return whole


class _Code:
    """Of bytes in parts of any size the rows of a layout and the CRC-32 of each page.

    Rows are, stripe by stripe, rows · x^j + stripe from zeros on (Horner); what the last stripe
    lacks counts as zeros.
    """

    def __init__(self, layout: Layout, parts: Iterable[bytes]) -> None:
        unit = layout.unit
        columns, words = layout.stripe // unit, unit // 2
        self.sums: Words = np.zeros((layout.rows, layout.stripe // 2), "<u2")
        self.checksums: list[int] = []
        powers = np.arange(layout.rows, dtype="<u2")[:, None]
        once, more = np.minimum(powers, _HIGHEST), powers[_HIGHEST + 1 :] - _HIGHEST
        count = 0
        for count, piece in enumerate(_pieces(parts, unit), 1):
            if (count - 1) % (layout.page // unit) == 0:
                self.checksums.append(0)
            self.checksums[-1] = zlib.crc32(piece, self.checksums[-1])
            self._add(piece.ljust(unit, b"\0"), (count - 1) % columns * words, once, more)
        for column in range(count % columns or columns, columns):
            self._add(bytes(unit), column * words, once, more)

    def _add(self, piece: bytes, place: int, once: Words, more: Words) -> None:
        addend = np.frombuffer(piece, "<u2")
        column = self.sums[:, place : place + len(addend)]
        product = _times(column, once)
        if len(more):
            product[-len(more) :] = _times(product[-len(more) :], more)
        np.bitwise_xor(product, addend, out=column)


def _parsed(head: bytes) -> tuple[Layout | None, int]:
    if len(head) < _HEAD.size:
        return None, 0
    magic, page, pages, stripe, rows, covered, crc = _HEAD.unpack(head)
    if magic != _MAGIC or zlib.crc32(head[:-_CRC_BYTES]) != crc:
        return None, 0
    return Layout(page, pages, stripe, rows), covered


def _pieces(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of one size, but for the last."""
    held = bytearray()
    for part in parts:
        held += part
        whole = len(held) // size * size
        for start in range(0, whole, size):
            yield bytes(held[start : start + size])
        del held[:whole]
    if held:
        yield bytes(held)


def _with_crc(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(_CRC_BYTES, "little")


# GF(2¹⁶): bits are coefficients, x^16 = x^5 + x^3 + x^2 + 1, and x generates all but 0.
_ORDER = (1 << 16) - 1


def _times(values: Words, power: Any) -> Words:
    """The products of values and x^power, 0 to 11: bits that leave at the top come back at four."""
    top = values >> (16 - power)
    product: Words = (values << power) ^ top ^ (top << 2) ^ (top << 3) ^ (top << 5)
    return product


@cache
def _tables() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """x^n for each n below the order, and n of each x^n."""
    powers, value = np.empty(_ORDER, np.int64), 1
    for exponent in range(_ORDER):
        powers[exponent] = value
        value <<= 1
        value ^= 0x1002D if value >> 16 else 0
    logarithms = np.zeros(_ORDER + 1, np.int64)
    logarithms[powers] = np.arange(_ORDER)
    return powers, logarithms


def _power(exponent: int) -> int:
    return int(_tables()[0][exponent % _ORDER])


def _scaled(values: Words, factor: int) -> Words:
    powers, logarithms = _tables()
    if factor == 0:
        return np.zeros_like(values)
    product = powers[(logarithms[values] + logarithms[factor]) % _ORDER]
    return np.where(values == 0, 0, product).astype(np.uint16)


def _solve(matrix: Sequence[Sequence[int]], values: Sequence[Words]) -> list[Words]:
    """The unknowns of `matrix` · unknowns = `values`, by elimination; [] where they are not fixed.

    matrix: a row for each equation; values: of each, an array.
    """
    count = len(matrix[0]) if matrix else 0
    rows = [(np.array(left, np.uint16), right) for left, right in zip(matrix, values, strict=True)]
    for column in range(count):
        pivot = next((n for n in range(column, len(rows)) if rows[n][0][column]), None)
        if pivot is None:
            return []
        rows[column], rows[pivot] = rows[pivot], rows[column]
        inverse = _power(-int(_tables()[1][rows[column][0][column]]))
        left, right = (_scaled(side, inverse) for side in rows[column])
        rows[column] = left, right
        for n, (other_left, other_right) in enumerate(rows):
            factor = int(other_left[column])
            if n != column and factor:
                rows[n] = other_left ^ _scaled(left, factor), other_right ^ _scaled(right, factor)
    return [right for _, right in rows[:count]]
