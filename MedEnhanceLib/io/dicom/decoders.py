"""The frames of a file → stored numbers: pydicom finds them, imagecodecs decodes compressed ones.

pydicom has no plugin for imagecodecs, which every installation has. A frame is decoded only after
its size and its end marker were checked: decoders allocate whatever size a stream states, fill
missing pixels with gray, and report success.
Sources: ITU-T T.81, annex B (JPEG, and JPEG-LS alike); T.800, annex A (JPEG 2000).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.core.arrays import Array
from MedEnhanceLib.errors import DependencyError, InputError
from MedEnhanceLib.io.dicom import structure
from MedEnhanceLib.io.dicom.slices import whole
from MedEnhanceLib.io.dicom.structure import DamagedError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.text import reason_of

if TYPE_CHECKING:
    from pydicom import Dataset

_RLE = f"{structure.IMPLICIT}.5"
#: Transfer syntax → (name, decoder of imagecodecs).
DECODERS: dict[str, tuple[str, str]] = {
    f"{structure.IMPLICIT}.4.50": ("JPEG baseline", "jpeg8_decode"),
    f"{structure.IMPLICIT}.4.51": ("JPEG extended", "jpeg8_decode"),
    f"{structure.IMPLICIT}.4.57": ("JPEG lossless", "jpeg8_decode"),
    f"{structure.IMPLICIT}.4.70": ("JPEG lossless, first order", "jpeg8_decode"),
    f"{structure.IMPLICIT}.4.80": ("JPEG-LS lossless", "jpegls_decode"),
    f"{structure.IMPLICIT}.4.81": ("JPEG-LS near-lossless", "jpegls_decode"),
    f"{structure.IMPLICIT}.4.90": ("JPEG 2000 lossless", "jpeg2k_decode"),
    f"{structure.IMPLICIT}.4.91": ("JPEG 2000", "jpeg2k_decode"),
    f"{structure.IMPLICIT}.4.201": ("HTJ2K lossless", "jpeg2k_decode"),
    f"{structure.IMPLICIT}.4.202": ("HTJ2K lossless, by resolution", "jpeg2k_decode"),
    f"{structure.IMPLICIT}.4.203": ("HTJ2K", "jpeg2k_decode"),
}
_ELEMENTS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip
_J2K_START, _END = b"\xff\x4f\xff\x51", b"\xff\xd9"
#: Markers of JPEG without a length, and those that are followed by the size of the frame.
_BARE_MARKERS = (0x01, *range(0xD0, 0xD9))
_FRAME_MARKERS = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), 0xF7)


@dataclass(frozen=True)
class PixelFile:
    """A file whose frames can be read one by one, from any thread.

    Attributes:
        dataset: the elements that decoding needs, with the pixels as they are stored.
        syntax: the transfer syntax UID.
        frames: their number.
        dtype: of the stored numbers.
        bits: how many of each cell are the number.
    """

    dataset: Dataset
    syntax: str
    frames: int
    rows: int
    columns: int
    dtype: np.dtype[Any]
    bits: int

    def frame(self, index: int) -> Array:
        """Read frame `index`, from 0: the stored numbers [J, I], of type `dtype`.

        Raises DamagedError where the pixels are damaged, or contradict the header; DependencyError
        where the decoder is not installed.
        """
        from pydicom.encaps import get_frame
        from pydicom.pixels.decoders.base import get_decoder
        from pydicom.uid import UID

        with _damage():
            if self.syntax in (*structure.NATIVE, _RLE):
                numbers, _ = get_decoder(UID(self.syntax)).as_array(
                    self.dataset, index=index, raw=True, validate=False
                )
                native: Array = numbers.astype(self.dtype, copy=False)
                return native
            table = [self.dataset.get(name) for name in _ELEMENTS if name.startswith("Extended")]
            stream = get_frame(
                self.dataset.PixelData,
                index,
                number_of_frames=self.frames,
                extended_offsets=tuple(table) if all(table) else None,
            )
        return self._decoded(stream)

    def _decoded(self, stream: bytes) -> Array:
        """Decode [J, I] of one compressed frame, all fragments joined."""
        name, decoder = DECODERS[self.syntax]
        imagecodecs = require("imagecodecs", purpose=f"DICOM compressed as {name}")
        shape, allocated = (self.rows, self.columns), 8 * self.dtype.itemsize
        rows, columns, samples, stated = stated_size(stream)
        if (rows, columns, samples) != (*shape, 1) or stated > allocated:
            raise DamagedError(
                f"its {name} stream holds {columns}×{rows} pixels of {samples} components and "
                f"{stated} bits, its header says {self.columns}×{self.rows} of one and {allocated}"
            )
        try:
            numbers = getattr(imagecodecs, decoder)(stream)
        except ImportError as cause:  # imagecodecs can be built without a codec
            raise DependencyError(
                f"DICOM compressed as {name} needs the package imagecodecs with all its codecs",
                "Install it from its wheel: python -m pip install --force-reinstall imagecodecs",
            ) from cause
        except (RuntimeError, ValueError, MemoryError) as cause:
            raise DamagedError(f"its {name} stream is damaged ({reason_of(cause)})") from cause
        if numbers.shape != shape or numbers.dtype.kind not in "iu":
            raise DamagedError(f"its {name} stream gave {numbers.dtype} of shape {numbers.shape}")
        if numbers.dtype.kind == "u" and self.dtype.kind == "i":  # the codec knows no sign
            unused = allocated - min(self.bits, stated)
            shifted: Array = (numbers.astype(self.dtype) << unused) >> unused
            return shifted
        limits = np.iinfo(self.dtype)
        lowest, highest = int(numbers.min()), int(numbers.max())
        if lowest < limits.min or highest > limits.max:
            raise DamagedError(f"pixels from {lowest} to {highest} do not fit {self.dtype}")
        fitting: Array = numbers.astype(self.dtype, copy=False)
        return fitting


@contextmanager
def _damage() -> Iterator[None]:
    """Convert pydicom's failures to DamagedError, except for files that cannot be opened."""
    try:
        yield
    except (DamagedError, InputError, NotImplementedError, MemoryError):
        raise
    except structure.pydicom_failures() as cause:
        if isinstance(cause, OSError) and cause.errno is not None:
            raise
        raise DamagedError(f"it is damaged or cut short ({reason_of(cause)})") from cause


