"""The elements of a DICOM file, read strictly up to its pixels; and pydicom, kept within bounds.

pydicom forgives lengths beyond the end and elements that are doubled or out of order, and reads a
damaged header differently than other programs do. Pixels are therefore taken only from a file
whose elements are in order up to them (docs/decisions/0007-verified-reading.md).
Sources: DICOM PS3.5, chapter 7 and annex A; PS3.10, chapter 7.
"""

from __future__ import annotations

import io
import logging
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

from MedEnhanceLib.io.dicom.archives import UNZIP_FAILURES
from MedEnhanceLib.runtime.dependencies import require

if TYPE_CHECKING:
    from pydicom import Dataset


class DamagedError(ValueError):
    """Pixels or elements contradict the header or the standard; the message says how."""


IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT, DEFLATED, BIG_ENDIAN = f"{IMPLICIT}.1", f"{IMPLICIT}.1.99", f"{IMPLICIT}.2"
#: Transfer syntaxes whose pixels are not compressed.
NATIVE = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)
UNDEFINED = 0xFFFFFFFF
ITEM, END_OF_ITEM, END_OF_SEQUENCE = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS = 0x7FE00010, 0x7FE00008, 0x7FE00009
_PIXELS = (PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS)
SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)  # fmt: skip
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
#: Groups that place and scale an image: here a tag may stand only once, and tags ascend.
_GROUPS_IN_ORDER = (0x0018, 0x0020, 0x0028, 0x0054, 0x3004, 0x5200, 0x7FE0)
_FUNCTIONAL_GROUPS = 0x5200
_DEEPEST = 32
#: Bytes: a deflated file that inflates to more is refused.
_MOST_INFLATED = 1 << 31
#: Bytes that are inflated before the size stated by the header is used.
_FIRST_INFLATED = 1 << 26
_PIECE = 1 << 16
_SYNTAX, _CLASS = 0x00020010, 0x00020002
_ROWS, _COLUMNS, _ALLOCATED = 0x00280010, 0x00280011, 0x00280100
_SAMPLES, _FRAMES = 0x00280002, 0x00280008
_LONGEST_NUMBER = 16
_MOST_META, _LONGEST_META = 1000, 1 << 24
_ANYWHERE = 1 << 62

_BEFORE_PIXELS = 0x7FE00007
#: A header has hundreds of elements, with private ones some thousands.
_MOST_ELEMENTS = 20_000
#: Bytes: a deflated header may inflate to this; those of enhanced images have a few MB.
_MOST_INFLATED_HEADER = 1 << 26


