"""A second reading of a DICOM file, by the letter of the standard and by other decoders.

It shares no code with the library: elements are taken from the bytes by their lengths alone, and
pixels by numpy or by a decoder that the library does not use. What it cannot read strictly, it
does not read: None.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_OPEN = 0xFFFFFFFF
#: Groups in which a tag that stands twice leaves open what an image is, or where it lies.
_OF_IMAGES = (0x18, 0x20, 0x28, 0x3004, 0x5200, 0x7FE0)


class UnreadableError(Exception):
    """The bytes are not what the standard says."""


@dataclass
class Plane:
    """One image plane: intensities [J, I], and where it lies."""

    values: np.ndarray
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]


def planes_of(content: bytes) -> list[Plane] | None:
    """All planes of a file with intensities as it says them; None where it contradicts itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return _planes(content)
    except (UnreadableError, struct.error, ValueError, LookupError, ArithmeticError, TypeError,
            RuntimeError, Warning, zlib.error, AttributeError, OSError):  # fmt: skip
        return None


def _planes(content: bytes) -> list[Plane]:
    if content[128:132] != b"DICM":
        raise UnreadableError("no mark")
    meta, at = _elements(content, 132, len(content), explicit=True, order="<", only=2)
    syntax = meta[2, 0x10][1].rstrip(b"\0 ").decode("ascii")
    if syntax == DEFLATED:
        content, at = zlib.decompress(content[at:], -15), 0
    order = ">" if syntax == BIG else "<"
    found, _ = _elements(content, at, len(content), explicit=syntax != IMPLICIT, order=order)
    return _Reading(found, syntax, order).planes()


def _elements(
    content: bytes, at: int, end: int, *, explicit: bool, order: str, only: int = 0
) -> tuple[dict[tuple[int, int], tuple[bytes, bytes]], int]:
    """Tag → (VR, value); sequences as their bytes. Ends at `end`, an item's end, or the pixels."""
    found: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    while at < end:
        tag = struct.unpack_from(order + "HH", content, at)
        if tag == (0xFFFE, 0xE00D) or (only and tag[0] != only):
            break
        vr, length, value = _head(content, at, explicit, order)
        stop = value + length
        if length == _OPEN:
            stop = _end_of_open(content, value, vr, explicit, order)
        if stop > end:
            raise UnreadableError(f"{tag} goes beyond the end")
        if tag in found and tag[0] in _OF_IMAGES:
            raise UnreadableError(f"{tag} twice")
        found[tag] = (vr, content[value:stop])
        at = stop
        if tag == (0x7FE0, 0x10):
            break
    return found, at


def _head(content: bytes, at: int, explicit: bool, order: str) -> tuple[bytes, int, int]:
    if not explicit:
        return b"", struct.unpack_from("<I", content, at + 4)[0], at + 8
    vr = content[at + 4 : at + 6]
    if vr in _LONG:
        return vr, struct.unpack_from(order + "I", content, at + 8)[0], at + 12
    if not (vr.isalpha() and vr.isupper()):
        raise UnreadableError(f"VR {vr!r}")
    return vr, struct.unpack_from(order + "H", content, at + 6)[0], at + 8


def _end_of_open(content: bytes, at: int, vr: bytes, explicit: bool, order: str) -> int:
    if vr == b"UN":
        explicit, order = False, "<"
    while True:
        group, number, length = struct.unpack_from(order + "HHI", content, at)
        at += 8
        if (group, number) == (0xFFFE, 0xE0DD):
            return at
        if (group, number) != (0xFFFE, 0xE000):
            raise UnreadableError("no item")
        if length == _OPEN:
            _, at = _elements(content, at, len(content), explicit=explicit, order=order)
            at += 8
        else:
            at += length


