"""The frames of a file: pydicom finds them, and unpacks those that are not compressed."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.decoders import Layout, Pixels, decode, sign_extended
from MedEnhanceLib.io.dicom.elements import text, whole
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.io.dicom.structure import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    NATIVE,
    PIXEL_DATA,
    DamagedError,
    pydicom_failures,
    read_elements,
    silence,
)

if TYPE_CHECKING:
    from pydicom import Dataset

Answer = TypeVar("Answer")
#: What holds pixels, and the bits of a number there; None where the header says how many.
_KINDS = {"PixelData": None, "FloatPixelData": 32, "DoubleFloatPixelData": 64}
_ELEMENTS = (
    "SOPInstanceUID", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "ModalityLUTSequence", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", *_KINDS,
)  # fmt: skip


@dataclass(frozen=True)
class PixelFile:
    """A file whose frames can be read one by one, from any thread.

    dataset: the elements that decoding needs, with the pixels as they are stored. syntax: the
    transfer syntax UID. frames: their number. instance: SOPInstanceUID. shift: bits of a cell below
    its number. cut: the frames read so far in which bits above BitsStored were used.
    """

    file: FileRef
    dataset: Dataset
    syntax: str
    layout: Layout
    frames: int
    instance: str
    shift: int = 0
    cut: set[int] = field(default_factory=set, compare=False)

    @property
    def has_lut(self) -> bool:
        """Whether a Modality LUT gives the intensities."""
        return "ModalityLUTSequence" in self.dataset

    def frame(self, index: int) -> Pixels:
        """Read one frame.

        Args:
            index: the number of the frame, from 0.
        Returns:
            [J, I]: the stored numbers, of type `layout.dtype`, or what the Modality LUT gives.
        Raises:
            DamagedError, NotImplementedError and DependencyError as `decode`.
        """
        return _checked(lambda: self._frame(index))

    def _frame(self, index: int) -> Pixels:
        from pydicom.encaps import get_frame
        from pydicom.pixels.processing import apply_modality_lut

        if self.syntax in NATIVE:
            stored = self._native(index)
        else:
            stream = get_frame(
                self.dataset.PixelData,
                index,
                number_of_frames=self.frames,
                extended_offsets=_extended_offsets(self.dataset),
            )
            stored = decode(stream, self.syntax, self.layout)
        return apply_modality_lut(stored, self.dataset) if self.has_lut else stored

    def _native(self, index: int) -> Pixels:
        from pydicom.pixels.decoders.base import get_decoder
        from pydicom.uid import UID

        layout = self.layout
        if layout.bits_allocated == 1:
            return self._bits(index)
        options: dict[str, Any] = {"view_only": True, "correct_unused_bits": False}
        cells, _ = get_decoder(UID(self.syntax)).as_array(
            self.dataset,
            index=index,
            validate=False,  # done once, in index_pixels
            raw=True,
            **options,
        )
        cells = cells.astype(layout.dtype, copy=False)
        if layout.floating or layout.bits_stored == layout.bits_allocated:
            return cells
        if (cells & ((1 << self.shift) - 1)).any():
            raise DamagedError(f"HighBit is above {self.shift} bits, yet the bits below are used")
        cells = cells >> self.shift
        numbers = sign_extended(cells.view(f"u{cells.itemsize}"), layout.bits_stored, layout.dtype)
        if not np.array_equal(numbers, cells):
            self.cut.add(index)
        return numbers

    def _bits(self, index: int) -> Pixels:
        """A frame of single bits, which may begin inside a byte."""
        size = self.layout.rows * self.layout.columns
        start, first = divmod(index * size, 8)
        stored = self.dataset.PixelData[start : start + -(-(first + size) // 8)]
        bits = np.unpackbits(np.frombuffer(stored, np.uint8), bitorder="little")
        return bits[first : first + size].reshape(self.layout.rows, self.layout.columns)


def index_pixels(file: FileRef) -> PixelFile:
    """Read a file, and check that it holds the frames that its header states.

    Raises:
        DamagedError: elements are cut short, or contradict each other or the number of pixels.
        OSError: the file cannot be read.
        InputError: the file cannot be unpacked from its archive.
    """
    with file.open() as stream, silence():
        dataset = _checked(lambda: read_elements(stream, _ELEMENTS, last=PIXEL_DATA))
        return _checked(lambda: _indexed(file, dataset))


def _checked(work: Callable[[], Answer]) -> Answer:
    """Do `work`; what pydicom raises for damaged files becomes a DamagedError."""
    try:
        return work()
    except (DamagedError, InputError, NotImplementedError, MemoryError):
        raise
    except pydicom_failures() as cause:
        if isinstance(cause, OSError) and cause.errno is not None:
            raise
        reason = " ".join(str(cause).split())[:200] or type(cause).__name__
        raise DamagedError(f"it is damaged or cut short ({reason})") from cause


def _indexed(file: FileRef, dataset: Dataset) -> PixelFile:
    kind = next((name for name in _KINDS if name in dataset), None)
    if kind is None:
        raise DamagedError("it holds no pixel data")
    if (samples := whole(dataset, "SamplesPerPixel") or 1) != 1:
        raise DamagedError(f"its pixels are of {samples} samples")
    frames = whole(dataset, "NumberOfFrames") if dataset.get("NumberOfFrames") else 1
    if frames < 1:
        raise DamagedError(f"NumberOfFrames is {frames}")
    layout, syntax = _layout(dataset, kind), _syntax(dataset)
    if syntax in NATIVE:
        _verify_length(dataset[kind].value or b"", layout, frames)
    else:
        _verify_fragments(dataset, frames)
    if "ModalityLUTSequence" in dataset:
        _verify_lut(dataset)
    shift = 0 if layout.floating else _shift(dataset, layout)
    if shift and syntax not in NATIVE:
        raise DamagedError(f"HighBit is above {shift} unused bits in compressed pixels")
    instance = text(dataset, "SOPInstanceUID")
    return PixelFile(file, dataset, syntax, layout, frames, instance, shift)


def _syntax(dataset: Dataset) -> str:
    """The transfer syntax UID; where the file names none, the encoding that pydicom found."""
    stated = text(dataset.file_meta, "TransferSyntaxUID")
    is_implicit, is_little = dataset.original_encoding
    return stated or (IMPLICIT if is_implicit else EXPLICIT if is_little else BIG_ENDIAN)


def _layout(dataset: Dataset, kind: str) -> Layout:
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    allocated = whole(dataset, "BitsAllocated")
    if bits := _KINDS[kind]:
        if allocated != bits:
            raise DamagedError(f"BitsAllocated is {allocated} for pixels of {bits} bits")
        return Layout(rows, columns, bits, bits, floating=True)
    for keyword in ("BitsStored", "PixelRepresentation"):
        if dataset.get(keyword) is None:
            raise DamagedError(f"{keyword} is missing")
    sign = whole(dataset, "PixelRepresentation")
    if sign not in (0, 1):
        raise DamagedError(f"PixelRepresentation is {sign}")
    return Layout(rows, columns, allocated, whole(dataset, "BitsStored"), signed=bool(sign))


def _shift(dataset: Dataset, layout: Layout) -> int:
    """Bits of a cell below its number, which HighBit puts at the top in old files."""
    lowest = layout.bits_stored - 1
    high = lowest if dataset.get("HighBit") is None else whole(dataset, "HighBit")
    if not lowest <= high < layout.bits_allocated:
        raise DamagedError(
            f"HighBit is {high}, with {layout.bits_stored} bits stored of {layout.bits_allocated}"
        )
    return high - lowest


def _verify_lut(dataset: Dataset) -> None:
    """A lookup table has as many entries as its descriptor says, of one byte or of two."""
    table = next(iter(dataset.ModalityLUTSequence), None)
    if table is None or "LUTDescriptor" not in table or "LUTData" not in table:
        raise DamagedError("its ModalityLUTSequence holds no table")
    count, data = int(table.LUTDescriptor[0]) or 1 << 16, table.LUTData
    size = len(data) if isinstance(data, bytes) else 2 * len(data)
    if size not in (2 * count, count + count % 2):
        raise DamagedError(f"its lookup table has {size} bytes for {count} entries")


def _verify_length(pixels: bytes, layout: Layout, frames: int) -> None:
    """Uncompressed pixels fill their element, but for the padding to an even length."""
    present = len(pixels)
    needed = math.ceil(layout.rows * layout.columns * layout.bits_allocated * frames / 8)
    line = min(layout.rows, layout.columns) * max(layout.bits_allocated // 8, 1)
    beyond = present - needed
    if beyond in (0, 1) or (1 < beyond < line and not pixels[needed:].strip(b"\0")):
        return
    what = "its pixel data is cut short" if beyond < 0 else "its pixel data is too long"
    size = f"{layout.columns}×{layout.rows}" + (f" × {frames} frames" if frames > 1 else "")
    raise DamagedError(
        f"{what}: {present} bytes, and {size} of {layout.bits_allocated} bits need {needed}"
    )


def _verify_fragments(dataset: Dataset, frames: int) -> None:
    """Compressed frames are as many as stated: one piece each, or counted by a table."""
    from pydicom.encaps import parse_basic_offsets, parse_fragments

    stream = io.BytesIO(dataset.PixelData)
    table = parse_basic_offsets(stream)
    pieces, _ = parse_fragments(stream)
    counted = len(dataset.get("ExtendedOffsetTable") or b"") // 8 or len(table) or pieces
    if pieces < frames or (frames > 1 and counted != frames):
        raise DamagedError(f"its pixel data has {pieces} pieces for {frames} frames")


def _extended_offsets(dataset: Dataset) -> tuple[bytes, bytes] | None:
    table = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    return table if all(table) else None
