"""Decoding of a container to a volume, or a part of it; reads no more than it needs."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import CodecError, DeviceMemoryError, InputError
from MedEnhanceLib.runtime.machine import memory
from MedEnhanceLib.runtime.ordered import ordered_map
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.blocks import (
    Box,
    Range,
    Region,
    resolve_region,
    slices_text,
    whole_region,
)
from MedEnhanceLib.unicompress.codec_models import DecodeContext
from MedEnhanceLib.unicompress.codecs.block_types import BLOCK_TYPES, FOREIGN_ERRORS
from MedEnhanceLib.unicompress.codecs.predictor.learned import LEARNED
from MedEnhanceLib.unicompress.codecs.video import video
from MedEnhanceLib.unicompress.config import thread_count
from MedEnhanceLib.unicompress.container import NO_BLOCK, ChunkInfo, Container
from MedEnhanceLib.unicompress.header import Header
from MedEnhanceLib.unicompress.verify import voxels_sha256

#: Most bytes of voxels if this machine's memory is unknown.
_UNKNOWN_MEMORY = 16 << 30
#: Most bytes of decoded blocks that open volumes keep.
_KEPT_BYTES = 256 << 20
#: Voxels of the learned predictor that NumPy decodes in a second of a core.
_NUMPY_RATE = 800_000


def decompress(
    path: str | Path,
    *,
    region: Region | None = None,
    monitor: Monitor | None = None,
) -> Volume:
    """Read a `.ucv`, or the blocks of it that `region` touches and nothing else.

    A whole volume is compared with its SHA-256, a part with its chunks' checksums.

    Args:
        path: of the file.
        region: slices over [T,] K, J, I, without steps; the geometry follows the crop.
        monitor: receives progress and warnings, and may cancel.
    Returns:
        The volume in the type it came in; `source` is the path.
    Raises:
        CodecError: damage; names the chunk and its byte.
        ConfigError: a region outside the volume.
        DeviceMemoryError: the voxels would not fit into this machine's memory.
    """
    monitor = monitor or Monitor()
    with Container(Path(path), warn=monitor.warn) as container:
        header = Header.from_json(container.header, container.path.name)
        ranges = resolve_region(region, header.shape)
        blocks = list(header.grid.blocks_in(ranges))
        decoded = sound_blocks(container, header, blocks, monitor=monitor)
        numbered = zip(blocks, decoded, strict=True)
        return _assembled(container, header, ranges, numbered, monitor)


def _assembled(
    container: Container,
    header: Header,
    ranges: tuple[Range, ...],
    blocks: Iterable[tuple[int, Voxels]],
    monitor: Monitor,
) -> Volume:
    """Put the blocks of a region together; errors as of `decompress`.

    Args:
        container: the open file.
        header: of the container.
        ranges: (start, stop) for t, k, j, i, see `resolve_region`.
        blocks: the number and the voxels of each block that the region touches.
        monitor: receives progress and warnings, and may cancel.
    """
    name, total = container.path.name, len(list(header.grid.blocks_in(ranges)))
    monitor.progress(0.0, "decompressing the volume")
    voxels = allocate_voxels(header, ranges, name)
    for count, (number, block) in enumerate(blocks, 1):
        _paste(voxels, ranges, header.grid.box(number), block)
        monitor.progress(count / total, "decompressing the volume")
    is_whole = ranges == whole_region(header.shape)
    if is_whole and voxels_sha256(voxels) != header.voxels_sha256:
        if header.exact:
            raise CodecError(
                f"{name}: every chunk is intact, yet the voxels are not those of the source "
                "(SHA-256)",
                "The file was forged, or this machine's memory is failing: try another one.",
            )
        monitor.warn(
            f"{name}: decoded with another build of its codec than at writing; voxels may differ "
            "in the last bit"
        )
    return _volume_of(container, header, ranges, voxels)


def outline(path: str | Path, region: Region | None = None) -> Volume:
    """Return the volume of `decompress` from the head alone, with meaningless voxels."""
    with Container(Path(path)) as container:
        header = Header.from_json(container.header, container.path.name)
        ranges = resolve_region(region, header.shape)
        voxels = allocate_voxels(header, ranges, container.path.name)
        return _volume_of(container, header, ranges, voxels)


def _volume_of(
    container: Container, header: Header, ranges: tuple[Range, ...], voxels: Voxels
) -> Volume:
    geometry = header.geometry.cropped((ranges[1][0], ranges[2][0], ranges[3][0]))
    frames = slice(*ranges[0])
    return header.volume(voxels, geometry, str(container.path), container.size, frames)


def _chunks_by_block(container: Container, header: Header) -> dict[int, ChunkInfo]:
    """Map block numbers to chunks; raises CodecError unless every block has exactly one."""
    count = len(header.grid)
    chunks: dict[int, ChunkInfo] = {}
    for chunk in container.chunks:
        if chunk.block == NO_BLOCK:
            continue
        if chunk.block >= count or chunk.block in chunks:
            raise container.damaged(chunk, f"is for block {chunk.block}, which it cannot be")
        chunks[chunk.block] = chunk
    if len(chunks) < count:
        lost = next(block for block in range(count) if block not in chunks)
        raise container.error(f"block {lost} of {count} has no chunk")
    return chunks


def sound_blocks(
    container: Container,
    header: Header,
    blocks: Sequence[int],
    *,
    threads: int = 0,
    monitor: Monitor,
) -> Iterator[Voxels]:
    """Decode blocks; raises CodecError at the first damaged one, which names all lost slices.

    Args:
        container: every block of the grid must have one chunk in it, else CodecError at once.
        header: of the container.
        blocks: numbers, in the order in which the voxels are yielded.
        threads: 0 takes all processors, up to 16.
        monitor: may cancel.
    """
    chunks = _chunks_by_block(container, header)
    decoded = decode_blocks(container, header, chunks, blocks, threads=threads, monitor=monitor)

    def sound(block: int, outcome: Voxels | CodecError) -> Voxels:
        if isinstance(outcome, CodecError):
            later = (each for each in blocks[blocks.index(block) + 1 :] if is_lost(each))
            places = [header.grid.box(each).place(len(header.shape)) for each in (block, *later)]
            lost = f"{outcome.message}; lost: {slices_text(places)}"
            raise CodecError(lost, outcome.hint) from outcome
        return outcome

    def is_lost(block: int) -> bool:
        monitor.check()
        try:
            container.read(chunks[block])
        except CodecError:
            return True
        return False

    return map(sound, blocks, decoded)


def decode_blocks(
    container: Container,
    header: Header,
    chunks: Mapping[int, ChunkInfo],
    blocks: Sequence[int],
    *,
    threads: int = 0,
    monitor: Monitor,
) -> Iterator[Voxels | CodecError]:
    """Decode blocks in threads; yields the voxels of each, or the error.

    Args:
        container: the open file.
        header: of the container.
        chunks: block number → chunk; a block without one yields an error.
        blocks: numbers, in the order in which the voxels are yielded.
        threads: 0 takes all processors, up to 16.
        monitor: may cancel.
    """
    context = DecodeContext.of(container, header)
    learned = [block for block in blocks if block in chunks and chunks[block].kind == LEARNED]
    if learned and native.load(monitor=monitor) is None:
        voxels = sum(math.prod(header.grid.box(block).shape) for block in learned)
        seconds = math.ceil(voxels / _NUMPY_RATE)
        monitor.warn(f"NumPy decodes {voxels:,} voxels instead, in about {seconds} s of CPU time")

    def read(block: int) -> tuple[ChunkInfo, bytes] | CodecError:
        if block not in chunks:
            return CodecError(f"{container.path.name}: block {block} has no chunk")
        try:
            return chunks[block], container.read(chunks[block])
        except CodecError as damage:
            return damage

    def decode(item: tuple[ChunkInfo, bytes] | CodecError) -> Voxels | CodecError:
        try:
            if isinstance(item, CodecError):
                return item
            return _decode_chunk(container, header, context, *item)
        except CodecError as damage:
            return damage

    video_threads = None if header.mode in ("lossless", "max_error") else video.MOST_THREADS
    threads = thread_count(threads, video_threads)
    yield from ordered_map(decode, map(read, blocks), threads=threads, monitor=monitor)


def _decode_chunk(
    container: Container,
    header: Header,
    context: DecodeContext,
    chunk: ChunkInfo,
    data: bytes,
) -> Voxels:
    """Decode a chunk's block, [k, j, i]; raises CodecError naming the chunk for invalid data."""
    if chunk.kind not in BLOCK_TYPES:
        names = ", ".join(model["id"] for model in header.models.values())
        needs = f" with its models ({names})" if names else ""
        raise CodecError(
            f"{container.path.name}: chunk {chunk.index} at byte {chunk.offset} has block type "
            f"{chunk.kind}, which this version does not know; it was written by {header.encoder}",
            f"Install that version or a newer one{needs} "
            "(python -m pip install --upgrade medenhance).",
        )
    try:
        shape = header.grid.box(chunk.block).shape
        return BLOCK_TYPES[chunk.kind].decode(data, shape, context)
    except FOREIGN_ERRORS as cause:
        raise container.damaged(chunk, f"cannot be decoded: {cause}") from cause


