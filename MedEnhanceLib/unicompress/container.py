"""The bytes of a `.ucv`: a header, a chunk table and chunks, every part with its checksum.

    offset 0   prologue   64 bytes: sizes and checksums of what follows (`_PROLOGUE`)
               header     JSON, deflated
               table      one row per chunk, column by column, deflated
               payload    the chunks, one after the other in the order of the table
               header and table once more (unless the prologue says no)
               prologue once more
    last 32    SHA-256 of all bytes before it

A chunk's place is the sum of the lengths before it: chunks can neither overlap nor leave gaps.
Checksums are CRC-32 (zlib): they find damage, not forgery. The last chunk may be parity
(`repair`), which undoes damage to all that lies before it. No size is believed before it is
compared with the file. This module knows bytes only: neither voxels nor networks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

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

# magic, major, minor, file bytes, payload bytes, header bytes, its CRC, table bytes, its CRC,
# chunks, flags, reserved, CRC of all this
_PROLOGUE = struct.Struct("<4sHHQQIIIIII12xI")
_ROW_BYTES = 4 + 2 + 4 + 4
_DIGEST_BYTES = 32
_SECOND_COPY = 1
_MAX_HEADER_BYTES = 1 << 22
_MAX_CHUNKS = 1 << 20
_SMALLEST_FILE = 2 * _PROLOGUE.size + _DIGEST_BYTES
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
    """A row of the chunk table, with the chunk's place in the file."""

    index: int
    block: int
    kind: int
    offset: int
    length: int
    crc: int


@dataclass(frozen=True)
class Frame:
    """Everything of a file but its payload, ready to be written around it."""

    front: bytes
    back: bytes
    file_bytes: int


def build_frame(
    header: Mapping[str, Any], chunks: Sequence[Chunk], *, second_copy: bool = True
) -> Frame:
    """Lay out a file. Without `second_copy`, damage to header or table cannot be repaired."""
    if len(chunks) > _MAX_CHUNKS:
        raise InputError(
            f"the volume would need {len(chunks)} chunks, {_MAX_CHUNKS} are allowed",
            "Compress it in parts.",
        )
    head = zlib.compress(_header_bytes(header), 9)
    table = zlib.compress(_table_bytes(chunks), 9)
    payload = sum(len(chunk.data) for chunk in chunks)
    copies = 2 if second_copy else 1
    size = _SMALLEST_FILE + copies * (len(head) + len(table)) + payload
    prologue = _PROLOGUE.pack(
        MAGIC,
        *VERSION,
        size,
        payload,
        len(head),
        zlib.crc32(head),
        len(table),
        zlib.crc32(table),
        len(chunks),
        _SECOND_COPY if second_copy else 0,
        0,
    )
    prologue = prologue[:-4] + struct.pack("<I", zlib.crc32(prologue[:-4]))
    repeated = head + table if second_copy else b""
    return Frame(prologue + head + table, repeated + prologue, size)


