"""Codes a volume as videos: into given bytes, or to a quality, by one search over one step.

All blocks have the same step of the quantizer. Equal steps are near the best way to share bytes
out: every block gains about the same from its last one. What a search comes to is a coding's bytes
or its error, both nearly straight lines over the step on logarithmic scales. Quick codings lead to
about the right step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.slabs import extremes, let_go, trim
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.runtime.progress import Monitor, Steps
from MedEnhanceLib.unicompress.allocation.search import (
    LONGEST_STEP,
    activity_of,
    seek,
    slope_of,
)
from MedEnhanceLib.unicompress.allocation.task import Payload, Task
from MedEnhanceLib.unicompress.blocks import Grid, video_grid
from MedEnhanceLib.unicompress.codecs.lossless import VIDEO, code_block, codecs
from MedEnhanceLib.unicompress.codecs.video import video, wiener
from MedEnhanceLib.unicompress.codecs.video.av1 import LIBAOM, Encoder, encoders
from MedEnhanceLib.unicompress.container import Chunk
from MedEnhanceLib.unicompress.decode import decode_data
from MedEnhanceLib.unicompress.verify import Tally

#: What an octave of the step changes, in octaves: of the size, and of the squared error.
_SIZE_SLOPE, _ERROR_SLOPE = -1.25, 1.2
#: A search ends this much below the limit, in octaves, and after this many codings.
_TOLERANCE = {"normal": math.log2(1.012), "fast": math.log2(1.03)}
_TRIES = {"normal": 3, "fast": 4}
#: A quick coding that comes this near, in octaves of bytes or errors, is enough.
_NEARLY, _MOST_GUIDES = math.log2(1.25), 3
#: Extents of the part that is tried.
_SIDE, _SLICES = 128, 48
_PART_TOLERANCE = 0.15
#: A code without loss is tried where zstd's quickest comes this near to the video.
_EXACT_NEAR = 2
#: Of two settings' codes, whole blocks are mixed to use up the bytes.
_MIXED = 1.25
#: Of the bytes, at most, that are kept free for filters.
_FILTER_SHARE = 0.02
#: About what a coding takes, and what filters do, as multiples of the time of a quick coding.
_COST = {"normal": 11.0, "fast": 2.5}
_FILTER_COST, _PART_COST = 1.8, 0.6
#: SSIM says nothing of where to begin: as if this PSNR were asked for.
_USUAL_PSNR = 42.0
#: The step of a quantizer whose error is one: between a uniform one's √12 and what deadzones take.
_STEP_OF_ERROR = 3.0


@dataclass(frozen=True)
class Quality:
    """The target, as an error that no file may be above: of psnr or ssim one is given."""

    psnr: float | None
    ssim: float | None
    peak: float

    @property
    def limit(self) -> float:
        """The largest error: mean square as a share of the peak's, or 1 − SSIM."""
        return 10 ** (-self.psnr / 10) if self.psnr is not None else 1 - float(self.ssim or 0)

    @property
    def squared(self) -> float:
        """The largest mean square error of a PSNR, in stored units."""
        return self.limit * self.peak**2

    @property
    def step(self) -> float:
        """A quantizer's step to begin with, in stored units."""
        return _STEP_OF_ERROR * self.peak * 10 ** (-(self.psnr or _USUAL_PSNR) / 20)

    def error_of(self, source: Voxels, decoded: Voxels) -> float:
        """Of a whole volume."""
        if self.ssim is not None:
            return 1 - ssim_of(source, decoded, self.peak)
        shape = (-1, *source.shape[-2:])
        frames = zip(source.reshape(shape), decoded.reshape(shape), strict=True)
        squared = sum(video.error_of(one[None], other[None]) for one, other in frames)
        return squared / (source.size * self.peak**2)