def allocate_voxels(header: Header, ranges: tuple[Range, ...], name: str) -> Voxels:
    """Allocate voxels of a region, [T,] K, J, I.

    Args:
        header: gives dtype and number of axes.
        ranges: (start, stop) for t, k, j, i, see `resolve_region`.
        name: of the file, for DeviceMemoryError where they would not fit.
    """
    shape = tuple(stop - start for start, stop in ranges[4 - len(header.shape) :])
    size = math.prod(shape) * header.dtype.itemsize
    try:
        if size > (memory()["total"] or _UNKNOWN_MEMORY):
            raise MemoryError
        return np.empty(shape, header.dtype)
    except MemoryError as cause:
        raise DeviceMemoryError(
            f"{name}: its voxels take {size / 1e9:.1f} GB, more than this machine's memory",
            "Decompress a region of it, or use a machine with more memory.",
        ) from cause


def _paste(voxels: Voxels, ranges: tuple[Range, ...], box: Box, block: Voxels) -> None:
    """Put the part of `block`, which lies at `box`, that is inside the region into `voxels`."""
    target, source = [], []
    for (start, stop), (first, last) in zip(ranges[1:], (box.k, box.j, box.i), strict=True):
        low, high = max(start, first), min(stop, last)
        target.append(slice(low - start, high - start))
        source.append(slice(low - first, high - first))
    inside = voxels[box.frame - ranges[0][0]] if voxels.ndim == 4 else voxels
    inside[tuple(target)] = block[tuple(source)]


