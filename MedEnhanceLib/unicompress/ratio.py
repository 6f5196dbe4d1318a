"""Codes a volume into a given number of bytes, as well as they allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.core.slabs import let_go
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress import restoration, video, wavelet
from MedEnhanceLib.unicompress.blocks import Grid, video_grid, wavelet_grid
from MedEnhanceLib.unicompress.bounded import Payload, code_bounded, estimate_bytes
from MedEnhanceLib.unicompress.candidates import Code, code_block
from MedEnhanceLib.unicompress.coders import VIDEO, WAVELET
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.container import Chunk
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.unicompress.decode import decode_data
from MedEnhanceLib.unicompress.header import VoxelRange
from MedEnhanceLib.unicompress.learned import Predictor
from MedEnhanceLib.unicompress.lowratio import code_within
from MedEnhanceLib.unicompress.models import CodecModel, ModelSet
from MedEnhanceLib.unicompress.pool import ordered_map
from MedEnhanceLib.unicompress.rate import Curve, Share, allocate
from MedEnhanceLib.unicompress.spool import Keep
from MedEnhanceLib.unicompress.trial import Trial, limits_of, try_types
from MedEnhanceLib.unicompress.verify import Tally
from MedEnhanceLib.unicompress.videoencoders import encoders
from MedEnhanceLib.unicompress.videorate import Job, finished, for_streams, loss_of, to_size

#: Slices of a block: the long wavelet wins where slices resemble each other, up to 2 dB at high
#: ratios; the short one on thick slices. Both are tried on one block.
_DEPTHS = (64, 16)
_TRIED_SIDE = 128
#: Where a trial's part differs by less than so many dB, the whole volume is coded both ways.
_NEAR = 0.7
_USED = 0.8
#: Where a curve is measured, as multiples of the bytes that an equal share would give.
_POINTS, _FAST_POINTS = (0.25, 0.7, 1.6, 4.0), (0.3, 1.0, 3.0)
_REACH = 4.0
#: Blocks that could use more than `_REACH` equal shares are measured again, with four times more.
_ROUNDS = 4
#: Coding without loss at full effort takes this much less than the fast estimate.
_EFFORT_GAIN = 1.15
_ROW_BYTES = 15
_SLACK = 128


@dataclass(frozen=True)
class Room:
    """The ratio, the bytes that it leaves for a file, and what its header takes once and twice."""

    ratio: float
    file_bytes: int
    once: int
    twice: int

    def without(self, data: int) -> Room:
        """The room that is left beside a chunk of so many bytes without voxels."""
        more = data + _ROW_BYTES
        return replace(self, once=self.once + more, twice=self.twice + more)

    def for_payload(self, chunks: int) -> tuple[int, bool]:
        """Bytes left for so many chunks, and whether header and table are written twice.

        They are where the second copy costs at most a hundredth of the file.
        """
        table = _ROW_BYTES * chunks + _SLACK
        second = self.twice - self.once + table
        keep = second * 100 <= self.file_bytes
        return self.file_bytes - self.once - table - (second if keep else 0), keep


@dataclass(frozen=True)
class Measured:
    """A block's codes and what they lose."""

    curve: Curve
    stream: wavelet.Stream | None
    exact: Code
    reach: float  # bits per voxel that the stream was coded with


def code_to_ratio(
    voxels: Voxels,
    voxel_range: VoxelRange,
    room: Room,
    *,
    speed: Speed,
    threads: int,
    monitor: Monitor,
    keep: Keep = bytes,
    model: CodecModel | None = None,
    predictors: Sequence[Predictor] = (),
) -> Payload:
    """The best code within `room`: lossless if it fits, else what loses least.

    keep: where codes wait until the bytes are shared out. model: a term of the filters of videos.
    predictors: for blocks with a bounded error, at low ratios.
    Raises ConfigError, naming what can be reached, where not even the coarsest code fits.
    """
    exact = _try_without_loss(
        voxels, room, speed=speed, threads=threads, monitor=monitor.part(0.0, 0.1), keep=keep
    )
    if exact is not None:
        return exact
    if room.for_payload(1)[0] <= 0:
        carried = int(voxels.nbytes / room.ratio) - room.file_bytes
        raise out_of_reach(room, voxels.nbytes, carried + room.once + _ROW_BYTES + _SLACK)
    within = code_within(
        voxels, lambda chunks: room.for_payload(chunks)[0], speed=speed, threads=threads,
        monitor=monitor.part(0.1, 0.2), keep=keep, predictors=predictors,
    )  # fmt: skip
    context = DecodeContext(voxels.dtype, voxel_range, ModelSet.of(*([model] if model else [])))
    if within is not None:
        within = replace(within, second_copy=room.for_payload(len(within.chunks))[1])
    try:
        found = _transformed(
            voxels, room, context, speed=speed, threads=threads, monitor=monitor.part(0.2, 1.0),
            keep=keep,
        )  # fmt: skip
    except ConfigError:
        if within is None:
            raise
        return within
    return within if within and within.tally.squared < found.tally.squared else found


