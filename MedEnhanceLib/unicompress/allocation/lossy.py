"""Codes a volume to a ratio or a quality: losslessly if that fits, else with the least loss.

A ratio is reached by an error bound or by videos, a quality by videos. One search finds the
quantizer step, the same for all blocks: equal steps are close to the best allocation of bytes,
because every block then gains about the same from its last byte. A part of the volume, then quick
codings of the whole, give about the right step to begin with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Self

import numpy as np

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.arrays import Voxels, extremes, trim
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.progress import Monitor, Steps
from MedEnhanceLib.unicompress.allocation.coding_task import CodedBlocks, CodingTask, Room
from MedEnhanceLib.unicompress.allocation.goals import BytesGoal, Goal, QualityGoal
from MedEnhanceLib.unicompress.allocation.near_lossless import (
    LEAST_BITS,
    code_bounded,
    code_within,
    expected_bytes,
)
from MedEnhanceLib.unicompress.blocks import Grid, implicit_grid, video_grid
from MedEnhanceLib.unicompress.codec_models import ModelSet
from MedEnhanceLib.unicompress.codecs.block_types import BLOCK_TYPES
from MedEnhanceLib.unicompress.codecs.implicit.settings import IMPLICIT
from MedEnhanceLib.unicompress.codecs.lossless import code_block
from MedEnhanceLib.unicompress.codecs.video import video, wiener
from MedEnhanceLib.unicompress.codecs.video.av1 import LIBAOM, SVT_NOISE, Encoder, encoders
from MedEnhanceLib.unicompress.container import Chunk, bytes_of

if TYPE_CHECKING:
    from MedEnhanceLib.unicompress.codecs.implicit.codec import Writer

# Tuned on open volumes (decisions 0023, 0072). Measured again by Benchmarks/compression.py.
#: A search ends this much below the limit, in octaves, and after this many codings.
_TOLERANCE = math.log2(1.03)
_TRIES = 2
#: The same for quick codings of the whole volume, and of a part of it.
_QUICK_TOLERANCE, _PART_TOLERANCE, _QUICK_TRIES = math.log2(1.1), 0.15, 4
#: Longest step of a search, in octaves; least distance to a tried setting, as a share of the gap.
_LONGEST_STEP, _INSIDE = 2.5, 0.08
#: Slopes from this share of the usual one to this multiple count; noise makes steep ones.
_FLAT, _STEEP = 0.3, 8.0
#: Slope below which noise takes most of the bytes.
_NOISE_SLOPE = -2.2
#: Further tries where none so far is below the limit, or only far below it.
_RESCUES, _FAR = 5, 2
#: Both encoders are tried from this PSNR of the part, and this share of background, on.
_TRIAL_PSNR, _TRIAL_BACKGROUND = 44.0, 0.5
#: The part that is tried: bands of a block's rows, each of at least these rows, or of this share of
#: them. Fewer slices would predict less of the whole, and so would the middle alone.
_BANDS, _BAND_ROWS, _BAND_SHARE = 3, 22, 1 / 16
#: Largest share of the bytes that is reserved for filters.
_FILTER_SHARE = 0.02
#: Approximate times of a coding, of filters, and of a part, in units of a quick coding's time.
_COST = {"normal": 9.0, "fast": 2.5}
_FILTER_COST, _PART_COST = 1.8, 1.5
#: The same for an error bound at a ratio, if one is tried, or not.
_BOUNDED_COST, _UNTRIED_COST = 12.0, 0.5
#: Mean squared error of integers below which nearly all are unchanged.
_NEXT_TO_NOTHING = 0.05
#: Settings (log2 of a step) with their values (see `goals`).
Tried = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class VideoTask(CodingTask):
    """A task as videos of one encoder.

    Attributes:
        goal: what the videos come near to.
    """

    grid: Grid
    encoder: Encoder
    goal: Goal

    def code(self, step: float, *, quickly: bool = False) -> list[Chunk]:
        """Code every block as a video; losslessly if it is constant or not finite.

        quickly: see Encoder.
        """

        def code(number: int) -> Chunk:
            block = self.grid.box(number).of(self.voxels)
            if not video.fits(block):
                exact = code_block(block, None, speed="fast")
                return Chunk(number, exact.kind, exact.data)
            coded = video.encode(
                block, step, speed=self.speed, encoder=self.encoder, quickly=quickly
            )
            trim()
            return Chunk(number, video.VIDEO, coded.data)

        chunks = []
        for chunk in self.map(code, range(len(self.grid)), self.encoder.most_threads):
            chunks.append(chunk)
            self.monitor.progress(len(chunks) / len(self.grid), "compressing the volume")
        return chunks

    def finished(self, chunks: list[Chunk], most: int) -> Iterator[tuple[Chunk, Voxels]]:
        """Add a filter of at most `most` bytes to each video; yields chunks and decoded blocks."""

        def finish(chunk: Chunk) -> tuple[Chunk, Voxels]:
            block = self.grid.box(chunk.block).of(self.voxels)
            if chunk.kind != video.VIDEO:
                return chunk, BLOCK_TYPES[chunk.kind].decode(chunk.data, block.shape, self.context)
            data, decoded = video.filtered(chunk.data, block, self.context, most)
            trim()
            return replace(chunk, data=data), decoded

        return self.map(finish, chunks, video.MOST_THREADS)

    def value(self, chunks: list[Chunk]) -> float:
        """Compute the value that the goal limits: log2 of the bytes or of the error."""
        if isinstance(self.goal, BytesGoal):
            return self.goal.value(bytes_of(chunks))
        blocks = (block for _, block in self.finished(chunks, wiener.MOST_BYTES))
        return self.goal.value(self.voxels, self.grid.joined(blocks, self.voxels.dtype))

    def with_slope(self, tried: Tried) -> Self:
        """Return the task with the slope of bytes that quick codings had."""
        if not isinstance(self.goal, BytesGoal):
            return self
        return replace(self, goal=replace(self.goal, slope=_slope_of(tried, self.goal.slope)))

    def for_part(self, voxels: Voxels) -> Self:
        """Make the task of a part of the voxels, [K, J, I]."""
        return replace(
            self,
            voxels=voxels,
            grid=Grid(voxels.shape, (1, 1, 1)),
            goal=self.goal.for_part(voxels.size, self.voxels.size),
            monitor=Monitor(cancel=lambda: self.monitor.cancelled),
        )

    def try_quickly(self, setting: float) -> float:
        """Compute the value of a quick coding with the step 2 ** setting."""
        return self.value(self.code(2.0**setting, quickly=True))

    def trial(self, setting: float, span: float, *, quickly: bool = False) -> tuple[int, float]:
        """Code the only block, and measure its bytes and PSNR.

        Args:
            setting: log2 of the step.
            span: of the intensities, the peak of the PSNR.
            quickly: see Encoder.
        """
        (chunk,) = self.code(2.0**setting, quickly=quickly)
        decoded = BLOCK_TYPES[chunk.kind].decode(chunk.data, self.voxels.shape, self.context)
        return len(chunk.data), metrics.psnr(self.voxels, decoded, span)

    def payload(self, chunks: list[Chunk]) -> CodedBlocks:
        """Finish the videos with filters, as large as the goal allows."""
        most = self.goal.filter_bytes(bytes_of(chunks), len(chunks))
        return CodedBlocks.of(self, self.grid, self.finished(chunks, most))


def code_to_ratio(task: CodingTask, room: Room) -> CodedBlocks:
    """Code within `room`: losslessly if it fits, else with the least loss.

    Raises ConfigError where not even the coarsest code fits.
    """
    steps = Steps(task.monitor)
    videos = 2 + _PART_COST + 2.2 * _COST[task.speed] + _FILTER_COST
    task.monitor.progress(0.0, "compressing the volume")
    is_low = 8 * room.bytes >= LEAST_BITS * task.voxels.size
    bounded = code_within(
        task.at(steps.next(_BOUNDED_COST if is_low else _UNTRIED_COST, videos)), room
    )
    if bounded is not None and bounded.tally.equal:
        return bounded
    budget = room.for_chunks(len(video_grid(task.voxels.shape)))
    as_videos = _into_bytes(task.at(steps.next(videos, 0)), budget)
    codes = [payload for payload in (bounded, as_videos) if payload is not None]
    if not codes:
        raise room.out_of_reach()
    return min(codes, key=lambda payload: payload.tally.squared)


def code_to_quality(task: CodingTask, goal: QualityGoal) -> CodedBlocks:
    """Code videos, coarser and finer until the quality is just kept; lossless if smaller."""
    voxels = task.voxels
    codable = 0 < goal.peak < math.inf and np.isfinite(voxels).all()
    is_whole = voxels.dtype.kind in "iu"
    if not codable or (is_whole and goal.largest_error * goal.peak**2 < _NEXT_TO_NOTHING):
        return code_bounded(task, None)
    lossy = _searched(task.part(0.0, 0.9), goal, goal.step)
    if lossy is not None and expected_bytes(task, None) > lossy.bytes:
        return lossy
    exact = code_bounded(task.part(0.9, 1.0), None)
    return exact if lossy is None or exact.bytes < lossy.bytes else lossy


def _into_bytes(task: CodingTask, budget: int) -> CodedBlocks | None:
    """Code videos of at most `budget` bytes with filters; None where the coarsest take more."""
    low, high = map(float, extremes(task.voxels))
    if budget <= 0 or not math.isfinite(high - low) or low == high:
        return None
    blocks = len(video_grid(task.voxels.shape))
    free = round(min(blocks * wiener.USUAL_BYTES, _FILTER_SHARE * budget))
    bits = 8 * budget / task.voxels.size
    goal = BytesGoal(budget - free, free)
    return _searched(task, goal, (high - low) / 16 / math.sqrt(bits + 0.01))


def _searched(task: CodingTask, goal: Goal, start: float) -> CodedBlocks | None:
    """Search the videos whose value comes nearest to the goal from below; None without any.

    start: a step to begin with, in stored units.
    """
    grid, setting = video_grid(task.voxels.shape), math.log2(start)
    is_for_bytes = isinstance(goal, BytesGoal)
    bands = _bands(grid.box(len(grid) // 2).of(task.voxels))
    encoder = [encoder for encoder in encoders() if encoder.takes(*bands.shape)][-1]
    search = VideoTask(**vars(task.part(0.0, 0.9)), grid=grid, encoder=encoder, goal=goal)
    part = search.for_part(bands) if video.fits(bands) else None
    if part and is_for_bytes:
        tried = _seek(part.try_quickly, setting, part.goal, _PART_TOLERANCE, _QUICK_TRIES)
        setting = _next(tried, part.goal)
        search = search.with_slope(tried)
    if len(encoders()) == 1:
        task.monitor.log(
            "Videos are coded by libaom alone; SVT-AV1 is faster and often 0.5 dB better: "
            "python -m pip install 'medenhance[video]'"
        )
    steps, tolerance = Steps(search.monitor), _TOLERANCE
    if search.encoder.guides:
        quick = search.at(steps.next(2 + _PART_COST, 2 * _COST[task.speed]))
        tried = _seek(quick.try_quickly, setting, search.goal, _QUICK_TOLERANCE, _QUICK_TRIES)
        search = search.with_slope(tried)
        setting = _next(tried, search.goal, tolerance / 2)
        if part:
            search = replace(search, encoder=_encoder_for(search, part, setting))
        if part and search.encoder.guides:  # it shows how much more the full coding takes
            part = replace(part, encoder=search.encoder)
            more = part.value(part.code(2.0**setting)) - part.try_quickly(setting)
            setting -= more / (search if is_for_bytes else part).goal.slope
    coded: dict[float, list[Chunk]] = {}
    cost = _COST[task.speed] + (0.0 if is_for_bytes else _FILTER_COST)

    def measure(setting: float) -> float:
        attempt = search.at(steps.next(cost, cost if len(coded) < 2 else cost / 3))
        coded[setting] = attempt.code(2.0**setting)
        return attempt.value(coded[setting])

    tried = _seek(measure, setting, search.goal, tolerance, _TRIES, rescues=_RESCUES)
    below = [(value, setting) for setting, value in tried if value <= goal.limit]
    return search.at(task.monitor.part(0.9, 1.0)).payload(coded[max(below)[1]]) if below else None


def _bands(block: Voxels) -> Voxels:
    """Join bands of rows, spread evenly over a block, [K, J, I]; a small block as it is.

    Two of their voxels have the block's extremes, so that both are scaled alike.
    """
    rows = block.shape[1]
    size = max(_BAND_ROWS, round(_BAND_SHARE * rows))
    if _BANDS * size > rows:
        return block
    starts = [(2 * n + 1) * rows // (2 * _BANDS) - size // 2 for n in range(_BANDS)]
    bands = np.concatenate([block[:, start : start + size] for start in starts], axis=1)
    bands[0, 0, :2] = extremes(block)
    return bands


def _encoder_for(search: VideoTask, part: VideoTask, setting: float) -> Encoder:
    """Choose SVT-AV1, for noise a faster one, or libaom where it is better in a trial.

    libaom is by up to 5 dB in volumes of much background, such as skull-stripped brains, at small
    errors; in others both are level, and SVT-AV1 takes half the time.

    search: with SVT-AV1.
    part: shows the size of the errors.
    setting: log2 of the step.
    """
    if isinstance(search.goal, BytesGoal) and search.goal.slope < _NOISE_SLOPE:
        return SVT_NOISE
    low, high = map(float, extremes(search.voxels))
    _, psnr = part.trial(setting, high - low, quickly=True)
    corner = search.voxels.reshape(-1)[0]
    background = np.count_nonzero(search.voxels == corner) / search.voxels.size
    if search.speed == "fast" or psnr < _TRIAL_PSNR or background < _TRIAL_BACKGROUND:
        return LIBAOM if psnr > search.encoder.most_psnr else search.encoder
    block = search.grid.box(len(search.grid) // 2).of(search.voxels)
    middle = search.for_part(block)

    def excess(encoder: Encoder) -> float:
        """Compute log2 of the bytes at a PSNR of 0, from the slopes of both over the step."""
        size, psnr = replace(middle, encoder=encoder).trial(setting, high - low)
        slopes = BytesGoal.slope / QualityGoal.slope
        return math.log2(size) + slopes * psnr / (20 * math.log10(2))

    return min((search.encoder, LIBAOM), key=excess)


def _seek(
    measure: Callable[[float], float],
    start: float,
    goal: Goal,
    tolerance: float,
    most: int,
    *,
    rescues: int = 0,
) -> Tried:
    """Try about `most` settings that approach the goal's limit; returns them with their values.

    measure: setting → value; both on logarithmic scales, so that it is nearly a straight line.
    tolerance: to the limit, at which the search ends. rescues: further tries for a value below the
    limit; without them one above it is as good.
    """
    tried: Tried = []
    setting, limit = start, goal.limit
    for turn in range(most + rescues):
        tried.append((setting, measure(setting)))
        values = [value for _, value in tried]
        if limit - tolerance <= values[-1] <= limit + (0.0 if rescues else tolerance):
            break
        if turn >= most - 1 and any(limit - _FAR * tolerance <= value <= limit for value in values):
            break
        setting = _next(tried, goal, tolerance / 2 * (1 + max(0, turn - most + 2)))
    return tried


def _next(tried: Tried, goal: Goal, reserve: float = 0.0) -> float:
    """Predict the setting whose value lies `reserve` below the goal's limit."""
    aim = goal.limit - reserve
    below = max((each for each in tried if each[1] <= aim), key=lambda each: each[1], default=None)
    above = min((each for each in tried if each[1] > aim), key=lambda each: each[1], default=None)
    if below is None or above is None:
        setting, value = tried[-1]
        step = (aim - value) / _slope_of(tried, goal.slope)
        return setting + max(-_LONGEST_STEP, min(step, _LONGEST_STEP))
    share = (aim - below[1]) / (above[1] - below[1])
    share = max(_INSIDE, min(share, 1 - _INSIDE))
    return below[0] + share * (above[0] - below[0])


