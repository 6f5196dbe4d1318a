"""Compressed frames → stored numbers, by imagecodecs.

pydicom has no plugin for imagecodecs, which every installation has. A decoder is given a frame
only after its size and its end were checked: decoders allocate whatever a stream states, fill what
is missing with gray, and report success.
Sources: ITU-T T.81, annex B (JPEG, and JPEG-LS alike); T.800, annex A (JPEG 2000).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.io.dicom.structure import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, DamagedError
from MedEnhanceLib.runtime.dependencies import require

Pixels = npt.NDArray[Any]
#: Transfer syntax → (name, decoder of imagecodecs, whether it is lossy).
_DECODERS: dict[str, tuple[str, str, bool]] = {
    f"{IMPLICIT}.5": ("RLE", "dicomrle_decode", False),
    f"{IMPLICIT}.4.50": ("JPEG baseline", "jpeg8_decode", True),
    f"{IMPLICIT}.4.51": ("JPEG extended", "jpeg8_decode", True),
    f"{IMPLICIT}.4.57": ("JPEG lossless", "jpeg8_decode", False),
    f"{IMPLICIT}.4.70": ("JPEG lossless, first order", "jpeg8_decode", False),
    f"{IMPLICIT}.4.80": ("JPEG-LS lossless", "jpegls_decode", False),
    f"{IMPLICIT}.4.81": ("JPEG-LS near-lossless", "jpegls_decode", True),
    f"{IMPLICIT}.4.90": ("JPEG 2000 lossless", "jpeg2k_decode", False),
    f"{IMPLICIT}.4.91": ("JPEG 2000", "jpeg2k_decode", True),
    f"{IMPLICIT}.4.201": ("HTJ2K lossless", "jpeg2k_decode", False),
    f"{IMPLICIT}.4.202": ("HTJ2K lossless, by resolution", "jpeg2k_decode", False),
    f"{IMPLICIT}.4.203": ("HTJ2K", "jpeg2k_decode", True),
}
_NATIVE_NAMES = {
    IMPLICIT: "implicit little endian",
    EXPLICIT: "explicit little endian",
    DEFLATED: "deflated",
    BIG_ENDIAN: "explicit big endian",
}
_RLE = "dicomrle_decode"
_J2K_START, _END = b"\xff\x4f\xff\x51", b"\xff\xd9"
#: Markers of JPEG without a length, and those that begin with the size of the frame.
_BARE_MARKERS = (0x01, *range(0xD0, 0xD9))
_FRAME_MARKERS = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), 0xF7)


@dataclass(frozen=True)
class Layout:
    """One frame of gray pixels as its header describes it.

    Args:
        rows: number of rows, J.
        columns: number of columns, I.
        bits_allocated: bits of a cell: 1, 8, 16, 32 or 64.
        bits_stored: the lowest bits of the cell that are the number.
        signed: whether numbers are two's complement.
        floating: whether pixels are FloatPixelData or DoubleFloatPixelData.
    Raises:
        DamagedError: these numbers contradict each other.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool = False
    floating: bool = False

    def __post_init__(self) -> None:
        if not self.rows * self.columns:
            raise DamagedError(f"it is of zero size, {self.columns}×{self.rows}")
        if self.bits_allocated not in ((32, 64) if self.floating else (1, 8, 16, 32)):
            raise DamagedError(f"BitsAllocated is {self.bits_allocated}, which is not read")
        if not 1 <= self.bits_stored <= self.bits_allocated:
            raise DamagedError(
                f"BitsStored is {self.bits_stored} of {self.bits_allocated} allocated"
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the stored numbers."""
        kind = "f" if self.floating else "i" if self.signed else "u"
        return np.dtype(f"{kind}{max(self.bits_allocated // 8, 1)}")


class Stated(NamedTuple):
    """What a stream of JPEG, JPEG-LS or JPEG 2000 states of its image."""

    rows: int
    columns: int
    components: int
    precision: int


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
    name, decoder, is_lossy = _DECODERS[syntax]
    if layout.floating or layout.bits_allocated == 1:
        raise DamagedError(
            f"{name} cannot hold pixels of {layout.bits_allocated} bits of this kind"
        )
    precision = layout.bits_allocated
    if decoder != _RLE:
        stated = stated_size(stream)
        if stated[:3] != (layout.rows, layout.columns, 1) or stated.precision > precision:
            raise DamagedError(
                f"its {name} stream holds {stated.columns}×{stated.rows} pixels of "
                f"{stated.components} components and {stated.precision} bits, its header says "
                f"{layout.columns}×{layout.rows} of one and {precision}"
            )
        precision = stated.precision
    values = _decoded(stream, name, decoder, layout)
    if decoder == _RLE:
        return sign_extended(values, layout.bits_stored, layout.dtype)
    if values.dtype.kind == "u" and layout.signed:  # the codec knows no signed numbers
        return sign_extended(values, min(precision, layout.bits_stored), layout.dtype)
    limits = np.iinfo(layout.dtype)
    lowest, highest = int(values.min()), int(values.max())
    most = limits.max if is_lossy or layout.signed else (1 << layout.bits_stored) - 1
    if lowest < limits.min or highest > most:
        raise DamagedError(
            f"pixels from {lowest} to {highest} do not fit {layout.bits_stored} bits stored"
        )
    return values.astype(layout.dtype, copy=False)


def _decoded(stream: bytes, name: str, decoder: str, layout: Layout) -> Pixels:
    """What the codec gives, of the size of the header."""
    imagecodecs = require("imagecodecs", purpose=f"DICOM compressed as {name}")
    shape = (layout.rows, layout.columns)
    try:
        if decoder == _RLE:
            cell = np.dtype(f"<u{layout.bits_allocated // 8}")
            size = shape[0] * shape[1] * cell.itemsize
            values = np.frombuffer(imagecodecs.dicomrle_decode(stream, cell, out=size), cell)
            values = values.reshape(shape).astype(cell.newbyteorder("="))
        else:
            values = getattr(imagecodecs, decoder)(stream)
    except ImportError as cause:  # imagecodecs can be built without a codec
        raise DependencyError(
            f"DICOM compressed as {name} needs the package imagecodecs with all its codecs",
            "Install it from its wheel: python -m pip install --force-reinstall imagecodecs",
        ) from cause
    except (RuntimeError, ValueError, MemoryError) as cause:
        reason = " ".join(str(cause).split())
        raise DamagedError(f"its {name} stream is damaged ({reason[:120]})") from cause
    if values.shape != shape or values.dtype.kind not in "iu":
        raise DamagedError(f"its {name} stream gave {values.dtype} of shape {values.shape}")
    return values


def stated_size(stream: bytes) -> Stated:
    """The size that a stream states, before a decoder allocates it.

    Raises:
        DamagedError: it states none, or its end marker is missing.
    """
    if not stream.rstrip(b"\0\xff").endswith(_END[1:]) or _END not in stream:
        raise DamagedError("its stream is cut short: the end marker is missing")
    try:
        start = stream.find(_J2K_START)
        if start >= 0 and not stream.startswith(b"\xff\xd8"):
            right, below, left, above = struct.unpack_from(">4I", stream, start + 8)
            components, depth = struct.unpack_from(">HB", stream, start + 40)
            return Stated(below - above, right - left, components, (depth & 0x7F) + 1)
        return _stated_by_jpeg(stream)
    except (struct.error, IndexError) as cause:
        raise DamagedError("its stream is cut short inside its header") from cause


def _stated_by_jpeg(stream: bytes) -> Stated:
    at = 2
    while stream[:2] == b"\xff\xd8" and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in _FRAME_MARKERS:
            precision, rows, columns, components = struct.unpack_from(">BHHB", stream, at + 4)
            return Stated(rows, columns, components, precision)
        if marker == 0xFF or marker in _BARE_MARKERS:
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + int(struct.unpack_from(">H", stream, at + 2)[0])
    raise DamagedError("its stream holds no image")


def sign_extended(values: Pixels, bits: int, dtype: np.dtype[Any]) -> Pixels:
    """The lowest `bits` of unsigned values, read as two's complement where `dtype` is signed."""
    above = dtype.itemsize * 8 - bits
    numbers = values.astype(f"u{dtype.itemsize}", copy=False)
    if above:
        numbers = numbers << above
        numbers = numbers.view(dtype) >> above
    return numbers.view(dtype)


def syntax_name(syntax: str) -> str:
    """The name of a transfer syntax; the UID where it is not read."""
    return _DECODERS[syntax][0] if syntax in _DECODERS else _NATIVE_NAMES.get(syntax, syntax)
