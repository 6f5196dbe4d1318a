"""Walks a JPEG 2000 stream by its markers, without decoding a pixel.

OpenJPEG reads what is left of a damaged stream and says nothing. So the parts are counted here:
each tile must be there with the length that it states, up to the end marker.
Source: ITU-T T.800, annex A; ITU-T T.814 (HTJ2K), annex A.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from MedEnhanceLib.io.dicom.samples import DamagedError

_SOC, _SIZ, _CAP, _SOT, _SOD, _EOC = 0xFF4F, 0xFF51, 0xFF50, 0xFF90, 0xFF93, 0xFFD9
_MOST_TILES = 65535


@dataclass(frozen=True)
class J2kImage:
    """What the main header says. precision: bits; high_throughput: HTJ2K (part 15)."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool
    high_throughput: bool


def read_j2k(stream: bytes) -> J2kImage:
    """The image of a codestream all of whose tiles are there, up to the end marker."""
    if stream[:4] != struct.pack(">HH", _SOC, _SIZ):
        raise DamagedError("its JPEG 2000 stream does not begin as one")
    image, tiles = _read_size(_segment(stream, 2))
    at, capable = 2, False
    while (marker := _marker(stream, at)) != _SOT:
        capable |= marker == _CAP
        at = _behind(stream, at)
    seen: set[int] = set()
    while _marker(stream, at) == _SOT:
        body = _segment(stream, at)
        if len(body) != 8:
            raise DamagedError("a tile header of its JPEG 2000 stream is damaged")
        tile, length = struct.unpack_from(">HI", body)
        if tile >= tiles:
            raise DamagedError(f"its JPEG 2000 stream holds tile {tile} of {tiles}")
        seen.add(tile)
        end = at + length if length else len(stream.rstrip(b"\x00\xff")) - 1
        if not at + 14 <= end <= len(stream) - 2:
            raise DamagedError("its JPEG 2000 stream is cut short, or a tile's length is damaged")
        _verify_tile_header(stream, at + 12, end)
        at = end
    if _marker(stream, at) != _EOC:
        raise DamagedError(
            "its JPEG 2000 stream is damaged: no tile begins where the last one ends"
        )
    if stream[at + 2 :].strip(b"\x00\xff"):
        raise DamagedError("its JPEG 2000 stream goes on after its end")
    if len(seen) != tiles:
        raise DamagedError(f"its JPEG 2000 stream holds {len(seen)} of {tiles} tiles")
    return J2kImage(*image, capable)


def _read_size(body: bytes) -> tuple[tuple[int, int, int, int, bool], int]:
    """(rows, columns, components, precision, signed), and the number of tiles."""
    if len(body) < 39 or len(body) != 36 + 3 * struct.unpack_from(">H", body, 34)[0]:
        raise DamagedError("the size in its JPEG 2000 stream is damaged")
    right, bottom, left, top = struct.unpack_from(">4I", body, 2)
    tile_width, tile_height, tile_left, tile_top = struct.unpack_from(">4I", body, 18)
    components, depth, step_x, step_y = struct.unpack_from(">HBBB", body, 34)
    if (
        not (tile_left <= left < right and tile_top <= top < bottom)
        or 0 in (tile_width, tile_height)
        or (step_x, step_y) != (1, 1)
    ):
        raise DamagedError("the size in its JPEG 2000 stream is damaged")
    across, down = -(-(right - tile_left) // tile_width), -(-(bottom - tile_top) // tile_height)
    if across * down > _MOST_TILES:
        raise DamagedError(f"its JPEG 2000 stream says it has {across * down} tiles")
    size = (bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80))
    return size, across * down


def _verify_tile_header(stream: bytes, at: int, end: int) -> None:
    while (marker := _marker(stream, at)) != _SOD:
        if marker in (_SOT, _EOC):
            raise DamagedError("a tile of its JPEG 2000 stream holds no data")
        at = _behind(stream, at)
        if at > end:
            raise DamagedError("a tile header of its JPEG 2000 stream is damaged")


def _marker(stream: bytes, at: int) -> int:
    marker = int.from_bytes(stream[at : at + 2], "big")
    if marker < 0xFF4F:
        raise DamagedError("its JPEG 2000 stream is cut short, or damaged between two markers")
    return marker


def _segment(stream: bytes, at: int) -> bytes:
    length = int.from_bytes(stream[at + 2 : at + 4], "big")
    body = stream[at + 4 : at + 2 + length]
    if length < 2 or len(body) != length - 2:
        raise DamagedError("a header of its JPEG 2000 stream is damaged")
    return body


def _behind(stream: bytes, at: int) -> int:
    """The byte after a marker, its length of two bytes and its body."""
    return at + 4 + len(_segment(stream, at))
