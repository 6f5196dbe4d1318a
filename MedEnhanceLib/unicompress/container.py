"""The bytes of a `.ucv`: a head, chunks and a seal, every part with its checksum.

    offset 0   prologue   28 bytes: sizes and checksum of what follows (`_PROLOGUE`)
               head       JSON, deflated: the header, and in `chunks` a row for each chunk
               payload    the chunks, one after the other in the order of their rows
               head once more, where it is at most a hundredth of the file
               prologue once more
    last 32    SHA-256 of all bytes before it

A chunk's place is the sum of the lengths before it: chunks can neither overlap nor leave gaps.
Checksums are CRC-32 (zlib): they find damage, not forgery. The last chunk may be parity
(`repair`), which undoes damage to all that lies before it. No size is believed before it is
compared with the file. This module knows bytes only: neither voxels nor networks.
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
from typing import Any, BinaryIO, NamedTuple, NoReturn

from MedEnhanceLib.core.options import fits
from MedEnhanceLib.errors import CodecError, InputError, NoContainerError
from MedEnhanceLib.io.voxels import input_error, refuse_pipe
from MedEnhanceLib.unicompress.repair import Damage, Layout, RepairChunk
from MedEnhanceLib.unicompress.spool import Bytes

MAGIC = b"UCV1"
#: A reader opens every minor version of its major one; only a new major breaks it.
VERSION = (1, 0)
#: The block field of a chunk without voxels (a model, parity); unknown ones are skipped.
NO_BLOCK = 0xFFFFFFFF
#: The kind of the chunk of `repair`, the last one of a file.
REPAIR_CHUNK = 65

# magic, major, minor, file bytes, head bytes, CRC of the head, CRC of all this
_PROLOGUE = struct.Struct("<4sHHQIII")
_DIGEST_BYTES = 32
#: Both prologues and the seal.
SMALLEST_FILE = 2 * _PROLOGUE.size + _DIGEST_BYTES
#: The second head takes at most this share of a file.
HEAD_SHARE = 100
_MOST_HEAD_BYTES, _MOST_CHUNKS = 1 << 23, 1 << 16
_RECOVER = "Copy the file again, or save what is intact (medenhance recover)."
_AT_ONCE = 1 << 20
#: What a disk cannot read is this much at least.
_SECTOR = 4096


@dataclass(frozen=True)
class Chunk:
    """Bytes that are decoded alone. block: its number in the grid; kind: id of its block type."""

    block: int
    kind: int
    data: Bytes


@dataclass(frozen=True)
class ChunkInfo:
    """The row of a chunk, with the chunk's place in the file."""

    index: int
    block: int
    kind: int
    offset: int
    length: int
    crc: int

    @property
    def is_repair(self) -> bool:
        """Whether it holds parity."""
        return self.block == NO_BLOCK and self.kind == REPAIR_CHUNK


@dataclass(frozen=True)
class Frame:
    """Everything of a file but its payload, ready to be written around it."""

    front: bytes
    back: bytes
    file_bytes: int


def build_frame(header: Mapping[str, Any], chunks: Sequence[Chunk]) -> Frame:
    """Lay out a file; raises InputError for more than its head may hold."""
    rows = [(c.block, c.kind, len(c.data), zlib.crc32(bytes(c.data))) for c in chunks]
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
    size = SMALLEST_FILE + 2 * len(head) + sum(len(chunk.data) for chunk in chunks)
    again = head if len(head) * HEAD_SHARE <= size else b""
    size += len(again) - len(head)
    prologue = _PROLOGUE.pack(MAGIC, *VERSION, size, len(head), zlib.crc32(head), 0)[:-4]
    prologue += struct.pack("<I", zlib.crc32(prologue))
    return Frame(prologue + head, again + prologue, size)


