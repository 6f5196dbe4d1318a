"""Codes a volume without loss, or with no voxel off by more than a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.core.slabs import let_go
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.blocks import Grid, coding_grid
from MedEnhanceLib.unicompress.candidates import (
    Code,
    code_block,
    expected_block,
    leading_variant,
    polled_blocks,
)
from MedEnhanceLib.unicompress.coders import LEARNED, STACKED, VARIANTS
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.container import Chunk
from MedEnhanceLib.unicompress.learned import (
    Predictor,
    cheapest,
    code_learned,
    predictor_grid,
    taught,
    would_take,
)
from MedEnhanceLib.unicompress.models import CodecModel
from MedEnhanceLib.unicompress.pool import ordered_map
from MedEnhanceLib.unicompress.spool import Keep
from MedEnhanceLib.unicompress.verify import Tally

#: So many blocks, and of each so many voxels, decide between learned and classical types.
_COMPARED = 3
_COMPARED_VOXELS = 1 << 17
#: What a header takes to name a model, twice.
_NAMED_BYTES = 250


@dataclass(frozen=True)
class Payload:
    """All chunks of a file, and what a reader will make of them.

    tally: of the voxels that the chunks decode to. exact: whether on every machine.
    second_copy: whether the file has room to hold header and table twice. models: that the chunks
    need; carried: those of them that the file must hold, since no other place does.
    """

    grid: Grid
    chunks: list[Chunk]
    tally: Tally
    exact: bool = True
    second_copy: bool = True
    models: tuple[CodecModel, ...] = ()
    carried: tuple[CodecModel, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all chunks together."""
        return sum(len(chunk.data) for chunk in self.chunks)


def code_bounded(
    voxels: Voxels,
    bound: float | None,
    *,
    speed: Speed,
    threads: int,
    monitor: Monitor,
    predictors: Sequence[Predictor] = (),
    keep: Keep = bytes,
) -> Payload:
    """Code every block by its best type. bound: in stored units; None or 0 is lossless.

    predictors: those that may suit; where one wins the blocks that are polled, it codes all.
    keep: where chunks wait for the file to be laid out.
    """
    bound = bound or None
    grid = coding_grid(voxels.shape)
    if predictors and speed != "fast":
        chosen = _learned_wins(voxels, bound, predictors)
        if chosen is not None:
            return _code_learned(voxels, bound, chosen, threads, monitor, keep)
    polled = _poll(voxels, grid, bound, speed=speed, threads=threads, monitor=monitor)
    variants = leading_variant(polled.values()) if polled else (STACKED,)

    def code(number: int) -> tuple[Code, Voxels]:
        block = grid.box(number).of(voxels)
        known = polled.get(number)
        coded = known or code_block(block, bound, speed=speed, variants=variants)
        return coded, expected_block(block, bound, coded)

    rest = monitor.part(len(polled) / len(grid), 1.0)
    return _all_coded(voxels, grid, code, threads, rest, keep)


def _all_coded(
    voxels: Voxels,
    grid: Grid,
    code: Callable[[int], tuple[Code, Voxels]],
    threads: int,
    monitor: Monitor,
    keep: Keep,
) -> Payload:
    """Every block by `code`, which gives its code and what a reader makes of it."""
    tally, chunks = Tally(voxels, grid), []
    coded = ordered_map(code, range(len(grid)), threads=threads, monitor=monitor)
    for number, (best, expected) in enumerate(coded):
        tally.add(expected)
        chunks.append(Chunk(number, best.kind, keep(bytes(best.data))))
        monitor.progress((number + 1) / len(grid), "compress")
    return Payload(grid, chunks, tally)


def _learned_wins(
    voxels: Voxels, bound: float | None, predictors: Sequence[Predictor]
) -> Predictor | None:
    """The predictor that takes less than every classical type on some blocks, or None."""
    blocks = pieces_of(voxels)
    chosen = cheapest(predictors, blocks[len(blocks) // 2], bound)
    learned = sum(would_take(chosen, block, bound) for block in blocks)
    classical = 0
    for block in blocks:
        classical += len(code_block(block, bound, speed="normal", variants=(STACKED,)).data)
    saved = (classical - learned) * voxels.size / sum(block.size for block in blocks)
    return chosen if saved > _NAMED_BYTES else None


def pieces_of(voxels: Voxels) -> list[Voxels]:
    """The middle of a few blocks: enough to compare."""
    grid = coding_grid(voxels.shape)
    numbers = np.unique(np.linspace(0, len(grid) - 1, 2 + _COMPARED).astype(int)[1:-1]).tolist()
    return [_piece(grid.box(number).of(voxels)) for number in numbers]


def _piece(block: Voxels) -> Voxels:
    count = max(4, _COMPARED_VOXELS // max(1, block[0].size))
    first = max(0, (len(block) - count) // 2)
    return block[first : first + count]


def _code_learned(
    voxels: Voxels,
    bound: float | None,
    predictor: Predictor,
    threads: int,
    monitor: Monitor,
    keep: Keep,
) -> Payload:
    grid = predictor_grid(voxels.shape)
    predictor = taught(predictor, voxels, bound, threads=threads, monitor=monitor)

    def code(number: int) -> tuple[Code, Voxels]:
        block = grid.box(number).of(voxels)
        learned = code_learned(block, bound, predictor.network)
        if learned is not None:
            return learned
        classical = code_block(block, bound, speed="normal", variants=VARIANTS)
        return classical, expected_block(block, bound, classical)

    payload = _all_coded(voxels, grid, code, threads, monitor.part(0.1, 1.0), keep)
    needed = any(chunk.kind == LEARNED for chunk in payload.chunks)
    models = (predictor.model,) if needed else ()
    return replace(payload, models=models, carried=models if predictor.carried else ())


def estimate_bytes(voxels: Voxels, *, threads: int, monitor: Monitor) -> float:
    """About what `code_bounded` would take without loss and fast, from one block in eight."""
    grid = coding_grid(voxels.shape)
    sample = polled_blocks(len(grid))

    def size(number: int) -> int:
        block = grid.box(number).of(voxels)
        return len(code_block(block, None, speed="fast", variants=(STACKED,)).data)

    sizes: Iterator[int] = ordered_map(size, sample, threads=threads, monitor=monitor)
    total = sum(sizes)
    let_go(voxels)
    return total * len(grid) / len(sample)


def _poll(
    voxels: Voxels, grid: Grid, bound: float | None, *, speed: Speed, threads: int, monitor: Monitor
) -> dict[int, Code]:
    """Some blocks, coded by every variant: they tell which one suits the volume."""
    if speed == "fast":
        return {}
    numbers = polled_blocks(len(grid))

    def code(number: int) -> Code:
        block = grid.box(number).of(voxels)
        return code_block(block, bound, speed=speed, variants=VARIANTS)

    codes = {}
    done = ordered_map(code, numbers, threads=threads, monitor=monitor)
    for number, best in zip(numbers, done, strict=True):
        codes[number] = best
        monitor.progress(len(codes) / len(grid), "compress")
    return codes
