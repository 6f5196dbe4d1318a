"""Codes a volume without loss, or with no voxel off by more than an error bound.

Error bounds serve low ratios too (`code_within`): above about one bit per voxel, equal steps for
every voxel and a predictor that models the noise beat transforms by up to some dB.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.runtime.progress import Steps
from MedEnhanceLib.unicompress.allocation.coding_task import CodedBlocks, CodingTask, Room
from MedEnhanceLib.unicompress.blocks import Box, Grid, coding_grid
from MedEnhanceLib.unicompress.codecs.integers import to_bounded_integers
from MedEnhanceLib.unicompress.codecs.lossless import BlockCode, code_block
from MedEnhanceLib.unicompress.codecs.predictor import learned
from MedEnhanceLib.unicompress.codecs.predictor.learned import Predictor, predictor_grid
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.container import Chunk, bytes_of

# Tuned on open volumes (decisions 0063, 0071). Measured again by Benchmarks/compression.py.
#: Blocks, and slices, rows and columns of each, that decide between learned and classical types:
#: many slices of a small extent, because a predictor uses the slices before.
_COMPARED = 3
_PIECE = (16, 96, 96)
#: Fewest slices and voxels of a block that its size is estimated from.
_SLAB, _SLAB_VOXELS = 6, 1 << 12
#: The predictor is skipped if its estimate exceeds the classical size by this factor.
_TUNED_MOST = 1.1
#: Bits per voxel above which noise is most of a volume: there full effort saves little, for much
#: time, and takes about this share of the quick size. Labels and drawings take fewer.
_NOISY_BITS, _FULL_EFFORT = 1.0, 0.97
#: Largest factor by which sizes are overestimated, with much empty background.
_OVERESTIMATED = 1.4
#: Bytes that a block of the predictor takes beyond its estimate: weights, unused states.
_BLOCK_BYTES = 500
#: Bytes that naming a model takes in the header.
_NAMED_BYTES = 130
#: Bits per voxel from which on a bounded error is tried for a ratio.
LEAST_BITS = 1.0
#: A predictor that was tuned to the volume takes less than its estimate by this factor.
_TUNED = 1.05
_MOST_BOUND = 1 << 12


def code_bounded(task: CodingTask, bound: float | None) -> CodedBlocks:
    """Code every block by its best type.

    Args:
        task: if one of its predictors wins on sampled blocks, it codes all of them.
        bound: the largest error, in stored units; None or 0 is lossless.
    """
    bound = bound or None
    predictor = _winning_predictor(task, bound) if task.predictors else None
    if predictor is not None:
        return _code_learned(task, bound, predictor)
    grid = coding_grid(task.voxels.shape)
    return _all_coded(task, grid, lambda block: code_block(block, bound, speed=task.speed))


def _all_coded(
    task: CodingTask, grid: Grid, code: Callable[[Voxels], BlockCode], **facts: Any
) -> CodedBlocks:
    def coded(number: int) -> tuple[Chunk, Voxels]:
        block = grid.box(number).of(task.voxels)
        best = code(block)
        return Chunk(number, best.kind, best.data), best.coded.decoded(block)

    return CodedBlocks.of(task, grid, task.map(coded, range(len(grid))), **facts)


def _winning_predictor(task: CodingTask, bound: float | None) -> Predictor | None:
    """Choose a predictor and tune it to the volume; None where classical types take less."""
    voxels = task.voxels
    boxes = _some_boxes(voxels)
    boxes = boxes[len(boxes) // 2 :][:1] if task.speed == "fast" else boxes
    pieces = [box.middle(voxels, _PIECE) for box in boxes]
    indices = [to_bounded_integers(piece, bound).indices for piece in pieces]
    sizes = [learned.would_take(predictor, indices) for predictor in task.predictors]
    winner = task.predictors[int(np.argmin(sizes))]
    classical = sum(_classical_bytes(piece, bound, task.speed) for piece in pieces)
    if min(sizes) > _TUNED_MOST * classical:
        return None
    tuned = winner
    if task.speed != "fast":
        monitor = task.monitor
        tuned = learned.fine_tuned(winner, voxels, bound, threads=task.threads, monitor=monitor)
    share = sum(piece.size for piece in pieces) / voxels.size
    fixed = tuned.bytes_in_file + _NAMED_BYTES + _BLOCK_BYTES * len(predictor_grid(voxels.shape))
    if classical - min(sizes) > share * fixed:
        return tuned
    return tuned if classical - learned.would_take(tuned, indices) > share * fixed else None


def _classical_bytes(piece: Voxels, bound: float | None, speed: Speed) -> float:
    """Estimate the bytes of the best classical type."""
    quick = len(code_block(piece, bound, speed="fast").data)
    if speed == "normal" and 8 * quick > _NOISY_BITS * piece.size:
        return _FULL_EFFORT * quick
    return quick if speed == "fast" else len(code_block(piece, bound, speed=speed).data)


def _some_boxes(voxels: Voxels) -> list[Box]:
    grid = coding_grid(voxels.shape)
    numbers = np.unique(np.linspace(0, len(grid) - 1, 2 + _COMPARED).astype(int)[1:-1]).tolist()
    return [grid.box(number) for number in numbers]


def _code_learned(task: CodingTask, bound: float | None, predictor: Predictor) -> CodedBlocks:
    def code(block: Voxels) -> BlockCode:
        coded = learned.code_learned(block, bound, predictor.network)
        return coded or code_block(block, bound, speed=task.speed)

    tuned = (predictor.model,) if predictor.is_tuned else ()
    models = {"models": (predictor.model,), "tuned": tuned}
    payload = _all_coded(task.part(0.1, 1.0), predictor_grid(task.voxels.shape), code, **models)
    is_needed = any(chunk.kind == learned.LEARNED for chunk in payload.chunks)
    return payload if is_needed else replace(payload, models=(), tuned=())


def code_within(task: CodingTask, room: Room) -> CodedBlocks | None:
    """Code with the smallest error bound that is found to fit (0: lossless), or return None."""
    budget, steps = room.for_chunks(len(coding_grid(task.voxels.shape))), Steps(task.monitor)
    may_be_exact = expected_bytes(task, None) <= _OVERESTIMATED * budget
    bound = 0 if may_be_exact else _first_bound(task, budget)
    for remaining in (0.3, 0.3, 0.0):  # most often the first one fits
        if bound is None or bound > _MOST_BOUND:
            return None
        payload = code_bounded(task.at(steps.next(1, remaining)), bound)
        chunks = payload.with_models()
        names = _NAMED_BYTES * len(payload.models)
        if bytes_of(chunks) + names <= room.for_chunks(len(chunks)):
            return payload
        bound = bound + 1 + bound // 8 if bound else _first_bound(task, budget)
    return None


def expected_bytes(task: CodingTask, bound: float | None) -> float:
    """Estimate the bytes of `code_bounded` from a few slices of some blocks."""
    voxels = task.voxels
    count = max(_SLAB, _SLAB_VOXELS // math.prod(voxels.shape[-2:]))
    slabs = [box.middle(voxels, (count, *box.shape[1:])) for box in _some_boxes(voxels)]
    share = sum(slab.size for slab in slabs) / voxels.size
    if task.predictors:
        indices = [to_bounded_integers(slab, bound).indices for slab in slabs]
        least = min(learned.would_take(predictor, indices) for predictor in task.predictors)
        if np.isfinite(least):
            return least / share / _TUNED
    return sum(len(code_block(slab, bound, speed="fast").data) for slab in slabs) / share


def _first_bound(task: CodingTask, budget: int) -> int | None:
    """Find the smallest bound above 0 whose expected size fits `budget`; None where none pays."""
    if task.voxels.dtype.kind not in "iu" or 8 * budget < LEAST_BITS * task.voxels.size:
        return None
    high = 1
    while expected_bytes(task, high) > budget and high <= _MOST_BOUND:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if expected_bytes(task, middle) <= budget else (middle, high)
    return high