@dataclass(frozen=True)
class Goal:
    """What a search comes near to from below: the bytes of all videos, or the error."""

    bytes: int = 0
    quality: Quality | None = None

    @property
    def limit(self) -> float:
        """In octaves."""
        return math.log2(self.quality.limit if self.quality else self.bytes)

    @property
    def slope(self) -> float:
        """What an octave of the step changes, in octaves."""
        return _ERROR_SLOPE if self.quality else _SIZE_SLOPE


@dataclass(frozen=True, kw_only=True)
class VideoTask(Task):
    """A task as videos of one encoder."""

    grid: Grid
    encoder: Encoder

    def value(self, goal: Goal, chunks: list[Chunk]) -> float:
        """The bytes of bare streams, or the error that their filters leave, in octaves."""
        if goal.quality is None:
            return math.log2(_bytes_of(chunks))
        blocks = (block for _, block in finished(self, chunks, wiener.MOST_BYTES))
        decoded = self.grid.joined(blocks, self.voxels.dtype)
        return math.log2(max(goal.quality.error_of(self.voxels, decoded), 1e-300))


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


def into_bytes(task: Task, budget: int, *, second_copy: bool) -> Payload | None:
    """Videos of at most `budget` bytes with their filters; None where even the coarsest take more.

    Raises nothing of its own.
    """
    grid = video_grid(task.voxels.shape)
    begun = _begin(task, 8 * budget / task.voxels.size)
    if begun is None or budget <= 0:
        return None
    videos = VideoTask(**vars(task.part(0.0, 0.9)), grid=grid, encoder=begun[0])
    free = round(min(len(grid) * wiener.USUAL_BYTES, _FILTER_SHARE * budget))
    chunks = _search(videos, Goal(bytes=budget - free), begun[1])
    if chunks is None:
        return None
    most = (budget - sum(len(chunk.data) for chunk in chunks)) // len(chunks)
    return _payload(replace(videos, monitor=task.monitor.part(0.9, 1.0)), chunks, most, second_copy)


def to_quality(task: Task, quality: Quality) -> Payload | None:
    """The smallest videos found that keep a quality; None where none do."""
    encoder = _encoder_for(task, quality.step)
    grid = video_grid(task.voxels.shape)
    videos = VideoTask(**vars(task.part(0.0, 0.9)), grid=grid, encoder=encoder)
    chunks = _search(videos, Goal(quality=quality), quality.step)
    if chunks is None:
        return None
    return _payload(replace(videos, monitor=task.monitor.part(0.9, 1.0)), chunks, wiener.MOST_BYTES)


def smallest_of(task: Task) -> int:
    """About the bytes of the coarsest videos."""
    grid = video_grid(task.voxels.shape)
    low, high = limits_of(task.voxels)
    videos = VideoTask(**vars(task), grid=grid, encoder=LIBAOM)
    return _bytes_of(_code(videos, high - low, high - low, quickly=True))


def limits_of(voxels: Voxels) -> tuple[float, float]:
    """The smallest and the largest voxel: bits that a part would not need, the whole may."""
    low, high = extremes(voxels)
    return float(low), float(high)


def _search(task: VideoTask, goal: Goal, start: float) -> list[Chunk] | None:
    """The bare streams whose value comes nearest to the goal from below; None where none does.

    start: a step to begin with, in stored units.
    """
    coded: dict[float, list[Chunk]] = {}
    steps = Steps(task.monitor)
    anchor, setting = start, math.log2(start)
    cost = _COST[task.speed] + (_FILTER_COST if goal.quality else 0.0)

    def measure(setting: float) -> float:
        nonlocal anchor
        if len(coded) == 1:  # near where the search will end
            anchor = 2.0**setting
        part = task.at(steps.next(cost, cost if len(coded) < 2 else cost / 3))
        coded[setting] = _code(part, 2.0**setting, anchor)
        return task.value(goal, coded[setting])

    aim = goal.limit - _TOLERANCE[task.speed] / 2
    if task.encoder.guides:
        setting = _guided(task, steps, goal, aim, setting)
    chosen = seek(
        measure,
        setting,
        goal.limit,
        slope=goal.slope,
        tolerance=_TOLERANCE[task.speed],
        most=_TRIES[task.speed],
    )
    if chosen is None:
        return None
    if goal.quality is not None:
        return coded[chosen]
    over = [chunks for chunks in coded.values() if 1 < _bytes_of(chunks) / goal.bytes <= _MIXED]
    return _mixed(coded[chosen], min(over, key=_bytes_of), goal.bytes) if over else coded[chosen]


