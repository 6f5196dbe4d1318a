"""Estimates what compressing would give, from a few blocks in a second or two.

Blocks spread evenly over the volume are really coded and decoded. What they take is carried over
to the whole by how much neighboring voxels differ, which is measured everywhere: blocks of air
and of anatomy take very different sizes, and only few of each are coded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.allocation.quality import (
    Quality,
    sample_quality,
    sample_size,
)
from MedEnhanceLib.unicompress.allocation.rate import activity_of, allocate
from MedEnhanceLib.unicompress.allocation.task import Room
from MedEnhanceLib.unicompress.allocation.wavelets import choose_depth, cut, measure_block
from MedEnhanceLib.unicompress.blocks import Box, Grid, coding_grid, ordered_map, wavelet_grid
from MedEnhanceLib.unicompress.codecs import wavelet
from MedEnhanceLib.unicompress.codecs.lossless import STACKED, code_block, expected_block
from MedEnhanceLib.unicompress.codecs.predictor.learned import (
    Predictor,
    cheapest,
    shipped_predictors,
    would_take,
)
from MedEnhanceLib.unicompress.config import CompressConfig, Mode, Speed, thread_count
from MedEnhanceLib.unicompress.decode import decode_data
from MedEnhanceLib.unicompress.encode import (
    codable,
    draft_header,
    make_room,
    peak_of,
    with_bound,
)
from MedEnhanceLib.unicompress.header import VoxelRange
from MedEnhanceLib.unicompress.models import DecodeContext
from MedEnhanceLib.unicompress.repair import most_bytes

Item = TypeVar("Item")

#: Seconds after which no further block is begun: of blocks, of blocks with full effort, of pieces.
_SECONDS = 0.8
_FULL_EFFORT_SECONDS = 0.4
_PIECE_SECONDS = 0.6
_MOST_BLOCKS = 24
#: Blocks that are coded with full effort as well, to measure what it gains.
_FULL_EFFORT_BLOCKS = 3
#: Above this much more than there is room for, full effort does not help either.
_MOST_GAIN = 1.15
#: Side of the pieces that are coded of the wavelet's large blocks, and how many.
_PIECE_SIDE = 96
_PIECES = 8
_TRIED_SIDE = 64
#: A step along the blocks that never falls into their rhythm, and covers them evenly.
_GOLDEN = (math.sqrt(5) - 1) / 2
_EFFORTS: tuple[Speed, Speed] = ("normal", "fast")
#: What a table row and a record take for each block.
_BLOCK_BYTES = 40
#: What filters gain, in dB; the parts that are coded here have none.
_FILTERED: dict[Speed, float] = {"normal": 0.35, "fast": 0.2, "slow": 0.35}
#: Decibels for an octave of bytes.
_DB_OF_BYTES = -2.5
#: And what that and the full effort take of the bytes of a coding at the fast pace.
_FULL_EFFORT: dict[Speed, float] = {"normal": 0.95, "fast": 1.0, "slow": 0.92}


@dataclass(frozen=True)
class Estimate:
    """About what `compress` would report; measured on some blocks.

    file_bytes, ratio: of the file. max_error: the largest difference in the blocks that were
    coded, in stored units; at a ratio the whole volume's is larger. psnr: in dB, None where
    nothing is lost. lossless: whether every voxel would be kept; a ratio that lossless coding
    reaches is. blocks, share: how many were coded, and which share of the voxels they hold.
    """

    mode: Mode
    raw_bytes: int
    file_bytes: int
    ratio: float
    max_error: float
    psnr: float | None
    lossless: bool
    blocks: int
    share: float
    seconds: float

    def __repr__(self) -> str:
        quality = "" if self.psnr is None else f", PSNR about {self.psnr:.1f} dB"
        smaller = f"about {self.file_bytes:,} bytes, {self.ratio:.2f} times smaller"
        return f"<Estimate: {self.mode}, {smaller}{quality}>"


@dataclass(frozen=True)
class _Found:
    """What one way of coding would give, and how many blocks and voxels say so."""

    file_bytes: float
    max_error: float
    psnr: float | None
    blocks: int
    voxels: int
    lossless: bool = False


@dataclass(frozen=True)
class _Sample:
    """What coded blocks took and lost. activity: see `activity_of`."""

    blocks: int
    voxels: int
    activity: float
    bytes: float
    squared: float
    max_error: float


def estimate(volume: Volume, config: CompressConfig, *, monitor: Monitor | None = None) -> Estimate:
    """Code a few blocks of `volume` as `config` asks and estimate what the whole would take.

    Args:
        volume: [K, J, I] or [T, K, J, I].
        config: as for `compress`.
        monitor: receives progress, and may cancel.
    Raises:
        ConfigError, InputError, DependencyError: as `compress` would.
        Cancelled: by the monitor.
    """
    began = time.monotonic()
    monitor = monitor or Monitor()
    monitor.progress(0.0, "look at the volume")
    voxels = codable(volume, config)
    config, _ = with_bound(volume, config, monitor)
    header = draft_header(volume, voxels, config)
    room = make_room(header, voxels, config.ratio or 1.0, repair=config.repair)
    context = DecodeContext(voxels.dtype, header.voxel_range)
    found = _bounded(voxels, config, volume.modality, header.voxel_range, room, monitor)
    if config.psnr is not None or config.ssim is not None:
        reached = _at_quality(voxels, config, context, room, monitor)
        if reached is not None and reached.file_bytes < found.file_bytes:
            found = reached
    elif config.ratio is not None and found.file_bytes > room.file_bytes:
        found = _at_ratio(voxels, config, context, room, monitor)
    monitor.progress(1.0, "estimated")
    file_bytes = found.file_bytes + most_bytes(round(found.file_bytes), config.repair)
    return Estimate(
        mode=config.mode,
        raw_bytes=voxels.nbytes,
        file_bytes=round(file_bytes),
        ratio=voxels.nbytes / file_bytes,
        max_error=found.max_error,
        psnr=found.psnr,
        lossless=found.lossless,
        blocks=found.blocks,
        share=found.voxels / voxels.size,
        seconds=time.monotonic() - began,
    )


def _bounded(
    voxels: Voxels,
    config: CompressConfig,
    modality: str,
    voxel_range: VoxelRange,
    room: Room,
    monitor: Monitor,
) -> _Found:
    """Without loss, or within a largest error."""
    bound, threads = config.max_error or None, thread_count(config.threads)
    # At a ratio only whether lossless coding comes near is of interest.
    seconds = _SECONDS if config.ratio is None else _SECONDS / 2
    sample = _sample_blocks(voxels, bound, seconds, threads, monitor)
    file_bytes = room.twice + _carried(sample.bytes, sample, voxels, activity_of(voxels))
    hopeless = config.ratio is not None and file_bytes > _MOST_GAIN * room.file_bytes
    if config.speed != "fast" and not hopeless:
        monitor.progress(0.5, "try full effort")
        # A ratio is tried without loss by classical types alone.
        predictors = [] if config.ratio else shipped_predictors(modality)
        file_bytes *= _effort(voxels, bound, predictors, threads, monitor)
    if bound is None:
        return _Found(file_bytes, 0.0, None, sample.blocks, sample.voxels, lossless=True)
    psnr = _psnr(sample.squared / max(sample.voxels, 1), peak_of(voxel_range))
    return _Found(file_bytes, sample.max_error, psnr, sample.blocks, sample.voxels)


def _at_quality(
    voxels: Voxels, config: CompressConfig, context: DecodeContext, room: Room, monitor: Monitor
) -> _Found | None:
    """At a PSNR or an SSIM; None where no part could be coded to it."""
    monitor.progress(0.6, "try the quality")
    gain, effort = _FILTERED[config.speed], _FULL_EFFORT[config.speed]
    wanted = None if config.psnr is None else config.psnr - gain
    quality = Quality(wanted, config.ssim, peak_of(context.voxel_range))
    reached = sample_quality(voxels, quality, context, monitor.check)
    if reached is None:
        return None
    if wanted is None:  # a filter brings SSIM as many bytes as it brings PSNR
        effort *= 2 ** (gain / _DB_OF_BYTES)
    file_bytes = round(reached.bytes * effort + room.twice)
    return _Found(file_bytes, reached.max_error, reached.psnr, reached.parts, reached.voxels)


def _at_ratio(
    voxels: Voxels, config: CompressConfig, context: DecodeContext, room: Room, monitor: Monitor
) -> _Found:
    """At a ratio that lossless coding does not reach: by the wavelet or a video."""
    monitor.progress(0.6, "try the wavelet")
    threads = thread_count(config.threads)
    sample, total = _sample_wavelet(voxels, context.voxel_range, room, threads, monitor)
    squared = _carried(sample.squared, sample, voxels, total) / voxels.size
    peak = peak_of(context.voxel_range)
    psnr, largest = _psnr(squared, peak), sample.max_error
    if psnr is not None:
        monitor.progress(0.8, "try the video")
        # Steps of that size lose as much as the wavelet did.
        step, budget = math.sqrt(12 * squared), room.file_bytes - room.once
        as_video = sample_size(voxels, budget, step, peak, context, monitor.check)
        if as_video is not None and (as_video.psnr or 0.0) > psnr:
            psnr, largest = as_video.psnr, as_video.max_error
    return _Found(room.file_bytes, largest, psnr, sample.blocks, sample.voxels)


def _psnr(squared: float, peak: float) -> float | None:
    """In dB, of a mean squared error; None where nothing is lost or there is no range."""
    is_known = squared > 0 and 0 < peak < math.inf
    return 10 * math.log10(peak * peak / squared) if is_known else None


def _sample_blocks(
    voxels: Voxels, bound: float | None, seconds: float, threads: int, monitor: Monitor
) -> _Sample:
    """Blocks of the lossless and bounded modes, coded fast."""
    grid = coding_grid(voxels.shape)

    def code(number: int) -> tuple[int, float, float]:
        block = grid.box(number).of(voxels)
        best = code_block(block, bound, speed="fast", variants=(STACKED,))
        return len(best.data), *_loss(block, expected_block(block, bound, best))

    begun: list[int] = []
    until = _until(_spread(len(grid))[:_MOST_BLOCKS], seconds, begun)
    coded = list(ordered_map(code, until, threads=threads, monitor=monitor))
    boxes = [grid.box(number) for number in begun]
    return _Sample(
        blocks=len(begun),
        voxels=sum(math.prod(box.shape) for box in boxes),
        activity=sum(activity_of(box.of(voxels)) for box in boxes),
        bytes=sum(size for size, _, _ in coded) + _BLOCK_BYTES * len(coded),
        squared=sum(squared for _, squared, _ in coded),
        max_error=max(largest for _, _, largest in coded),
    )


def _effort(
    voxels: Voxels,
    bound: float | None,
    predictors: Sequence[Predictor],
    threads: int,
    monitor: Monitor,
) -> float:
    """What full effort leaves of the bytes that fast coding takes, from a few blocks."""
    grid = coding_grid(voxels.shape)
    middle = grid.box(len(grid) // 2).of(voxels)
    predictor = cheapest(predictors, [middle], bound) if predictors else None

    def sizes(number: int) -> tuple[int, int]:
        block = grid.box(number).of(voxels)
        full, fast = (
            len(code_block(block, bound, speed=speed, variants=(STACKED,)).data)
            for speed in _EFFORTS
        )
        learned = would_take(predictor, [block], bound) if predictor else math.inf
        return int(min(full, max(learned, 1))), fast

    until = _until(_spread(len(grid))[:_FULL_EFFORT_BLOCKS], _FULL_EFFORT_SECONDS, [])
    both = list(ordered_map(sizes, until, threads=threads, monitor=monitor))
    return sum(full for full, _ in both) / max(sum(fast for _, fast in both), 1)


def _sample_wavelet(
    voxels: Voxels,
    voxel_range: VoxelRange,
    room: Room,
    threads: int,
    monitor: Monitor,
) -> tuple[_Sample, float]:
    """Pieces of the wavelet's blocks in their share of the bytes; the whole volume's activity."""
    threads = min(threads, wavelet.MOST_THREADS)
    grid = wavelet_grid(voxels.shape, choose_depth(voxels, room.file_bytes, side=_TRIED_SIDE))
    budget, _ = room.for_payload(len(grid))
    bits = 8 * max(budget, 1) / voxels.size
    pieces = [_piece(grid, number, turn) for turn, number in enumerate(_spread(len(grid)))]
    begun: list[Box] = []
    until = _until(pieces[:_PIECES], _PIECE_SECONDS, begun)
    measured = list(
        ordered_map(
            lambda box: measure_block(box.of(voxels), bits, speed="fast"),
            until,
            threads=threads,
            monitor=monitor,
        )
    )
    size = sum(math.prod(box.shape) for box in begun)
    smallest = sum(one.curve.smallest for one in measured)
    # Pieces are smaller than blocks: their fixed bytes say nothing of the whole's.
    if budget <= 0 or smallest * voxels.size / size > 8 * budget:
        raise room.out_of_reach(voxels.nbytes, round(smallest * voxels.size / size))

    def at(unit: float | None) -> tuple[_Sample, float]:
        """What the pieces lose in the share that differences beyond `unit` give them."""
        total = activity_of(voxels, unit)
        activity = sum(activity_of(box.of(voxels), unit) for box in begun)
        share = activity / total if total else size / voxels.size
        shares = allocate([one.curve for one in measured], max(int(budget * share), smallest))
        context = DecodeContext(voxels.dtype, voxel_range)
        squared, largest = 0.0, 0.0
        for box, one, part in zip(begun, measured, shares, strict=True):
            monitor.check()
            chunk = cut(0, one, part)
            block = box.of(voxels)
            decoded = decode_data(chunk.kind, bytes(chunk.data), block.shape, context)
            one_squared, one_largest = _loss(block, decoded)
            squared, largest = squared + one_squared, max(largest, one_largest)
        sample = _Sample(len(begun), size, activity, budget * share, squared, largest)
        return sample, total

    # What is finer than the loss takes no bytes: how large the loss is comes out of the first try.
    first, _ = at(None)
    return at(2 * math.sqrt(first.squared / size) or None)


def _carried(value: float, sample: _Sample, voxels: Voxels, total: float) -> float:
    """A sum over the sample → over the whole volume."""
    if sample.voxels == voxels.size:
        return value
    if sample.activity and total:
        return value * total / sample.activity
    return value * voxels.size / max(sample.voxels, 1)


def _loss(source: Voxels, decoded: Voxels) -> tuple[float, float]:
    """Sum of squared differences, and the largest one."""
    if source is decoded:
        return 0.0, 0.0
    with np.errstate(invalid="ignore"):
        difference = np.abs(source.astype(np.float64) - decoded.astype(np.float64))
    finite = difference[np.isfinite(difference)]
    return float(np.square(finite).sum()), float(finite.max(initial=0.0))


def _spread(count: int) -> list[int]:
    """All numbers below `count`, such that any first few of them lie evenly."""
    steps = (int(count * ((turn * _GOLDEN + 0.5) % 1.0)) for turn in range(3 * count))
    return list(dict.fromkeys([*steps, *range(count)]))


def _piece(grid: Grid, number: int, turn: int) -> Box:
    """A piece of a block, at another place in each."""
    box = grid.box(number)
    return replace(
        box,
        j=_within(box.j, (turn * _GOLDEN) % 1.0),
        i=_within(box.i, (turn * _GOLDEN * _GOLDEN) % 1.0),
    )


def _within(span: tuple[int, int], place: float) -> tuple[int, int]:
    start = span[0] + int(place * max(span[1] - span[0] - _PIECE_SIDE, 0))
    return start, min(start + _PIECE_SIDE, span[1])


def _until(items: list[Item], seconds: float, begun: list[Item]) -> Iterator[Item]:
    """The items, for as long as there is time, two at least; `begun` receives which they were."""
    end = time.monotonic() + seconds
    for item in items:
        if len(begun) >= 2 and time.monotonic() > end:
            return
        begun.append(item)
        yield item
