"""From a container back to a volume, or to a part of it; reads no more than it needs."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from MedEnhanceLib.errors import CodecError, ConfigError, DeviceMemoryError
from MedEnhanceLib.manifest import derived_note
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.unicompress import wavelet
from MedEnhanceLib.unicompress.blocks import Box, Range, Region, resolve_region, whole_region
from MedEnhanceLib.unicompress.coders import (
    CODERS,
    LEARNED,
    VOXEL_TYPES,
    WAVELET,
    Shape,
)
from MedEnhanceLib.unicompress.config import thread_count
from MedEnhanceLib.unicompress.container import NO_BLOCK, ChunkInfo, Container
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.unicompress.header import Header, memory_limit
from MedEnhanceLib.unicompress.integers import from_integers, split_record
from MedEnhanceLib.unicompress.learned import decode_learned
from MedEnhanceLib.unicompress.pool import ordered_map
from MedEnhanceLib.unicompress.verify import voxels_sha256
from MedEnhanceLib.volume import Volume, Voxels, restore_dtype

#: What codecs and numpy raise on bytes that make no sense.
FOREIGN_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError, struct.error)

#: Learned blocks are decoded side by side up to so many voxels: wide steps, little overhead.
_VOXELS_AT_ONCE = 1 << 24


def decompress(
    path: str | Path,
    *,
    region: Region | None = None,
    layers: int | None = None,
    monitor: Monitor | None = None,
    threads: int = 0,
) -> Volume:
    """Read a `.ucv`, or the blocks of it that `region` touches and nothing else.

    region: slices over [T,] K, J, I, without steps; the geometry follows the crop.
    layers: how many layers of refinement to read, 1 or more; None reads all. A file with one
        layer, as every classical block type writes it, is read whole for any number.
    Returns the volume in the type it came in; `source` is the path.
    A whole volume is compared with its SHA-256, a part with its chunks' checksums.
    Raises CodecError naming the damaged chunk and its byte, ConfigError for a region that is
    none, DeviceMemoryError where the voxels would not fit into this machine's memory.
    """
    monitor = monitor or Monitor()
    check_layers(layers)
    with Container(Path(path)) as container:
        header = Header.from_json(container.header, container.path.name)
        size = container.size
        ranges = resolve_region(region, header.shape)
        chunks = chunks_by_block(container, header, layers)
        voxels = allocate_voxels(header, ranges, container.path.name)
        blocks = list(header.grid.blocks_in(ranges))
        wanted = (chunks[block] for block in blocks)
        decoded = decode_chunks(container, header, wanted, threads=threads, monitor=monitor)
        for count, (block, content) in enumerate(zip(blocks, decoded, strict=True), 1):
            paste(voxels, ranges, header.grid.box(block), content)
            monitor.progress(count / len(blocks), "decompress")
    if ranges == whole_region(header.shape):
        check_voxels(header, voxels_sha256(voxels), container.path.name, monitor)
    start = (ranges[1][0], ranges[2][0], ranges[3][0])
    return header.volume(voxels, header.geometry.cropped(start), str(path), size)


def decompress_preview(
    path: str | Path, *, monitor: Monitor | None = None, threads: int = 0
) -> tuple[Volume, float]:
    """A `.ucv` to be looked at while the rest is still to be read: the volume on its whole grid.

    Where the file has several layers, the first one; else the blocks that the three middle planes
    touch, of the first frame of a sequence, in a volume that holds the lowest stored value
    everywhere else. The history says so. Returns the share of the blocks that were decoded too.
    Of several layers the first one is enough: a file whose end is still to come opens too, with a
    warning. Raises as `decompress`.
    """
    monitor = monitor or Monitor()
    with _open_begun(Path(path), monitor) as container:
        header = Header.from_json(container.header, container.path.name)
        size = container.size
        has_layers = any(chunk.layer > 0 for chunk in container.chunks)
        chunks = chunks_by_block(container, header, 1 if has_layers else None)
        ranges = whole_region(header.shape)
        voxels = allocate_voxels(header, ranges, container.path.name)
        everything = range(len(header.grid))
        blocks = sorted(everything if has_layers else _blocks_of_middle_planes(header))
        if len(blocks) < len(everything):
            voxels[...] = header.voxel_range[0] if header.voxel_range else 0
        wanted = (chunks[block] for block in blocks)
        decoded = decode_chunks(container, header, wanted, threads=threads, monitor=monitor)
        for count, (block, content) in enumerate(zip(blocks, decoded, strict=True), 1):
            paste(voxels, ranges, header.grid.box(block), content)
            monitor.progress(count / len(blocks), "decompress")
    share = len(blocks) / len(everything)
    if has_layers or share < 1:
        note = derived_note("opened as a preview, without all of the file")
        header = replace(header, history=(*header.history, note))
    return header.volume(voxels, header.geometry, str(path), size), share


def _open_begun(path: Path, monitor: Monitor) -> Container:
    """Open a file; one that is cut short too, where all of its first layer came before the cut."""
    try:
        return Container(path)
    except CodecError:
        container = Container(path, tolerant=True)
        voxel_chunks = [chunk for chunk in container.chunks if chunk.block != NO_BLOCK]
        has_layers = any(chunk.layer > 0 for chunk in voxel_chunks)
        ends = (chunk.offset + chunk.length for chunk in voxel_chunks if chunk.layer == 0)
        if container.is_cut and has_layers and max(ends, default=0) <= container.size:
            monitor.warn(container.notes[-1])
            return container
        container.close()
        raise


def _blocks_of_middle_planes(header: Header) -> set[int]:
    spans = whole_region(header.shape)[1:]
    blocks: set[int] = set()
    for axis, (start, stop) in enumerate(spans):
        middle = (start + stop) // 2
        plane = [*spans]
        plane[axis] = (middle, middle + 1)
        blocks.update(header.grid.blocks_in(((0, 1), *plane)))
    return blocks


def chunks_by_block(
    container: Container, header: Header, layers: int | None = None
) -> dict[int, ChunkInfo]:
    """Block number → its chunk; raises CodecError unless every block has exactly one."""
    count = len(header.grid)
    chunks: dict[int, ChunkInfo] = {}
    for chunk in container.chunks:
        if chunk.block == NO_BLOCK or (layers is not None and chunk.layer >= layers):
            continue
        if chunk.layer > 0:
            raise _unknown_type(container, header, chunk, f"layer {chunk.layer}")
        if chunk.block >= count or chunk.block in chunks:
            raise container.damaged(chunk, f"is for block {chunk.block}, which it cannot be")
        chunks[chunk.block] = chunk
    if len(chunks) < count:
        lost = next(block for block in range(count) if block not in chunks)
        raise CodecError(
            f"{container.path.name} is damaged: block {lost} of {count} has no chunk",
            "Copy the file again, or save what is intact (medenhance recover).",
        )
    return chunks


def decode_chunks(
    container: Container,
    header: Header,
    chunks: Iterable[ChunkInfo],
    *,
    threads: int,
    monitor: Monitor,
) -> Iterator[Voxels]:
    """Decode chunks in threads; blocks come in the order of `chunks`."""
    context = DecodeContext.of(container, header)
    decoded = ordered_map(
        lambda batch: _decode_batch(container, header, context, batch),
        ([(chunk, container.read(chunk)) for chunk in batch] for batch in _batches(header, chunks)),
        threads=thread_count(threads, wavelet.MOST_THREADS if header.mode == "ratio" else None),
        monitor=monitor,
    )
    for blocks in decoded:
        yield from blocks


def _batches(header: Header, chunks: Iterable[ChunkInfo]) -> Iterator[list[ChunkInfo]]:
    """Chunks of learned blocks that follow each other are decoded side by side, others alone."""
    most = max(1, _VOXELS_AT_ONCE // header.grid.largest_block)
    batch: list[ChunkInfo] = []
    for chunk in chunks:
        if batch and (chunk.kind != LEARNED or len(batch) >= most):
            yield batch
            batch = []
        batch.append(chunk)
        if chunk.kind != LEARNED:
            yield batch
            batch = []
    if batch:
        yield batch


def _decode_batch(
    container: Container,
    header: Header,
    context: DecodeContext,
    batch: list[tuple[ChunkInfo, bytes]],
) -> list[Voxels]:
    if len(batch) > 1:
        shapes = [header.grid.box(chunk.block).shape for chunk, _ in batch]
        try:
            return decode_learned([data for _, data in batch], shapes, context)
        except FOREIGN_ERRORS:
            pass  # one by one, to tell which of them cannot be decoded
    return [decode_chunk(container, header, context, *item) for item in batch]


def decode_chunk(
    container: Container, header: Header, context: DecodeContext, chunk: ChunkInfo, data: bytes
) -> Voxels:
    """A chunk's block, [k, j, i]; raises CodecError naming the chunk for bytes that cannot be."""
    if chunk.kind not in VOXEL_TYPES and chunk.kind not in CODERS:
        raise _unknown_type(container, header, chunk, f"block type {chunk.kind}")
    try:
        shape = header.grid.box(chunk.block).shape
        return decode_data(chunk.kind, data, shape, context)
    except FOREIGN_ERRORS as cause:
        raise container.damaged(chunk, f"cannot be decoded: {cause}") from cause