def with_repair(header: Mapping[str, Any], chunks: Sequence[Chunk]) -> tuple[Frame, list[Chunk]]:
    """Lay out a file that ends in its repair chunk, where that pays.

    Its length and its checksum are known before its bytes are: the head, which it covers, does
    not depend on what it holds.
    """
    frame = build_frame(header, chunks)
    payload = sum(len(chunk.data) for chunk in chunks)
    layout = Layout.of_size(len(frame.front) + payload)
    if layout is None:
        return frame, list(chunks)
    blank = Chunk(NO_BLOCK, REPAIR_CHUNK, layout.placeholder())
    frame = build_frame(header, [*chunks, blank])
    covered = chain([frame.front], (bytes(chunk.data) for chunk in chunks))
    data = layout.chunk(covered, len(frame.front) + payload)
    return frame, [*chunks, Chunk(NO_BLOCK, REPAIR_CHUNK, data)]


def write_container(path: Path, frame: Frame, chunks: Sequence[Chunk]) -> str:
    """Write the file and flush it to the disk. Returns the SHA-256 of the whole file, as hex."""
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        # One chunk at a time in memory: they may lie in a spool.
        payload = (bytes(chunk.data) for chunk in chunks)
        for part in chain([frame.front], payload, [frame.back]):
            stream.write(part)
            digest.update(part)
        seal = digest.digest()
        stream.write(seal)
        digest.update(seal)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


