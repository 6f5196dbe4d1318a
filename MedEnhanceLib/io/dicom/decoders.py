"""Compressed frames → stored numbers; every way in which a stream can be broken is an error.

Decoders fill what is missing with grey or zeros and report success. So a stream is first held
against the header and followed to its end (jpegstream, j2kstream), and what comes out of the
decoder is held against the header again. Which decoder, and why: docs/decisions/0010.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import ModuleType

import numpy as np

from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.io.dicom.j2kstream import read_j2k
from MedEnhanceLib.io.dicom.jpegstream import read_frame_header, verify_blocks, verify_samples
from MedEnhanceLib.io.dicom.samples import (
    DamagedError,
    Layout,
    Pixels,
    from_cells,
    from_signed,
    from_unsigned,
)
from MedEnhanceLib.runtime.dependencies import require

_UID = "1.2.840.10008.1.2"
IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = _UID, f"{_UID}.1", f"{_UID}.1.99", f"{_UID}.2"
#: Transfer syntaxes whose pixels are not compressed.
NATIVE = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)


def decode(stream: bytes, syntax: str, layout: Layout) -> Pixels:
    """The stored numbers [J, I] of one compressed frame.

    syntax: the transfer syntax UID. Raises DamagedError where stream and header contradict each
    other or the stream is broken, NotImplementedError for a syntax that is not read,
    DependencyError where its decoder is missing.
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
    """In words; the UID where it is none of those that are read."""
    return _DECODERS[syntax][0] if syntax in _DECODERS else _NATIVE_NAMES.get(syntax, syntax)


def _imagecodecs(purpose: str) -> ModuleType:
    return require("imagecodecs", purpose=f"DICOM compressed as {purpose}")


def _decode_rle(stream: bytes, layout: Layout, _lossy: bool) -> Pixels:
    """Byte planes, the highest byte first (PS3.5 annex G)."""
    imagecodecs = _imagecodecs("RLE")
    planes, size = layout.bits_allocated // 8, layout.rows * layout.columns
    if len(stream) < 64:
        raise DamagedError("its RLE stream is cut short")
    count, *offsets = struct.unpack_from("<16I", stream)
    if count != planes:
        raise DamagedError(f"its RLE stream has {count} parts, not {planes}")
    ends = [*offsets[1:count], len(stream)]
    if offsets[0] != 64 or any(a >= b for a, b in zip(offsets, ends, strict=False)):
        raise DamagedError("the offsets in its RLE stream are damaged")
    cells = np.empty((size, planes), np.uint8)
    for plane, (start, end) in enumerate(zip(offsets, ends, strict=False)):
        part = _unpacked(stream[start:end], size, imagecodecs)
        cells[:, planes - 1 - plane] = part
    return from_cells(
        cells.view(f"<u{planes}").reshape(layout.rows, layout.columns).astype(f"u{planes}"), layout
    )


def _unpacked(part: bytes, size: int, imagecodecs: ModuleType) -> Pixels:
    """One byte plane; the runs must end with the last pixel, but for padding."""
    at, made = 0, 0
    while made < size:
        if at >= len(part):
            raise DamagedError("its RLE stream is cut short")
        head = part[at]
        if head < 128:
            made, at = made + head + 1, at + head + 2
        elif head > 128:
            made, at = made + 257 - head, at + 2
        else:
            at += 1
    if made != size or at > len(part) or part[at:].strip(b"\x00\x80"):
        raise DamagedError("the runs of its RLE stream do not end with the last pixel")
    unpacked = np.frombuffer(imagecodecs.packbits_decode(part[:at]), np.uint8)
    if unpacked.size != size:
        raise DamagedError("the runs of its RLE stream do not end with the last pixel")
    return unpacked