def decode_data(kind: int, data: bytes, shape: Shape, context: DecodeContext) -> Voxels:
    """The block that `data` codes; raises one of FOREIGN_ERRORS for bytes that cannot be."""
    dtype = context.dtype
    if kind == WAVELET:
        values = wavelet.decode(data, shape, wavelet.working_type(dtype))
        with np.errstate(over="ignore"):  # beyond the range of float16; clipped below
            voxels = restore_dtype(values, dtype)
        if context.voxel_range is None:
            return voxels
        low, high = (dtype.type(bound) for bound in context.voxel_range)
        clipped: Voxels = np.clip(voxels, low, high)
        return clipped
    if kind == LEARNED:
        return decode_learned([data], [shape], context)[0]
    record, width, code = split_record(data)
    return from_integers(record, CODERS[kind].decode(code, shape, width), dtype, shape)


def allocate_voxels(header: Header, ranges: tuple[Range, ...], name: str) -> Voxels:
    """Room for a region, [T,] K, J, I; raises DeviceMemoryError where there is none."""
    extents = [stop - start for start, stop in ranges]
    shape = tuple(extents if len(header.shape) == 4 else extents[1:])
    size = int(np.prod(shape, dtype=object)) * header.dtype.itemsize
    try:
        if size > memory_limit():
            raise MemoryError
        return np.empty(shape, header.dtype)
    except MemoryError as cause:
        raise DeviceMemoryError(
            f"{name}: its voxels take {size / 1e9:.1f} GB, more than this machine's memory",
            "Decompress a region of it, or use a machine with more memory.",
        ) from cause