class Container:
    """An open file: `header`, `chunks`, and the bytes of a chunk by `read`.

    Bytes that are damaged are repaired in memory where the file holds parity for them; nothing is
    written.

    Args:
        path: of the file.
        tolerant: open it where its beginning or its end is damaged, too.
        mends: whether damage may be repaired; without it every byte counts as it is.
        warn: takes the sentence that says what was repaired; without it that is one of `notes`.

    notes: what had to be worked around (with `tolerant`, or without `warn`).
    bytes_read: how much of it has been read so far.
    """

    def __init__(
        self,
        path: Path,
        *,
        tolerant: bool = False,
        mends: bool = True,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.path = path
        self.notes: list[str] = []
        self.bytes_read = 0
        self._warn = warn or self.notes.append
        self._mends = mends
        self._repaired: list[Damage] = []
        self._stream = _open(path)
        try:
            self.size = os.fstat(self._stream.fileno()).st_size
            self._load(tolerant)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, chunk: ChunkInfo) -> bytes:
        """The chunk's bytes; raises CodecError where they are missing or damaged beyond repair."""
        try:
            return self._read(chunk)
        except CodecError:
            if not self._mend():
                raise
            return self._read(chunk)

    def _read(self, chunk: ChunkInfo) -> bytes:
        data = self._bytes_at(chunk.offset, chunk.length)
        if len(data) < chunk.length:
            raise self.damaged(chunk, "is missing: the file is cut short")
        if zlib.crc32(data) != chunk.crc:
            raise self.damaged(chunk, "is damaged (checksum)")
        return data

    def sound_chunks(self) -> list[Chunk]:
        """All chunks but that of `repair`; raises CodecError where one is damaged beyond repair."""
        kept = [chunk for chunk in self.chunks if not chunk.is_repair]
        return [Chunk(chunk.block, chunk.kind, self.read(chunk)) for chunk in kept]

    def damages(self) -> list[Damage] | None:
        """All damage to what the repair chunk covers; None where there is none that can be used.

        Reads the whole file.
        """
        rows = [chunk for chunk in self.chunks if chunk.is_repair]
        if len(rows) != 1 or rows[0].offset + rows[0].length > self.size:
            return None
        parity = RepairChunk.at(self._bytes_or_zeros, rows[0].offset, rows[0].length)
        return None if parity is None else parity.find(self._bytes_or_zeros)

    def _mend(self) -> bool:
        """Repair what can be; whether there was anything. It is done once."""
        if not self._mends:
            return False
        self._mends = False
        self._repaired = [damage for damage in self.damages() or [] if damage.repaired is not None]
        if self._repaired:
            self._warn(repaired_text(self.path.name, self._repaired))
        return bool(self._repaired)

    def damaged(self, chunk: ChunkInfo, says: str) -> CodecError:
        """The error that names a chunk and its place."""
        return self._error(f"chunk {chunk.index} at byte {chunk.offset} {says}")

    def is_sealed(self) -> bool:
        """Whether the SHA-256 at the end of the file fits its bytes; reads the whole file."""
        digest = hashlib.sha256()
        left = self.size - _DIGEST_BYTES
        try:
            self._stream.seek(0)
            while left > 0 and (piece := self._stream.read(min(left, _AT_ONCE))):
                digest.update(piece)
                left -= len(piece)
            return self._stream.read(_DIGEST_BYTES) == digest.digest()
        except OSError:  # a disk that cannot read a place of it
            return False

    def _load(self, tolerant: bool) -> None:
        """By the first copy of prologue and head or, where it may be, by any that is sound."""
        if self.size == 0:
            raise NoContainerError(f"{self.path.name} is empty (0 bytes)", "Copy the file again.")
        ends = (0, max(0, self.size - _DIGEST_BYTES - _PROLOGUE.size))
        if not any(self._bytes_at(end, len(MAGIC)) == MAGIC for end in ends):
            raise NoContainerError(
                f"{self.path.name} is not a .ucv: neither does it begin with {MAGIC.decode()}, nor"
                " stands that at its end",
                "Choose a file that MedEnhance compressed.",
            )
        problems: list[CodecError] = []
        for end in ends if tolerant else ends[:1]:
            try:
                prologue = self._prologue(end)
            except CodecError as problem:
                problems.append(problem)
                continue
            heads = [_PROLOGUE.size]
            if tolerant and prologue.has_two_heads:
                heads.append(prologue.payload_end)
            for place in heads:
                try:
                    self._load_head(prologue, place)
                except CodecError as problem:
                    problems.append(problem)
                    continue
                self.notes += [problem.message for problem in problems]
                self._check_size(prologue.file_bytes, tolerant)
                return
        raise problems[0]

    def _prologue(self, offset: int) -> _Prologue:
        raw = self._bytes_at(offset, _PROLOGUE.size)
        if len(raw) < _PROLOGUE.size:
            self._fail(f"cut short at byte {self.size}, before the first chunk")
        prologue = _Prologue._make(_PROLOGUE.unpack(raw))
        if prologue.magic != MAGIC or zlib.crc32(raw[:-4]) != prologue.crc:
            self._fail(f"the prologue at byte {offset} is damaged, before the first chunk")
        if prologue.major != VERSION[0]:
            raise CodecError(
                f"{self.path.name} has format {prologue.version}, this version reads "
                f"{VERSION[0]}.x",
                "Install a newer MedEnhance (python -m pip install --upgrade medenhance).",
            )
        return prologue

    def _load_head(self, prologue: _Prologue, offset: int) -> None:
        raw = self._bytes_at(offset, prologue.head_bytes) if offset >= 0 else b""
        place = f"the head at byte {offset}"
        if len(raw) < prologue.head_bytes:
            self._fail(f"{place} is cut short, before the first chunk")
        if zlib.crc32(raw) != prologue.head_crc:
            self._fail(f"{place} is damaged (checksum), before the first chunk")
        inflater = zlib.decompressobj()
        try:
            text = inflater.decompress(raw, _MOST_HEAD_BYTES + 1)
            header = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        except (zlib.error, ValueError, RecursionError) as cause:
            raise self._error(f"{place} cannot be read: {cause}") from cause
        if len(text) > _MOST_HEAD_BYTES or not inflater.eof or inflater.unused_data:
            self._fail(f"{place} does not have the size it should")
        rows: Any = header.pop("chunks", None) if isinstance(header, dict) else None
        if not fits(rows, list[list[int]]) or len(rows) > _MOST_CHUNKS:
            self._fail(f"{place} has no rows of chunks")
        self.header: dict[str, Any] = header
        self.chunks = self._located(rows, prologue)
        self.version = prologue.version

    def _located(self, rows: list[list[int]], prologue: _Prologue) -> tuple[ChunkInfo, ...]:
        chunks: list[ChunkInfo] = []
        offset = _PROLOGUE.size + prologue.head_bytes
        for index, row in enumerate(rows):
            if len(row) != 4 or not all(0 <= value < 1 << 32 for value in row) or not row[2]:
                self._fail(f"chunk {index} has the row {row}")
            block, kind, length, crc = row
            chunks.append(ChunkInfo(index, block, kind, offset, length, crc))
            offset += length
        if offset != prologue.payload_end:
            self._fail("the lengths of the chunks do not add up to the payload")
        return tuple(chunks)

    def _check_size(self, file_bytes: int, tolerant: bool) -> None:
        if self.size == file_bytes:
            return
        if self.size > file_bytes:
            says = f"{self.size - file_bytes} bytes follow the last chunk and its end"
        else:
            cut = next((c for c in self.chunks if c.offset + c.length > self.size), None)
            lost = (
                f"chunk {cut.index} at byte {cut.offset} and those after it are incomplete"
                if cut
                else "every chunk is intact, what follows them is not"
            )
            says = f"cut short, {self.size} of {file_bytes} bytes: {lost}"
        if not tolerant:
            self._fail(says)
        self.notes.append(f"{self.path.name}: {says}")

    def _bytes_at(self, offset: int, length: int) -> bytes:
        try:
            self._stream.seek(offset)
            data = self._stream.read(min(length, max(self.size - offset, 0)))
        except OSError as cause:
            raise self._error(f"byte {offset} cannot be read: {cause.strerror or cause}") from cause
        self.bytes_read += len(data)
        for damage in self._repaired:
            first = max(offset, damage.offset)
            stop = min(offset + len(data), damage.offset + damage.length)
            if first < stop and damage.repaired is not None:
                right = damage.repaired[first - damage.offset : stop - damage.offset]
                data = data[: first - offset] + right + data[stop - offset :]
        return data

    def _bytes_or_zeros(self, offset: int, length: int) -> bytes:
        """As many bytes as are asked for: zeros where a disk gives none, or the file has ended."""
        try:
            return self._bytes_at(offset, length).ljust(length, b"\0")
        except CodecError:
            if length <= _SECTOR:
                return bytes(length)
            starts = range(offset, offset + length, _SECTOR)
            stop = offset + length
            return b"".join(self._bytes_or_zeros(at, min(_SECTOR, stop - at)) for at in starts)

    def _fail(self, says: str) -> NoReturn:
        raise self._error(says)

    def _error(self, says: str) -> CodecError:
        return CodecError(f"{self.path.name} is damaged: {says}", _RECOVER)


