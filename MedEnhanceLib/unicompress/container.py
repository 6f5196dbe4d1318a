"""The bytes of a `.ucv`: a head, chunks and a seal, every part with its checksum.

    offset 0   prologue   28 bytes: sizes and checksum of what follows (`PROLOGUE`)
               head       JSON, deflated: the header, and in `chunks` a row for each chunk
               payload    the chunks, one after the other in the order of their rows
    last 32    SHA-256 of all bytes before it

A chunk's place is the sum of the lengths before it: chunks can neither overlap nor leave gaps.
Checksums are CRC-32 (zlib): they find damage, not forgery. No size is
trusted before it is compared with the file. This module knows bytes only: neither voxels nor
networks.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from MedEnhanceLib.core.options import fits
from MedEnhanceLib.errors import CodecError, InputError, NoContainerError
from MedEnhanceLib.io.atomic import flush
from MedEnhanceLib.io.json_input import parse_json
from MedEnhanceLib.io.voxels import input_error, refuse_pipe

MAGIC = b"UCV1"
#: A reader opens every minor version of its major one; only a new major breaks it.
VERSION = (1, 1)
#: The block field of a chunk without voxels (a model); unknown ones are skipped.
NO_BLOCK = 0xFFFFFFFF

#: Magic, major, minor, file bytes, head bytes, CRC of the head, CRC of all this.
PROLOGUE = struct.Struct("<4sHHQIII")
_DIGEST_BYTES = 32
#: Prologue and seal.
SMALLEST_FILE = PROLOGUE.size + _DIGEST_BYTES
_MOST_HEAD_BYTES, _MOST_CHUNKS = 1 << 23, 1 << 16
_COPY = "Copy the file again."
_RECOVER = "Copy the file again, or save what is intact (medenhance recover, me.recover)."
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """Bytes that are decoded alone.

    Attributes:
        block: its number in the grid.
        kind: id of its block type.
    """

    block: int
    kind: int
    data: bytes


@dataclass(frozen=True)
class ChunkInfo:
    """The row of a chunk, with the chunk's place in the file.

    Attributes:
        index: of the row in the table.
        block, kind: as in `Chunk`.
        offset, length: bytes.
        crc: CRC-32 of the chunk.
    """

    index: int
    block: int
    kind: int
    offset: int
    length: int
    crc: int


def build_front(header: Mapping[str, Any], chunks: Sequence[Chunk]) -> bytes:
    """Build prologue and head of a file; raises InputError for more than a head may hold."""
    rows = [(c.block, c.kind, len(c.data), zlib.crc32(c.data)) for c in chunks]
    text = json.dumps(
        {**header, "chunks": rows},
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
        sort_keys=True,
    ).encode()
    if len(text) > _MOST_HEAD_BYTES or len(chunks) > _MOST_CHUNKS:
        raise InputError(
            f"the volume would need {len(chunks)} chunks and a header of {len(text)} bytes,"
            f" {_MOST_CHUNKS} and {_MOST_HEAD_BYTES} are allowed",
            "Compress it in parts, and shorten its history.",
        )
    head = zlib.compress(text, 9)
    size = SMALLEST_FILE + len(head) + bytes_of(chunks)
    prologue = PROLOGUE.pack(MAGIC, *VERSION, size, len(head), zlib.crc32(head), 0)[:-4]
    return prologue + struct.pack("<I", zlib.crc32(prologue)) + head


def inflate(data: bytes, most: int) -> bytes:
    """Inflate a stream of up to `most` bytes, all of it; ValueError for anything else."""
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, most + 1)
    except zlib.error as cause:
        raise ValueError(f"deflated bytes are damaged ({cause})") from cause
    if len(inflated) > most or not inflater.eof or inflater.unused_data:
        raise ValueError(f"deflated bytes are cut short, or more than {most}")
    return inflated


def bytes_of(chunks: Sequence[Chunk]) -> int:
    """Sum the bytes of the chunks' data."""
    return sum(len(chunk.data) for chunk in chunks)


def write_container(path: Path, front: bytes, chunks: Sequence[Chunk]) -> str:
    """Write front, chunks and their SHA-256 as seal, and flush the file to the disk.

    Returns the SHA-256 of the whole file, seal included, as hex.

    Args:
        path: an existing file is overwritten, not atomically.
        front: from `build_front`.
        chunks: those that the front was built for, in the same order.
    """
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for part in chain([front], (chunk.data for chunk in chunks)):
            stream.write(part)
            digest.update(part)
        seal = digest.digest()
        stream.write(seal)
        digest.update(seal)
        flush(stream)
    return digest.hexdigest()


