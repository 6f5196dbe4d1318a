"""From a container back to a volume, a part of it, or a file; reads no more than it needs.

`decompress_to` writes a run of slices at a time, for volumes beyond memory.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from MedEnhanceLib.core.slabs import blank
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import CodecError, DeviceMemoryError, OutputError
from MedEnhanceLib.io.volume_files import save_slabs
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.unicompress.blocks import (
    Box,
    Range,
    Region,
    ordered_map,
    resolve_region,
    slices_text,
    whole_region,
)
from MedEnhanceLib.unicompress.codecs.integers import from_integers, split_record
from MedEnhanceLib.unicompress.codecs.lossless import (
    CODERS,
    IMPLICIT,
    LEARNED,
    VIDEO,
    VOXEL_TYPES,
    Shape,
)
from MedEnhanceLib.unicompress.codecs.predictor.learned import decode_learned
from MedEnhanceLib.unicompress.codecs.video import video
from MedEnhanceLib.unicompress.config import thread_count
from MedEnhanceLib.unicompress.container import NO_BLOCK, ChunkInfo, Container
from MedEnhanceLib.unicompress.header import Header, memory_limit
from MedEnhanceLib.unicompress.models import DecodeContext
from MedEnhanceLib.unicompress.verify import voxels_sha256

#: What codecs and numpy raise on bytes that make no sense.
FOREIGN_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError, struct.error)


def decompress(
    path: str | Path,
    *,
    region: Region | None = None,
    monitor: Monitor | None = None,
    threads: int = 0,
) -> Volume:
    """Read a `.ucv`, or the blocks of it that `region` touches and nothing else.

    A whole volume is compared with its SHA-256, a part with its chunks' checksums. Damage that the
    file's parity undoes is a warning; where all is read, so is damage in which no voxel lies.

    Args:
        path: of the file.
        region: slices over [T,] K, J, I, without steps; the geometry follows the crop.
        monitor: receives progress and warnings, and may cancel.
        threads: 0 takes all processors, up to 16.
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
        size = container.size
        ranges = resolve_region(region, header.shape)
        chunks = chunks_by_block(container, header)
        voxels = allocate_voxels(header, ranges, container.path.name)
        wanted = [chunks[block] for block in header.grid.blocks_in(ranges)]
        decoded = decode_chunks(container, header, wanted, threads=threads, monitor=monitor)
        for count, (chunk, content) in enumerate(zip(wanted, decoded, strict=True), 1):
            paste(voxels, ranges, header.grid.box(chunk.block), content)
            monitor.progress(count / len(wanted), "decompress")
        if ranges == whole_region(header.shape):
            _warn_of_spare_damage(container, monitor)
    if ranges == whole_region(header.shape):
        check_voxels(header, voxels_sha256(voxels), container.path.name, monitor)
    start = (ranges[1][0], ranges[2][0], ranges[3][0])
    return header.volume(voxels, header.geometry.cropped(start), str(path), size)


def chunks_by_block(container: Container, header: Header) -> dict[int, ChunkInfo]:
    """Block number → its chunk; raises CodecError unless every block has exactly one."""
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
    """Decode chunks in threads; in the order of `chunks`."""
    context = DecodeContext.of(container, header)

    def read(chunk: ChunkInfo) -> tuple[ChunkInfo, bytes]:
        try:
            return chunk, container.read(chunk)
        except CodecError as damage:
            lost = slices_text(_lost_places(container, header))
            raise CodecError(f"{damage.message}; lost: {lost}", damage.hint) from damage

    yield from ordered_map(
        lambda item: decode_chunk(container, header, context, *item),
        map(read, chunks),
        threads=thread_count(
            threads, None if header.mode in ("lossless", "max_error") else video.MOST_THREADS
        ),
        monitor=monitor,
    )