def _slope_of(tried: Tried, usual: float) -> float:
    """Compute the slope of value over setting between the last two, or the usual one if wild."""
    if len(tried) < 2 or tried[-1][0] == tried[-2][0]:
        return usual
    (x0, y0), (x1, y1) = tried[-2:]
    slope = (y1 - y0) / (x1 - x0)
    return slope if _FLAT < slope / usual < _STEEP else usual


def code_implicit(task: CodingTask, room: Room, volume: Volume, writer: Writer) -> CodedBlocks:
    """Code as many layers of all blocks as `room` has bytes for.

    If a layer fits only in part, the first blocks get it. Raises ConfigError if not even the first
    layer fits.

    Args:
        task: with voxels of whole numbers.
        room: less the reader's model, if the file carries it.
        volume: has spacing and modality.
        writer: has the reader's model, which the file names.
    """
    from MedEnhanceLib.unicompress.codecs.implicit.codec import BlockScaling, is_thick

    grid, thick = implicit_grid(task.voxels.shape), is_thick(volume.geometry.spacing)
    volume_scaling = BlockScaling.of(task.voxels, volume.modality)
    codes = []
    for number in range(len(grid)):
        task.monitor.progress(0.5 * number / len(grid), "fitting implicit codes")
        block = grid.box(number).of(task.voxels)
        codes.append(writer.code(block, volume_scaling.for_block(block), thick=thick))
    free = room.for_chunks(len(grid)) - sum(len(layers[0]) for layers in codes)
    if free < 0:
        raise room.out_of_reach()
    selected = [layers[0] for layers in codes]
    for layer, number in product(range(1, len(codes[0])), range(len(grid))):
        free -= len(codes[number][layer]) - len(selected[number])
        if free < 0:
            break
        selected[number] = codes[number][layer]
    chunks = [Chunk(number, IMPLICIT, data) for number, data in enumerate(selected)]
    model = writer.model
    models = ModelSet({model.role: model.identity}, {model.sha256: model.data})
    context = replace(task.context, models=models)

    def decode(chunk: Chunk) -> tuple[Chunk, Voxels]:
        return chunk, BLOCK_TYPES[IMPLICIT].decode(chunk.data, grid.box(chunk.block).shape, context)

    part = task.part(0.5, 1.0)
    return CodedBlocks.of(part, grid, part.map(decode, chunks), models=(writer.model,), exact=False)
