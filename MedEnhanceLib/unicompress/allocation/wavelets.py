"""Codes a volume as wavelets within given bytes: codes that can be cut, and bytes shared out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.core.slabs import let_go
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.unicompress.allocation.rate import Curve, Share, allocate
from MedEnhanceLib.unicompress.allocation.task import Payload, Room, Task
from MedEnhanceLib.unicompress.blocks import Grid, wavelet_grid
from MedEnhanceLib.unicompress.codecs import wavelet
from MedEnhanceLib.unicompress.codecs.lossless import WAVELET, Code, code_block
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.container import Chunk
from MedEnhanceLib.unicompress.spool import Keep

#: Slices of a block: the long wavelet wins where slices resemble each other, up to 2 dB at high
#: ratios; the short one on thick slices. Both are tried on one block.
_DEPTHS = (64, 16)
_TRIED_SIDE = 128
#: Where a curve is measured, as multiples of the bytes that an equal share would give.
_POINTS, _FAST_POINTS = (0.25, 0.7, 1.6, 4.0), (0.3, 1.0, 3.0)
_REACH = 4.0
#: Blocks that could use more than `_REACH` equal shares are measured again, with four times more.
_ROUNDS = 4


@dataclass(frozen=True)
class Measured:
    """A block's codes and what they lose."""

    curve: Curve
    stream: wavelet.Stream | None
    exact: Code
    reach: float  # bits per voxel that the stream was coded with


def code_wavelets(task: Task, room: Room) -> Payload:
    """Every block as a wavelet, cut to size, or without loss.

    Raises ConfigError where not even the coarsest codes fit.
    """
    voxels = task.voxels
    task = replace(task, threads=min(task.threads, wavelet.MOST_THREADS))
    grid = task.cut(wavelet_grid(voxels.shape, choose_depth(voxels, room.file_bytes)))
    budget, second_copy = room.for_payload(len(grid))
    measured = _measure(task.part(0.0, 0.7), grid, budget)
    smallest = sum(one.curve.smallest for one in measured)
    if smallest > budget:
        raise room.out_of_reach(voxels.nbytes, room.file_bytes - budget + smallest)
    shares = _allocate(task, grid, measured, budget)
    pairs = enumerate(zip(measured, shares, strict=True))
    chunks = [cut(number, *pair, task.keep) for number, pair in pairs]
    return Payload(grid, chunks, task.part(0.7, 1.0).tally(grid, chunks), second_copy)


def choose_depth(voxels: Voxels, file_bytes: int, *, side: int = _TRIED_SIDE) -> int:
    """Code the middle of a block both ways, in equal bytes; take what loses less."""
    long, short = _DEPTHS
    grid = wavelet_grid(voxels.shape, long)
    block = grid.box(len(grid) // 2).of(voxels)
    if len(block) < 2 * short:
        return long
    rows, columns = (max(0, (extent - side) // 2) for extent in block.shape[1:])
    block = block[:, rows : rows + side, columns : columns + side]
    bits = 8 * file_bytes / voxels.size
    halves = Grid(block.shape, (-(-len(block) // short), 1, 1))
    pieces = [halves.box(number).of(block) for number in range(len(halves))]
    return long if _loss(block, bits) <= sum(_loss(piece, bits) for piece in pieces) else short


def _loss(block: Voxels, bits: float) -> float:
    if not wavelet.fits(block):
        return 0.0
    values = block.astype(wavelet.working_type(block.dtype))
    stream = wavelet.encode(values, _reachable(bits, block))
    return _squared_error(values, stream, len(stream))


def _squared_error(values: wavelet.Floats, stream: wavelet.Stream, size: int) -> float:
    decoded = wavelet.decode(stream.prefix(size), values.shape, values.dtype.type)
    difference = (decoded - values).astype(np.float64).ravel()
    return float(np.vdot(difference, difference))


def _reachable(bits: float, block: Voxels) -> float:
    return min(bits, 8.0 * block.dtype.itemsize + 4)


def _measure(task: Task, grid: Grid, budget: int) -> list[Measured]:
    bits = 8 * max(budget, 1) / task.voxels.size

    def measure(number: int) -> Measured:
        return measure_block(grid.box(number).of(task.voxels), bits, speed=task.speed)

    measured = []
    for one in task.map(measure, range(len(grid))):
        measured.append(_put_aside(one, task.keep))
        let_go(task.voxels)
        task.monitor.progress(len(measured) / len(grid), "measure")
    return measured


def _put_aside(measured: Measured, keep: Keep) -> Measured:
    """The same, with its codes out of memory."""
    exact = replace(measured.exact, data=keep(bytes(measured.exact.data)))
    stream = measured.stream
    if stream is not None:
        stream = replace(stream, bits=keep(bytes(stream.bits)))
    return replace(measured, exact=exact, stream=stream)


def measure_block(block: Voxels, bits: float, reach: float = _REACH, *, speed: Speed) -> Measured:
    """Code a block by the wavelet and without loss. bits: for each voxel, by an equal share."""
    exact = code_block(block, None, speed="fast", variants=())
    if not wavelet.fits(block):
        nothing = np.empty(0)
        return Measured(Curve(nothing, nothing, len(exact.data)), None, exact, np.inf)
    values = block.astype(wavelet.working_type(block.dtype))
    top = _reachable(bits * reach, block)
    stream = wavelet.encode(values, top)
    share = bits * block.size / 8
    points = np.array(_FAST_POINTS if speed == "fast" else _POINTS)
    wanted = points * share * reach / _REACH
    inside = np.clip(wanted, wavelet.HEAD_BYTES + 2, len(stream)).astype(int)
    sizes = np.unique(np.append(inside, len(stream)))
    losses = [_squared_error(values, stream, size) for size in (wavelet.HEAD_BYTES, *sizes)]
    curve = Curve(
        np.append(wavelet.HEAD_BYTES, sizes).astype(np.float64),
        np.minimum.accumulate(losses),
        len(exact.data),
    )
    return Measured(curve, stream, exact, top)


def _allocate(task: Task, grid: Grid, measured: list[Measured], budget: int) -> list[Share]:
    """Share the budget; blocks that would take all that was measured are measured further."""
    voxels = task.voxels
    bits, reach = 8 * max(budget, 1) / voxels.size, _REACH
    shares = allocate([one.curve for one in measured], budget)
    for _ in range(_ROUNDS):
        hungry = [
            number
            for number, (one, share) in enumerate(zip(measured, shares, strict=True))
            if not share.exact
            and share.size >= one.curve.sizes[-1]
            and one.reach < _reachable(np.inf, voxels)
        ]
        if not hungry or len(grid) == 1:
            break
        reach *= 4

        def further(number: int, reach: float = reach) -> Measured:
            return measure_block(grid.box(number).of(voxels), bits, reach, speed=task.speed)

        for number, one in zip(hungry, task.map(further, hungry), strict=True):
            measured[number] = _put_aside(one, task.keep)
        shares = allocate([one.curve for one in measured], budget)
    return shares


def cut(number: int, measured: Measured, share: Share, keep: Keep = bytes) -> Chunk:
    """The chunk of a block, as large as its share."""
    if share.exact or measured.stream is None:
        return Chunk(number, measured.exact.kind, measured.exact.data)
    return Chunk(number, WAVELET, keep(measured.stream.prefix(share.size)))