def _lost_places(
    container: Container, header: Header
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Where the blocks lie whose bytes are damaged; reads all of the file."""
    for chunk in container.chunks:
        if chunk.block < len(header.grid):
            try:
                container.read(chunk)
            except CodecError:
                yield header.grid.box(chunk.block).place(len(header.shape))


def decode_chunk(
    container: Container,
    header: Header,
    context: DecodeContext,
    chunk: ChunkInfo,
    data: bytes,
) -> Voxels:
    """A chunk's block, [k, j, i]; raises CodecError naming the chunk for bytes that cannot be."""
    if chunk.kind not in VOXEL_TYPES and chunk.kind not in CODERS:
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
        return decode_data(chunk.kind, data, shape, context)
    except FOREIGN_ERRORS as cause:
        raise container.damaged(chunk, f"cannot be decoded: {cause}") from cause


def decode_data(kind: int, data: bytes, shape: Shape, context: DecodeContext) -> Voxels:
    """The block that `data` codes; raises one of FOREIGN_ERRORS for bytes that cannot be."""
    dtype = context.dtype
    if kind == IMPLICIT:
        require("torch", purpose="Implicit blocks")
        from MedEnhanceLib.unicompress.codecs.implicit.codec import decode_implicit

        return decode_implicit(data, shape, context)
    if kind == VIDEO:
        return video.decode(data, shape, context)
    if kind == LEARNED:
        return decode_learned(data, shape, context)
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


def _warn_of_spare_damage(container: Container, monitor: Monitor) -> None:
    """Nothing is lost yet: whoever reads all of a file is the one who can have it written anew."""
    damage = attend(container.spare_damage, monitor)
    if damage:
        monitor.warn(damage)


def decompress_to(
    path: str | Path,
    output: str | Path,
    *,
    region: Region | None = None,
    overwrite: bool = False,
    monitor: Monitor | None = None,
    threads: int = 0,
) -> Volume:
    """As `decompress`, into a file that any format of `io.save` may have.

    At most one run of slices is in memory; the file appears once all voxels fit their SHA-256.

    Args:
        path: of the `.ucv`.
        output: of the file to write; its ending says the format.
        region: as for `decompress`.
        overwrite: whether a file at `output` is replaced.
        monitor: receives progress and warnings, and may cancel.
        threads: 0 takes all processors, up to 16.
    Returns:
        The volume with a blank in place of its voxels: shape, type and meaning are true.
    Raises:
        OutputError: the disk has no room for the voxels; else as `decompress` and `io.save`.
    """
    monitor = monitor or Monitor()
    with Container(Path(path), warn=monitor.warn) as container:
        header = Header.from_json(container.header, container.path.name)
        ranges = resolve_region(region, header.shape)
        chunks = chunks_by_block(container, header)
        outline = _outline(header, ranges, Path(output), container)
        parts = _runs(container, header, ranges, chunks, threads, monitor)
        if ranges == whole_region(header.shape):
            parts = _proved(parts, header, container, monitor)
        save_slabs(outline, parts, output, overwrite=overwrite, monitor=monitor)
    return outline


def _outline(
    header: Header, ranges: tuple[Range, ...], output: Path, container: Container
) -> Volume:
    extents = [stop - start for start, stop in ranges]
    shape = tuple(extents[4 - len(header.shape) :])
    size = math.prod(shape) * header.dtype.itemsize
    # A header may claim any size: a few bytes must not fill a disk.
    free = shutil.disk_usage(output.parent).free if output.parent.is_dir() else size
    if size > free and not output.name.lower().endswith(".gz"):
        raise OutputError(
            f"{output}: no space left on the disk: {container.path.name} holds {size / 1e9:.1f} GB"
            f" of voxels, {free / 1e9:.1f} GB are free",
            "Free some space, write to another disk, or decompress a region.",
        )
    start = (ranges[1][0], ranges[2][0], ranges[3][0])
    geometry = header.geometry.cropped(start)
    voxels = blank(shape, header.dtype)
    return header.volume(voxels, geometry, str(container.path), container.size)


def _runs(
    container: Container,
    header: Header,
    ranges: tuple[Range, ...],
    chunks: dict[int, ChunkInfo],
    threads: int,
    monitor: Monitor,
) -> Iterator[Voxels]:
    """The region, cut where its blocks meet along k: arrays [n, J, I]."""
    grid = header.grid
    blocks = list(grid.blocks_in(ranges))
    wanted = (chunks[block] for block in blocks)
    decoded = decode_chunks(container, header, wanted, threads=threads, monitor=monitor)
    done = 0
    for _, run in groupby(blocks, grid.layer_of):
        run_blocks = list(run)
        box = grid.box(run_blocks[0])
        slices = max(box.k[0], ranges[1][0]), min(box.k[1], ranges[1][1])
        part = ((box.frame, box.frame + 1), slices, *ranges[2:])
        voxels = allocate_voxels(header, part, container.path.name)
        for block in run_blocks:
            paste(voxels, part, grid.box(block), next(decoded))
        done += len(run_blocks)
        monitor.progress(done / len(blocks), "decompress")
        yield voxels.reshape(-1, *voxels.shape[-2:])


def _proved(
    parts: Iterable[Voxels], header: Header, container: Container, monitor: Monitor
) -> Iterator[Voxels]:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.view(np.uint8).data)
        yield part
    check_voxels(header, digest.hexdigest(), container.path.name, monitor)
    _warn_of_spare_damage(container, monitor)
