"""Codes a volume into a given number of bytes, as well as they allow.

The middle of the volume is coded in every way first: which one wins there codes the whole. Of the
two encoders of videos SVT-AV1 is taken, several times as fast and as good or better, wherever it is
there and its 10 bits suffice; at the speed `slow` both are tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from MedEnhanceLib.core.slabs import extremes
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.progress import Monitor, Steps
from MedEnhanceLib.unicompress.allocation.near_lossless import (
    LEAST_BITS,
    code_bounded,
    code_within,
    estimate_bytes,
)
from MedEnhanceLib.unicompress.allocation.rate import activity_of, seek
from MedEnhanceLib.unicompress.allocation.task import ROW_BYTES, SLACK, Payload, Room, Task
from MedEnhanceLib.unicompress.allocation.videos import (
    FILTER_COST,
    SIZE_SLOPE,
    VideoTask,
    against_wavelet,
    finished,
    for_streams,
    middle_of,
    search_cost,
    to_size,
)
from MedEnhanceLib.unicompress.allocation.wavelets import code_wavelets
from MedEnhanceLib.unicompress.blocks import video_grid
from MedEnhanceLib.unicompress.codecs import wavelet
from MedEnhanceLib.unicompress.codecs.video import video
from MedEnhanceLib.unicompress.codecs.video.av1 import LIBAOM, Encoder, encoders
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.container import Chunk
from MedEnhanceLib.unicompress.models import DecodeContext
from MedEnhanceLib.unicompress.verify import Tally

_TOLERANCE = 0.15
#: Of two encoders that differ by less, in dB, either may be the better one on the whole.
_NEAR = 0.5
#: A part with fewer bytes than this is no basis for a choice.
_SURE_BYTES = 4000
#: Where a trial's part differs by less than this, in dB, the whole volume is coded both ways.
_NEAR_WAVELET = 0.7
_USED = 0.8
#: Coding without loss at full effort takes this much less than the fast estimate.
_EFFORT_GAIN = 1.15
#: About what steps take, for the progress: as FILTER_COST.
_ESTIMATE_COST, _TRIAL_COST, _BOUNDED_COST, _WAVELET_COST = 0.5, 0.6, 12.0, 8.0
#: What is kept of the progress for a further way of coding that the trial does not call for.
_SURPRISE = 0.05
#: For each voxel.
_MANY_BITS = 0.4


def code_to_ratio(task: Task, room: Room) -> Payload:
    """The best code within `room`: lossless if it fits, else what loses least.

    Raises ConfigError, naming what can be reached, where not even the coarsest code fits.
    """
    steps = Steps(task.monitor)
    task.monitor.progress(0.0, "compress")
    videos = search_cost(task.speed)
    # Only a low ratio is tried with a bounded error.
    bounded = _BOUNDED_COST if 8 * room.file_bytes >= LEAST_BITS * task.voxels.size else 0.0
    exact = _try_without_loss(task, steps, bounded + videos, room)
    if exact is not None:
        return exact
    if room.for_payload(1)[0] <= 0:
        carried = int(task.voxels.nbytes / room.ratio) - room.file_bytes
        raise room.out_of_reach(task.voxels.nbytes, carried + room.once + ROW_BYTES + SLACK)
    one = task.at(steps.next(bounded, videos))
    within = code_within(one, lambda chunks: room.for_payload(chunks)[0])
    if within is not None:
        within = replace(within, second_copy=room.for_payload(len(within.chunks))[1])
    try:
        found = _transformed(task.at(steps.next(videos, 0)), room)
    except ConfigError:
        if within is None:
            raise
        return within
    return within if within and within.tally.squared < found.tally.squared else found


def _try_without_loss(task: Task, steps: Steps, left: float, room: Room) -> Payload | None:
    """left: what is expected to follow, where this does not fit."""
    expected = estimate_bytes(task.at(steps.next(_ESTIMATE_COST, left)))
    if expected > room.file_bytes * _EFFORT_GAIN:
        return None
    # Where it is tried, it most often fits.
    exact = replace(task, predictors=(), monitor=steps.next(left, 0.1 * left))
    payload = code_bounded(exact, None)
    budget, second_copy = room.for_payload(len(payload.chunks))
    return replace(payload, second_copy=second_copy) if payload.bytes <= budget else None


def _transformed(task: Task, room: Room) -> Payload:
    """Videos or wavelets, cut to size; ConfigError where not even the coarsest fit."""
    if len(encoders()) == 1:
        task.monitor.log(
            "Videos are coded by libaom alone; SVT-AV1 is faster and often 0.5 dB better: "
            "python -m pip install 'av>=17.1'"
        )
    trial = try_types(task, 8 * room.file_bytes / task.voxels.size)
    best: Payload | None = None
    steps = Steps(task.monitor)
    videos = search_cost(task.speed)
    task.at(steps.next(_TRIAL_COST, videos)).monitor.progress(1.0, "compress")
    if trial.video_wins > -_NEAR_WAVELET or trial.small:
        both = trial.video_wins < _NEAR_WAVELET
        one = task.at(steps.next(videos, _WAVELET_COST * (1 if both else _SURPRISE)))
        best = _best_videos(one, room, trial, wavelet_too=both)
        # A video that cannot use its bytes is as good as videos become: a wavelet may be better.
        idle = best is not None and best.bytes < _USED * room.file_bytes
        if best is not None and not (both or idle):
            return best
    try:
        other = code_wavelets(task.at(steps.next(1, 0)), room)
    except ConfigError:
        if best is None:
            raise
        return best
    return best if best is not None and best.tally.squared < other.tally.squared else other


def _best_videos(task: Task, room: Room, trial: Trial, *, wavelet_too: bool) -> Payload | None:
    """Every block as a video, or as what is nearer in its size; None where none fit.

    Where two encoders were as good in the trial, or the bits of one do not suffice, the one that
    loses less on the whole.
    """
    grid = task.cut(video_grid(task.voxels.shape))
    budget, second_copy = room.for_payload(len(grid))
    if budget <= 0:
        return None
    best: Payload | None = None
    lacks_bits = False
    waiting = [*trial.videos]
    if waiting and LIBAOM not in (one.encoder for one in waiting):
        waiting.append(VideoTrial(LIBAOM, waiting[0].step, -math.inf))
    steps = Steps(task.monitor)
    # Whether its bits suffice for the whole shows at the end of the first coding alone.
    surprise = 1.0 if 8 * room.file_bytes >= _MANY_BITS * task.voxels.size else _SURPRISE
    for turn, one in enumerate(waiting, 1):
        if best is not None and not (trial.is_near(one) or lacks_bits):
            continue
        later = sum(1 if trial.is_near(other) else surprise for other in waiting[turn:])
        own = Steps(steps.next(1, later))
        videos = VideoTask(
            **vars(task.at(own.next(search_cost(task.speed), FILTER_COST))),
            grid=grid,
            encoder=one.encoder,
            wavelet_too=wavelet_too,
        )
        chunks = to_size(videos, for_streams(budget, len(grid)), one.step)
        if not chunks:
            continue
        most = (budget - sum(len(chunk.data) for chunk in chunks)) // len(chunks)
        found = _filled_up(videos, chunks, most, second_copy, own.next(1, 0))
        lacks_bits = _lacks_bits(found.tally.squared, videos)
        if best is None or found.tally.squared < best.tally.squared:
            best = found
    return best


def _lacks_bits(squared: float, task: VideoTask) -> bool:
    """Whether a coding is so near to its source that its encoder's bits do not suffice.

    A trial does not show it, where the whole is easier to code than its middle.
    """
    low, high = limits_of(task.voxels)
    return squared < (task.encoder.finest * (high - low)) ** 2 * task.voxels.size


def _filled_up(
    task: VideoTask, chunks: list[Chunk], most: int, second_copy: bool, monitor: Monitor
) -> Payload:
    """Chunks with filters of `most` bytes each."""
    tally, whole = Tally(task.voxels, task.grid), []
    monitor.progress(0.0, "compress")  # no further search was needed
    for chunk, decoded in finished(task, chunks, most):
        tally.add(decoded)
        whole.append(chunk)
        monitor.progress(len(whole) / len(chunks), "compress")
    return payload_of(task, whole, tally, second_copy)


def payload_of(
    task: VideoTask, chunks: list[Chunk], tally: Tally, second_copy: bool = True
) -> Payload:
    """Chunks of videos."""
    return Payload(task.grid, chunks, tally, second_copy)


@dataclass(frozen=True)
class VideoTrial:
    """A part, coded as a video. step: in stored units, for the whole to have the bytes it should.

    wins: in dB over a wavelet of equal bytes; infinity where it has no such code.
    """

    encoder: Encoder
    step: float
    wins: float


@dataclass(frozen=True)
class Trial:
    """A part of a volume, coded in equal bytes.

    videos: those that could be, the best one first. small: the part had too few bytes to judge by,
    most of them for what a stream begins with.
    """

    videos: tuple[VideoTrial, ...] = ()
    small: bool = False

    @property
    def video_wins(self) -> float:
        """The best video over the wavelet, in dB; minus infinity where there is none."""
        return self.videos[0].wins if self.videos else -math.inf

    def is_near(self, one: VideoTrial) -> bool:
        """Whether it may be the best on the whole."""
        return one.wins >= self.video_wins - _NEAR


def try_types(task: Task, bits: float) -> Trial:
    """Code the middle of the middle block as videos and as wavelets, in `bits` for each voxel."""
    voxels = task.voxels
    block = middle_of(voxels)
    if not video.fits(block) or not wavelet.fits(block):
        return Trial()
    part = _Part(block, limits_of(voxels), task.speed, task.context)
    size = max(bits * block.size / 8, 2 * video.HEAD.size)
    coded = (part.of_size(size, encoder) for encoder in part.encoders())
    found = sorted((one for one in coded if one), key=lambda one: one.wins, reverse=True)
    # The whole differs from its middle by how much there is to code.
    videos = tuple(replace(one, step=_carried(one.step, block, voxels)) for one in found)
    return Trial(videos, size < _SURE_BYTES)


def at_step(voxels: Voxels, step: float, speed: Speed, context: DecodeContext) -> VideoTrial:
    """The video that wins most over wavelets in steps of that size; 0 dB where none can be."""
    block = middle_of(voxels)
    if not video.fits(block):
        return VideoTrial(LIBAOM, step, 0.0)
    part = _Part(block, limits_of(voxels), speed, context)
    return max((part.at(step, one) for one in part.encoders()), key=lambda one: one.wins)


def limits_of(voxels: Voxels) -> tuple[float, float]:
    """The smallest and the largest voxel: bits that a part would not need, the whole may."""
    low, high = extremes(voxels)
    return float(low), float(high)


@dataclass
class _Part:
    """A block that is coded for a trial. limits: of the volume that it is a part of.

    lacks_bits: whether what was coded last is nearer to its source than its encoder's bits allow.
    """

    block: Voxels
    limits: tuple[float, float]
    speed: Speed
    context: DecodeContext
    lacks_bits: bool = False

    def encoders(self) -> Iterator[Encoder]:
        """Those to try, in turn: a further one only where it may be needed."""
        fitting = [one for one in encoders() if one.takes(*self.block.shape)]
        for one in reversed(fitting):
            yield one
            if self.speed != "slow" and not self.lacks_bits:
                return

    def of_size(self, size: float, encoder: Encoder) -> VideoTrial | None:
        """As a video of about `size` bytes."""
        coded: dict[float, bytes] = {}

        def measure(setting: float) -> float:
            coded[setting] = self._code(2.0**setting, encoder)
            return math.log2(len(coded[setting]))

        span = self.limits[1] - self.limits[0]
        start = math.log2(span / 16) - math.log2(8 * size / self.block.size + 0.01) / 2
        chosen = seek(
            measure, start, math.log2(size), slope=SIZE_SLOPE, tolerance=_TOLERANCE, most=3
        )
        return None if chosen is None else self.at(2.0**chosen, encoder, coded[chosen])

    def at(self, step: float, encoder: Encoder, data: bytes = b"") -> VideoTrial:
        """In a step, against the wavelet. data: its code, where it is known."""
        data = data or self._code(step, encoder)
        wins, error, _ = against_wavelet(self.block, data, self.context)
        finest = (encoder.finest * (self.limits[1] - self.limits[0])) ** 2
        self.lacks_bits = error < finest * self.block.size
        return VideoTrial(encoder, step, wins)

    def _code(self, step: float, encoder: Encoder) -> bytes:
        coded = video.encode(self.block, step, speed="fast", encoder=encoder, limits=self.limits)
        return coded.data


def _carried(step: float, block: Voxels, voxels: Voxels) -> float:
    busier = activity_of(block, step) * voxels.size / max(activity_of(voxels, step), 1e-9)
    octaves = math.log2(max(busier / block.size, 0.1)) / SIZE_SLOPE
    return float(step * 2.0 ** max(-1.0, min(octaves, 1.0)))
