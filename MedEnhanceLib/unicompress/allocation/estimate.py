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

from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.allocation.search import activity_of
from MedEnhanceLib.unicompress.allocation.task import Room, Task
from MedEnhanceLib.unicompress.allocation.videos import (
    Quality,
    into_bytes,
    smallest_of,
    to_quality,
)
from MedEnhanceLib.unicompress.blocks import Grid, coding_grid, ordered_map
from MedEnhanceLib.unicompress.codecs.lossless import code_block, expected_block
from MedEnhanceLib.unicompress.codecs.predictor.learned import (
    Predictor,
    cheapest,
    shipped_predictors,
    would_take,
)
from MedEnhanceLib.unicompress.config import CompressConfig, Mode, Speed, thread_count
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
from MedEnhanceLib.unicompress.verify import Tally

Item = TypeVar("Item")

#: Seconds after which no further block is begun: of blocks, of blocks with full effort.
_SECONDS = 0.8
_FULL_EFFORT_SECONDS = 0.4
_MOST_BLOCKS = 24
#: Blocks that are coded with full effort as well, to measure what it gains.
_FULL_EFFORT_BLOCKS = 3
#: Above this much more than there is room for, full effort does not help either.
_MOST_GAIN = 1.15
#: Of what is coded as a video: slices at least, and voxels at most where these do.
_LEAST_SLICES, _VIDEO_VOXELS = 24, 1 << 20
#: A step along the blocks that never falls into their rhythm, and covers them evenly.
_GOLDEN = (math.sqrt(5) - 1) / 2
_EFFORTS: tuple[Speed, Speed] = ("normal", "fast")
#: What a table row and a record take for each block.
_BLOCK_BYTES = 40
#: What the full effort takes of the bytes of a coding at the fast pace.
_FULL_EFFORT: dict[Speed, float] = {"normal": 0.95, "fast": 1.0}


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
    room = make_room(header, voxels, config.ratio or 1.0)
    context = DecodeContext(voxels.dtype, header.voxel_range)
    found = _bounded(voxels, config, volume.modality, header.voxel_range, room, monitor)
    is_video = config.mode in ("psnr", "ssim") and 0 < peak_of(header.voxel_range) < math.inf
    if is_video or (config.ratio is not None and found.file_bytes > room.file_bytes):
        monitor.progress(0.6, "try videos")
        reached = _as_videos(voxels, config, context, room, monitor)
        if reached is not None and (config.ratio or reached.file_bytes < found.file_bytes):
            found = reached
    monitor.progress(1.0, "estimated")
    file_bytes = found.file_bytes + most_bytes(round(found.file_bytes))
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
    grid = coding_grid(voxels.shape)

    def code(number: int) -> tuple[int, Tally]:
        block = grid.box(number).of(voxels)
        best = code_block(block, bound, speed="fast")
        tally = Tally(block, Grid(block.shape, (1, 1, 1)))
        tally.add(expected_block(block, bound, best))
        return len(best.data) + _BLOCK_BYTES, tally

    begun: list[int] = []
    # At a ratio only whether lossless coding comes near is of interest.
    seconds = _SECONDS if config.ratio is None else _SECONDS / 2
    until = _until(_spread(len(grid))[:_MOST_BLOCKS], seconds, begun)
    coded = list(ordered_map(code, until, threads=threads, monitor=monitor))
    blocks = [grid.box(number).of(voxels) for number in begun]
    seen, size = sum(block.size for block in blocks), float(sum(size for size, _ in coded))
    if seen < voxels.size:
        activity, total = sum(map(activity_of, blocks)), activity_of(voxels)
        size *= total / activity if activity and total else voxels.size / seen
    file_bytes = room.twice + size
    hopeless = config.ratio is not None and file_bytes > _MOST_GAIN * room.file_bytes
    if config.speed != "fast" and not hopeless:
        monitor.progress(0.5, "try full effort")
        # A ratio is tried without loss by classical types alone.
        predictors = [] if config.ratio else shipped_predictors(modality)
        file_bytes *= _effort(voxels, bound, predictors, threads, monitor)
    if bound is None:
        return _Found(file_bytes, 0.0, None, len(begun), seen, lossless=True)
    psnr = _psnr(sum(tally.squared for _, tally in coded) / seen, peak_of(voxel_range))
    return _Found(file_bytes, max(tally.max_error for _, tally in coded), psnr, len(begun), seen)


