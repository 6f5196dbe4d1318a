"""Saves what is intact in a damaged container, and tells what is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.blocks import whole_region
from MedEnhanceLib.unicompress.config import thread_count
from MedEnhanceLib.unicompress.container import NO_BLOCK, ChunkInfo, Container
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.unicompress.decode import (
    Bytes,
    allocate_voxels,
    batches,
    decode_chunk,
    decode_side_by_side,
    paste,
    refinements,
)
from MedEnhanceLib.unicompress.header import Header
from MedEnhanceLib.unicompress.pool import ordered_map
from MedEnhanceLib.unicompress.verify import voxels_sha256

Outcome = Voxels | CodecError
_NOTHING_LEFT = "Copy the file again from where it came."


@dataclass(frozen=True)
class LostBlock:
    """A block that could not be read; `start` and `stop` are its voxels, [frame,] k, j, i."""

    block: int
    start: tuple[int, ...]
    stop: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class RecoverReport:
    """What became of a damaged container.

    lost: the blocks that hold `fill_value` now, the smallest voxel of the source.
    notes: damage elsewhere in the file, that did no harm.
    proved: whether all voxels are those of the file as it was written (SHA-256).
    """

    blocks: int
    lost: tuple[LostBlock, ...]
    lost_voxels: int
    fill_value: float
    notes: tuple[str, ...]
    proved: bool


def recover(
    path: str | Path, *, monitor: Monitor | None = None, threads: int = 0
) -> tuple[Volume, RecoverReport]:
    """Read every intact block of a damaged `.ucv` and fill the others.

    Damage to header or chunk table is repaired from their second copy. Where blocks are lost
    the volume's history says so.
    Raises CodecError where neither copy of header and table can be read, and where no block can.
    """
    try:
        return _recover(Path(path), monitor or Monitor(), thread_count(threads))
    except CodecError as damage:
        # Elsewhere the advice is to recover what is intact: here it was tried.
        raise CodecError(damage.message, _NOTHING_LEFT) from damage


def _recover(path: Path, monitor: Monitor, threads: int) -> tuple[Volume, RecoverReport]:
    with Container(path, tolerant=True) as container:
        size = container.size
        header = Header.from_json(container.header, container.path.name)
        ranges = whole_region(header.shape)
        voxels = allocate_voxels(header, ranges, container.path.name)
        fill = header.dtype.type(header.voxel_range[0] if header.voxel_range else 0)
        lost = []
        for block, outcome in _read_blocks(container, header, threads, monitor):
            box = header.grid.box(block)
            if isinstance(outcome, CodecError):
                lost.append(_lost_block(header, block, outcome.message))
                box.of(voxels)[...] = fill
            else:
                paste(voxels, ranges, box, outcome)
            monitor.progress((block + 1) / len(header.grid), "recover")
        if len(lost) == len(header.grid):
            raise CodecError(
                f"{container.path.name}: nothing is left to recover: all {len(lost)} blocks are"
                f" damaged; the first: {lost[0].reason}",
                _NOTHING_LEFT,
            )
        report = RecoverReport(
            blocks=len(header.grid),
            lost=tuple(lost),
            lost_voxels=sum(_voxels_of(header, one.block) for one in lost),
            fill_value=fill.item(),
            notes=tuple(container.notes),
            proved=not lost and voxels_sha256(voxels) == header.voxels_sha256,
        )
    if lost:
        note = derived_note(f"recovered without {len(lost)} of {report.blocks} damaged blocks")
        header = replace(header, history=(*header.history, note))
    return header.volume(voxels, header.geometry, str(path), size), report


def _read_blocks(
    container: Container, header: Header, threads: int, monitor: Monitor
) -> Iterator[tuple[int, Outcome]]:
    context = DecodeContext.of(container, header)
    behind = refinements(container)
    chunks: dict[int, ChunkInfo] = {}
    for chunk in container.chunks:
        if chunk.block != NO_BLOCK and chunk.layer == 0:
            chunks.setdefault(chunk.block, chunk)

    def read(chunk: ChunkInfo | None) -> Bytes | CodecError | None:
        try:
            if chunk is None:
                return None
            more = [container.read(one) for one in behind.get(chunk.block, ())]
            return chunk, container.read(chunk), more
        except CodecError as damage:
            return damage

    def decode(batch: list[Bytes | CodecError | None]) -> list[Outcome | None]:
        intact = [item for item in batch if isinstance(item, tuple)]
        together = iter(decode_side_by_side(header, context, intact) or map(alone, intact))
        return [next(together) if isinstance(item, tuple) else item for item in batch]

    def alone(item: Bytes) -> Outcome:
        try:
            return decode_chunk(container, header, context, *item)
        except CodecError as damage:
            return damage

    blocks = range(len(header.grid))
    wanted = batches(header, (chunks.get(block) for block in blocks))
    decoded = ordered_map(
        decode, (list(map(read, batch)) for batch in wanted), threads=threads, monitor=monitor
    )
    outcomes = (outcome for batch in decoded for outcome in batch)
    for block, outcome in zip(blocks, outcomes, strict=True):
        if outcome is None:
            outcome = CodecError(f"{container.path.name}: block {block} has no chunk")
        yield block, outcome


def _lost_block(header: Header, block: int, reason: str) -> LostBlock:
    box = header.grid.box(block)
    spans = [box.k, box.j, box.i]
    if len(header.shape) == 4:
        spans.insert(0, (box.frame, box.frame + 1))
    return LostBlock(
        block, tuple(span[0] for span in spans), tuple(span[1] for span in spans), reason
    )


def _voxels_of(header: Header, block: int) -> int:
    k, j, i = header.grid.box(block).shape
    return k * j * i