def _transformed(
    voxels: Voxels,
    room: Room,
    context: DecodeContext,
    *,
    speed: Speed,
    threads: int,
    monitor: Monitor,
    keep: Keep,
) -> Payload:
    """Videos or wavelets, cut to size; ConfigError where not even the coarsest fit."""
    if len(encoders()) == 1:
        monitor.log(
            "Videos are coded by libaom alone; SVT-AV1 is faster and often 0.5 dB better: "
            "python -m pip install 'av>=17.1'"
        )
    trial = try_types(voxels, 8 * room.file_bytes / voxels.size, context)
    best: Payload | None = None
    share = 0.0  # of the work, by the videos
    if trial.video_wins > -_NEAR or trial.small:
        both = trial.video_wins < _NEAR
        share = 0.5 if both else 0.9
        best = _best_videos(
            voxels, room, trial, context, speed=speed, threads=threads, keep=keep,
            monitor=monitor.part(0.0, share), wavelet_too=both,
        )  # fmt: skip
        # A video that cannot use its bytes is as good as videos become: a wavelet may be better.
        idle = best is not None and best.bytes < _USED * room.file_bytes
        if best is not None and not (both or idle):
            return best
    try:
        other = code_wavelets(
            voxels, room, context, speed=speed, threads=threads, keep=keep,
            monitor=monitor.part(share, 1.0),
        )  # fmt: skip
    except ConfigError:
        if best is None:
            raise
        return best
    return best if best is not None and best.tally.squared < other.tally.squared else other


