"""Codes a volume as videos: into given bytes, or to a quality, by one search over one step.

All blocks have the same step of the quantizer. Equal steps are near the best way to share bytes
out: every block gains about the same from its last one. What a search comes to is a coding's bytes
or its error, both nearly straight lines over the step on logarithmic scales. Quick codings lead to
about the right step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.slabs import extremes, trim
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.runtime.progress import Monitor, Steps
from MedEnhanceLib.unicompress.allocation.task import Payload, Task
from MedEnhanceLib.unicompress.blocks import Grid, video_grid
from MedEnhanceLib.unicompress.codecs.lossless import VIDEO, code_block
from MedEnhanceLib.unicompress.codecs.video import video, wiener
from MedEnhanceLib.unicompress.codecs.video.av1 import LIBAOM, Encoder, encoders
from MedEnhanceLib.unicompress.container import Chunk
from MedEnhanceLib.unicompress.decode import decode_data

#: What an octave of the step changes, in octaves: of the size, and of the squared error.
_SIZE_SLOPE, _ERROR_SLOPE = -1.25, 1.2
#: A search ends this much below the limit, in octaves, and after this many codings.
_TOLERANCE = {"normal": math.log2(1.012), "fast": math.log2(1.03)}
_TRIES = {"normal": 3, "fast": 4}
#: A quick coding that comes this near, in octaves of bytes or errors, is enough.
_NEARLY, _MOST_GUIDES = math.log2(1.25), 3
#: Of a search, in octaves of its setting, and how near to a neighbor a setting is tried.
_LONGEST_STEP, _INSIDE = 2.5, 0.08
#: Further tries where none so far is below the limit, or only far below it.
_RESCUES, _FAR = 5, 3
#: Extents of the part that is tried.
_SIDE, _SLICES = 128, 48
_PART_TOLERANCE = 0.15
#: Of the bytes, at most, that are kept free for filters.
_FILTER_SHARE = 0.02
#: About what a coding takes, and what filters do, as multiples of the time of a quick coding.
_COST = {"normal": 11.0, "fast": 2.5}
_FILTER_COST, _PART_COST = 1.8, 0.6
#: SSIM says nothing of where to begin: as if this PSNR were asked for.
_USUAL_PSNR = 42.0
#: The step of a quantizer whose error is one: between a uniform one's √12 and what deadzones take.
_STEP_OF_ERROR = 3.0
#: Settings and their values.
Tried = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a search comes near to from below: of bytes, psnr and ssim one is given.

    bytes: of all videos; free: beside them, for filters. peak: the full range, which PSNR and SSIM
    are measured against.
    """

    bytes: int = 0
    free: int = 0
    psnr: float | None = None
    ssim: float | None = None
    peak: float = 0.0

    @property
    def largest_error(self) -> float:
        """Of a quality: mean square as a share of the peak's, or 1 − SSIM."""
        return 10 ** (-self.psnr / 10) if self.psnr is not None else 1 - float(self.ssim or 0)

    @property
    def squared(self) -> float:
        """The largest mean square error of a PSNR, in stored units."""
        return self.largest_error * self.peak**2

    @property
    def step(self) -> float:
        """Of a quality: a quantizer's step to begin with, in stored units."""
        return _STEP_OF_ERROR * self.peak * 10 ** (-(self.psnr or _USUAL_PSNR) / 20)

    @property
    def limit(self) -> float:
        """In octaves, of bytes or of the error."""
        return math.log2(self.bytes or self.largest_error)

    @property
    def slope(self) -> float:
        """What an octave of the step changes, in octaves."""
        return _SIZE_SLOPE if self.bytes else _ERROR_SLOPE

    def filter_bytes(self, chunks: list[Chunk]) -> int:
        """What each filter of these videos may take."""
        left = (self.bytes + self.free - _bytes_of(chunks)) // len(chunks)
        return left if self.bytes else wiener.MOST_BYTES

    def value(self, task: VideoTask, chunks: list[Chunk]) -> float:
        """The bytes of bare streams, or the error that their filters leave, in octaves."""
        if self.bytes:
            return math.log2(max(1, _bytes_of(chunks)))
        blocks = (block for _, block in finished(task, chunks, wiener.MOST_BYTES))
        decoded = task.grid.joined(blocks, task.voxels.dtype)
        if self.ssim is not None:
            error = 1 - ssim_of(task.voxels, decoded, self.peak)
        else:
            shape = (-1, *decoded.shape[-2:])
            slices = video.error_of(task.voxels.reshape(shape), decoded.reshape(shape))
            error = slices / (decoded.size * self.peak**2)
        return math.log2(max(error, 1e-300))


@dataclass(frozen=True, kw_only=True)
class VideoTask(Task):
    """A task as videos of one encoder."""

    grid: Grid
    encoder: Encoder


def ssim_of(source: Voxels, decoded: Voxels, peak: float) -> float:
    """In 3D, the mean over all frames.

    That of metrics.ssim: a Gaussian window of 11 voxels with σ 1.5 along all three axes, K₁ 0.01,
    K₂ 0.03, the full range as its peak, without the outermost 5 voxels.
    """
    frames = zip(source, decoded, strict=True) if source.ndim == 4 else ((source, decoded),)
    return float(
        np.mean([metrics.ssim(one, other, peak, volumetric=True) for one, other in frames])
    )


