"""Codes a volume as videos, all blocks in equal steps, to a size or to a quality.

Equal steps are near the best way to share bytes out: every block gains about the same from its
last one. Whatever a block gains by a wavelet of the same size, or by a small code without loss,
is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from MedEnhanceLib.core.slabs import let_go, trim
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.unicompress.allocation.rate import seek
from MedEnhanceLib.unicompress.allocation.task import Task
from MedEnhanceLib.unicompress.blocks import Grid
from MedEnhanceLib.unicompress.codecs import wavelet
from MedEnhanceLib.unicompress.codecs.lossless import VIDEO, WAVELET, code_block, codecs
from MedEnhanceLib.unicompress.codecs.video import video, wiener
from MedEnhanceLib.unicompress.codecs.video.av1 import LIBAOM, Encoder
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.container import Chunk
from MedEnhanceLib.unicompress.decode import decode_data
from MedEnhanceLib.unicompress.models import DecodeContext

#: What an octave of the step changes, in octaves: of the size, and of the squared error.
SIZE_SLOPE, ERROR_SLOPE = -1.5, 1.2
#: A search ends this much below the limit, in octaves, and after this many codings.
_TOLERANCE = {"normal": math.log2(1.012), "fast": math.log2(1.03), "slow": math.log2(1.012)}
_TRIES = {"normal": 5, "fast": 4, "slow": 3}
_NEARLY = math.log2(1.05)
#: Times that a coding to a quality is filtered and measured, at most.
_CHECKS = 4
#: Above this, a wavelet's block takes too much memory; see wavelet.MOST_THREADS.
_WAVELET_VOXELS = 1 << 22
#: A code without loss is tried where zstd's quickest comes this near to the video.
_EXACT_NEAR = 2
#: Of two settings' codes, whole blocks are mixed to use up the bytes.
_MIXED = 1.25
#: Of the bytes, at most, that are kept free for filters.
_FILTER_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class VideoTask(Task):
    """A task as videos of one encoder. wavelet_too: where a wavelet is nearer, it is taken."""

    grid: Grid
    encoder: Encoder
    wavelet_too: bool = False


@dataclass(frozen=True)
class Pass:
    """All blocks, coded in steps of one size."""

    step: float
    chunks: list[Chunk]
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bytes", sum(len(chunk.data) for chunk in self.chunks))


def to_size(task: VideoTask, budget: int, start: float) -> list[Chunk] | None:
    """The best bare streams of `budget` bytes together; None where even the coarsest take more.

    start: a step to begin with, in stored units.
    """
    passes: dict[float, Pass] = {}
    anchor = start

    def measure(setting: float) -> float:
        nonlocal anchor
        if len(passes) == 1:  # near where the search will end
            anchor = 2.0**setting
        passes[setting] = code(task, 2.0**setting, anchor)
        task.monitor.progress(min(0.8, 0.2 * len(passes)), "compress")
        return math.log2(max(passes[setting].bytes, 1))

    setting = math.log2(start)
    if task.speed == "slow":  # about where it will be is found in less time
        setting = _step_of_size(replace(task, speed="normal"), budget, setting)
    chosen = seek(
        measure,
        setting,
        math.log2(budget),
        slope=SIZE_SLOPE,
        tolerance=_TOLERANCE[task.speed],
        most=_TRIES[task.speed],
    )
    if chosen is None:
        return None
    over = [one for one in passes.values() if budget < one.bytes <= _MIXED * budget]
    chunks = passes[chosen].chunks
    if over:
        chunks = _mixed(chunks, min(over, key=lambda one: one.bytes).chunks, budget)
    return chunks


def _step_of_size(task: VideoTask, budget: int, setting: float) -> float:
    """The step, in octaves, whose streams take about `budget` bytes; `setting` where none do."""

    def measure(setting: float) -> float:
        return math.log2(max(code(task, 2.0**setting, 2.0**setting).bytes, 1))

    found = seek(measure, setting, math.log2(budget), slope=SIZE_SLOPE, tolerance=_NEARLY, most=3)
    return setting if found is None else found


def for_streams(budget: int, blocks: int) -> int:
    """What is left of `budget` bytes beside the filters of that number of blocks."""
    return budget - round(min(blocks * wiener.USUAL_BYTES, _FILTER_SHARE * budget))


def loss_of(task: VideoTask, chunks: list[Chunk]) -> float:
    """Sum of squared differences of bare streams."""
    loss = 0.0
    for chunk, decoded in zip(chunks, task.decoded(task.grid, chunks), strict=True):
        loss += video.error_of(task.grid.box(chunk.block).of(task.voxels), decoded)
        let_go(task.voxels)
    return loss


def to_error(
    task: VideoTask, limit: float, start: float, error_of: Callable[[Voxels], float]
) -> list[Chunk] | None:
    """The smallest chunks found whose error is at most `limit`; None where none are.

    error_of: of all that was decoded. What filters bring is measured once and expected again: a
    search looks at bare streams, and only what it chose is filtered and measured.
    """
    anchor = start
    bare: dict[float, tuple[list[Chunk], float]] = {}
    aim, gain, tolerance = math.log2(limit), 0.0, _TOLERANCE[task.speed]

    def octaves_of(blocks: Iterable[Voxels]) -> float:
        return math.log2(max(error_of(task.grid.joined(blocks, task.voxels.dtype)), 1e-300))

    def whole(setting: float) -> tuple[list[Chunk], float]:
        chunks: list[Chunk] = []

        def kept() -> Iterator[Voxels]:
            for chunk, block in finished(task, bare[setting][0], wiener.MOST_BYTES):
                chunks.append(chunk)
                yield block

        return chunks, octaves_of(kept())

    def measure(setting: float) -> float:
        nonlocal gain, anchor
        if setting not in bare:
            anchor = 2.0**setting if len(bare) == 1 else anchor
            chunks = code(task, 2.0**setting, anchor).chunks
            bare[setting] = chunks, octaves_of(task.decoded(task.grid, chunks))
            task.monitor.progress(min(0.9, 0.15 * len(bare)), "compress")
        if not gain:
            gain = whole(setting)[1] - bare[setting][1]
        return bare[setting][1] + gain

    best: tuple[float, list[Chunk]] | None = None
    setting = math.log2(start)
    for _ in range(_CHECKS):
        chosen = seek(
            measure, setting, aim, slope=ERROR_SLOPE, tolerance=tolerance, most=_TRIES[task.speed]
        )
        if chosen is None:
            break
        chunks, error = whole(chosen)
        if error <= aim and (best is None or error > best[0]):
            best = error, chunks
        if aim - 2 * tolerance <= error <= aim:
            break
        # The filter brought more or less than was expected.
        gain = error - bare[chosen][1]
        setting = chosen + (aim - tolerance / 2 - error) / ERROR_SLOPE
    return best[1] if best else None


def code(task: VideoTask, step: float, anchor: float) -> Pass:
    """Every block as a video, or without loss where that is smaller; not yet restored."""

    def one(number: int) -> Chunk:
        block = task.grid.box(number).of(task.voxels)
        kind, data = code_one(block, step, task.speed, task.encoder, anchor)
        let_go(task.voxels)
        trim()
        return Chunk(number, kind, task.keep(data))

    numbers = range(len(task.grid))
    return Pass(step, list(task.map(one, numbers, task.encoder.most_threads)))


def code_one(
    block: Voxels,
    step: float,
    speed: Speed,
    encoder: Encoder = LIBAOM,
    anchor: float | None = None,
) -> tuple[int, bytes]:
    """Block type and bytes of one block."""
    if not video.fits(block):
        exact = code_block(block, None, speed="fast", variants=())
        return exact.kind, bytes(exact.data)
    data = video.encode(block, step, speed=speed, encoder=encoder, anchor=anchor).data
    quick = codecs().zstd_encode(np.ascontiguousarray(block).tobytes(), level=1)
    if len(quick) < _EXACT_NEAR * len(data):
        exact = code_block(block, None, speed="fast", variants=())
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
    """Videos with filters of `most` bytes each, with what a reader makes of them.

    A wavelet of as many bytes stands in where it is nearer.
    """

    def finish(chunk: Chunk) -> tuple[Chunk, Voxels]:
        block = task.grid.box(chunk.block).of(task.voxels)
        if chunk.kind != VIDEO:
            return chunk, decode_data(chunk.kind, bytes(chunk.data), block.shape, task.context)
        data, decoded = video.filtered(
            bytes(chunk.data), block, task.context, most, speed=task.speed
        )
        kind = VIDEO
        if task.wavelet_too and block.size <= _WAVELET_VOXELS:
            wins, other = against_wavelet(block, data, task.context)
            if other is not None and wins < 0:
                kind, data = WAVELET, other
                decoded = decode_data(kind, data, block.shape, task.context)
        let_go(task.voxels)
        trim()
        return replace(chunk, kind=kind, data=task.keep(data)), decoded

    return task.map(finish, chunks, video.MOST_THREADS)


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