class Container:
    """An open file: `header`, `chunks`, and the bytes of a chunk by `read`.

    Args:
        path: of the file.
        tolerant: also open a file that was cut, or is followed by other bytes.
        warn: called with a sentence on what was tolerated or replaced.
    """

    def __init__(
        self,
        path: Path,
        *,
        tolerant: bool = False,
        warn: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.path = path
        self.warn = warn
        self.chunks: list[ChunkInfo] = []
        self._stream = _open(path)
        try:
            about = os.fstat(self._stream.fileno())
            self.size = about.st_size
            self.state = about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size
            self._load(self._prologue())
            self._check_size(tolerant)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, chunk: ChunkInfo) -> bytes:
        """Read a chunk's bytes; raises CodecError where they are missing or damaged."""
        data = self.bytes_at(chunk.offset, chunk.length)
        if len(data) < chunk.length:
            raise self.damaged(chunk, "is missing: the file is cut short")
        if zlib.crc32(data) != chunk.crc:
            raise self.damaged(chunk, "is damaged (checksum)")
        return data

    def damaged(self, chunk: ChunkInfo, reason: str) -> CodecError:
        """Make the error that names a chunk and its place."""
        return self.error(f"chunk {chunk.index} at byte {chunk.offset} {reason}")

    def is_sealed(self) -> bool:
        """Return whether the SHA-256 at the end of the file fits its bytes; reads all of it."""
        digest = hashlib.sha256()
        remaining = self.size - _DIGEST_BYTES
        try:
            self._stream.seek(0)
            while remaining > 0 and (piece := self._stream.read(min(remaining, _AT_ONCE))):
                digest.update(piece)
                remaining -= len(piece)
            return self._stream.read(_DIGEST_BYTES) == digest.digest()
        except OSError:  # a disk that cannot read a place of it
            return False

    def _prologue(self) -> bytes:
        """Read the prologue; NoContainerError where the file is none of ours."""
        if self.size == 0:
            raise NoContainerError(f"{self.path.name} is empty (0 bytes)", "Copy the file again.")
        raw = self.bytes_at(0, PROLOGUE.size)
        is_prologue = raw[-4:] == struct.pack("<I", zlib.crc32(MAGIC + raw[len(MAGIC) : -4]))
        if not raw.startswith(MAGIC) and not is_prologue:
            raise NoContainerError(
                f"{self.path.name} is not a .ucv: it does not begin with {MAGIC.decode()}",
                "Choose a file that MedEnhance compressed.",
            )
        return raw

    def _load(self, raw: bytes) -> None:
        """Read the head; raw: the prologue."""
        if len(raw) < PROLOGUE.size:
            self._fail(f"cut short at byte {self.size}, before the first chunk")
        magic, *version, file_bytes, head_bytes, head_crc, crc = PROLOGUE.unpack(raw)
        if magic != MAGIC or zlib.crc32(raw[:-4]) != crc:
            self._fail("the prologue is damaged, before the first chunk")
        self.version = "{}.{}".format(*version)
        if version[0] != VERSION[0]:
            raise CodecError(
                f"{self.path.name} has format {self.version}, this version reads {VERSION[0]}.x",
                "Install a newer MedEnhance (python -m pip install --upgrade medenhance).",
            )
        raw = self.bytes_at(PROLOGUE.size, head_bytes)
        if len(raw) < head_bytes:
            self._fail("the head is cut short, before the first chunk")
        if zlib.crc32(raw) != head_crc:
            self._fail("the head is damaged (checksum), before the first chunk")
        try:
            text = inflate(raw, _MOST_HEAD_BYTES)
            header = parse_json(text)
        except ValueError as cause:
            raise self.error(f"the head cannot be read: {cause}") from cause
        rows: Any = header.pop("chunks", None) if isinstance(header, dict) else None
        if not fits(rows, list[list[int]]) or len(rows) > _MOST_CHUNKS:
            self._fail("the head has no rows of chunks")
        self.header: dict[str, Any] = header
        self._file_bytes: int = file_bytes
        chunks: list[ChunkInfo] = []
        offset = PROLOGUE.size + head_bytes
        for index, row in enumerate(rows):
            if len(row) != 4 or not all(0 <= value < 1 << 32 for value in row) or not row[2]:
                self._fail(f"chunk {index} has the row {row}")
            block, kind, length, crc = row
            chunks.append(ChunkInfo(index, block, kind, offset, length, crc))
            offset += length
        if offset + _DIGEST_BYTES != file_bytes:
            self._fail("the lengths of the chunks do not add up to the payload")
        self.chunks = chunks

    def _check_size(self, tolerant: bool) -> None:
        if self.size == self._file_bytes:
            return
        blocks = [chunk for chunk in self.chunks if chunk.block != NO_BLOCK]
        is_any_whole = any(chunk.offset + chunk.length <= self.size for chunk in blocks)
        if self.size > self._file_bytes:
            reason = f"{self.size - self._file_bytes} bytes follow the last chunk and its end"
        else:
            cut = next((c for c in self.chunks if c.offset + c.length > self.size), None)
            lost = (
                f"chunk {cut.index} at byte {cut.offset} and those after it are incomplete"
                if cut
                else "every chunk is intact, what follows them is not"
            )
            reason = f"cut short, {self.size} of {self._file_bytes} bytes: {lost}"
        if not tolerant:
            raise self.error(reason, _RECOVER if is_any_whole else _COPY)
        self.warn(f"{self.path.name}: {reason}")

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Read up to that many bytes; raises CodecError where the disk cannot read them."""
        try:
            self._stream.seek(offset)
            return self._stream.read(length)
        except OSError as cause:
            raise self.error(f"byte {offset} cannot be read: {cause.strerror or cause}") from cause

    def _fail(self, reason: str) -> NoReturn:
        raise self.error(reason)

    def error(self, reason: str, hint: str = "") -> CodecError:
        """Make the error that names the file; by default it advises to recover other blocks."""
        is_single = sum(chunk.block != NO_BLOCK for chunk in self.chunks) < 2
        advice = hint or (_COPY if is_single else _RECOVER)
        return CodecError(f"{self.path.name} is damaged: {reason}", advice)

    def reason_of(self, damage: CodecError) -> str:
        """Return the damage alone, without the name of the file that `error` puts before it."""
        return damage.message.removeprefix(f"{self.path.name} is damaged: ")


def _open(path: Path) -> BinaryIO:
    refuse_pipe(path)
    try:
        return path.open("rb")
    except OSError as cause:
        raise input_error(path, cause) from cause