def index_pixels(file: Path) -> PixelFile:
    """Read a file, and check that it holds the frames that its header states.

    Raises DamagedError if elements are cut short, or contradict each other or the number of
    pixels; NotImplementedError for an unsupported transfer syntax; OSError.
    """
    with _damage(), file.open("rb") as stream, structure.silence():
        return _indexed(structure.read_elements(stream, _ELEMENTS, last=structure.PIXEL_DATA))


def _indexed(dataset: Dataset) -> PixelFile:
    from pydicom.uid import UID

    syntax = structure.syntax_of(dataset)
    if syntax not in (*structure.NATIVE, _RLE, *DECODERS):
        raise NotImplementedError(UID(syntax).name)
    if "PixelData" not in dataset:
        raise DamagedError("it holds no pixel data")
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    frames = 1 if dataset.get("NumberOfFrames") is None else whole(dataset, "NumberOfFrames")
    if frames < 1:
        raise DamagedError(f"NumberOfFrames is {frames}")
    dtype, bits = _type_of(dataset)
    if syntax in structure.NATIVE:
        _verify_length(dataset.PixelData or b"", rows, columns, frames, dtype.itemsize)
    else:
        _verify_fragments(dataset, frames)
    return PixelFile(dataset, syntax, frames, rows, columns, dtype, bits)


def _type_of(dataset: Dataset) -> tuple[np.dtype[Any], int]:
    """Return the type of the stored numbers, and the bits of each that are used.

    Size, samples and BitsAllocated were checked where slices were made of the header.
    """
    allocated = whole(dataset, "BitsAllocated")
    for keyword in ("BitsStored", "PixelRepresentation"):
        if dataset.get(keyword) is None:
            raise DamagedError(f"{keyword} is missing")
    bits, sign = whole(dataset, "BitsStored"), whole(dataset, "PixelRepresentation")
    if not 1 <= bits <= allocated:
        raise DamagedError(f"BitsStored is {bits} of {allocated} allocated")
    if sign not in (0, 1):
        raise DamagedError(f"PixelRepresentation is {sign}")
    if dataset.get("HighBit") not in (None, bits - 1):
        raise DamagedError(f"HighBit is {dataset.HighBit}, with {bits} bits stored")
    return np.dtype(f"{'i' if sign else 'u'}{allocated // 8}"), bits


def _verify_length(pixels: bytes, rows: int, columns: int, frames: int, cell: int) -> None:
    """Require that uncompressed pixels fill their element, up to padding to an even length."""
    needed = rows * columns * frames * cell
    if len(pixels) in (needed, needed + needed % 2):
        return
    what = "cut short" if len(pixels) < needed else "too long"
    size = f"{columns}×{rows}" + (f" × {frames} frames" if frames > 1 else "")
    raise DamagedError(
        f"its pixel data is {what}: {len(pixels)} bytes, and {size} of {8 * cell} bits need "
        f"{needed}"
    )


def _verify_fragments(dataset: Dataset, frames: int) -> None:
    """Require as many compressed frames as stated: one fragment each, or counted by a table."""
    from pydicom.encaps import parse_basic_offsets, parse_fragments

    stream = io.BytesIO(dataset.PixelData)
    table = parse_basic_offsets(stream)
    fragments, _ = parse_fragments(stream)
    counted = len(dataset.get("ExtendedOffsetTable") or b"") // 8 or len(table) or fragments
    if fragments < frames or (frames > 1 and counted != frames):
        raise DamagedError(f"its pixel data has {fragments} fragments for {frames} frames")


def stated_size(stream: bytes) -> tuple[int, int, int, int]:
    """Read rows, columns, components and bits of a stream; DamagedError if it states none."""
    if not stream.rstrip(b"\0\xff").endswith(_END[1:]) or _END not in stream:
        raise DamagedError("its stream is cut short: the end marker is missing")
    try:
        start = stream.find(_J2K_START)
        if start >= 0 and not stream.startswith(b"\xff\xd8"):
            right, below, left, above = struct.unpack_from(">4I", stream, start + 8)
            components, depth = struct.unpack_from(">HB", stream, start + 40)
            return below - above, right - left, components, (depth & 0x7F) + 1
        at = 2
        while stream[:2] == b"\xff\xd8" and stream[at] == 0xFF:
            marker = stream[at + 1]
            if marker in _FRAME_MARKERS:
                bits, rows, columns, components = struct.unpack_from(">BHHB", stream, at + 4)
                return rows, columns, components, bits
            if marker == 0xFF:  # fill
                at += 1
            elif marker in _BARE_MARKERS:
                at += 2
            else:
                at += 2 + int(struct.unpack_from(">H", stream, at + 2)[0])
    except (struct.error, IndexError) as cause:
        raise DamagedError("its stream is cut short inside its header") from cause
    raise DamagedError("its stream holds no image")