def search_cost(task: Task) -> float:
    """About what a search takes, for the progress."""
    return 2 + _PART_COST + 2.2 * _COST[task.speed] + _FILTER_COST


def into_bytes(task: Task, budget: int) -> Payload | None:
    """Videos of at most `budget` bytes with their filters; None where the coarsest take more."""
    low, high = map(float, extremes(task.voxels))
    if budget <= 0 or not math.isfinite(high - low) or low == high:
        return None
    blocks = len(video_grid(task.voxels.shape))
    free = round(min(blocks * wiener.USUAL_BYTES, _FILTER_SHARE * budget))
    step = _step_for(task, 8 * budget / task.voxels.size, (low, high))
    return _searched(task, Goal(bytes=budget - free, free=free), step)


def to_quality(task: Task, goal: Goal) -> Payload | None:
    """The smallest videos found that keep a quality; None where none do."""
    return _searched(task, goal, goal.step)


def _searched(task: Task, goal: Goal, start: float) -> Payload | None:
    """The videos whose value comes nearest to the goal from below, with filters; None where none.

    start: a step to begin with, in stored units.
    """
    grid, encoder = video_grid(task.voxels.shape), _encoder_for(task, start)
    search = VideoTask(**vars(task.part(0.0, 0.9)), grid=grid, encoder=encoder)
    coded: dict[float, list[Chunk]] = {}
    steps = Steps(search.monitor)
    anchor, setting = start, math.log2(start)
    cost = _COST[task.speed] + (0.0 if goal.bytes else _FILTER_COST)

    def measure(setting: float) -> float:
        nonlocal anchor
        if len(coded) == 1:  # near where the search will end
            anchor = 2.0**setting
        part = search.at(steps.next(cost, cost if len(coded) < 2 else cost / 3))
        coded[setting] = _code(part, 2.0**setting, anchor)
        return goal.value(search, coded[setting])

    if encoder.guides:
        setting = _guided(search, steps, goal, setting)
    chosen = _seek(
        measure,
        setting,
        goal.limit,
        slope=goal.slope,
        tolerance=_TOLERANCE[task.speed],
        most=_TRIES[task.speed],
    )
    if chosen is None:
        return None
    last = replace(search, monitor=task.monitor.part(0.9, 1.0))
    return Payload.of(last, grid, finished(last, coded[chosen], goal.filter_bytes(coded[chosen])))


def _guided(task: VideoTask, steps: Steps, goal: Goal, setting: float) -> float:
    """The step, in octaves, whose coding should come to the goal, by quick codings.

    What the better coding has more than they is learned from a part.
    """
    tried: list[tuple[float, float]] = []
    slope, aim = goal.slope, goal.limit - _TOLERANCE[task.speed] / 2
    for _ in range(_MOST_GUIDES):
        part = task.at(steps.next(1, 1 + _PART_COST + 2 * _COST[task.speed]))
        chunks = _code(part, 2.0**setting, 2.0**setting, quickly=True)
        tried.append((setting, goal.value(task, chunks)))
        slope = _slope_of(tried, slope)
        off = aim - tried[-1][1]
        setting += max(-_LONGEST_STEP, min(off / slope, _LONGEST_STEP))
        if abs(off) < _NEARLY:
            break
    steps.next(_PART_COST, 2 * _COST[task.speed]).progress(0.0, "compress")
    middle = _middle_of(task.voxels)
    if not video.fits(middle):
        return setting
    sample = replace(task, voxels=middle, grid=Grid(middle.shape, (1, 1, 1)), monitor=Monitor())
    of_part = goal if goal.psnr else Goal(bytes=1)
    values = [
        of_part.value(sample, _code(sample, 2.0**setting, 2.0**setting, quickly=quickly))
        for quickly in (False, True)
    ]
    return setting - (values[0] - values[1]) / (slope if goal.psnr else _SIZE_SLOPE)