class _Prologue(NamedTuple):
    magic: bytes
    major: int
    minor: int
    file_bytes: int
    head_bytes: int
    head_crc: int
    crc: int

    @property
    def version(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def payload_end(self) -> int:
        """Where the last chunk ends, and the second head begins if there is one."""
        again = self.head_bytes if self.has_two_heads else 0
        return self.file_bytes - _DIGEST_BYTES - _PROLOGUE.size - again

    @property
    def has_two_heads(self) -> bool:
        """Whether the head stands behind the payload once more."""
        return self.head_bytes * HEAD_SHARE <= self.file_bytes


def repaired_text(name: str, damages: Sequence[Damage]) -> str:
    """The sentence that says which damage was repaired, and what to do about it."""
    first, more = damages[0], len(damages) - 1
    places = f" and {more} more place{'s' if more > 1 else ''}" if more else ""
    return (
        f"{name} is damaged: {first.length} bytes at byte {first.offset}{places} were repaired from"
        " its parity. The file itself is still damaged: copy it again, or write it anew"
        f" (medenhance recover {name} NEW.ucv)"
    )


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if abs(number) < float("inf") else _refuse(text)


def _open(path: Path) -> BinaryIO:
    refuse_pipe(path)
    try:
        return path.open("rb")
    except OSError as cause:
        raise input_error(path, cause) from cause
