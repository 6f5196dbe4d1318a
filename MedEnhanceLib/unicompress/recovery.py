"""Recovers what of a damaged container is intact."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import CodecError, NoContainerError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.blocks import whole_region
from MedEnhanceLib.unicompress.container import Container
from MedEnhanceLib.unicompress.decode import allocate_voxels, decode_blocks
from MedEnhanceLib.unicompress.header import Header
from MedEnhanceLib.unicompress.verify import voxels_sha256


@dataclass(frozen=True)
class LostBlock:
    """A block that could not be read.

    Attributes:
        block: its number in the grid.
        start, stop: of its voxels, [frame,] k, j, i.
    """

    block: int
    start: tuple[int, ...]
    stop: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class RecoverReport:
    """Outcome of recovering a damaged container.

    Attributes:
        lost: the blocks that hold `fill_value` now, the smallest voxel of the source.
        notes: damage to other parts of the file, that did no harm.
        proved: whether all voxels are those of the file as it was written (SHA-256).
    """

    blocks: int
    lost: tuple[LostBlock, ...]
    lost_voxels: int
    fill_value: float
    notes: tuple[str, ...]
    proved: bool

    def mask(self, volume: Volume) -> Volume:
        """Make a uint8 volume on the grid of the recovered `volume`: 1 where a block is lost."""
        voxels = np.zeros(volume.shape, np.uint8)
        for lost in self.lost:
            voxels[tuple(map(slice, lost.start, lost.stop))] = 1
        return replace(volume, voxels=voxels, modality="SEG", units="", lossy=())


def recover(path: str | Path, *, monitor: Monitor | None = None) -> tuple[Volume, RecoverReport]:
    """Read every intact block of a damaged `.ucv`, and fill the others.

    Where blocks are lost the volume's history says so, and `RecoverReport.mask` which voxels they
    are. The file itself stays as it is.

    Args:
        path: of the file.
        monitor: receives progress and warnings, and may cancel.
    Returns:
        The volume, with lost blocks filled by the smallest voxel of the source, and a report.
    Raises:
        CodecError: the head cannot be read, or no block can.
        NoContainerError: it is no `.ucv`.
    """
    notes: list[str] = []
    try:
        with Container(Path(path), tolerant=True, warn=notes.append) as container:
            volume, report = _recovered(container, monitor or Monitor())
    except NoContainerError:
        raise
    except CodecError as damage:
        # Elsewhere the advice is to recover what is intact: here it was tried.
        raise CodecError(damage.message, "Copy the file again from its source.") from damage
    return volume, replace(report, notes=tuple(notes))


def _recovered(container: Container, monitor: Monitor) -> tuple[Volume, RecoverReport]:
    name = container.path.name
    header = Header.from_json(container.header, name)
    grid = header.grid
    voxels = allocate_voxels(header, whole_region(header.shape), name)
    fill = header.dtype.type(header.range[0] if header.range else 0)
    lost, lost_voxels = [], 0
    chunks = {chunk.block: chunk for chunk in reversed(container.chunks)}
    blocks = range(len(grid))
    decoded = decode_blocks(container, header, chunks, blocks, monitor=monitor)
    for block, outcome in enumerate(decoded):
        box = grid.box(block)
        if isinstance(outcome, CodecError):
            reason = container.reason_of(outcome)
            lost.append(LostBlock(block, *box.place(len(header.shape)), reason))
            lost_voxels += math.prod(box.shape)
        box.of(voxels)[...] = fill if isinstance(outcome, CodecError) else outcome
        monitor.progress((block + 1) / len(grid), "recovering the blocks")
    if len(lost) == len(grid):
        which = "its one block"
        if len(lost) > 1:
            which = f"all {len(lost)} blocks are damaged; the first"
        raise CodecError(f"{name}: nothing can be recovered: {which}: {lost[0].reason}")
    report = RecoverReport(
        blocks=len(grid),
        lost=tuple(lost),
        lost_voxels=lost_voxels,
        fill_value=fill.item(),
        notes=(),
        proved=not lost and voxels_sha256(voxels) == header.voxels_sha256,
    )
    if lost:
        note = derived_note(f"recovered without {len(lost)} of {report.blocks} damaged blocks")
        header = replace(header, history=(*header.history, note))
    return header.volume(voxels, header.geometry, str(container.path), container.size), report