def _middle_of(voxels: Voxels) -> Voxels:
    """At most `_SLICES` slices of `_SIDE` × `_SIDE`, from the middle of the middle block."""
    grid = video_grid(voxels.shape)
    return grid.box(len(grid) // 2).middle(voxels, (_SLICES, _SIDE, _SIDE))


def _step_for(task: Task, bits: float, limits: tuple[float, float]) -> float:
    """A step to begin with, for `bits` of each voxel: a part is coded until it takes its share.

    limits: the smallest and the largest voxel: bits that a part would not need, the whole may.
    """
    start = (limits[1] - limits[0]) / 16 / math.sqrt(bits + 0.01)
    block = _middle_of(task.voxels)
    if not video.fits(block):
        return start
    encoder = _fitting(block)

    def measure(setting: float) -> float:
        task.monitor.check()
        coded = video.encode(
            block, 2.0**setting, speed="fast", encoder=encoder, limits=limits, quickly=True
        )
        return math.log2(len(coded.data))

    size = max(bits * block.size / 8, 2 * video.HEAD.size)
    chosen = _seek(
        measure,
        math.log2(start),
        math.log2(size),
        slope=_SIZE_SLOPE,
        tolerance=_PART_TOLERANCE,
        most=3,
    )
    return start if chosen is None else 2.0**chosen


def _encoder_for(task: Task, step: float) -> Encoder:
    """SVT-AV1, several times as fast as libaom and as good or better, wherever it is there and its
    10 bits suffice for steps of that size.
    """
    if len(encoders()) == 1:
        task.monitor.log(
            "Videos are coded by libaom alone; SVT-AV1 is faster and often 0.5 dB better: "
            "python -m pip install 'av>=17.1'"
        )
    block = _middle_of(task.voxels)
    encoder = _fitting(block)
    if encoder is LIBAOM or not video.fits(block):
        return LIBAOM
    low, high = map(float, extremes(task.voxels))
    coded = video.encode(
        block, step, speed="fast", encoder=encoder, limits=(low, high), quickly=True
    )
    squared = video.error_of(block, video.decode(coded.data, block.shape, task.context))
    finest = encoder.finest * (high - low)
    return LIBAOM if squared < finest**2 * block.size else encoder


def _fitting(block: Voxels) -> Encoder:
    """The last of the encoders that take the block: SVT-AV1, where it is there."""
    return [encoder for encoder in encoders() if encoder.takes(*block.shape)][-1]


def _bytes_of(chunks: list[Chunk]) -> int:
    return sum(len(chunk.data) for chunk in chunks)


def _code(task: VideoTask, step: float, anchor: float, *, quickly: bool = False) -> list[Chunk]:
    """Every block as a video, or without loss where it is constant or not finite; not yet filtered.

    anchor, quickly: see Encoder.
    """

    def code(number: int) -> Chunk:
        block = task.grid.box(number).of(task.voxels)
        if video.fits(block):
            coded = video.encode(
                block, step, speed=task.speed, encoder=task.encoder, anchor=anchor, quickly=quickly
            )
            trim()
            return Chunk(number, VIDEO, coded.data)
        exact = code_block(block, None, speed="fast")
        return Chunk(number, exact.kind, exact.data)

    chunks = []
    for chunk in task.map(code, range(len(task.grid)), task.encoder.most_threads):
        chunks.append(chunk)
        task.monitor.progress(len(chunks) / len(task.grid), "compress")
    return chunks


def finished(task: VideoTask, chunks: list[Chunk], most: int) -> Iterator[tuple[Chunk, Voxels]]:
    """Videos with filters of `most` bytes each, with what a reader makes of them."""

    def finish(chunk: Chunk) -> tuple[Chunk, Voxels]:
        block = task.grid.box(chunk.block).of(task.voxels)
        if chunk.kind != VIDEO:
            return chunk, decode_data(chunk.kind, chunk.data, block.shape, task.context)
        data, decoded = video.filtered(chunk.data, block, task.context, most)
        trim()
        return replace(chunk, data=data), decoded

    return task.map(finish, chunks, video.MOST_THREADS)


def _seek(
    measure: Callable[[float], float],
    start: float,
    limit: float,
    *,
    slope: float,
    tolerance: float,
    most: int,
) -> float | None:
    """The setting whose value comes nearest to `limit` from below, of about `most` tried.

    measure: setting → value; both on logarithmic scales, so that it is nearly a straight line of
        about `slope`. tolerance: below the limit, at which the search ends.
    Returns None where no value was below the limit.
    """
    tried: Tried = []
    setting = start
    for turn in range(most + _RESCUES):
        value = measure(setting)
        tried.append((setting, value))
        if limit - tolerance <= value <= limit:
            break
        if turn >= most - 1 and any(limit - _FAR * tolerance <= one <= limit for _, one in tried):
            break
        reserve = tolerance / 2 * (1 + max(0, turn - most + 2))
        setting = _next(tried, limit - reserve, slope)
    kept = [(value, setting) for setting, value in tried if value <= limit]
    return max(kept)[1] if kept else None


def _next(tried: Tried, aim: float, slope: float) -> float:
    below = max((one for one in tried if one[1] <= aim), key=lambda one: one[1], default=None)
    above = min((one for one in tried if one[1] > aim), key=lambda one: one[1], default=None)
    if below is None or above is None:
        setting, value = tried[-1]
        step = (aim - value) / _slope_of(tried, slope)
        return setting + max(-_LONGEST_STEP, min(step, _LONGEST_STEP))
    share = (aim - below[1]) / (above[1] - below[1])
    share = max(_INSIDE, min(share, 1 - _INSIDE))
    return below[0] + share * (above[0] - below[0])


def _slope_of(tried: Tried, usual: float) -> float:
    """Of value over setting, between the last two, unless it is far from what is usual."""
    if len(tried) < 2 or tried[-1][0] == tried[-2][0]:
        return usual
    (x0, y0), (x1, y1) = tried[-2:]
    found = (y1 - y0) / (x1 - x0)
    return found if 0.3 < found / usual < 3 else usual
