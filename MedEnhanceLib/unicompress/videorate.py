"""Codes a volume as videos, all blocks in equal steps, to a size or to a quality.

Equal steps are near the best way to share bytes out: every block gains about the same from its
last one. Whatever a block gains by a wavelet of the same size, or by a small code without loss,
is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from MedEnhanceLib.dependencies import require
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.unicompress import video, wavelet, wiener
from MedEnhanceLib.unicompress.blocks import Grid
from MedEnhanceLib.unicompress.candidates import code_block
from MedEnhanceLib.unicompress.coders import VIDEO, WAVELET
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.container import Chunk
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.unicompress.decode import decode_data
from MedEnhanceLib.unicompress.pool import ordered_map
from MedEnhanceLib.unicompress.seek import seek
from MedEnhanceLib.unicompress.spool import Keep
from MedEnhanceLib.volume import Voxels

#: What an octave of the step changes, in octaves: of the size, and of the squared error.
SIZE_SLOPE, ERROR_SLOPE = -1.5, 1.2
#: A search ends at so much less than the limit, and after so many codings of the volume.
_TOLERANCE = {"normal": math.log2(1.012), "fast": math.log2(1.03)}
_TRIES = {"normal": 5, "fast": 4}
#: Above this, a wavelet's block takes too much memory; see wavelet.MOST_THREADS.
_WAVELET_VOXELS = 1 << 22
#: A code without loss is tried where zstd's quickest comes this near to the video.
_EXACT_NEAR = 2
#: Of two settings' codes, whole blocks are mixed to use up the bytes.
_MIXED = 1.25
#: Of the bytes, at most, that are kept free for filters.
_FILTER_SHARE = 0.02


@dataclass(frozen=True)
class Job:
    """What is coded, and how. context: with the model of the restoration, if there is one."""

    voxels: Voxels
    grid: Grid
    context: DecodeContext
    speed: Speed
    threads: int
    keep: Keep
    monitor: Monitor
    wavelet_too: bool
    least_top: int = video.TOPS[0]
    anchor: float | None = None


@dataclass(frozen=True)
class Pass:
    """All blocks, coded in steps of one size."""

    step: float
    chunks: list[Chunk]
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bytes", sum(len(chunk.data) for chunk in self.chunks))


def to_size(job: Job, budget: int, start: float) -> list[Chunk] | None:
    """The best chunks of `budget` bytes together; None where even the coarsest take more.

    start: a step to begin with, in stored units.
    """
    job = replace(job, anchor=start)
    streams = budget - round(min(len(job.grid) * wiener.USUAL_BYTES, _FILTER_SHARE * budget))
    passes: dict[float, Pass] = {}

    def measure(setting: float) -> float:
        passes[setting] = code(job, 2.0**setting)
        job.monitor.progress(min(0.8, 0.2 * len(passes)), "compress")
        return math.log2(max(passes[setting].bytes, 1))

    chosen = seek(
        measure,
        math.log2(start),
        math.log2(streams),
        slope=SIZE_SLOPE,
        tolerance=_TOLERANCE[job.speed],
        most=_TRIES[job.speed],
    )
    if chosen is None:
        return None
    over = [one for one in passes.values() if streams < one.bytes <= _MIXED * streams]
    chunks = passes[chosen].chunks
    if over:
        chunks = _mixed(chunks, min(over, key=lambda one: one.bytes).chunks, streams)
    left = budget - sum(len(chunk.data) for chunk in chunks)
    return _finished(job, chunks, left // len(chunks))


def to_error(
    job: Job, limit: float, start: float, error_of: Callable[[list[Chunk]], float]
) -> list[Chunk] | None:
    """The smallest chunks found whose error is at most `limit`; None where none are."""
    job = replace(job, anchor=start)
    passes: dict[float, list[Chunk]] = {}

    def measure(setting: float) -> float:
        coded = code(job, 2.0**setting).chunks
        passes[setting] = _finished(job, coded, wiener.MOST_BYTES)
        job.monitor.progress(min(0.9, 0.2 * len(passes)), "compress")
        return math.log2(max(error_of(passes[setting]), 1e-300))

    chosen = seek(
        measure,
        math.log2(start),
        math.log2(limit),
        slope=ERROR_SLOPE,
        tolerance=_TOLERANCE[job.speed],
        most=_TRIES[job.speed],
    )
    return None if chosen is None else passes[chosen]


def code(job: Job, step: float) -> Pass:
    """Every block as a video, or without loss where that is smaller; not yet restored."""

    def one(number: int) -> Chunk:
        block = job.grid.box(number).of(job.voxels)
        kind, data = code_one(block, step, job.speed, job.least_top, job.anchor)
        return Chunk(number, kind, job.keep(data))

    numbers = range(len(job.grid))
    threads = min(job.threads, video.MOST_THREADS)
    return Pass(step, list(ordered_map(one, numbers, threads=threads, monitor=job.monitor)))


def code_one(
    block: Voxels,
    step: float,
    speed: Speed,
    least_top: int = video.TOPS[0],
    anchor: float | None = None,
) -> tuple[int, bytes]:
    """Block type and bytes of one block."""
    if not video.fits(block):
        exact = code_block(block, None, speed="fast", variants=())
        return exact.kind, bytes(exact.data)
    data = video.encode(block, step, speed=speed, least_top=least_top, anchor=anchor).data
    zstandard = require("zstandard", purpose="Compression")
    quick = zstandard.ZstdCompressor(level=1).compress(np.ascontiguousarray(block).tobytes())
    if len(quick) < _EXACT_NEAR * len(data):
        exact = code_block(block, None, speed="fast", variants=())
        if len(exact.data) <= len(data):
            return exact.kind, bytes(exact.data)
    return VIDEO, data


def best_top(block: Voxels, step: float, context: DecodeContext, speed: Speed) -> int:
    """Which of video.TOPS loses least on a block in about equal bytes."""

    def coded(step: float, top: int) -> tuple[float, float]:
        data = video.encode(block, step, speed=speed, least_top=top).data
        error = video.error_of(block, decode_data(VIDEO, data, block.shape, context))
        return math.log2(len(data)), math.log2(max(error, 1e-9))

    size, error = coded(step, video.TOPS[0])
    finer_size, finer_error = coded(step / 1.3, video.TOPS[0])
    slope = (error - finer_error) / min(size - finer_size, -0.05)
    losses = {video.TOPS[0]: error}
    for top in video.TOPS[1:]:
        other_size, other_error = coded(step, top)
        losses[top] = other_error + max(-3.0, min(slope, -0.5)) * (size - other_size)
    return min(losses, key=lambda top: losses[top])


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


def _finished(job: Job, chunks: list[Chunk], most: int) -> list[Chunk]:
    """Videos with a filter of `most` bytes, or a wavelet of as many bytes where that is nearer."""

    def finish(chunk: Chunk) -> Chunk:
        if chunk.kind != VIDEO:
            return chunk
        block = job.grid.box(chunk.block).of(job.voxels)
        kind, data = VIDEO, video.filtered(bytes(chunk.data), block, job.context, most)
        if job.wavelet_too and block.size <= _WAVELET_VOXELS:
            kind, data = _nearer(block, data, job.context)
        return replace(chunk, kind=kind, data=job.keep(data))

    threads = min(job.threads, video.MOST_THREADS)
    return list(ordered_map(finish, chunks, threads=threads, monitor=job.monitor))


def _nearer(block: Voxels, data: bytes, context: DecodeContext) -> tuple[int, bytes]:
    wins, other = against_wavelet(block, data, context)
    return (VIDEO, data) if other is None or wins >= 0 else (WAVELET, other)


def against_wavelet(
    block: Voxels, data: bytes, context: DecodeContext
) -> tuple[float, bytes | None]:
    """By how many dB a video is nearer than a wavelet of as many bytes, and that wavelet.

    Infinity and None where the wavelet has no such code.
    """
    other = wavelet_of(block, len(data))
    if other is None:
        return math.inf, None
    mine, theirs = (
        max(video.error_of(block, decode_data(kind, coded, block.shape, context)), 1e-9)
        for kind, coded in ((VIDEO, data), (WAVELET, other))
    )
    return 10 * math.log10(theirs / mine), other


def wavelet_of(block: Voxels, size: int) -> bytes | None:
    """The wavelet's code of a block in `size` bytes, None where it has none."""
    if size <= wavelet.HEAD_BYTES + 2 or not wavelet.fits(block):
        return None
    bits = min(8 * size / block.size * 1.05 + 0.01, 8.0 * block.dtype.itemsize + 4)
    values = block.astype(wavelet.working_type(block.dtype))
    return wavelet.encode(values, bits).prefix(size)