def paste(voxels: Voxels, ranges: tuple[Range, ...], box: Box, block: Voxels) -> None:
    """Put the part of `block`, which lies at `box`, that is inside the region into `voxels`."""
    target, source = [], []
    for (start, stop), (first, last) in zip(ranges[1:], (box.k, box.j, box.i), strict=True):
        low, high = max(start, first), min(stop, last)
        target.append(slice(low - start, high - start))
        source.append(slice(low - first, high - first))
    inside = voxels[box.frame - ranges[0][0]] if voxels.ndim == 4 else voxels
    inside[tuple(target)] = block[tuple(source)]


def check_layers(layers: int | None) -> None:
    """Raise ConfigError for a number of layers that is none."""
    if layers is not None and layers < 1:
        raise ConfigError(f"layers is {layers}", "Use 1 or more, or None for all.")


def check_voxels(header: Header, sha256: str, name: str, monitor: Monitor) -> None:
    """Compare the hash of all decoded voxels with the header's; CodecError where it must fit."""
    if sha256 == header.voxels_sha256:
        return
    if header.exact:
        raise CodecError(
            f"{name}: every chunk is intact, yet the voxels are not those of the source (SHA-256)",
            "The file was forged, or this machine's memory is failing: try another machine.",
        )
    monitor.warn(
        f"{name}: decoded with another build of its codec than it was written with; "
        "voxels may differ from those at writing in the last bit"
    )


def _unknown_type(container: Container, header: Header, chunk: ChunkInfo, what: str) -> CodecError:
    names = ", ".join(model["id"] for model in header.models.values())
    needs = f" with its models ({names})" if names else ""
    return CodecError(
        f"{container.path.name}: chunk {chunk.index} at byte {chunk.offset} has {what}, which "
        f"this version does not know; it was written by {header.encoder}",
        f"Install that version or a newer one{needs} (python -m pip install --upgrade medenhance).",
    )
