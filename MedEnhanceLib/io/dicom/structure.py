"""Walks the elements of a DICOM file by the letter of the standard, up to its pixels.

pydicom forgives: lengths beyond the end, elements twice or out of order, each in its own way, and
so a damaged header is read as something else than another program reads. Pixels are therefore
taken only from a file whose elements are in order up to them.
Source: DICOM PS3.5, chapter 7 and annex A; PS3.10, chapter 7.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from MedEnhanceLib.io.dicom.decoders import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT
from MedEnhanceLib.io.dicom.samples import DamagedError

UNDEFINED = 0xFFFFFFFF
ITEM, END_OF_ITEM, END_OF_SEQUENCE = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS = 0x7FE00010, 0x7FE00008, 0x7FE00009
_PIXELS = (PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS)
_SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)  # fmt: skip
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
#: Groups that place and scale an image: here a tag may stand once, and in its order.
_GROUPS_IN_ORDER = (0x0018, 0x0020, 0x0028, 0x0054, 0x3004, 0x5200, 0x7FE0)
_FUNCTIONAL_GROUPS = 0x5200
_DEEPEST = 32
#: What a deflated file may unfold to.
_MOST_INFLATED = 1 << 31
#: As much is unfolded without asking how much there should be.
_FIRST_INFLATED = 1 << 26
_PIECE = 1 << 16
_SYNTAX, _CLASS = 0x00020010, 0x00020002
_ROWS, _COLUMNS, _ALLOCATED = 0x00280010, 0x00280011, 0x00280100
_SAMPLES, _FRAMES = 0x00280002, 0x00280008
_LONGEST_NUMBER = 16
_MOST_META, _LONGEST_META = 1000, 1 << 24
_ANYWHERE = 1 << 62


@dataclass(frozen=True, slots=True)
class Element:
    """Where a value lies: bytes from `start` on; length UNDEFINED ends with a delimiter."""

    tag: int
    vr: bytes
    start: int
    length: int

    @property
    def name(self) -> str:
        """The tag as DICOM writes it."""
        return f"({self.tag >> 16:04X},{self.tag & 0xFFFF:04X})"


@dataclass(frozen=True)
class DataSet:
    """A data set that can be walked. syntax: its transfer syntax UID."""

    stream: BinaryIO
    syntax: str
    start: int
    end: int
    explicit: bool
    little: bool

    @property
    def order(self) -> str:
        """As `struct` and numpy say it."""
        return "<" if self.little else ">"

    def elements(self) -> Iterator[Element]:
        """The elements up to the first that holds pixels.

        Raises DamagedError where one reaches beyond the end, is none, or stands out of order.
        """
        highest = -1
        for element in _walk(self, self.start, self.end, 0):
            if element.tag >> 16 in _GROUPS_IN_ORDER and element.tag <= highest:
                what = "stands there twice" if element.tag == highest else "is out of order"
                raise DamagedError(f"its element {element.name} {what}")
            if not element.tag >> 16 & 1:  # private ones are sown in anywhere
                highest = max(highest, element.tag)
            if element.tag >> 16 == _FUNCTIONAL_GROUPS:
                self._verify_groups(element)
            yield element
            if element.tag in _PIXELS:
                return

    def _verify_groups(self, sequence: Element) -> None:
        """Functional groups place the frames: their items hold groups, and those hold items."""
        for item in self.items(sequence):
            for group in item:
                if self.explicit and group.vr != b"SQ":
                    raise DamagedError(f"its functional group {group.name} is no sequence")
                self.items(group)

    def value(self, element: Element) -> bytes:
        """The bytes of an element of defined length."""
        self.stream.seek(element.start)
        return self.stream.read(element.length)

    def items(self, sequence: Element) -> list[list[Element]]:
        """The elements of each item of a sequence."""
        found = []
        stop = self.end if sequence.length == UNDEFINED else sequence.start + sequence.length
        at = sequence.start
        while at < stop:
            tag, length = _item_at(self, at, stop)
            if tag == END_OF_SEQUENCE:
                break
            end = stop if length == UNDEFINED else min(at + 8 + length, stop)
            elements = list(_walk(self, at + 8, end, 1))
            tags = [element.tag for element in elements]
            if tags != sorted(set(tags)):
                raise DamagedError(f"the elements inside {sequence.name} are out of order")
            found.append(elements)
            at = _end_of_item(self, at, stop, 1)
        return found


def open_data_set(stream: BinaryIO) -> DataSet:
    """The data set of a file, behind its preamble and its meta header; both may be missing.

    Of a deflated one as much is unfolded as its header says that it has pixels.
    Raises DamagedError where what is there is no DICOM.
    """
    size = stream.seek(0, 2)
    syntax, at, _ = behind_meta(stream)
    if not syntax:
        stream.seek(0)
        if stream.read(132)[128:] == b"DICM":
            raise DamagedError("its meta header names no transfer syntax")
        return _guessed(stream, at, size)
    if syntax == DEFLATED:
        stream, at = _unfolded(stream, at), 0
        size = stream.seek(0, 2)
    return DataSet(stream, syntax, at, size, syntax != IMPLICIT, syntax != BIG_ENDIAN)


def behind_meta(stream: BinaryIO) -> tuple[str, int, str]:
    """Transfer syntax, where the data set starts, and the class that the meta header tells.

    "" where it tells none, or where there is no such header. Raises DamagedError.
    """
    stream.seek(0)
    at = 132 if stream.read(132)[128:] == b"DICM" else 0
    meta = DataSet(stream, EXPLICIT, at, _ANYWHERE, explicit=True, little=True)
    told = {_SYNTAX: "", _CLASS: ""}
    for _ in range(_MOST_META):
        if _group_at(stream, at) != 2:
            return told[_SYNTAX], at, told[_CLASS]
        element = _element_at(meta, at, _ANYWHERE)
        # To look for the end first would unpack a whole member of a zip.
        value = meta.value(element) if element.length <= _LONGEST_META else b""
        if len(value) < element.length:
            raise DamagedError(f"its element {element.name} reaches beyond the end of the file")
        if element.tag in told:
            told[element.tag] = value.rstrip(b"\x00 ").decode("ascii", "replace")
        at = element.start + element.length
    raise DamagedError("its meta header does not end")


def _guessed(stream: BinaryIO, at: int, size: int) -> DataSet:
    """The encoding of a data set without a meta header, by its first element."""
    stream.seek(at)
    head = stream.read(8)
    explicit = head[4:6] in _SHORT_VRS or head[4:6] in _LONG_VRS
    little = not (head[:1] == b"\x00" and head[1:2] != b"\x00")
    syntax = (EXPLICIT if little else BIG_ENDIAN) if explicit else IMPLICIT
    return DataSet(stream, syntax, at, size, explicit, little or not explicit)


def inflated(stream: BinaryIO, at: int, most: int) -> tuple[bytes, bool]:
    """Up to `most` bytes of what is deflated from `at` on, and whether that is all of it.

    Raises DamagedError where it is damaged or cut short.
    """
    stream.seek(at)
    unfold = zlib.decompressobj(-zlib.MAX_WBITS)
    parts, left = [], most
    try:
        while left > 0 and not unfold.eof:
            piece = unfold.unconsumed_tail or stream.read(_PIECE)
            if not piece:
                raise DamagedError("its deflated content is cut short")
            parts.append(unfold.decompress(piece, left))
            left -= len(parts[-1])
    except zlib.error as cause:
        raise DamagedError(f"its deflated content is damaged ({cause})") from cause
    return b"".join(parts), unfold.eof


def _unfolded(stream: BinaryIO, at: int) -> BinaryIO:
    """A deflated data set up to the end of its pixels: a few bytes can unfold to terabytes."""
    content, is_all = inflated(stream, at, _FIRST_INFLATED)
    if not is_all:
        content, _ = inflated(stream, at, _end_of_pixels(content))
    return io.BytesIO(content)


def _end_of_pixels(content: bytes) -> int:
    """Where pixels end, by a data set of which this is the beginning.

    Raises DamagedError where they are more than the header says that the image has.
    """
    data = DataSet(io.BytesIO(content), EXPLICIT, 0, _ANYWHERE, explicit=True, little=True)
    numbers = {_ROWS: 0, _COLUMNS: 0, _ALLOCATED: 0, _SAMPLES: 1, _FRAMES: 1}
    for element in data.elements():
        if element.tag in numbers and element.length < _LONGEST_NUMBER:
            value = data.value(element)
            if element.vr == b"US":
                numbers[element.tag] = int.from_bytes(value, "little")
            elif value.strip(b"\0 ").isdigit():
                numbers[element.tag] = int(value.strip(b"\0 "))
    if element.tag not in _PIXELS or element.length == UNDEFINED:
        raise DamagedError("its deflated content is damaged")
    expected = math.prod(numbers.values()) // 8
    if element.length > max(expected, _FIRST_INFLATED) + 2:
        raise DamagedError(
            f"its pixel data is too long: {element.length} bytes where {expected} are needed"
        )
    end = element.start + element.length
    if end > _MOST_INFLATED:
        raise DamagedError("its deflated content unfolds to more than 2 GiB")
    return end


def _group_at(stream: BinaryIO, at: int) -> int:
    stream.seek(at)
    return int.from_bytes(stream.read(2), "little")


def _element_at(within: DataSet, at: int, end: int) -> Element:
    """The element that begins at a byte; its value is not looked at."""
    within.stream.seek(at)
    head = within.stream.read(8)
    if len(head) < 8 or at + 8 > end:
        raise DamagedError(f"it is cut short at byte {at}, inside an element")
    group, number = struct.unpack_from(within.order + "HH", head)
    tag = group << 16 | number
    if not within.explicit:
        return Element(tag, b"", at + 8, int.from_bytes(head[4:], "little"))
    vr = head[4:6]
    if vr in _SHORT_VRS:
        return Element(tag, vr, at + 8, struct.unpack_from(within.order + "H", head, 6)[0])
    if vr not in _LONG_VRS:
        raise DamagedError(f"what stands at byte {at} is no element")
    (length,) = struct.unpack(within.order + "I", within.stream.read(4).ljust(4, b"\0"))
    return Element(tag, vr, at + 12, length)


def _walk(within: DataSet, at: int, end: int, depth: int) -> Iterator[Element]:
    """Elements until `end` or the end of the item; each is held against `end`."""
    while at < end:
        element = _element_at_or_end(within, at, end)
        if element is None:
            return
        if element.length != UNDEFINED and element.length > end - element.start:
            raise DamagedError(f"its element {element.name} reaches beyond the end")
        yield element
        if element.tag in _PIXELS and not depth:
            return
        at = _end_of(within, element, end, depth)


def _element_at_or_end(within: DataSet, at: int, end: int) -> Element | None:
    within.stream.seek(at)
    head = within.stream.read(4)
    if len(head) == 4:
        group, number = struct.unpack(within.order + "HH", head)
        if group << 16 | number == END_OF_ITEM:
            return None
    return _element_at(within, at, end)


def _end_of(within: DataSet, element: Element, end: int, depth: int) -> int:
    """The byte behind an element."""
    if element.length != UNDEFINED:
        return element.start + element.length
    if element.vr not in (b"", b"SQ", b"UN") or depth >= _DEEPEST:
        raise DamagedError(f"its element {element.name} has no length")
    inner = within
    if element.vr == b"UN":  # by the standard implicit inside, whatever is around it
        inner = DataSet(within.stream, IMPLICIT, 0, end, explicit=False, little=True)
    at = element.start
    while True:
        tag, _ = _item_at(inner, at, end)
        if tag == END_OF_SEQUENCE:
            return at + 8
        at = _end_of_item(inner, at, end, depth + 1)


def _item_at(within: DataSet, at: int, end: int) -> tuple[int, int]:
    within.stream.seek(at)
    head = within.stream.read(8)
    if len(head) < 8 or at + 8 > end:
        raise DamagedError(f"it is cut short at byte {at}, inside a sequence")
    group, number, length = struct.unpack(within.order + "HHI", head)
    tag = group << 16 | number
    if tag not in (ITEM, END_OF_SEQUENCE):
        raise DamagedError(f"what stands at byte {at} is no item of a sequence")
    return tag, length


def _end_of_item(within: DataSet, at: int, end: int, depth: int) -> int:
    _, length = _item_at(within, at, end)
    if length != UNDEFINED:
        if length > end - at - 8:
            raise DamagedError("an item of a sequence reaches beyond the end")
        return at + 8 + length
    at += 8
    while True:
        element = _element_at_or_end(within, at, end)
        if element is None:
            return at + 8
        if element.length != UNDEFINED and element.length > end - element.start:
            raise DamagedError(f"its element {element.name} reaches beyond the end")
        at = _end_of(within, element, end, depth)
