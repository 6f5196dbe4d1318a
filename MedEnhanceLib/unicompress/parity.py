"""Parity of a `.ucv`: checksums find damaged bytes, and parity restores them, up to a number.

    rows       parity: `rows` times `stripe` bytes
    checksums  CRC-32 of each page of what is covered, then of each page of the rows
    head       32 bytes: how long the parts are (`_HEAD`), to be found from the end of the file
    CRC-32     of all of this, so that the chunk's own checksum is `RESIDUE`, whatever it holds

Covered is the file from its first byte to the repair chunk. It is cut into stripes of pages, and
row j is what Horner's rule makes of them at x^j in GF(2¹⁶): a Reed–Solomon code. Columns of pages
are independent; in each, as many lost pages come back as there are rows.

This module knows bytes only. No length in a repair chunk is trusted.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Longs, Words

#: CRC-32 of any bytes that end with their own CRC-32.
RESIDUE = 0x2144DF1C

# magic, page, pages, stripe, rows, covered, CRC of all this
_HEAD = struct.Struct("<4sIIIIQI")
_MAGIC = b"UCVR"
_CRC_BYTES = 4
_FIXED = _HEAD.size + _CRC_BYTES
#: Bytes that disks and file systems lose at a time, and page size of small files.
_PAGE, _SMALL_PAGE = 4096, 1024
#: x^11 is the highest power by which `_times` multiplies; more rows take a second step.
_HIGHEST = 11
_MOST_ROWS = 2 * _HIGHEST + 1
#: Limits for a reader; our files have up to 1,400 stripes and 1 % of parity.
_MOST_STRIPES, _LARGEST_SHARE = 1 << 14, 8
#: A repair chunk takes at most this share of a file, its row of the table included.
_SHARE = 100
_ROW_BYTES = 20
#: Header and table may turn out this much longer than they were estimated.
_SLACK = 64

#: Bytes of a file: read(offset, length) gives as many, zeros for those that cannot be read.
Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Layout:
    """Lengths of the parts of a repair chunk.

    Attributes:
        page: bytes.
        pages: how many are covered.
        stripe: bytes, a whole number of pages.
        rows: stripes of parity.
    """

    page: int
    pages: int
    stripe: int
    rows: int

    @classmethod
    def for_size(cls, covered: int) -> Layout | None:
        """Lay out parity of `covered` bytes; None where it would take more than its share."""
        for page, least in ((_PAGE, 2), (_SMALL_PAGE, 1)):
            pages = -(-(covered + _SLACK) // page)
            room = covered // _SHARE - _ROW_BYTES - _FIXED - _CRC_BYTES * pages
            spare = room // (page + _CRC_BYTES)
            if spare >= least:
                columns = max(1, spare // (_HIGHEST + 1))
                return cls(page, pages, columns * page, spare // columns)
        return None

    @property
    def columns(self) -> int:
        """Pages of a stripe."""
        return self.stripe // self.page

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the whole repair chunk."""
        checksums = self.pages + self.rows * self.columns
        return _FIXED + self.rows * self.stripe + _CRC_BYTES * checksums

    def fits(self, covered: int, length: int) -> bool:
        """Return whether a chunk of that length can have this layout; checked before it is used."""
        page, stripe = self.page, self.stripe
        return (
            page >= _SMALL_PAGE
            and page % 2 == 0
            and stripe > 0
            and stripe % page == 0
            and 0 < self.rows <= _MOST_ROWS
            and -(-covered // stripe) <= _MOST_STRIPES
            and covered <= page * self.pages < covered + page + _PAGE
            and self.chunk_bytes == length <= covered // _LARGEST_SHARE
        )

    def placeholder(self) -> bytes:
        """Make a chunk of the right length and checksum, to lay a file out with."""
        return _with_crc(bytes(self.chunk_bytes - _CRC_BYTES))

    def chunk(self, parts: Iterable[bytes], covered: int) -> bytes:
        """Make the repair chunk of `covered` bytes, given in parts of any size."""
        checksums: list[int] = []
        rows = _rows_of(self, _pages(parts, self.page, checksums))
        checksums += [0] * (self.pages - len(checksums))
        checksums += [zlib.crc32(page.tobytes()) for page in rows.reshape(-1, self.page // 2)]
        table = struct.pack(f"<{len(checksums)}I", *checksums)
        fields = self.page, self.pages, self.stripe, self.rows, covered
        head = _with_crc(_HEAD.pack(_MAGIC, *fields, 0)[:-_CRC_BYTES])
        return _with_crc(rows.tobytes() + table + head)


def most_bytes(file_bytes: int) -> int:
    """Bound what the repair chunk of a file of at most that size adds to it."""
    return file_bytes // _SHARE if Layout.for_size(file_bytes) else 0


@dataclass(frozen=True)
class Damage:
    """A page of bytes that are not as they were written.

    Attributes:
        offset, length: in the file, bytes.
        repaired: the bytes as they were; None where they cannot be restored.
    """

    offset: int
    length: int
    repaired: bytes | None


class RepairChunk:
    """The repair chunk of an open file, as far as it is intact."""

    def __init__(self, layout: Layout, covered: int, raw: bytes) -> None:
        self.layout, self.covered = layout, covered
        end = layout.rows * layout.stripe
        self._rows = np.frombuffer(raw[:end], "<u2").reshape(layout.rows, -1)
        table = raw[end:-_FIXED]
        checksums = struct.unpack(f"<{len(table) // _CRC_BYTES}I", table)
        self._checksums = checksums[: layout.pages]
        pages = self._rows.reshape(-1, layout.page // 2)
        crcs = np.array([zlib.crc32(page.tobytes()) for page in pages])
        is_intact = np.equal(crcs, checksums[layout.pages :])
        #: Whether a page of the rows is as it was written, [rows, columns].
        self._intact = is_intact.reshape(layout.rows, layout.columns)

    @classmethod
    def before(cls, read: Read, stop: int) -> RepairChunk | None:
        """Read the chunk that ends at `stop`; None without one with an intact head."""
        head = read(stop - _FIXED, _HEAD.size) if stop > _FIXED else b""
        if zlib.crc32(head) != RESIDUE or not head.startswith(_MAGIC):
            return None
        _, *sizes, covered, _ = _HEAD.unpack(head)
        layout = Layout(*sizes)
        if not layout.fits(covered, stop - covered):
            return None
        return cls(layout, covered, read(covered, stop - covered))

    def find(self, read: Read) -> list[Damage]:
        """Find all damage to the covered bytes, repaired as far as possible; reads them all."""
        layout, checksums = self.layout, self._checksums
        starts = range(0, self.covered, layout.page)
        pages = (read(at, min(layout.page, self.covered - at)) for at in starts)
        lost = [
            number for number, page in enumerate(pages) if zlib.crc32(page) != checksums[number]
        ]
        solved = self._solved(read, set(lost)) if lost else {}
        damages = []
        for number in lost:
            length = min(layout.page, self.covered - starts[number])
            page = solved[number][:length] if number in solved else None
            if page is not None and zlib.crc32(page) != checksums[number]:
                page = None
            damages.append(Damage(starts[number], length, page))
        return damages

    def _solved(self, read: Read, lost: set[int]) -> dict[int, bytes]:
        """Solve for lost pages: one linear system for each column of pages."""
        layout = self.layout
        starts = range(0, self.covered, layout.page)
        # Rows of the file without its lost pages differ by the contribution of these.
        pages = (
            b"" if number in lost else read(at, min(layout.page, self.covered - at))
            for number, at in enumerate(starts)
        )
        differences = _rows_of(layout, pages) ^ self._rows
        last, words = -(-self.covered // layout.stripe) - 1, layout.page // 2
        solved: dict[int, bytes] = {}
        for column in sorted({number % layout.columns for number in lost}):
            numbers = sorted(n for n in lost if n % layout.columns == column)
            rows = np.flatnonzero(self._intact[:, column]).tolist()
            if len(numbers) <= len(rows):
                places = [last - number // layout.columns for number in numbers]
                matrix = [[_power(row * place) for place in places] for row in rows]
                part = slice(column * words, (column + 1) * words)
                unknowns = _solve(np.array(matrix, np.uint16), differences[rows, part])
                solved |= {n: page.tobytes() for n, page in zip(numbers, unknowns, strict=False)}
        return solved


def _pages(parts: Iterable[bytes], size: int, checksums: list[int]) -> Iterator[bytes]:
    """Cut bytes into pages, and add their checksums to `checksums`."""
    held = bytearray()
    for part in parts:
        held += part
        whole = len(held) // size * size
        for start in range(0, whole, size):
            page = bytes(held[start : start + size])
            checksums.append(zlib.crc32(page))
            yield page
        del held[:whole]
    if held:
        checksums.append(zlib.crc32(held))
        yield bytes(held)


def _rows_of(layout: Layout, pages: Iterable[bytes]) -> Words:
    """Compute the rows of successive pages, [rows, stripe / 2]; short pages end with zeros.

    Rows are, stripe by stripe, rows · x^j + stripe from zeros on (Horner).
    """
    words = layout.page // 2
    sums: Words = np.zeros((layout.rows, layout.stripe // 2), "<u2")
    powers = np.arange(layout.rows, dtype="<u2")[:, None]
    once, more = np.minimum(powers, _HIGHEST), powers[_HIGHEST + 1 :] - _HIGHEST

    def add(page: bytes, column: int) -> None:
        part = sums[:, column * words : (column + 1) * words]
        product = _times(part, once)
        if len(more):
            product[-len(more) :] = _times(product[-len(more) :], more)
        np.bitwise_xor(product, np.frombuffer(page.ljust(layout.page, b"\0"), "<u2"), out=part)

    count = 0
    for count, page in enumerate(pages, 1):
        add(page, (count - 1) % layout.columns)
    for column in range(count % layout.columns or layout.columns, layout.columns):
        add(b"", column)
    return sums


def _with_crc(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(_CRC_BYTES, "little")


# GF(2¹⁶): bits are coefficients, x^16 = x^5 + x^3 + x^2 + 1, and x generates all but 0.
_ORDER = (1 << 16) - 1


def _times(values: Words, power: Any) -> Words:
    """Multiply values by x^power, 0 to 11: bits that leave at the top come back at four."""
    top = values >> (16 - power)
    product: Words = (values << power) ^ top ^ (top << 2) ^ (top << 3) ^ (top << 5)
    return product


@cache
def _tables() -> tuple[Longs, Longs]:
    """Tabulate x^n for each n below the order, and n of each x^n."""
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


def _products(a: Words, b: Words) -> Words:
    """Multiply all pairs that broadcasting makes."""
    powers, logarithms = _tables()
    product: Words = powers[(logarithms[a] + logarithms[b]) % _ORDER].astype(np.uint16)
    product[np.broadcast_to((a == 0) | (b == 0), product.shape)] = 0
    return product


def _solve(matrix: Words, values: Words) -> Words:
    """Solve `matrix` [m, n] · unknowns [n, …] = `values` [m, …] by elimination.

    Returns an empty array if the system is singular.
    """
    count = matrix.shape[1]
    rows = np.concatenate([matrix, values], axis=1)
    for column in range(count):
        pivots = np.flatnonzero(rows[column:, column])
        if not len(pivots):
            return values[:0]
        pivot = column + pivots[0]
        rows[[column, pivot]] = rows[[pivot, column]]
        inverse = _power(-int(_tables()[1][rows[column, column]]))
        rows[column] = _products(rows[column], np.array(inverse, np.uint16))
        factors = rows[:, column].copy()
        factors[column] = 0
        rows ^= _products(factors[:, None], rows[column])
    return rows[:count, count:]