def _guided(task: VideoTask, steps: Steps, goal: Goal, aim: float, setting: float) -> float:
    """The step, in octaves, whose coding should come to `aim`, by quick codings.

    What the better coding has more than they is learned from a part.
    """
    tried: list[tuple[float, float]] = []
    slope = goal.slope
    for _ in range(_MOST_GUIDES):
        part = task.at(steps.next(1, 1 + _PART_COST + 2 * _COST[task.speed]))
        chunks = _code(part, 2.0**setting, 2.0**setting, quickly=True)
        tried.append((setting, task.value(goal, chunks)))
        slope = slope_of(tried, slope)
        off = aim - tried[-1][1]
        setting += max(-LONGEST_STEP, min(off / slope, LONGEST_STEP))
        if abs(off) < _NEARLY:
            break
    steps.next(_PART_COST, 2 * _COST[task.speed]).progress(0.0, "compress")
    part_of = _middle_of(task.voxels)
    if not video.fits(part_of):
        return setting
    sample = replace(task, voxels=part_of, grid=Grid(part_of.shape, (1, 1, 1)), monitor=Monitor())
    goal = goal if part_of.ndim == 3 and goal.quality and not goal.quality.ssim else Goal(bytes=1)
    values = [
        sample.value(goal, _code(sample, 2.0**setting, 2.0**setting, quickly=quickly))
        for quickly in (False, True)
    ]
    return setting - (values[0] - values[1]) / (slope if goal.quality else _SIZE_SLOPE)