def _best_videos(
    voxels: Voxels,
    room: Room,
    trial: Trial,
    context: DecodeContext,
    *,
    speed: Speed,
    threads: int,
    monitor: Monitor,
    keep: Keep,
    wavelet_too: bool,
) -> Payload | None:
    """Every block as a video, or as what is nearer in its size; None where none fit.

    Where both encoders were as good in the trial, the one that loses less on the whole.
    """
    grid = video_grid(voxels.shape)
    budget, second_copy = room.for_payload(len(grid))
    if budget <= 0:
        return None
    best: tuple[float, Job, list[Chunk]] | None = None
    for turn, one in enumerate(trial.videos):
        if turn and best is not None and not (trial.is_near(one, speed) or _lacks_bits(*best[:2])):
            continue
        part = monitor.part(0.35 * turn, 0.35 * (turn + 1))
        job = Job(voxels, grid, context, speed, threads, keep, part, wavelet_too, one.encoder)
        chunks = to_size(job, for_streams(budget, len(grid)), one.step)
        loss = loss_of(job, chunks) if chunks else math.inf
        if chunks and (best is None or loss < best[0]):
            best = loss, job, chunks
    if best is None:
        return None
    _, job, chunks = best
    left = budget - sum(len(chunk.data) for chunk in chunks)
    return _filled_up(job, chunks, left // len(chunks), second_copy, monitor.part(0.7, 1.0))


def _lacks_bits(loss: float, job: Job) -> bool:
    """Whether a coding is so near to its source that its encoder's bits do not suffice.

    A trial does not show it, where the whole is easier to code than its middle.
    """
    low, high = limits_of(job.voxels)
    finest = (job.encoder.finest * (high - low)) ** 2
    return loss < finest * job.voxels.size


def _filled_up(
    job: Job, chunks: list[Chunk], most: int, second_copy: bool, monitor: Monitor
) -> Payload:
    """Chunks with filters of `most` bytes each."""
    tally, whole = Tally(job.voxels, job.grid), []
    for chunk, decoded in finished(job, chunks, most):
        tally.add(decoded)
        whole.append(chunk)
        monitor.progress(len(whole) / len(chunks), "compress")
    return _payload(job, whole, tally, second_copy)


def payload_of(job: Job, chunks: list[Chunk], second_copy: bool, monitor: Monitor) -> Payload:
    """Chunks with what a reader will make of them."""
    tally = _decode_all(job.voxels, job.context, job.grid, chunks, job.threads, monitor)
    return _payload(job, chunks, tally, second_copy)


def _payload(job: Job, chunks: list[Chunk], tally: Tally, second_copy: bool) -> Payload:
    needed = any(needs_model(chunk) for chunk in chunks)
    return Payload(
        job.grid,
        chunks,
        tally,
        exact=all(chunk.kind != WAVELET for chunk in chunks),
        second_copy=second_copy,
        models=(job.context.models.get(restoration.ROLE),) if needed else (),
    )


def needs_model(chunk: Chunk) -> bool:
    """Whether reading a chunk needs the model of the restoration."""
    return chunk.kind == VIDEO and video.needs_model(bytes(chunk.data[: video.HEAD.size + 1]))


def code_wavelets(
    voxels: Voxels,
    room: Room,
    context: DecodeContext,
    *,
    speed: Speed,
    threads: int,
    monitor: Monitor,
    keep: Keep,
) -> Payload:
    """Every block as a wavelet, cut to size, or without loss."""
    threads = min(threads, wavelet.MOST_THREADS)
    grid = wavelet_grid(voxels.shape, choose_depth(voxels, room.file_bytes))
    budget, second_copy = room.for_payload(len(grid))
    measured = _measure(voxels, grid, budget, speed, threads, monitor.part(0.0, 0.7), keep)
    smallest = sum(one.curve.smallest for one in measured)
    if smallest > budget:
        raise out_of_reach(room, voxels.nbytes, room.file_bytes - budget + smallest)
    shares = _allocate(voxels, grid, measured, budget, speed, threads, monitor, keep)
    pairs = enumerate(zip(measured, shares, strict=True))
    chunks = [cut(number, *pair, keep) for number, pair in pairs]
    tally = _decode_all(voxels, context, grid, chunks, threads, monitor.part(0.7, 1.0))
    exact_everywhere = all(chunk.kind != WAVELET for chunk in chunks)
    return Payload(grid, chunks, tally, exact=exact_everywhere, second_copy=second_copy)


def _try_without_loss(
    voxels: Voxels, room: Room, *, speed: Speed, threads: int, monitor: Monitor, keep: Keep
) -> Payload | None:
    estimate = estimate_bytes(voxels, threads=threads, monitor=monitor)
    if estimate > room.file_bytes * _EFFORT_GAIN:
        return None
    payload = code_bounded(voxels, None, speed=speed, threads=threads, monitor=monitor, keep=keep)
    budget, second_copy = room.for_payload(len(payload.chunks))
    if payload.bytes > budget:
        return None
    return Payload(payload.grid, payload.chunks, payload.tally, second_copy=second_copy)


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


def _measure(
    voxels: Voxels,
    grid: Grid,
    budget: int,
    speed: Speed,
    threads: int,
    monitor: Monitor,
    keep: Keep,
) -> list[Measured]:
    bits = 8 * max(budget, 1) / voxels.size

    def measure(number: int) -> Measured:
        block = grid.box(number).of(voxels)
        return measure_block(block, bits, speed=speed)

    measured = []
    for one in ordered_map(measure, range(len(grid)), threads=threads, monitor=monitor):
        measured.append(put_aside(one, keep))
        let_go(voxels)
        monitor.progress(len(measured) / len(grid), "measure")
    return measured


def put_aside(measured: Measured, keep: Keep) -> Measured:
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


def _allocate(
    voxels: Voxels,
    grid: Grid,
    measured: list[Measured],
    budget: int,
    speed: Speed,
    threads: int,
    monitor: Monitor,
    keep: Keep,
) -> list[Share]:
    """Share the budget; blocks that would take all that was measured are measured further."""
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
            return measure_block(grid.box(number).of(voxels), bits, reach, speed=speed)

        again = ordered_map(further, hungry, threads=threads, monitor=monitor)
        for number, one in zip(hungry, again, strict=True):
            measured[number] = put_aside(one, keep)
        shares = allocate([one.curve for one in measured], budget)
    return shares


def out_of_reach(room: Room, raw_bytes: int, smallest: int) -> ConfigError:
    """The refusal of a ratio for which not even the coarsest code, `smallest` bytes, fits."""
    return ConfigError(
        f"ratio {room.ratio:g} cannot be reached: the smallest file for this volume has "
        f"about {smallest} bytes, a ratio of {raw_bytes / smallest:.3g}",
        "Choose a smaller ratio; small volumes, and voxels that are not finite, limit it.",
    )


def cut(number: int, measured: Measured, share: Share, keep: Keep = bytes) -> Chunk:
    """The chunk of a block, as large as its share."""
    if share.exact or measured.stream is None:
        return Chunk(number, measured.exact.kind, measured.exact.data)
    return Chunk(number, WAVELET, keep(measured.stream.prefix(share.size)))


def _decode_all(
    voxels: Voxels,
    context: DecodeContext,
    grid: Grid,
    chunks: list[Chunk],
    threads: int,
    monitor: Monitor,
) -> Tally:
    def decode(chunk: Chunk) -> Voxels:
        shape = grid.box(chunk.block).shape
        return decode_data(chunk.kind, bytes(chunk.data), shape, context)

    tally = Tally(voxels, grid)
    decoded = ordered_map(decode, chunks, threads=threads, monitor=monitor)
    for count, block in enumerate(decoded, 1):
        tally.add(block)
        monitor.progress(count / len(chunks), "compress")
    return tally