def _as_videos(
    voxels: Voxels, config: CompressConfig, context: DecodeContext, room: Room, monitor: Monitor
) -> _Found | None:
    """At a ratio, a PSNR or an SSIM: a run of slices is coded; None where no video reaches it.

    Bytes and errors are carried over by how much there is to code.
    """
    peak = peak_of(context.voxel_range)
    quality = Quality(config.psnr, config.ssim, peak)
    part = _run(voxels)
    share = part.size / voxels.size
    if share < 1 and (total := activity_of(voxels, quality.step)):
        share = max(activity_of(part, quality.step) / total, share / 50)
    threads = thread_count(config.threads)
    task = Task(part, context, "fast", threads, monitor.part(0.6, 1.0))
    if config.ratio is not None:
        budget = round((room.file_bytes - room.once) * share)
        coded = into_bytes(task, budget, second_copy=False) if budget > 0 else None
        if coded is None:
            smallest = room.once + round(smallest_of(task) / share)
            raise room.out_of_reach(voxels.nbytes, smallest)
        file_bytes: float = room.file_bytes
    else:
        if config.psnr is not None:  # of the part the share of all errors that it has
            wanted = config.psnr - 10 * math.log10(voxels.size * share / part.size)
            quality = replace(quality, psnr=max(wanted, 1.0))
        coded = to_quality(task, quality)
        if coded is None:
            return None
        file_bytes = coded.bytes / share * _FULL_EFFORT[config.speed] + room.twice
    psnr = _psnr(coded.tally.squared / share / voxels.size, peak)
    return _Found(file_bytes, coded.tally.max_error, psnr, len(coded.chunks), part.size)


def _run(voxels: Voxels) -> Voxels:
    """Successive slices of the middle, long enough for a video to pay; all where it is small."""
    frames = voxels.reshape(-1, *voxels.shape[-3:])
    frame = frames[len(frames) // 2]
    slices = max(_LEAST_SLICES, _VIDEO_VOXELS // frame[0].size)
    start = max(0, len(frame) - slices) // 2
    run: Voxels = frame[start : start + slices]
    return run


def _psnr(squared: float, peak: float) -> float | None:
    """In dB, of a mean squared error; None where nothing is lost or there is no range."""
    is_known = squared > 0 and 0 < peak < math.inf
    return 10 * math.log10(peak * peak / squared) if is_known else None


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
        full, fast = (len(code_block(block, bound, speed=speed).data) for speed in _EFFORTS)
        learned = would_take(predictor, [block], bound) if predictor else math.inf
        return int(min(full, max(learned, 1))), fast

    until = _until(_spread(len(grid))[:_FULL_EFFORT_BLOCKS], _FULL_EFFORT_SECONDS, [])
    both = list(ordered_map(sizes, until, threads=threads, monitor=monitor))
    return sum(full for full, _ in both) / max(sum(fast for _, fast in both), 1)


def _spread(count: int) -> list[int]:
    """All numbers below `count`, such that any first few of them lie evenly."""
    steps = (int(count * ((turn * _GOLDEN + 0.5) % 1.0)) for turn in range(3 * count))
    return list(dict.fromkeys([*steps, *range(count)]))


def _until(items: list[Item], seconds: float, begun: list[Item]) -> Iterator[Item]:
    """The items, for as long as there is time, two at least; `begun` receives which they were."""
    end = time.monotonic() + seconds
    for item in items:
        if len(begun) >= 2 and time.monotonic() > end:
            return
        begun.append(item)
        yield item