class Element(NamedTuple):
    """A value at bytes `start` to `start + length`; length UNDEFINED ends with a delimiter."""

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
    """A data set at bytes `start` to `end`. syntax: its transfer syntax UID."""

    stream: BinaryIO
    syntax: str
    start: int
    end: int
    explicit: bool
    little: bool

    @cached_property
    def order(self) -> str:
        """The byte order, as in `struct` and numpy."""
        return "<" if self.little else ">"

    @cached_property
    def byte_order(self) -> Literal["little", "big"]:
        """The byte order, as in `int.from_bytes`."""
        return "little" if self.little else "big"

    @cached_property
    def tag(self) -> struct.Struct:
        """Group and number of a tag."""
        return struct.Struct(f"{self.order}HH")

    def elements(self) -> Iterator[Element]:
        """The elements up to the first that holds pixels.

        Raises:
            DamagedError: an element reaches beyond the end, is malformed or is out of order.
        """
        highest = -1
        for element in self.walk():
            if element.tag >> 16 in _GROUPS_IN_ORDER and element.tag <= highest:
                what = "is there twice" if element.tag == highest else "is out of order"
                raise DamagedError(f"its element {element.name} {what}")
            if not element.tag >> 16 & 1:  # private ones may stand anywhere
                highest = max(highest, element.tag)
            if element.tag >> 16 == _FUNCTIONAL_GROUPS:
                self._verify_groups(element)
            yield element

    def walk(self) -> Iterator[Element]:
        """The elements up to the first that holds pixels, in any order.

        Raises:
            DamagedError: an element reaches beyond the end or is malformed.
        """
        return _walk(self, self.start, self.end, 0)

    def _verify_groups(self, sequence: Element) -> None:
        """Functional groups place the frames: items of groups, which are sequences of items."""
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

    A deflated one is inflated as far as the pixels that its header describes.

    Raises:
        DamagedError: there is no DICOM data set.
    """
    size = stream.seek(0, 2)
    syntax, at, _ = behind_meta(stream)
    if not syntax:
        stream.seek(0)
        if stream.read(132)[128:] == b"DICM":
            raise DamagedError("its meta header names no transfer syntax")
        return _guessed(stream, at, size)
    if syntax == DEFLATED:
        stream, at = _inflated_to_pixels(stream, at), 0
        size = stream.seek(0, 2)
    return DataSet(stream, syntax, at, size, syntax != IMPLICIT, syntax != BIG_ENDIAN)


def behind_meta(stream: BinaryIO) -> tuple[str, int, str]:
    """Read the meta header.

    Returns:
        The transfer syntax UID, the byte where the data set starts, and the SOP class UID; "" where
        the meta header, or the element, is missing.
    Raises:
        DamagedError: the meta header is cut short or malformed.
    """
    stream.seek(0)
    at = 132 if stream.read(132)[128:] == b"DICM" else 0
    meta = DataSet(stream, EXPLICIT, at, _ANYWHERE, explicit=True, little=True)
    found = {_SYNTAX: "", _CLASS: ""}
    for _ in range(_MOST_META):
        if _group_at(stream, at) != 2:
            return found[_SYNTAX], at, found[_CLASS]
        element = _element_at(meta, at, _ANYWHERE)
        if element is None:
            break
        # Looking for the end of the file first would inflate a whole member of a zip.
        value = meta.value(element) if element.length <= _LONGEST_META else b""
        if len(value) < element.length:
            raise DamagedError(f"its element {element.name} reaches beyond the end of the file")
        if element.tag in found:
            found[element.tag] = value.rstrip(b"\x00 ").decode("ascii", "replace")
        at = element.start + element.length
    raise DamagedError("its meta header does not end")


def _guessed(stream: BinaryIO, at: int, size: int) -> DataSet:
    """A data set without a meta header; its encoding is seen in its first element."""
    stream.seek(at)
    head = stream.read(8)
    explicit = head[4:6] in SHORT_VRS or head[4:6] in LONG_VRS
    little = not (head[:1] == b"\x00" and head[1:2] != b"\x00")
    syntax = (EXPLICIT if little else BIG_ENDIAN) if explicit else IMPLICIT
    return DataSet(stream, syntax, at, size, explicit, little or not explicit)


def inflated(stream: BinaryIO, at: int, most: int) -> tuple[bytes, bool]:
    """Inflate what follows byte `at`: up to `most` bytes of it, and whether that is everything.

    Raises:
        DamagedError: the deflated content is damaged or cut short.
    """
    stream.seek(at)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    parts, left = [], most
    try:
        while left > 0 and not inflate.eof:
            piece = inflate.unconsumed_tail or stream.read(_PIECE)
            if not piece:
                raise DamagedError("its deflated content is cut short")
            parts.append(inflate.decompress(piece, left))
            left -= len(parts[-1])
    except zlib.error as cause:
        raise DamagedError(f"its deflated content is damaged ({cause})") from cause
    return b"".join(parts), inflate.eof


def _inflated_to_pixels(stream: BinaryIO, at: int) -> BinaryIO:
    """A deflated data set up to the end of its pixels: a few bytes can inflate to terabytes."""
    content, is_all = inflated(stream, at, _FIRST_INFLATED)
    if not is_all:
        content, _ = inflated(stream, at, _end_of_pixels(content))
    return io.BytesIO(content)


def _end_of_pixels(content: bytes) -> int:
    """The byte where pixels end, by the beginning of a data set.

    Raises:
        DamagedError: there are more pixels than the header states.
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
        raise DamagedError("its deflated content inflates to more than 2 GiB")
    return end


def _group_at(stream: BinaryIO, at: int) -> int:
    stream.seek(at)
    return int.from_bytes(stream.read(2), "little")


def _element_at(within: DataSet, at: int, end: int) -> Element | None:
    """The element that begins at a byte, without its value; None where an item ends."""
    within.stream.seek(at)
    head = within.stream.read(8)
    tag = -1
    if len(head) >= 4:
        group, number = within.tag.unpack_from(head)
        tag = group << 16 | number
    if tag == END_OF_ITEM:
        return None
    if len(head) < 8 or at + 8 > end:
        raise DamagedError(f"it is cut short at byte {at}, inside an element")
    if not within.explicit:
        return Element(tag, b"", at + 8, int.from_bytes(head[4:], "little"))
    vr = head[4:6]
    if vr in SHORT_VRS:
        return Element(tag, vr, at + 8, int.from_bytes(head[6:], within.byte_order))
    if vr not in LONG_VRS:
        raise DamagedError(f"there is no element at byte {at}")
    length = within.stream.read(4).ljust(4, b"\0")
    return Element(tag, vr, at + 12, int.from_bytes(length, within.byte_order))