class KeptBlocks:
    """The blocks that were decoded last, of all open volumes; threads may share it."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[Hashable, int], Voxels] = {}  # the last one was used last
        self._bytes, self._lock = 0, threading.Lock()

    def get(self, file: Hashable, number: int) -> Voxels | None:
        """Return a block; None if it is not kept.

        file: its path and state. number: of the block.
        """
        with self._lock:
            block = self._blocks.pop((file, number), None)
            if block is not None:
                self._blocks[file, number] = block
            return block

    def put(self, file: Hashable, number: int, block: Voxels) -> None:
        """Keep a block, and let go of those that were used longest ago.

        Args:
            file: its path and state.
            number: of the block.
            block: its voxels.
        """
        with self._lock:
            self._bytes += block.nbytes - self._take((file, number))
            self._blocks[file, number] = block
            while self._bytes > _KEPT_BYTES and len(self._blocks) > 1:
                self._bytes -= self._take(next(iter(self._blocks)))

    def forget(self, file: Hashable) -> None:
        """Let go of the blocks of a file; file: its path and state."""
        with self._lock:
            for key in [key for key in self._blocks if key[0] == file]:
                self._bytes -= self._take(key)

    def _take(self, key: tuple[Hashable, int]) -> int:
        block = self._blocks.pop(key, None)
        return 0 if block is None else block.nbytes


_kept = KeptBlocks()
if hasattr(os, "register_at_fork"):  # another thread may hold the lock meanwhile
    os.register_at_fork(after_in_child=_kept.__init__)  # type: ignore[misc]


class StoredVolume:
    """A `.ucv` that is read on demand, with the shape and type of an array.

        scan = me.open("scan.ucv")
        scan.shape, scan[40:60]                 # an array of these slices
        scan.read((slice(40, 60), ...))         # the same as a Volume, with its geometry

    The file is not kept open. A block is decoded as a whole; it has up to 256 slices in files of a
    ratio or a quality. Blocks that were decoded last stay in memory, up to 256 MB of all volumes
    together, until `close`, or the end of a `with`; a larger volume that is decoded whole is not
    kept.

    Attributes:
        shape: [T,] K, J, I.
        dtype, ndim, size, nbytes: as of an array.
        chunks: voxels of the blocks along each axis, as Dask states them.
        geometry: of the whole volume.
        affine: of it, 4×4: (column, row, slice) → mm in RAS.
    Raises InputError where it cannot be opened, CodecError where it is no container, or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()  # it stays this one if the working folder changes
        with Container(self.path) as container:
            self.header = Header.from_json(container.header, self.path.name)
            self._key = str(self.path), *container.state
        self.shape, self.dtype = self.header.shape, self.header.dtype
        self.ndim, self.geometry = len(self.shape), self.header.geometry
        self.size = math.prod(self.shape)
        self.nbytes = self.size * self.dtype.itemsize
        self.affine = self.geometry.affine_ras

    def __enter__(self) -> StoredVolume:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Voxels of the blocks along each axis; frames are blocks of their own."""
        grid = self.header.grid
        boxes = [grid.box(number) for number in range(len(grid))]
        ranges = [sorted({getattr(box, axis) for box in boxes}) for axis in "kji"]
        sides = [tuple(stop - start for start, stop in axis) for axis in ranges]
        return ((1,) * self.shape[0], *sides)[4 - self.ndim :]

    def close(self) -> None:
        """Let go of decoded blocks; the next use decodes again."""
        _kept.forget(self._key)

    def __repr__(self) -> str:
        size = f"{self.header.modality} {self.shape} {self.dtype}"
        return f"<StoredVolume {str(self.path)!r}: {size}, {self.header.mode}>"

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Voxels]:
        """Yield the frames of a sequence, or the slices of a volume; a block is decoded once."""
        grid = self.header.grid
        layers = [grid.box(block).k for block in range(0, len(grid), math.prod(grid.counts[1:]))]
        frames = [(frame, frame + 1) for frame in range(len(self))]
        for start, stop in frames if self.ndim == 4 else layers:
            yield from self[start:stop]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Voxels:
        """Decode all voxels; rules as of `Volume.__array__`."""
        if copy is False:
            raise ValueError("the voxels of a file are decoded into a new array")
        return self.read().__array__(dtype, copy)

    def __dlpack__(self, **options: Any) -> Any:
        """Decode all voxels for PyTorch, which otherwise asks for them one by one."""
        return np.array(self).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's number of the CPU."""
        return np.empty(0).__dlpack_device__()

    def __getitem__(self, key: Any) -> Voxels:
        """Return voxels by integers, slices and `...`, as NumPy does; InputError for other keys."""
        entries = list(key) if isinstance(key, tuple) else [key]
        kinds = (slice, EllipsisType, int, np.integer)
        if not all(isinstance(entry, kinds) and not isinstance(entry, bool) for entry in entries):
            types = ", ".join(type(entry).__name__ for entry in entries)
            raise InputError(
                f"unsupported index of type {types}",
                "Use integers, slices and `...`; for others, decode first: volume[:][mask].",
            )
        # A single number in the shape of the volume: NumPy's rules, without its memory.
        pattern: Voxels = np.broadcast_to(np.zeros((), self.dtype), self.shape)[key]
        if pattern.size == 0:
            return pattern.copy()
        gap = entries.index(...) if ... in entries else len(entries)
        entries[gap : gap + 1] = [slice(None)] * (self.ndim - len(entries) + (... in entries))
        axes = zip(entries, self.shape, strict=True)
        places = [np.atleast_1d(np.arange(extent)[entry]) for entry, extent in axes]
        part = self.read(tuple(slice(min(axis), max(axis) + 1) for axis in places))
        picked: Voxels = part.voxels[np.ix_(*(axis - min(axis) for axis in places))]
        voxels: Voxels = picked.reshape(pattern.shape)
        return voxels if voxels.ndim else voxels[()]  # a number, as NumPy returns it

    def read(self, region: Region | None = None) -> Volume:
        """Read a part as a Volume, or all of it; errors as `decompress`'s."""
        ranges = resolve_region(region, self.shape)
        with Container(self.path) as container:
            if container.state != self._key[1:]:
                raise CodecError(f"{self.path} has changed since it was opened", "Open it again.")
            blocks = self._decoded(container, ranges)
            return _assembled(container, self.header, ranges, blocks, Monitor())

    def _decoded(
        self, container: Container, ranges: tuple[Range, ...]
    ) -> Iterator[tuple[int, Voxels]]:
        """Yield the blocks in a region, from memory or decoded now."""
        missing = []
        for number in self.header.grid.blocks_in(ranges):
            if (block := _kept.get(self._key, number)) is None:
                missing.append(number)
            else:
                yield number, block
        decoded = sound_blocks(container, self.header, missing, monitor=Monitor())
        for number, block in zip(missing, decoded, strict=True):
            if self.nbytes <= _KEPT_BYTES or ranges != whole_region(self.shape):
                _kept.put(self._key, number, block)
            yield number, block