def with_repair(
    header: Mapping[str, Any],
    chunks: Sequence[Chunk],
    *,
    second_copy: bool = True,
) -> tuple[Frame, list[Chunk]]:
    """Lay out a file that ends in its repair chunk, where that pays.

    Its length and its checksum are known before its bytes are: header and table, which it covers,
    do not depend on what it holds.
    """
    frame = build_frame(header, chunks, second_copy=second_copy)
    payload = sum(len(chunk.data) for chunk in chunks)
    layout = Layout.of_size(len(frame.front) + payload)
    if layout is None:
        return frame, list(chunks)
    blank = Chunk(NO_BLOCK, REPAIR_CHUNK, layout.placeholder())
    frame = build_frame(header, [*chunks, blank], second_copy=second_copy)
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
    is_cut: whether its end is missing. bytes_read: how much of it has been read so far.
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
        self.is_cut = False
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
        self.close()

    def close(self) -> None:
        """Let the file go."""
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
        kept = [chunk for chunk in self.chunks if not _is_repair(chunk)]
        return [Chunk(chunk.block, chunk.kind, self.read(chunk)) for chunk in kept]

    def damages(self) -> list[Damage] | None:
        """All damage to what the repair chunk covers; None where there is none that can be used.

        Reads the whole file.
        """
        found = self._repair_chunk()
        return None if found is None else found.find(self._bytes_or_zeros)

    def has_sound_repair(self) -> bool:
        """Whether the repair chunk is what it has to be, or the file has none; reads all of it."""
        rows = [chunk for chunk in self.chunks if _is_repair(chunk)]
        if not rows:
            return True
        found = self._repair_chunk()
        if found is None:
            return False
        starts = range(0, found.covered, _AT_ONCE)
        parts = (self._bytes_at(at, min(_AT_ONCE, found.covered - at)) for at in starts)
        return found.is_of(parts)

    def _repair_chunk(self) -> RepairChunk | None:
        rows = [chunk for chunk in self.chunks if _is_repair(chunk)]
        if len(rows) != 1 or rows[0].offset + rows[0].length > self.size:
            return None
        return RepairChunk.at(self._bytes_or_zeros, rows[0].offset, rows[0].length)

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
        return CodecError(
            f"{self.path.name} is damaged: chunk {chunk.index} at byte {chunk.offset} {says}",
            _RECOVER,
        )

    def is_sealed(self) -> bool:
        """Whether the SHA-256 at the end of the file fits its bytes; reads the whole file."""
        digest = hashlib.sha256()
        left = self.size - _DIGEST_BYTES
        self._stream.seek(0)
        while left > 0 and (piece := self._stream.read(min(left, 1 << 20))):
            digest.update(piece)
            left -= len(piece)
        return self._stream.read(_DIGEST_BYTES) == digest.digest()

    def spare_damage(self) -> str:
        """The sentence that names damage which no voxel lies in; "" where there is none.

        Such damage is found by the SHA-256 at the end alone: the whole file is read for it. What
        was repaired was reported already.
        """
        if self._repaired or self.is_cut or self.header_copy != "first":
            return ""
        with contextlib.suppress(OSError):  # a disk that cannot read a place of it
            if self.is_sealed():
                return ""
        return (
            f"{self.path.name} is damaged, but whole: bytes in which no voxel lies changed since it"
            f" was written. Write it anew (medenhance recover {self.path.name} NEW.ucv), or copy it"
            " again"
        )

    def _load(self, tolerant: bool) -> None:
        problems: list[CodecError] = []
        places = zip(self._ends()[: 1 + tolerant], ("the beginning", "the end"), strict=False)
        for prologue_at, place in places:
            try:
                prologue = self._prologue(prologue_at, place, tolerant)
            except CodecError as problem:
                problems.append(problem)
                continue
            for header_at, copy in prologue.places(tolerant):
                try:
                    self._load_header_and_table(prologue, header_at)
                except CodecError as problem:
                    problems.append(problem)
                    continue
                self.notes += [problem.message for problem in problems]
                self.version, self.header_copy = prologue.version, copy
                self.is_cut = self.size < prologue.file_bytes
                self._check_size(prologue, tolerant)
                return
        if tolerant and not any(map(self._begins_at, self._ends())):
            raise self._no_container("no MedEnhance header stands at its beginning or its end")
        raise problems[0]

    def _ends(self) -> tuple[int, ...]:
        """Where a prologue stands: at the beginning, and again before the seal."""
        last = self.size - _DIGEST_BYTES - _PROLOGUE.size
        return (0, last) if self.size >= _SMALLEST_FILE else (0,)

    def _begins_at(self, offset: int) -> bool:
        return self._bytes_at(offset, len(MAGIC)) == MAGIC

    def _no_container(self, reason: str) -> NoContainerError:
        return NoContainerError(
            f"{self.path.name} is not a .ucv: {reason}", "Choose a file that MedEnhance compressed."
        )

    def _prologue(self, offset: int, place: str, tolerant: bool) -> _Prologue:
        raw = self._bytes_at(offset, _PROLOGUE.size)
        if self.size == 0:
            raise NoContainerError(f"{self.path.name} is empty (0 bytes)", "Copy the file again.")
        if not tolerant and not any(map(self._begins_at, self._ends())):
            raise self._no_container(f"it does not begin with {MAGIC.decode()}")
        if len(raw) < _PROLOGUE.size:
            self._fail(f"cut short at byte {self.size}, before the first chunk")
        prologue = _Prologue._make(_PROLOGUE.unpack(raw))
        if prologue.magic != MAGIC or zlib.crc32(raw[:-4]) != prologue.crc:
            self._fail(
                f"the prologue at byte {offset} ({place}) is damaged, before the first chunk"
            )
        if prologue.major != VERSION[0]:
            raise CodecError(
                f"{self.path.name} has format {prologue.version}, this version reads "
                f"{VERSION[0]}.x",
                "Install a newer MedEnhance (python -m pip install --upgrade medenhance).",
            )
        return prologue

    def _load_header_and_table(self, prologue: _Prologue, offset: int) -> None:
        head = self._checked(offset, prologue.header_bytes, prologue.header_crc, "header")
        table = self._checked(
            offset + prologue.header_bytes, prologue.table_bytes, prologue.table_crc, "chunk table"
        )
        if prologue.chunk_count > min(prologue.payload_bytes, _MAX_CHUNKS):
            self._fail(
                f"{prologue.chunk_count} chunks in {prologue.payload_bytes} bytes of payload"
            )
        text = self._inflated(head, _MAX_HEADER_BYTES, "header", offset)
        rows = self._inflated(table, prologue.chunk_count * _ROW_BYTES, "chunk table", offset)
        if len(rows) != prologue.chunk_count * _ROW_BYTES:
            self._fail(f"the chunk table has {len(rows)} bytes for {prologue.chunk_count} chunks")
        self.header = self._parsed(text)
        self.chunks = self._located(rows, prologue)

    def _checked(self, offset: int, length: int, crc: int, what: str) -> bytes:
        if length > self.size - offset:
            self._fail(
                f"the {what} at byte {offset} has {length} bytes, the file only {self.size}: "
                "it is cut short before the first chunk"
            )
        data = self._bytes_at(offset, length)
        if zlib.crc32(data) != crc:
            self._fail(f"the {what} at byte {offset} is damaged (checksum), before the first chunk")
        return data

    def _inflated(self, data: bytes, limit: int, what: str, offset: int) -> bytes:
        inflater = zlib.decompressobj()
        try:
            # Never 0: zlib takes that for "no limit".
            plain = inflater.decompress(data, limit + 1)
        except zlib.error as cause:
            raise self._error(f"the {what} at byte {offset} cannot be inflated: {cause}") from cause
        if len(plain) > limit or not inflater.eof or inflater.unused_data:
            self._fail(f"the {what} at byte {offset} does not have the size it should")
        return plain

    def _parsed(self, text: bytes) -> dict[str, Any]:
        try:
            header = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as cause:
            raise self._error(f"the header is not JSON: {cause}") from cause
        if not isinstance(header, dict):
            self._fail("the header is not a JSON object")
        return header

    def _located(self, rows: bytes, prologue: _Prologue) -> tuple[ChunkInfo, ...]:
        count = prologue.chunk_count
        columns = struct.unpack(f"<{count}I{count}H{count}I{count}I", rows)
        blocks, kinds, lengths, crcs = (
            columns[start * count : (start + 1) * count] for start in range(4)
        )
        if sum(lengths) != prologue.payload_bytes or not all(lengths):
            self._fail("the lengths of the chunks do not add up to the payload")
        chunks, offset = [], prologue.payload_offset
        for index, (block, kind, length, crc) in enumerate(
            zip(blocks, kinds, lengths, crcs, strict=True)
        ):
            chunks.append(ChunkInfo(index, block, kind, offset, length, crc))
            offset += length
        return tuple(chunks)

    def _check_size(self, prologue: _Prologue, tolerant: bool) -> None:
        if prologue.expected_bytes != prologue.file_bytes:
            self._fail(f"its parts have {prologue.expected_bytes} bytes, not {prologue.file_bytes}")
        if self.size == prologue.file_bytes:
            return
        if self.size > prologue.file_bytes:
            says = f"{self.size - prologue.file_bytes} bytes follow the last chunk and its end"
        else:
            cut = next((c for c in self.chunks if c.offset + c.length > self.size), None)
            lost = (
                f"chunk {cut.index} at byte {cut.offset} and those after it are incomplete"
                if cut
                else "every chunk is intact, the second chunk table is not"
            )
            says = f"cut short, {self.size} of {prologue.file_bytes} bytes: {lost}"
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
        return self._as_repaired(offset, data)

    def _as_repaired(self, offset: int, data: bytes) -> bytes:
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
    payload_bytes: int
    header_bytes: int
    header_crc: int
    table_bytes: int
    table_crc: int
    chunk_count: int
    flags: int
    crc: int

    @property
    def version(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def payload_offset(self) -> int:
        return _PROLOGUE.size + self.header_bytes + self.table_bytes

    @property
    def expected_bytes(self) -> int:
        copies = 2 if self.flags & _SECOND_COPY else 1
        parts = copies * (self.header_bytes + self.table_bytes)
        return _SMALLEST_FILE + parts + self.payload_bytes

    def places(self, tolerant: bool) -> Iterator[tuple[int, str]]:
        yield _PROLOGUE.size, "first"
        if tolerant and self.flags & _SECOND_COPY:
            yield self.payload_offset + self.payload_bytes, "second"


def _header_bytes(header: Mapping[str, Any]) -> bytes:
    text = json.dumps(
        header, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
    ).encode()
    if len(text) > _MAX_HEADER_BYTES:
        raise InputError(
            f"the header would have {len(text)} bytes, {_MAX_HEADER_BYTES} are allowed",
            "Shorten the volume's history.",
        )
    return text


def _table_bytes(chunks: Sequence[Chunk]) -> bytes:
    count = len(chunks)
    return struct.pack(
        f"<{count}I{count}H{count}I{count}I",
        *(chunk.block for chunk in chunks),
        *(chunk.kind for chunk in chunks),
        *(len(chunk.data) for chunk in chunks),
        *(zlib.crc32(bytes(chunk.data)) for chunk in chunks),
    )


def _is_repair(chunk: ChunkInfo) -> bool:
    return chunk.block == NO_BLOCK and chunk.kind == REPAIR_CHUNK


def repaired_text(name: str, damages: Sequence[Damage]) -> str:
    """The sentence that says which damage was repaired, and what to do about it."""
    first, more = damages[0], len(damages) - 1
    places = f" and {more} more place{'s' if more > 1 else ''}" if more else ""
    return (
        f"{name} is damaged: {first.length} bytes at byte {first.offset}{places} were repaired from"
        " its parity. The file itself is still damaged: copy it again, or write it anew"
        f" (medenhance recover {name} NEW.ucv)"
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _open(path: Path) -> BinaryIO:
    refuse_pipe(path)
    try:
        return path.open("rb")
    except OSError as cause:
        raise input_error(path, cause) from cause
