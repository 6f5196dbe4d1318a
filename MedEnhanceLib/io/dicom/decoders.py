"""Compressed frames → stored numbers; a broken stream is always an error.

Decoders fill what is missing with gray or zeros and report success. A stream is therefore compared
with the header and checked up to its end before it is decoded (streams.py), and what the decoder
gives is compared with the header again (docs/decisions/0007-verified-reading.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.io.dicom.streams import (
    Pixels,
    read_frame_header,
    read_j2k,
    read_jpegls_header,
    verify_blocks,
    verify_samples,
)
from MedEnhanceLib.io.dicom.structure import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, DamagedError
from MedEnhanceLib.runtime.dependencies import require


@dataclass(frozen=True)
class Layout:
    """One frame of gray pixels as its header describes it.

    Args:
        rows: number of rows, J.
        columns: number of columns, I.
        bits_allocated: bits of a cell: 1, 8, 16, 32 or 64.
        bits_stored: bits of the cell that are the number, 1 to `bits_allocated`.
        high_bit: the highest of these bits, counted from 0.
        signed: whether numbers are two's complement.
        floating: whether pixels are FloatPixelData or DoubleFloatPixelData.
    Raises:
        DamagedError: these numbers contradict each other.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool = False
    floating: bool = False

    def __post_init__(self) -> None:
        if self.bits_allocated not in ((32, 64) if self.floating else (1, 8, 16, 32)):
            raise DamagedError(f"BitsAllocated is {self.bits_allocated}, which is not read")
        if not 1 <= self.bits_stored <= self.bits_allocated:
            raise DamagedError(
                f"BitsStored is {self.bits_stored} of {self.bits_allocated} allocated"
            )
        if not self.bits_stored - 1 <= self.high_bit < self.bits_allocated:
            raise DamagedError(
                f"HighBit is {self.high_bit}, with {self.bits_stored} bits stored of "
                f"{self.bits_allocated}"
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the stored numbers."""
        kind = "f" if self.floating else "i" if self.signed else "u"
        return np.dtype(f"{kind}{max(self.bits_allocated // 8, 1)}")


def decode(stream: bytes, syntax: str, layout: Layout) -> Pixels:
    """Decode one compressed frame.

    Args:
        stream: the bytes of the frame, all fragments joined.
        syntax: the transfer syntax UID.
        layout: the frame as the header describes it.
    Returns:
        [J, I]: the stored numbers, of type `layout.dtype`.
    Raises:
        DamagedError: the stream is broken, or contradicts the header.
        NotImplementedError: the transfer syntax is not read.
        DependencyError: the decoder is not installed.
    """
    if syntax not in _DECODERS:
        raise NotImplementedError(syntax)
    name, lossy, decoder = _DECODERS[syntax]
    if layout.floating or layout.bits_allocated == 1:
        raise DamagedError(
            f"{name} cannot hold pixels of {layout.bits_allocated} bits of this kind"
        )
    return decoder(stream, layout, lossy)


def syntax_name(syntax: str) -> str:
    """The name of a transfer syntax; the UID where it is not read."""
    return _DECODERS[syntax][0] if syntax in _DECODERS else _NATIVE_NAMES.get(syntax, syntax)


def _decode_rle(stream: bytes, layout: Layout, _lossy: bool) -> Pixels:
    imagecodecs = _imagecodecs("RLE")
    dtype = np.dtype(f"<u{layout.bits_allocated // 8}")
    size = layout.rows * layout.columns * dtype.itemsize

    def decoded() -> Pixels:
        found = np.frombuffer(imagecodecs.dicomrle_decode(stream, dtype, out=size), dtype)
        return found.reshape(layout.rows, layout.columns)

    cells = _decoded(decoded, layout, "RLE")
    return from_cells(cells.astype(dtype.newbyteorder("=")), layout)


def _decode_jpeg(stream: bytes, layout: Layout, lossy: bool) -> Pixels:
    frame = read_frame_header(stream)
    if frame.process not in ((0xC0, 0xC1) if lossy else (0xC3,)):
        raise DamagedError(
            f"its JPEG stream is of the kind {frame.process:02X}, not as its header says"
        )
    _refuse_size(frame.rows, frame.columns, frame.components, layout, "JPEG")
    _refuse_bits(frame.precision, layout, "JPEG")
    if lossy:
        verify_blocks(frame)
    imagecodecs = _imagecodecs("JPEG")
    values = _decoded(lambda: imagecodecs.jpeg8_decode(stream), layout, "JPEG")
    if not lossy:
        verify_samples(frame, values)
    return from_unsigned(values, frame.precision, layout, lossy=lossy)


def _decode_jpegls(stream: bytes, layout: Layout, lossy: bool) -> Pixels:
    frame = read_jpegls_header(stream)
    _refuse_size(frame.rows, frame.columns, frame.components, layout, "JPEG-LS")
    _refuse_bits(frame.precision, layout, "JPEG-LS")
    imagecodecs = _imagecodecs("JPEG-LS")
    values = _decoded(lambda: imagecodecs.jpegls_decode(stream), layout, "JPEG-LS")
    return from_unsigned(values, frame.precision, layout, lossy=lossy)


def _decode_jpeg2000(stream: bytes, layout: Layout, lossy: bool) -> Pixels:
    image = read_j2k(stream)
    kind = "HTJ2K" if image.high_throughput else "JPEG 2000"
    _refuse_size(image.rows, image.columns, image.components, layout, kind)
    _refuse_bits(image.precision, layout, kind, range(1, 39))
    imagecodecs = _imagecodecs(kind)
    values = _decoded(lambda: imagecodecs.jpeg2k_decode(stream), layout, kind)
    if image.signed:
        return from_signed(values, layout)
    return from_unsigned(values, image.precision, layout, lossy=lossy)


def _imagecodecs(purpose: str) -> ModuleType:
    return require("imagecodecs", purpose=f"DICOM compressed as {purpose}")


def _refuse_size(rows: int, columns: int, components: int, layout: Layout, kind: str) -> None:
    if (rows, columns, components) != (layout.rows, layout.columns, 1):
        raise DamagedError(
            f"its {kind} stream holds {columns}×{rows} pixels of {components} components, its "
            f"header says {layout.columns}×{layout.rows} of one"
        )


def _refuse_bits(precision: int, layout: Layout, kind: str, allowed: range = range(2, 17)) -> None:
    if precision not in allowed or precision > layout.bits_allocated:
        raise DamagedError(
            f"its {kind} stream has {precision} bits, its header allocates {layout.bits_allocated}"
        )


def _decoded(decoder: Callable[[], Pixels], layout: Layout, kind: str) -> Pixels:
    """Decode, and compare the result with the header."""
    try:
        values = decoder()
    except ImportError as cause:  # imagecodecs can be built without a codec
        raise DependencyError(
            f"DICOM compressed as {kind} needs the package imagecodecs with all its codecs",
            "Install it from its wheel: python -m pip install --force-reinstall imagecodecs",
        ) from cause
    except (RuntimeError, ValueError, MemoryError) as cause:
        reason = " ".join(str(cause).split())
        raise DamagedError(f"its {kind} stream is damaged ({reason[:120]})") from cause
    if values.shape != (layout.rows, layout.columns) or values.dtype.kind not in "iu":
        raise DamagedError(f"its {kind} stream gave {values.dtype} of shape {values.shape}")
    return values


_Decoder = Callable[[bytes, Layout, bool], Pixels]
#: Transfer syntax → (name, whether it is lossy, decoder).
_DECODERS: dict[str, tuple[str, bool, _Decoder]] = {
    f"{IMPLICIT}.5": ("RLE", False, _decode_rle),
    f"{IMPLICIT}.4.50": ("JPEG baseline", True, _decode_jpeg),
    f"{IMPLICIT}.4.51": ("JPEG extended", True, _decode_jpeg),
    f"{IMPLICIT}.4.57": ("JPEG lossless", False, _decode_jpeg),
    f"{IMPLICIT}.4.70": ("JPEG lossless, first order", False, _decode_jpeg),
    f"{IMPLICIT}.4.80": ("JPEG-LS lossless", False, _decode_jpegls),
    f"{IMPLICIT}.4.81": ("JPEG-LS near-lossless", True, _decode_jpegls),
    f"{IMPLICIT}.4.90": ("JPEG 2000 lossless", False, _decode_jpeg2000),
    f"{IMPLICIT}.4.91": ("JPEG 2000", True, _decode_jpeg2000),
    f"{IMPLICIT}.4.201": ("HTJ2K lossless", False, _decode_jpeg2000),
    f"{IMPLICIT}.4.202": ("HTJ2K lossless, by resolution", False, _decode_jpeg2000),
    f"{IMPLICIT}.4.203": ("HTJ2K", True, _decode_jpeg2000),
}
_NATIVE_NAMES = {
    IMPLICIT: "implicit little endian",
    EXPLICIT: "explicit little endian",
    DEFLATED: "deflated",
    BIG_ENDIAN: "explicit big endian",
}


def from_cells(cells: Pixels, layout: Layout) -> Pixels:
    """Numbers from the unsigned cells of uncompressed pixels.

    Args:
        cells: any shape; unsigned, `layout.bits_allocated` bits each.
        layout: where the number lies in a cell. Bits above HighBit are masked, as old overlays use
            them.
    Returns:
        The same shape, of type `layout.dtype`.
    Raises:
        DamagedError: bits below the number are in use.
    """
    if layout.floating or layout.bits_allocated == 1:
        return cells
    low = layout.high_bit + 1 - layout.bits_stored
    if low and (cells & ((1 << low) - 1)).any():
        raise DamagedError(
            f"HighBit is {layout.high_bit} with {layout.bits_stored} bits stored, yet the bits "
            "below are used"
        )
    return _sign_extended(cells >> low if low else cells, layout.bits_stored, layout.dtype)


def cuts_bits(cells: Pixels, layout: Layout, overlays: int) -> bool:
    """Whether bits above HighBit, which `from_cells` masks, are neither sign nor overlay.

    Args:
        cells: as for `from_cells`.
        layout: where the number lies in a cell.
        overlays: a mask of the bits that hold overlays.
    """
    above = (1 << layout.bits_allocated) - (2 << layout.high_bit) & ~overlays
    if layout.floating or layout.bits_allocated == 1 or not above:
        return False
    found = cells & cells.dtype.type(above)
    if not found.any():
        return False
    is_negative = cells >> layout.high_bit & 1
    return not layout.signed or bool((found != is_negative * cells.dtype.type(above)).any())


def _sign_extended(values: Pixels, bits: int, dtype: np.dtype[Any]) -> Pixels:
    """The lowest `bits` of unsigned values, read as two's complement where `dtype` is signed."""
    above = dtype.itemsize * 8 - bits
    numbers = values.astype(f"u{dtype.itemsize}", copy=False)
    if above:
        numbers = numbers << above
        numbers = numbers.view(dtype) >> above
    return numbers.view(dtype)


def from_unsigned(values: Pixels, precision: int, layout: Layout, *, lossy: bool) -> Pixels:
    """Numbers from a codec without signed numbers.

    Args:
        values: [J, I], unsigned; signed numbers were encoded as two's complement, of BitsStored or
            of `precision` bits.
        precision: bits of a value in the stream.
        layout: the frame as the header describes it.
        lossy: whether values may exceed BitsStored by the coding error.
    Raises:
        DamagedError: values exceed BitsStored, or their sign is ambiguous.
    """
    bits = min(layout.bits_stored, precision)
    _refuse_high_bit(layout)
    highest = int(values.max())
    if not layout.signed:
        if (highest >> layout.bits_stored and not lossy) or highest >> layout.bits_allocated:
            raise DamagedError(f"a pixel is {highest}, beyond {layout.bits_stored} bits stored")
        return values.astype(layout.dtype, copy=False)
    if precision < layout.bits_stored and highest >> (precision - 1):
        raise DamagedError(
            f"signed pixels of {layout.bits_stored} bits in a stream of {precision} bits: their "
            "sign is unclear"
        )
    numbers = _sign_extended(values, bits, layout.dtype)
    beyond = values.astype(np.int64) - numbers
    if (beyond[beyond != 0] % (1 << bits)).any() or not _is_sign(values, numbers, bits, precision):
        raise DamagedError(f"pixels go beyond {layout.bits_stored} bits stored")
    return numbers


def _is_sign(values: Pixels, numbers: Pixels, bits: int, precision: int) -> bool:
    """Whether the bits above `bits` are all 0, or all equal to the sign."""
    above = values.astype(np.int64) >> bits
    filled = (1 << (precision - bits)) - 1
    return bool(((above == 0) | ((numbers < 0) & (above == filled))).all())


def from_signed(values: Pixels, layout: Layout) -> Pixels:
    """Numbers from a codec with signed numbers; raises DamagedError where they do not fit."""
    _refuse_high_bit(layout)
    lowest, highest = int(values.min()), int(values.max())
    limits = np.iinfo(layout.dtype)
    if lowest < limits.min or highest > limits.max:
        raise DamagedError(
            f"pixels from {lowest} to {highest} do not fit PixelRepresentation "
            f"{int(layout.signed)} with {layout.bits_allocated} bits"
        )
    return values.astype(layout.dtype, copy=False)


def _refuse_high_bit(layout: Layout) -> None:
    if layout.high_bit != layout.bits_stored - 1:
        raise DamagedError(f"HighBit is {layout.high_bit} with {layout.bits_stored} bits stored")