def _middle_of(voxels: Voxels) -> Voxels:
    """At most `_SLICES` slices of `_SIDE` × `_SIDE`, from the middle of the middle block."""
    grid = video_grid(voxels.shape)
    block = grid.box(len(grid) // 2).of(voxels)
    most = (_SLICES, _SIDE, _SIDE)
    starts = [max(0, extent - side) // 2 for extent, side in zip(block.shape, most, strict=True)]
    return block[
        tuple(slice(start, start + side) for start, side in zip(starts, most, strict=True))
    ]


def _begin(task: Task, bits: float) -> tuple[Encoder, float] | None:
    """The encoder, and a step to begin with, for `bits` of each voxel; None where nothing can be
    a video. A part of the volume is coded until it takes its share.
    """
    low, high = limits_of(task.voxels)
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return None
    start = (high - low) / 16 / math.sqrt(bits + 0.01)
    block = _middle_of(task.voxels)
    if not video.fits(block):
        return LIBAOM, start
    size = max(bits * block.size / 8, 2 * video.HEAD.size)
    encoder = _fitting(block)

    def measure(setting: float) -> float:
        coded = video.encode(
            block, 2.0**setting, speed="fast", encoder=encoder, limits=(low, high), quickly=True
        )
        return math.log2(len(coded.data))

    chosen = seek(
        measure,
        math.log2(start),
        math.log2(size),
        slope=_SIZE_SLOPE,
        tolerance=_PART_TOLERANCE,
        most=3,
    )
    if chosen is None:
        return encoder, start
    step = 2.0**chosen
    # The whole differs from its middle by how much there is to code.
    busier = activity_of(block, step) * task.voxels.size / max(activity_of(task.voxels, step), 1e-9)
    octaves = math.log2(max(busier / block.size, 0.1)) / _SIZE_SLOPE
    step *= 2.0 ** max(-1.0, min(octaves, 1.0))
    return _encoder_for(task, step), step


def _fitting(block: Voxels) -> Encoder:
    """The last of the encoders that take the block: SVT-AV1, where it is there."""
    return [encoder for encoder in encoders() if encoder.takes(*block.shape)][-1]


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
    limits = limits_of(task.voxels)
    coded = video.encode(block, step, speed="fast", encoder=encoder, limits=limits, quickly=True)
    squared = video.error_of(block, video.decode(coded.data, block.shape, task.context))
    finest = encoder.finest * (limits[1] - limits[0])
    return LIBAOM if squared < finest**2 * block.size else encoder


def _bytes_of(chunks: list[Chunk]) -> int:
    """One at least: their logarithm is taken."""
    return max(1, sum(len(chunk.data) for chunk in chunks))


def _code(task: VideoTask, step: float, anchor: float, *, quickly: bool = False) -> list[Chunk]:
    """Every block as a video, or without loss where that is smaller; not yet filtered.

    anchor, quickly: see Encoder.
    """

    def code(number: int) -> Chunk:
        block = task.grid.box(number).of(task.voxels)
        kind, data = _code_one(task, block, step, anchor, quickly=quickly)
        let_go(task.voxels)
        trim()
        return Chunk(number, kind, task.keep(data))

    chunks = []
    for chunk in task.map(code, range(len(task.grid)), task.encoder.most_threads):
        chunks.append(chunk)
        task.monitor.progress(len(chunks) / len(task.grid), "compress")
    return chunks


def _code_one(
    task: VideoTask, block: Voxels, step: float, anchor: float, *, quickly: bool
) -> tuple[int, bytes]:
    """Block type and bytes of one block."""
    if not video.fits(block):
        exact = code_block(block, None, speed="fast")
        return exact.kind, bytes(exact.data)
    coded = video.encode(
        block, step, speed=task.speed, encoder=task.encoder, anchor=anchor, quickly=quickly
    )
    data = coded.data
    quick = codecs().zstd_encode(np.ascontiguousarray(block).tobytes(), level=1)
    if len(quick) < _EXACT_NEAR * len(data):
        exact = code_block(block, None, speed="fast")
        if len(exact.data) <= len(data):
            return exact.kind, bytes(exact.data)
    return VIDEO, data


def _mixed(chunks: list[Chunk], finer: list[Chunk], budget: int) -> list[Chunk]:
    """As many blocks of the finer coding as there is room for, the cheapest first."""
    rest = budget - sum(len(chunk.data) for chunk in chunks)
    mixed = list(chunks)
    more = [len(fine.data) - len(chunk.data) for chunk, fine in zip(chunks, finer, strict=True)]
    for number in sorted(range(len(chunks)), key=more.__getitem__):
        if 0 < more[number] <= rest:
            mixed[number] = finer[number]
            rest -= more[number]
    return mixed


def finished(task: VideoTask, chunks: list[Chunk], most: int) -> Iterator[tuple[Chunk, Voxels]]:
    """Videos with filters of `most` bytes each, with what a reader makes of them."""

    def finish(chunk: Chunk) -> tuple[Chunk, Voxels]:
        block = task.grid.box(chunk.block).of(task.voxels)
        if chunk.kind != VIDEO:
            return chunk, decode_data(chunk.kind, bytes(chunk.data), block.shape, task.context)
        data, decoded = video.filtered(bytes(chunk.data), block, task.context, most)
        let_go(task.voxels)
        trim()
        return replace(chunk, data=task.keep(data)), decoded

    return task.map(finish, chunks, video.MOST_THREADS)


def _payload(task: VideoTask, chunks: list[Chunk], most: int, second_copy: bool = True) -> Payload:
    """Chunks with filters of `most` bytes each."""
    tally, whole = Tally(task.voxels, task.grid), []
    for chunk, decoded in finished(task, chunks, most):
        tally.add(decoded)
        whole.append(chunk)
        task.monitor.progress(len(whole) / len(chunks), "compress")
    return Payload(task.grid, whole, tally, second_copy)