class _Reading:
    def __init__(self, found: dict[Any, Any], syntax: str, order: str) -> None:
        self.found, self.syntax, self.order = found, syntax, order

    def us(self, number: int) -> int:
        return int(struct.unpack(self.order + "H", self.found[0x28, number][1])[0])

    def ds(self, found: dict[Any, Any], tag: tuple[int, int]) -> tuple[float, ...] | None:
        text = found.get(tag, (b"", b""))[1].strip(b" \0").decode("ascii")
        return tuple(float(part) for part in text.split("\\")) if text else None

    def items(self, found: dict[Any, Any], tag: tuple[int, int]) -> list[dict[Any, Any]]:
        if tag not in found:
            return []
        value, at, items = found[tag][1], 0, []
        while at < len(value):
            group, number, length = struct.unpack_from(self.order + "HHI", value, at)
            at += 8
            if (group, number) == (0xFFFE, 0xE0DD):
                break
            if (group, number) != (0xFFFE, 0xE000):
                raise UnreadableError("no item")
            end = len(value) if length == _OPEN else at + length
            item, stop = _elements(
                value, at, end, explicit=self.syntax != IMPLICIT, order=self.order
            )
            items.append(item)
            at = stop + 8 if length == _OPEN else end
        return items

    def planes(self) -> list[Plane]:
        rows, columns = self.us(0x10), self.us(0x11)
        text = self.found.get((0x28, 8), (b"", b""))[1].strip(b" \0")
        count = int(text) if text else 1
        stored = self.frames(rows, columns, count)
        frames = self.items(self.found, (0x5200, 0x9230))
        if frames:
            return self.enhanced(stored, frames)
        position = self.ds(self.found, (0x20, 0x32))
        orientation = self.ds(self.found, (0x20, 0x37))
        spacing = self.ds(self.found, (0x28, 0x30))
        offsets = self.ds(self.found, (0x3004, 0xC))
        slope = self.ds(self.found, (0x28, 0x1053)) or (1.0,)
        shift = self.ds(self.found, (0x28, 0x1052)) or (0.0,)
        if (0x3004, 0xE) in self.found:
            slope = self.ds(self.found, (0x3004, 0xE)) or slope
        if position is None or orientation is None or spacing is None:
            raise UnreadableError("no place")
        normal = np.cross(orientation[:3], orientation[3:])
        places = [0.0] if count == 1 else offsets
        if places is None or len(places) != count:
            raise UnreadableError("no offsets")
        first = 0.0 if places[0] == 0 else places[0]
        return [
            Plane(
                pixels * slope[0] + shift[0],
                tuple(np.asarray(position) + (place - first) * normal),
                orientation,
                spacing,
            )
            for pixels, place in zip(stored, places, strict=True)
        ]

    def enhanced(self, stored: list[np.ndarray], frames: list[dict[Any, Any]]) -> list[Plane]:
        shared = (self.items(self.found, (0x5200, 0x9229)) or [{}])[0]
        if len(frames) != len(stored):
            raise UnreadableError("frames")

        def of(frame: dict[Any, Any], group: tuple[int, int], tag: tuple[int, int]) -> Any:
            for holder in frame, shared:
                items = self.items(holder, group)
                if items:
                    return self.ds(items[0], tag)
            return None

        planes = []
        for frame, pixels in zip(frames, stored, strict=True):
            slope = of(frame, (0x28, 0x9145), (0x28, 0x1053)) or self.ds(self.found, (0x28, 0x1053))
            shift = of(frame, (0x28, 0x9145), (0x28, 0x1052)) or self.ds(self.found, (0x28, 0x1052))
            planes.append(
                Plane(
                    pixels * (slope or (1.0,))[0] + (shift or (0.0,))[0],
                    of(frame, (0x20, 0x9113), (0x20, 0x32)),
                    of(frame, (0x20, 0x9116), (0x20, 0x37)),
                    of(frame, (0x28, 0x9110), (0x28, 0x30)),
                )
            )
        return planes

    # -------------------------------------------------------- pixels

    def frames(self, rows: int, columns: int, count: int) -> list[np.ndarray]:
        allocated, stored, sign = self.us(0x100), self.us(0x101), self.us(0x103)
        value = self.found[0x7FE0, 0x10][1]
        size = rows * columns
        if self.syntax in (IMPLICIT, EXPLICIT, DEFLATED, BIG):
            cells = np.frombuffer(value, f"{self.order}u{allocated // 8}")
            if len(cells) < size * count:
                raise UnreadableError("too short")
            frames = cells[: size * count].reshape(count, rows, columns)
            return [_number(frame.astype(np.int64), stored, sign) for frame in frames]
        pieces = _pieces(value)[1:]
        if count == 1:
            pieces = [b"".join(pieces)]
        if len(pieces) != count:
            raise UnreadableError("pieces")
        return [
            _number(self.decoded(piece, rows, columns, allocated), stored, sign) for piece in pieces
        ]

    def decoded(self, stream: bytes, rows: int, columns: int, allocated: int) -> np.ndarray:
        kind = self.syntax.removeprefix("1.2.840.10008.1.2.")
        if kind == "5":
            return _rle(stream, rows, columns, allocated)
        pixels = _other_decoder(stream, kind)
        if pixels.shape != (rows, columns):
            raise UnreadableError("shape")
        return pixels.astype(np.int64)


def _number(values: np.ndarray, bits: int, sign: int) -> np.ndarray:
    values = values & ((1 << bits) - 1)
    return values - ((values >> (bits - 1)) << bits) if sign else values


def _pieces(value: bytes) -> list[bytes]:
    found, at = [], 0
    while True:
        group, number, length = struct.unpack_from("<HHI", value, at)
        if (group, number) == (0xFFFE, 0xE0DD):
            return found
        found.append(value[at + 8 : at + 8 + length])
        at += 8 + length


def _rle(stream: bytes, rows: int, columns: int, allocated: int) -> np.ndarray:
    count, *starts = struct.unpack_from("<16I", stream)
    if count != allocated // 8:
        raise UnreadableError("planes")
    ends = [*starts[1:count], len(stream)]
    value = np.zeros(rows * columns, np.int64)
    for start, end in zip(starts[:count], ends, strict=True):
        plane = b""
        while len(plane) < rows * columns and start < end:
            head = stream[start]
            if head < 128:
                plane += stream[start + 1 : start + 2 + head]
                start += 2 + head
            else:
                plane += stream[start + 1 : start + 2] * ((257 - head) % 129)
                start += 2 if head > 128 else 1
        if len(plane) != rows * columns:
            raise UnreadableError("runs")
        value = value << 8 | np.frombuffer(plane, np.uint8)
    return value.reshape(rows, columns)


def _other_decoder(stream: bytes, kind: str) -> np.ndarray:
    """OpenJPEG and CharLS as other packages build them; for JPEG, ones that are written anew."""
    import imagecodecs
    import jpeg_ls
    import openjpeg

    if kind in ("4.80", "4.81"):
        return np.asarray(jpeg_ls.decode(np.frombuffer(stream, np.uint8)))
    if kind in ("4.57", "4.70"):
        return np.asarray(imagecodecs.jpegsof3_decode(stream))
    if kind == "4.50":
        import io

        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(stream)))
    if kind == "4.51":  # the only other decoder of 12 bits is no package: compare with the same
        return np.asarray(imagecodecs.jpeg8_decode(stream))
    return np.asarray(openjpeg.decode(stream))
