"""From a container to a file of voxels, a run of slices at a time: for volumes beyond memory."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from MedEnhanceLib.core.slabs import blank
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.files import save_slabs
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.blocks import Range, Region, resolve_region, whole_region
from MedEnhanceLib.unicompress.container import ChunkInfo, Container
from MedEnhanceLib.unicompress.decode import (
    allocate_voxels,
    check_layers,
    check_voxels,
    chunks_by_block,
    coarse_header,
    decode_chunks,
    paste,
)
from MedEnhanceLib.unicompress.header import Header


def decompress_to(
    path: str | Path,
    output: str | Path,
    *,
    region: Region | None = None,
    layers: int | None = None,
    overwrite: bool = False,
    monitor: Monitor | None = None,
    threads: int = 0,
) -> Volume:
    """As `decompress`, into a file that any format of `io.save` may have.

    At most one run of slices is in memory; the file appears once all voxels fit their SHA-256.
    Returns the volume with a blank in place of its voxels: shape, type and meaning are true.
    Raises as `decompress` and `io.save`; OutputError where the disk has no room for the voxels.
    """
    monitor = monitor or Monitor()
    check_layers(layers)
    with Container(Path(path)) as container:
        header = Header.from_json(container.header, container.path.name)
        ranges = resolve_region(region, header.shape)
        chunks = chunks_by_block(container, header, layers)
        coarse = coarse_header(container, header, layers)
        outline = _outline(coarse or header, ranges, Path(output), container)
        parts = _runs(container, header, ranges, chunks, threads, monitor, layers)
        if coarse is None and ranges == whole_region(header.shape):
            parts = _proved(parts, header, container.path.name, monitor)
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
    layers: int | None,
) -> Iterator[Voxels]:
    """The region, cut where its blocks meet along k: arrays [n, J, I]."""
    grid = header.grid
    blocks = list(grid.blocks_in(ranges))
    wanted = (chunks[block] for block in blocks)
    decoded = decode_chunks(
        container, header, wanted, threads=threads, monitor=monitor, layers=layers
    )
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
    parts: Iterable[Voxels], header: Header, name: str, monitor: Monitor
) -> Iterator[Voxels]:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.view(np.uint8).data)
        yield part
    check_voxels(header, digest.hexdigest(), name, monitor)