def _decode_jpeg(stream: bytes, layout: Layout, lossy: bool, processes: tuple[int, ...]) -> Pixels:
    frame = read_frame_header(stream)
    if frame.process not in processes:
        raise DamagedError(
            f"its JPEG stream is of the kind {frame.process:02X}, not as its header says"
        )
    _refuse_size(frame.rows, frame.columns, frame.components, layout, "JPEG")
    _refuse_bits(frame.precision, layout, "JPEG")
    lossless = frame.process == 0xC3
    if not lossless:
        verify_blocks(frame)
    imagecodecs = _imagecodecs("JPEG")
    values = _run(lambda: imagecodecs.jpeg8_decode(stream), layout, "JPEG")
    if lossless:
        verify_samples(frame, values)
    return from_unsigned(values, frame.precision, layout, lossy=lossy)


def _decode_baseline(stream: bytes, layout: Layout, lossy: bool) -> Pixels:
    return _decode_jpeg(stream, layout, lossy, (0xC0, 0xC1))


def _decode_lossless(stream: bytes, layout: Layout, lossy: bool) -> Pixels:
    return _decode_jpeg(stream, layout, lossy, (0xC3,))


def _decode_jpegls(stream: bytes, layout: Layout, lossy: bool) -> Pixels:
    frame = read_frame_header(stream)
    if frame.process != 0xF7:
        raise DamagedError("its stream is JPEG, not JPEG-LS as its header says")
    _refuse_size(frame.rows, frame.columns, frame.components, layout, "JPEG-LS")
    _refuse_bits(frame.precision, layout, "JPEG-LS")
    imagecodecs = _imagecodecs("JPEG-LS")
    values = _run(lambda: imagecodecs.jpegls_decode(stream), layout, "JPEG-LS")
    return from_unsigned(values, frame.precision, layout, lossy=lossy)


def _decode_jpeg2000(stream: bytes, layout: Layout, lossy: bool) -> Pixels:
    image = read_j2k(stream)
    kind = "HTJ2K" if image.high_throughput else "JPEG 2000"
    _refuse_size(image.rows, image.columns, image.components, layout, kind)
    _refuse_bits(image.precision, layout, kind, range(1, 39))
    imagecodecs = _imagecodecs(kind)
    values = _run(lambda: imagecodecs.jpeg2k_decode(stream), layout, kind)
    if image.signed:
        return from_signed(values, layout)
    return from_unsigned(values, image.precision, layout, lossy=lossy)


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


def _run(decoder: Callable[[], Pixels], layout: Layout, kind: str) -> Pixels:
    """Decode, and hold what comes out against the header."""
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
#: Transfer syntax → (name, lossy, decoder).
_DECODERS: dict[str, tuple[str, bool, _Decoder]] = {
    f"{_UID}.5": ("RLE", False, _decode_rle),
    f"{_UID}.4.50": ("JPEG baseline", True, _decode_baseline),
    f"{_UID}.4.51": ("JPEG extended", True, _decode_baseline),
    f"{_UID}.4.57": ("JPEG lossless", False, _decode_lossless),
    f"{_UID}.4.70": ("JPEG lossless, first order", False, _decode_lossless),
    f"{_UID}.4.80": ("JPEG-LS lossless", False, _decode_jpegls),
    f"{_UID}.4.81": ("JPEG-LS near-lossless", True, _decode_jpegls),
    f"{_UID}.4.90": ("JPEG 2000 lossless", False, _decode_jpeg2000),
    f"{_UID}.4.91": ("JPEG 2000", True, _decode_jpeg2000),
    f"{_UID}.4.201": ("HTJ2K lossless", False, _decode_jpeg2000),
    f"{_UID}.4.202": ("HTJ2K lossless, by resolution", False, _decode_jpeg2000),
    f"{_UID}.4.203": ("HTJ2K", True, _decode_jpeg2000),
}
_NATIVE_NAMES = {
    IMPLICIT: "implicit little endian",
    EXPLICIT: "explicit little endian",
    DEFLATED: "deflated",
    BIG_ENDIAN: "explicit big endian",
}
