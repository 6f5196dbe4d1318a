"""The frames of a file: where they lie, and their stored numbers.

Without pydicom, because it runs in threads and because elements are checked strictly.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from itertools import pairwise
from typing import BinaryIO

import numpy as np

from MedEnhanceLib.io.dicom.decoders import Layout, cuts_bits, decode, from_cells
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.io.dicom.streams import Pixels
from MedEnhanceLib.io.dicom.structure import (
    DOUBLE_PIXELS,
    END_OF_SEQUENCE,
    FLOAT_PIXELS,
    ITEM,
    NATIVE,
    PIXEL_DATA,
    UNDEFINED,
    DamagedError,
    DataSet,
    Element,
    open_data_set,
)

#: Pixels: a compressed frame of a larger size is refused, as a few bytes can state any size.
_MOST_PIXELS = 1 << 28
_ROWS, _COLUMNS, _SAMPLES, _FRAMES = 0x00280010, 0x00280011, 0x00280002, 0x00280008
_ALLOCATED, _STORED, _HIGH, _SIGN = 0x00280100, 0x00280101, 0x00280102, 0x00280103
_LUT, _LUT_DESCRIPTOR, _LUT_DATA = 0x00283000, 0x00283002, 0x00283006
_INSTANCE = 0x00080018
_OVERLAYS, _OVERLAY_BIT, _OVERLAY_DATA = 0x60, 0x0102, 0x3000
_OFFSETS, _LENGTHS = 0x7FE00001, 0x7FE00002
_KINDS = (PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS)

Span = tuple[int, int]


@dataclass(frozen=True)
class Lut:
    """A Modality LUT: stored numbers from `first` on → intensities; its ends are continued."""

    first: int
    table: Pixels

    def apply(self, stored: Pixels) -> Pixels:
        """The intensities of stored numbers."""
        places = np.clip(stored.astype(np.int64) - self.first, 0, len(self.table) - 1)
        looked_up: Pixels = self.table[places]
        return looked_up


@dataclass(frozen=True)
class PixelFile:
    """A file whose frames can be read one by one, from any thread.

    syntax: the transfer syntax UID. order: "<" or ">". spans: for each frame, the pieces (start,
    length) of its stream or its pixels. swapped: whether 8-bit pixels lie in big endian words.
    memory: the whole content, for members of zips and deflated files. instance: SOPInstanceUID.
    overlays: a mask of the bits that hold old overlays. cut: the frames read so far in which other
    bits above HighBit were used.
    """

    file: FileRef
    syntax: str
    order: str
    layout: Layout
    samples: int
    spans: tuple[tuple[Span, ...], ...]
    swapped: bool
    lut: Lut | None
    memory: bytes | None
    instance: str
    overlays: int = 0
    cut: set[int] = field(default_factory=set, compare=False)

    def frame(self, index: int) -> Pixels:
        """Read one frame.

        Args:
            index: the number of the frame, from 0.
        Returns:
            [J, I]: the stored numbers, of type `layout.dtype`.
        Raises:
            OSError: the file cannot be read. DamagedError, NotImplementedError and DependencyError
                as `decode`.
        """
        if self.memory is not None:
            return self._decoded(io.BytesIO(self.memory), index)
        with self.file.open() as stream:
            return self._decoded(stream, index)

    def _decoded(self, stream: BinaryIO, index: int) -> Pixels:
        pieces = []
        for start, length in self.spans[index]:
            stream.seek(start)
            pieces.append(stream.read(length))
            if len(pieces[-1]) != length:
                raise DamagedError("its pixel data is cut short")
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self.syntax not in NATIVE:
            return decode(data, self.syntax, self.layout)
        return self._native(data, index)

    def _native(self, data: bytes, index: int) -> Pixels:
        layout, size = self.layout, self.layout.rows * self.layout.columns
        if self.swapped:
            data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
        if layout.bits_allocated == 1:
            first = index * size % (16 if self.swapped else 8)
            bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
            return bits[first : first + size].reshape(layout.rows, layout.columns)
        kind = "f" if layout.floating else "u"
        first = index * size % 2 if self.swapped else 0
        cells = np.frombuffer(data, f"{self.order}{kind}{layout.bits_allocated // 8}", size, first)
        cells = cells.reshape(layout.rows, layout.columns)
        cells = cells.astype(cells.dtype.newbyteorder("="), copy=False)
        if cuts_bits(cells, layout, self.overlays):
            self.cut.add(index)
        return from_cells(cells, layout)


def index_pixels(file: FileRef) -> PixelFile:
    """Find the frames of a file.

    Raises:
        DamagedError: elements are out of order, or contradict each other or the number of pixels.
        OSError: the file cannot be read.
        InputError: the file cannot be unpacked from its archive.
    """
    with file.open() as stream:
        data = open_data_set(stream)
        found = {element.tag: element for element in data.elements()}
        pixels = next((found[tag] for tag in _KINDS if tag in found), None)
        if pixels is None:
            raise DamagedError("it holds no pixel data")
        layout = _layout(data, found, pixels)
        samples = _number(data, found, _SAMPLES, 1)
        frames = _count(data, found)
        if samples != 1:
            raise DamagedError(f"its pixels are of {samples} samples")
        swapped = False
        if data.syntax in NATIVE:
            # In big endian, 8-bit pixels are swapped in words of two bytes.
            swapped = not data.little and pixels.vr == b"OW" and layout.bits_allocated <= 8
            spans = _native_spans(data, pixels, layout, frames, 2 if swapped else 1)
        else:
            spans = _stream_spans(data, found, pixels, frames)
            if layout.rows * layout.columns > _MOST_PIXELS:
                raise DamagedError(f"its header states {layout.columns}×{layout.rows} pixels")
        in_memory = bool(file.member) or data.stream is not stream
        return PixelFile(
            file=file,
            syntax=data.syntax,
            order=data.order,
            layout=layout,
            samples=samples,
            spans=spans,
            swapped=swapped,
            lut=_lut(data, found, layout),
            memory=_all(data.stream) if in_memory else None,
            instance=_uid(data, found.get(_INSTANCE)),
            overlays=_overlays(data, found),
        )


def _all(stream: BinaryIO) -> bytes:
    if isinstance(stream, io.BytesIO):
        return stream.getvalue()
    stream.seek(0)
    return stream.read()


def _number(
    data: DataSet, found: dict[int, Element], tag: int, otherwise: int | None = None
) -> int:
    """The value of an element of type US."""
    element = found.get(tag)
    if element is None or element.length == 0:
        if otherwise is None:
            raise DamagedError(f"its element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is missing")
        return otherwise
    if element.length != 2 or element.vr not in (b"US", b"UN", b""):
        raise DamagedError(f"its element {element.name} is no number of two bytes")
    order = "<" if element.vr == b"UN" else data.order
    return int(struct.unpack(f"{order}H", data.value(element))[0])


def _uid(data: DataSet, element: Element | None) -> str:
    value = b"" if element is None else data.value(element)
    return value.rstrip(b"\0 ").decode("latin-1").strip()


def _overlays(data: DataSet, found: dict[int, Element]) -> int:
    """A mask of the pixel bits that hold overlays without data of their own."""
    groups = {tag >> 16 for tag in found if tag >> 24 == _OVERLAYS}
    inside = [group for group in groups if group << 16 | _OVERLAY_DATA not in found]
    places = [_number(data, found, group << 16 | _OVERLAY_BIT, 0) for group in inside]
    return sum({1 << place for place in places if place})


def _count(data: DataSet, found: dict[int, Element]) -> int:
    element = found.get(_FRAMES)
    value = data.value(element).strip(b" \x00") if element and element.length < 32 else b""
    if not value:
        return 1
    if not value.isdigit() or int(value) < 1:
        raise DamagedError(f"NumberOfFrames is {value.decode('ascii', 'replace')!r}")
    return int(value)


def _layout(data: DataSet, found: dict[int, Element], pixels: Element) -> Layout:
    rows, columns = _number(data, found, _ROWS), _number(data, found, _COLUMNS)
    if not rows * columns:
        raise DamagedError(f"it is of zero size, {columns}×{rows}")
    allocated = _number(data, found, _ALLOCATED)
    if pixels.tag != PIXEL_DATA:
        expected = 32 if pixels.tag == FLOAT_PIXELS else 64
        if allocated != expected:
            raise DamagedError(f"BitsAllocated is {allocated} for pixels of {expected} bits")
        return Layout(rows, columns, allocated, allocated, allocated - 1, floating=True)
    stored = _number(data, found, _STORED)
    sign = _number(data, found, _SIGN)
    if sign > 1:
        raise DamagedError(f"PixelRepresentation is {sign}")
    high = _number(data, found, _HIGH, stored - 1)
    return Layout(rows, columns, allocated, stored, high, signed=bool(sign))


def _lut(data: DataSet, found: dict[int, Element], layout: Layout) -> Lut | None:
    if _LUT not in found:
        return None
    items = data.items(found[_LUT])
    inside = {element.tag: element for element in items[0]} if items else {}
    if _LUT_DESCRIPTOR not in inside or _LUT_DATA not in inside:
        raise DamagedError("its ModalityLUTSequence holds no table")
    descriptor = data.value(inside[_LUT_DESCRIPTOR])
    if len(descriptor) != 6:
        raise DamagedError("its LUTDescriptor is not three numbers")
    sign = "h" if layout.signed else "H"
    count, first, bits = struct.unpack(f"{data.order}H{sign}H", descriptor)
    count = count or 1 << 16
    table = data.value(inside[_LUT_DATA])
    if not 8 <= bits <= 16 or len(table) not in (2 * count, count + count % 2):
        raise DamagedError(f"its lookup table has {len(table)} bytes for {count} entries")
    if len(table) == 2 * count:
        entries = np.frombuffer(table, f"{data.order}u2").astype(np.uint16)
    else:
        entries = np.frombuffer(table, np.uint8)[:count].astype(np.uint16)
    if int(entries.max()) >> bits:
        raise DamagedError(f"its lookup table holds {entries.max()}, beyond its {bits} bits")
    return Lut(first, entries)


def _native_spans(
    data: DataSet, pixels: Element, layout: Layout, frames: int, unit: int
) -> tuple[tuple[Span, ...], ...]:
    """Where each frame lies, rounded to units of bytes."""
    bits = layout.rows * layout.columns * layout.bits_allocated
    needed = -(-bits * frames // 8)
    size = f"{layout.columns}×{layout.rows}" + (f" × {frames} frames" if frames > 1 else "")
    if pixels.length == UNDEFINED:
        raise DamagedError(
            "its pixel data is in pieces, although its transfer syntax is uncompressed"
        )
    present = min(pixels.length, data.end - pixels.start)
    if present < needed or pixels.length > data.end - pixels.start:
        raise DamagedError(
            f"its pixel data is cut short: {present} bytes, and {size} of "
            f"{layout.bits_allocated} bits need {needed}"
        )
    beyond = pixels.length - needed
    line = min(layout.rows, layout.columns) * max(layout.bits_allocated // 8, 1)
    if beyond > 1 and (beyond >= line or data.value(_tail(pixels, beyond)).strip(b"\x00")):
        raise DamagedError(
            f"its pixel data is too long: {pixels.length} bytes, and {size} of "
            f"{layout.bits_allocated} bits need {needed}"
        )
    spans = []
    for index in range(frames):
        first = index * bits // (8 * unit) * unit
        last = min(-(-(index + 1) * bits // (8 * unit)) * unit, pixels.length)
        spans.append(((pixels.start + first, last - first),))
    return tuple(spans)


def _tail(pixels: Element, length: int) -> Element:
    end = pixels.start + pixels.length
    return Element(pixels.tag, pixels.vr, end - length, length)


def _stream_spans(
    data: DataSet, found: dict[int, Element], pixels: Element, frames: int
) -> tuple[tuple[Span, ...], ...]:
    """The fragments of each frame."""
    if pixels.length != UNDEFINED:
        raise DamagedError(
            "its pixel data is in one piece, although its transfer syntax is compressed"
        )
    (table_at, table_length), *fragments = _fragments(data, pixels)
    if len(fragments) == frames:
        return tuple(((start, length),) for start, length in fragments)
    if frames == 1:
        return (tuple(fragments),)
    offsets = _extended_offsets(data, found) or _basic_offsets(data, table_at, table_length)
    if len(offsets) != frames or len(fragments) < frames:
        raise DamagedError(
            f"its pixel data has {len(fragments)} pieces for {frames} frames, and no table of them"
        )
    base = table_at + table_length
    starts = {start - 8 - base: index for index, (start, _) in enumerate(fragments)}
    if offsets[0] != 0 or any(offset not in starts for offset in offsets):
        raise DamagedError("the table of its frames does not match its pieces")
    firsts = [starts[offset] for offset in offsets] + [len(fragments)]
    if any(a >= b for a, b in pairwise(firsts)):
        raise DamagedError("the table of its frames is out of order")
    return tuple(tuple(fragments[first:last]) for first, last in pairwise(firsts))


def _fragments(data: DataSet, pixels: Element) -> list[Span]:
    """The items of compressed pixel data, with the offset table as the first."""
    found: list[Span] = []
    at = pixels.start
    while True:
        data.stream.seek(at)
        head = data.stream.read(8)
        if len(head) < 8:
            raise DamagedError("its pixel data is cut short: the end of the pieces is missing")
        group, number, length = struct.unpack(f"{data.order}HHI", head)
        tag = group << 16 | number
        if tag == END_OF_SEQUENCE:
            break
        if tag != ITEM or length > data.end - at - 8:
            raise DamagedError("a piece of its pixel data is cut short, or its length is damaged")
        found.append((at + 8, length))
        at += 8 + length
    if len(found) < 2:
        raise DamagedError("its pixel data is empty")
    return found


def _basic_offsets(data: DataSet, at: int, length: int) -> list[int]:
    data.stream.seek(at)
    return [int(offset) for offset in np.frombuffer(data.stream.read(length // 4 * 4), "<u4")]


def _extended_offsets(data: DataSet, found: dict[int, Element]) -> list[int]:
    if _OFFSETS not in found or _LENGTHS not in found:
        return []
    table = data.value(found[_OFFSETS])
    return [int(offset) for offset in np.frombuffer(table[: len(table) // 8 * 8], "<u8")]