def _walk(within: DataSet, at: int, end: int, depth: int) -> Iterator[Element]:
    """Elements until `end` or the end of the item; none may reach beyond `end`."""
    while at < end:
        element = _element_at(within, at, end)
        if element is None:
            return
        tag, _, start, length = element
        if length != UNDEFINED and length > end - start:
            raise DamagedError(f"its element {element.name} reaches beyond the end")
        yield element
        if tag in _PIXELS and not depth:
            return
        at = _end_of(within, element, end, depth) if length == UNDEFINED else start + length


def _end_of(within: DataSet, element: Element, end: int, depth: int) -> int:
    """The byte behind an element."""
    if element.length != UNDEFINED:
        return element.start + element.length
    if element.vr not in (b"", b"SQ", b"UN") or depth >= _DEEPEST:
        raise DamagedError(f"its element {element.name} has no length")
    inner = within
    if element.vr == b"UN":  # by the standard, its items are implicit little endian
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
        raise DamagedError(f"there is no item of a sequence at byte {at}")
    return tag, length


def _end_of_item(within: DataSet, at: int, end: int, depth: int) -> int:
    _, length = _item_at(within, at, end)
    if length != UNDEFINED:
        if length > end - at - 8:
            raise DamagedError("an item of a sequence reaches beyond the end")
        return at + 8 + length
    at += 8
    while True:
        element = _element_at(within, at, end)
        if element is None:
            return at + 8
        if element.length != UNDEFINED and element.length > end - element.start:
            raise DamagedError(f"its element {element.name} reaches beyond the end")
        at = _end_of(within, element, end, depth)


def pydicom_failures() -> tuple[type[Exception], ...]:
    """The exceptions that pydicom raises for damaged files and for damaged zips around them."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError,
        NotImplementedError, OSError, RecursionError, RuntimeError, TypeError, ValueError,
        struct.error, zlib.error, BytesLengthException, InvalidDicomError, *UNZIP_FAILURES,
    )  # fmt: skip


def read_elements(
    stream: BinaryIO, wanted: Iterable[int | str] | None = None, *, last: int = _BEFORE_PIXELS
) -> Dataset:
    """Read a header with pydicom, but refuse what would keep it busy without end.

    Args:
        stream: a file from its start, with or without preamble and prefix (DICM).
        wanted: tags or keywords; None for all elements.
        last: the tag behind which reading stops; by default the pixels are left out.
    Returns:
        The elements, with `file_meta`.
    Raises:
        DamagedError: there are too many elements, or a deflated header is too large. Damaged files
            raise `pydicom_failures()`.
    """
    pydicom = require("pydicom", purpose="Reading DICOM")
    syntax, start, meta_class = behind_meta(stream)
    is_deflated = syntax == DEFLATED
    limit = _Limit(last)
    if is_deflated:
        content, is_all = inflated(stream, start, _MOST_INFLATED_HEADER)
        stream = io.BytesIO(content)
    elif stream.seek(start) == start and stream.read(4)[:2] == b"\0\0":
        raise DamagedError("there is no data set behind its meta header")
    stream.seek(0)
    tags = None if wanted is None else [pydicom.tag.Tag(tag) for tag in wanted]
    header: Dataset = pydicom.filereader.read_partial(
        stream, stop_when=limit, specific_tags=tags, force=True
    )
    if is_deflated:
        if not is_all and not limit.has_stopped:
            raise DamagedError("its deflated header inflates to more than 64 MB")
        header.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        header.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(meta_class)
    return header


class _Limit:
    """Stops pydicom behind the last wanted tag, and counts elements."""

    def __init__(self, last: int) -> None:
        self._last, self._count = last, 0
        self.has_stopped = False

    def __call__(self, tag: int, _vr: str | None, _length: int) -> bool:
        self._count += 1
        if self._count > _MOST_ELEMENTS:
            raise DamagedError(f"its header has more than {_MOST_ELEMENTS} elements")
        self.has_stopped = tag > self._last
        return self.has_stopped


@contextmanager
def silence() -> Iterator[None]:
    """Suppress pydicom's warnings and this thread's log records: they contain patients' values."""
    here, log = threading.get_ident(), logging.getLogger("pydicom")

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != here

    log.addFilter(is_of_others)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.removeFilter(is_of_others)
