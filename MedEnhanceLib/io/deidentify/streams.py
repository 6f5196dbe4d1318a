"""Compressed frames: comments in them and bytes after them are cut out, the pixels are not touched.

Segments of JPEG, JPEG-LS and JPEG 2000 before the coded pixels may hold any text: what a program
wrote, Exif, whole previews. What decoding needs stays.
Source: ITU-T T.81, annex B; T.87, annex C; T.800, annex A.
"""

from __future__ import annotations

import re

from MedEnhanceLib.errors import InputError

JPEG = {f"1.2.840.10008.1.2.4.{end}" for end in ("50", "51", "57", "70")}
JPEG_LS = {"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"}
JPEG_2000 = {f"1.2.840.10008.1.2.4.{end}" for end in ("90", "91", "92", "93", "201", "202", "203")}
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_APPLICATION = range(0xE0, 0xF0)
#: Application segments that say how colours are stored: the start, and the length of all.
_OF_COLOUR = ((0xE0, b"JFIF\0", 16), (0xEE, b"Adobe", 14), (0xE8, b"mrfx", None))
#: The end of coded pixels: a marker that is neither padding nor a restart.
_NEXT = {
    False: re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]"),
    True: re.compile(rb"\xff+[\x80-\xcf\xd8-\xfe]"),
}
_DECOMPRESS = "Decompress it first, for instance with GDCM."
_SOC, _SOT, _J2K_COM, _EOC = b"\xff\x4f", b"\xff\x90", b"\xff\x64", b"\xff\xd9"


def without_words(frame: bytes, syntax: str) -> bytes:
    """The frame with nothing in it but pixels and what decodes them.

    A frame of another kind stays as it is. Raises InputError for one that is cut short or is not
    what its transfer syntax says.
    """
    if syntax in JPEG_2000:
        return _jpeg_2000(frame)
    if syntax in JPEG or syntax in JPEG_LS:
        return _jpeg(frame, is_ls=syntax in JPEG_LS)
    return frame


def _jpeg(frame: bytes, *, is_ls: bool) -> bytes:
    if frame[:2] != bytes((0xFF, _SOI)):
        raise _damaged("does not begin as such")
    kept, at = [frame[:2]], 2
    while True:
        start, at = at, _behind_marker(frame, at)
        marker = frame[at - 1]
        if marker == _EOI:
            return _even(b"".join([*kept, b"\xff\xd9"]))
        end = at + _length(frame, at)
        if marker == _SOS:
            found = _NEXT[is_ls].search(frame, end)
            end = found.start() if found else len(frame)
        elif _is_words(marker, frame[at + 2 : end]):
            start = end
        kept.append(frame[start:end])
        at = end


def _behind_marker(frame: bytes, at: int) -> int:
    if frame[at : at + 1] != b"\xff":
        raise _damaged("is cut short")
    while frame[at : at + 1] == b"\xff":
        at += 1
    if at >= len(frame):
        raise _damaged("is cut short")
    return at + 1


def _length(frame: bytes, at: int) -> int:
    length = int.from_bytes(frame[at : at + 2], "big")
    if length < 2 or at + length > len(frame):
        raise _damaged("is cut short")
    return length


def _is_words(marker: int, content: bytes) -> bool:
    if marker not in _APPLICATION:
        return marker == _COM
    return not any(
        marker == kind and content.startswith(start) and length in (None, len(content) + 2)
        and len(content) < 32
        for kind, start, length in _OF_COLOUR
    )  # fmt: skip


def _jpeg_2000(frame: bytes) -> bytes:
    if frame[4:8] == b"jP  ":
        raise InputError(
            "its compressed frames are whole JP2 files, whose boxes may hold text", _DECOMPRESS
        )
    if frame[:2] != _SOC:
        raise _damaged("does not begin as such")
    kept, at = [_SOC], 2
    while frame[at : at + 2] != _SOT:
        if frame[at : at + 1] != b"\xff":
            raise _damaged("is cut short")
        end = at + 2 + _length(frame, at + 2)
        if frame[at : at + 2] != _J2K_COM:
            kept.append(frame[at:end])
        at = end
    start = at
    while frame[at : at + 2] == _SOT:
        length = int.from_bytes(frame[at + 6 : at + 10], "big")
        _refuse_words(frame, at + 12)
        if not length:  # the last one, up to the end, whose place nobody tells
            at = frame.rfind(_EOC)
            break
        at += length
    if at < start + 12 or at > len(frame):
        raise _damaged("is cut short")
    return _even(b"".join([*kept, frame[start:at], _EOC]))


def _refuse_words(frame: bytes, at: int) -> None:
    """Lengths of tiles are told in many places: a comment in one is not cut out."""
    while frame[at : at + 1] == b"\xff" and frame[at + 1 : at + 2] != b"\x93":
        if frame[at : at + 2] == _J2K_COM:
            raise InputError(
                "a comment stands in the middle of its compressed pixels",
                _DECOMPRESS,
            )
        at += 2 + _length(frame, at + 2)


def _even(frame: bytes) -> bytes:
    return frame + b"\0" * (len(frame) % 2)


def _damaged(what: str) -> InputError:
    return InputError(f"damaged: a compressed frame {what}", "Copy or export the file again.")
