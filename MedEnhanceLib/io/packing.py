"""Compression by gzip in threads, into one member: some readers stop after the first.

Blocks are compressed each alone, up to a full flush, so that they can be joined. Blocks do not
depend on the number of threads, so neither does the file. Sources: RFC 1951, RFC 1952.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.ordered import ordered_map
from MedEnhanceLib.runtime.progress import Monitor

_LEVEL = 4  # on CT within 1 % of level 6, three times as fast
#: Bytes of a block: of fewer, each begins anew too often; more are not smaller.
_BLOCK_BYTES = 1 << 20
#: Deflated, without name and time: the same volume gives the same bytes.
_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LAST_BLOCK = b"\3\0"


def pack(parts: Iterable[memoryview], monitor: Monitor) -> Iterator[bytes]:
    """Yield a file of gzip, piece by piece.

    Args:
        parts: the content; taken in the calling thread.
        monitor: may cancel, before each block.
    """
    checksum, size = 0, 0

    def blocks() -> Iterator[bytes]:
        nonlocal checksum, size
        for block in _joined(parts):
            checksum, size = zlib.crc32(block, checksum), size + len(block)
            yield block

    yield _HEAD
    yield from ordered_map(_deflated, blocks(), threads=cpu_threads(), monitor=monitor)
    yield _LAST_BLOCK + struct.pack("<LL", checksum, size % (1 << 32))


def _joined(parts: Iterable[memoryview]) -> Iterator[bytes]:
    """Yield blocks of at least _BLOCK_BYTES, but for the last one."""
    block = bytearray()
    for part in parts:
        block += part.cast("B")
        if len(block) >= _BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _deflated(block: bytes) -> bytes:
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflate.compress(block) + deflate.flush(zlib.Z_FULL_FLUSH)
