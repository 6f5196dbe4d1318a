"""Codes a volume as videos, all blocks in equal steps, to a size or to a quality.

Equal steps are near the best way to share bytes out: every block gains about the same from its
last one. Whatever a block gains by a wavelet of the same size, or by a small code without loss,
is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from MedEnhanceLib.core.slabs import extremes, let_go, trim
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.runtime.progress import Steps
from MedEnhanceLib.unicompress.allocation.rate import LONGEST_STEP, activity_of, seek, slope_of
from MedEnhanceLib.unicompress.allocation.task import Task
from MedEnhanceLib.unicompress.blocks import Grid, video_grid
from MedEnhanceLib.unicompress.codecs import wavelet
from MedEnhanceLib.unicompress.codecs.lossless import VIDEO, WAVELET, code_block, codecs
from MedEnhanceLib.unicompress.codecs.video import video, wiener
from MedEnhanceLib.unicompress.codecs.video.av1 import LIBAOM, Encoder
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.container import Chunk
from MedEnhanceLib.unicompress.decode import decode_data
from MedEnhanceLib.unicompress.models import DecodeContext

#: What an octave of the step changes, in octaves: of the size, and of the squared error.
SIZE_SLOPE, ERROR_SLOPE = -1.25, 1.2
#: A search ends this much below the limit, in octaves, and after this many codings.
_TOLERANCE = {"normal": math.log2(1.012), "fast": math.log2(1.03), "slow": math.log2(1.012)}
_TRIES = {"normal": 5, "fast": 4, "slow": 3}
#: The same where quick codings have shown the way, and what their first outcome may leave unused.
_GUIDED_TOLERANCE = {"normal": math.log2(1.007), "fast": math.log2(1.03), "slow": math.log2(1.007)}
_UNUSED = {"normal": math.log2(1.038), "fast": math.log2(1.07), "slow": math.log2(1.008)}
#: What that first outcome is aimed below the limit: blocks differ by so much from what the first of
#: them showed.
_BELOW = {"normal": math.log2(1.018), "fast": math.log2(1.035), "slow": math.log2(1.004)}
#: Of both, where there is one block: a part of it, or a coding of it, shows it well.
_OF_ONE = 0.4
_GUIDED_TRIES = {"normal": 2, "fast": 2, "slow": 3}
_ABOUT = math.log2(1.05)
#: A quick coding that comes this near, in octaves of bytes or errors, is enough.
_NEARLY, _MOST_GUIDES = math.log2(1.25), 3
#: How far blocks may differ in their step, in octaves, to make up for what the first one showed.
_ONE_STEP = 0.25
#: Extents of the part that is tried.
_SIDE, _SLICES = 128, 48
#: As few blocks are coded anew to use up the bytes as make these at most this share of theirs.
_ANEW = 0.15
#: How often.
_EVENINGS = 3
#: Times that a coding to a quality is filtered and measured, at most.
_CHECKS = 4
#: Above this, a wavelet's block takes too much memory; see wavelet.MOST_THREADS.
_WAVELET_VOXELS = 1 << 22
#: A code without loss is tried where zstd's quickest comes this near to the video.
_EXACT_NEAR = 2
#: Of two settings' codes, whole blocks are mixed to use up the bytes.
_MIXED = 1.25
#: Instead of no error at all: its logarithm is taken.
LEAST_ERROR = 1e-9
#: Of the bytes, at most, that are kept free for filters.
_FILTER_SHARE = 0.02
#: About what a coding takes, and what filters do, as multiples of the time of a quick coding.
_COST = {"normal": 11.0, "fast": 2.5, "slow": 30.0}
FILTER_COST, _OVER_QUICK_COST = 1.8, 0.6
#: Codings that are to be expected still, after 0, 1, 2, … of them: where quick ones have shown the
#: way for one block, for several, and where none have.
_EXPECTED_OF_ONE = (2.3, 1.4, 0.7, 0.4)
_EXPECTED_OF_SEVERAL = (1.3, 0.3)
_EXPECTED_UNGUIDED = (4.5, 3.5, 2.5, 1.6, 1.0, 0.5)
#: The same of quick codings.
_EXPECTED_GUIDES = (2.0, 1.0, 0.3, 0.0)


@dataclass(frozen=True, kw_only=True)
class VideoTask(Task):
    """A task as videos of one encoder. wavelet_too: where a wavelet is nearer, it is taken."""

    grid: Grid
    encoder: Encoder
    wavelet_too: bool = False


@dataclass(frozen=True)
class Pass:
    """All blocks. steps: of each, nearly or wholly the same."""

    steps: Sequence[float]
    chunks: list[Chunk]
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bytes", _bytes_of(self.chunks))


def _bytes_of(chunks: list[Chunk]) -> int:
    """One at least: their logarithm is taken."""
    return max(1, sum(len(chunk.data) for chunk in chunks))


def search_cost(speed: Speed) -> float:
    """About what finding the step for a size or a quality takes, for the progress."""
    return _EXPECTED_GUIDES[0] + _OVER_QUICK_COST + _EXPECTED_OF_ONE[0] * _COST[speed]


def _left(task: VideoTask, done: int) -> float:
    """What codings are expected to take after `done` of them."""
    guided = _EXPECTED_OF_ONE if len(task.grid) == 1 else _EXPECTED_OF_SEVERAL
    expected: tuple[float, ...] = guided if task.encoder.guides else _EXPECTED_UNGUIDED
    return _COST[task.speed] * expected[min(done, len(expected) - 1)]


def to_size(task: VideoTask, budget: int, start: float) -> list[Chunk] | None:
    """The best bare streams of `budget` bytes together; None where even the coarsest take more.

    start: a step to begin with, in stored units.
    """
    passes: dict[float, Pass] = {}
    anchor, setting, slope = start, math.log2(start), SIZE_SLOPE
    limit = math.log2(budget)
    steps = Steps(task.monitor)

    def measure(setting: float) -> float:
        nonlocal anchor
        if len(passes) == 1:  # near where the search will end
            anchor = 2.0**setting
        if setting not in passes:
            step = steps.next(_COST[task.speed], _left(task, len(passes) + 1))
            passes[setting] = code(task.at(step), 2.0**setting, anchor)
        return math.log2(passes[setting].bytes)

    if task.encoder.guides:
        found, slope = _led(task, steps, budget, setting)
        setting = math.log2(found.steps[0])
        if len(task.grid) > 1:
            evened = _evened(task, steps, found, budget, slope)
            if evened is not None:
                return evened
        else:
            passes[setting] = found
            if limit - _below(task)[1] <= measure(setting) <= limit:
                return found.chunks
    elif task.speed == "slow":  # about where it will be is found in less time
        part = task.at(steps.next(3 * _COST["normal"], _left(task, 0)))
        setting = _step_of_size(replace(part, speed="normal"), budget, setting)
    tolerance, most = _search(task)
    chosen = seek(measure, setting, limit, slope=slope, tolerance=tolerance, most=most)
    if chosen is None:
        return None
    over = [one for one in passes.values() if budget < one.bytes <= _MIXED * budget]
    chunks = passes[chosen].chunks
    if over:
        chunks = _mixed(chunks, min(over, key=lambda one: one.bytes).chunks, budget)
    return chunks


def _search(task: VideoTask) -> tuple[float, int]:
    """How far below its limit a search may end, in octaves, and after how many codings."""
    if task.encoder.guides:
        return _GUIDED_TOLERANCE[task.speed], _GUIDED_TRIES[task.speed]
    return _TOLERANCE[task.speed], _TRIES[task.speed]


def _guided(
    task: VideoTask,
    steps: Steps,
    setting: float,
    aim: float,
    slope: float,
    value_of: Callable[[list[Chunk]], float],
) -> tuple[float, float, list[Chunk]]:
    """The step, in octaves, whose quick coding should come to `aim`, the slope that was seen, and
    the last quick coding.

    value_of: chunks → their bytes, or their error, in octaves.
    """
    tried: list[tuple[float, float]] = []
    chunks: list[Chunk] = []
    for turn in range(_MOST_GUIDES):
        left = _EXPECTED_GUIDES[turn + 1] + _OVER_QUICK_COST + _left(task, 0)
        part = task.at(steps.next(1, left))
        chunks = code(part, 2.0**setting, 2.0**setting, quickly=True).chunks
        tried.append((setting, value_of(chunks)))
        slope = slope_of(tried, slope)
        off = aim - tried[-1][1]
        setting += max(-LONGEST_STEP, min(off / slope, LONGEST_STEP))
        if abs(off) < _NEARLY:
            break
    return setting, slope, chunks


def _below(task: VideoTask) -> tuple[float, float]:
    """How far below its limit a first outcome is aimed, and may end, in octaves."""
    share = 1.0 if len(task.grid) > 1 else _OF_ONE
    return share * _BELOW[task.speed], share * _UNUSED[task.speed]


def _led(task: VideoTask, steps: Steps, budget: int, setting: float) -> tuple[Pass, float]:
    """A coding that should come to `budget` bytes, and the slope that was seen.

    Quick codings lead to it. What the better coding has more than they is learned from the
    largest block, which is coded before all others; from a part where it is the only one.
    """
    aim = math.log2(budget) - _below(task)[0]

    def octaves(chunks: list[Chunk]) -> float:
        return math.log2(_bytes_of(chunks))

    if task.speed == "fast":
        cost = _COST["fast"]
        one = task.at(steps.next(cost / len(task.grid), _left(task, 0)))
        setting = _by_one_block(one, setting, aim)
        part = task.at(steps.next(cost, _left(task, 1)))
        return code(part, 2.0**setting, 2.0**setting), SIZE_SLOPE
    setting, slope, quick = _guided(task, steps, setting, aim, SIZE_SLOPE, octaves)
    first = max(range(len(quick)), key=lambda number: len(quick[number].data))
    if len(quick) == 1:
        setting -= _over_quick(task, steps, 2.0**setting)[0] / slope
    part = task.at(steps.next(_COST[task.speed], _left(task, 1)))
    if len(quick) == 1:
        return code(part, 2.0**setting, 2.0**setting), slope
    chosen = {first: 2.0**setting}
    chunks = [_coded(part, first, chosen[first])]
    part.monitor.progress(1 / len(quick), "compress")
    # The quick coding was in another step: how far off it was holds for each of its blocks.
    scale = 2.0**aim / _bytes_of(quick)
    expected = [scale * len(chunk.data) for chunk in quick]
    more = len(chunks[0].data) / expected[first]
    rest = 2.0**aim - len(chunks[0].data)
    wanted = math.log2(max(rest, 1) / (more * (sum(expected) - expected[first])))
    setting += max(-_ONE_STEP, min(wanted / slope, _ONE_STEP))
    others = {number: 2.0**setting for number in range(len(quick)) if number != first}
    chosen |= others
    chunks += _all_coded(part.part(1 / len(quick), 1.0), others)
    chunks.sort(key=lambda chunk: chunk.block)
    return Pass([chosen[chunk.block] for chunk in chunks], chunks), slope


def _by_one_block(task: VideoTask, setting: float, aim: float) -> float:
    """The step, in octaves, whose coding should come to `aim`, by what the middle block takes.

    Where the coder is nearly as quick as its quick coding, this leads as well.
    """
    number = len(task.grid) // 2
    block, step = task.grid.box(number).of(task.voxels), 2.0**setting
    share = activity_of(block, step) / max(activity_of(task.voxels, step), 1e-9)
    taken = len(_coded(task, number, step).data)
    task.monitor.progress(1.0, "compress")
    off = aim + math.log2(max(share, 1e-9)) - math.log2(max(taken, 1))
    return setting + max(-LONGEST_STEP, min(off / SIZE_SLOPE, LONGEST_STEP))


def _over_quick(task: VideoTask, steps: Steps, step: float) -> tuple[float, float]:
    """What a coding has more than a quick one, in octaves of bytes and of errors, of a part."""
    steps.next(_OVER_QUICK_COST, _left(task, 0)).progress(0.0, "compress")
    part = middle_of(task.voxels)
    if not (video.fits(part) and task.encoder.takes(*part.shape)):
        return 0.0, 0.0
    low, high = extremes(task.voxels)

    def coded(*, quickly: bool) -> tuple[float, float]:
        made = video.encode(
            part,
            step,
            speed=task.speed,
            encoder=task.encoder,
            limits=(float(low), float(high)),
            quickly=quickly,
        )
        error = video.error_of(part, video.decode(made.data, part.shape, task.context))
        return math.log2(len(made.data)), math.log2(max(error, LEAST_ERROR))

    good, quick = coded(quickly=False), coded(quickly=True)
    return good[0] - quick[0], good[1] - quick[1]


def middle_of(voxels: Voxels) -> Voxels:
    """At most `_SLICES` slices of `_SIDE` × `_SIDE`, from the middle of the middle block."""
    grid = video_grid(voxels.shape)
    block = grid.box(len(grid) // 2).of(voxels)
    most = (_SLICES, _SIDE, _SIDE)
    starts = [max(0, extent - side) // 2 for extent, side in zip(block.shape, most, strict=True)]
    return block[
        tuple(slice(start, start + side) for start, side in zip(starts, most, strict=True))
    ]


def _evened(
    task: VideoTask, steps: Steps, found: Pass, budget: int, slope: float
) -> list[Chunk] | None:
    """A coding that has its bytes, with its largest blocks coded anew until it does.

    As few of them as do, a few times at most: what fits then is taken, also where it leaves more
    bytes unused. None where nothing fitted.
    """
    best: Pass | None = None
    below, unused = _below(task)
    for turn in range(_EVENINGS + 1):
        if found.bytes <= budget and (best is None or found.bytes > best.bytes):
            best = found
        rest = round(budget / 2.0 ** (below / 2)) - found.bytes
        numbers = _fewest(found.chunks, abs(rest))
        is_near = budget / 2.0**unused <= found.bytes <= budget
        if is_near or turn == _EVENINGS or not numbers:
            break
        size = sum(len(found.chunks[number].data) for number in numbers)
        change = 2.0 ** (math.log2(max(size + rest, 1) / size) / slope)
        anew = {number: found.steps[number] * change for number in numbers}
        cost = _COST[task.speed] * len(anew) / len(found.chunks)
        part = task.at(steps.next(cost, cost / 2))
        coded = {chunk.block: chunk for chunk in _all_coded(part, anew)}
        found = Pass(
            [anew.get(number, step) for number, step in enumerate(found.steps)],
            [coded.get(chunk.block, chunk) for chunk in found.chunks],
        )
    return None if best is None else best.chunks


def _fewest(chunks: list[Chunk], change: int) -> list[int]:
    """The largest videos, as few as can take that change together, or all of them."""
    numbers: list[int] = []
    size = 0
    for chunk in sorted(chunks, key=lambda chunk: -len(chunk.data)):
        if change <= _ANEW * size:
            break
        if chunk.kind == VIDEO:
            numbers.append(chunk.block)
            size += len(chunk.data)
    return numbers


def _step_of_size(task: VideoTask, budget: int, setting: float) -> float:
    """The step, in octaves, whose streams take about `budget` bytes; `setting` where none do."""
    steps = Steps(task.monitor)

    def measure(setting: float) -> float:
        part = task.at(steps.next(1, 1))
        return math.log2(code(part, 2.0**setting, 2.0**setting).bytes)

    found = seek(measure, setting, math.log2(budget), slope=SIZE_SLOPE, tolerance=_ABOUT, most=3)
    return setting if found is None else found


def for_streams(budget: int, blocks: int) -> int:
    """What is left of `budget` bytes beside the filters of that number of blocks."""
    return budget - round(min(blocks * wiener.USUAL_BYTES, _FILTER_SHARE * budget))


def to_error(
    task: VideoTask, limit: float, start: float, error_of: Callable[[Voxels], float]
) -> list[Chunk] | None:
    """The smallest chunks found whose error is at most `limit`; None where none are.

    error_of: of all that was decoded. What filters bring is measured once and expected again: a
    search looks at bare streams, and only what it chose is filtered and measured.
    """
    anchor, slope = start, ERROR_SLOPE
    bare: dict[float, tuple[list[Chunk], float]] = {}
    aim, gain, (tolerance, most) = math.log2(limit), 0.0, _search(task)
    steps = Steps(task.monitor)

    def octaves_of(blocks: Iterable[Voxels]) -> float:
        return math.log2(max(error_of(task.grid.joined(blocks, task.voxels.dtype)), 1e-300))

    def whole(coded: list[Chunk]) -> tuple[list[Chunk], float]:
        chunks: list[Chunk] = []

        def kept() -> Iterator[Voxels]:
            for chunk, block in finished(task, coded, wiener.MOST_BYTES):
                chunks.append(chunk)
                yield block

        return chunks, octaves_of(kept())

    def measure(setting: float) -> float:
        nonlocal gain, anchor
        if setting not in bare:
            anchor = 2.0**setting if len(bare) == 1 else anchor
            step = steps.next(_COST[task.speed], _left(task, len(bare) + 1))
            chunks = code(task.at(step), 2.0**setting, anchor).chunks
            bare[setting] = chunks, octaves_of(task.decoded(task.grid, chunks))
        if not gain:
            gain = whole(bare[setting][0])[1] - bare[setting][1]
        return bare[setting][1] + gain

    best: tuple[float, list[Chunk]] | None = None
    setting = math.log2(start)
    if task.encoder.guides:
        setting, slope, _ = _guided(
            task, steps, setting, aim - tolerance / 4, slope, lambda chunks: whole(chunks)[1]
        )
        setting -= _over_quick(task, steps, 2.0**setting)[1] / slope
    for _ in range(_CHECKS):
        chosen = seek(measure, setting, aim, slope=slope, tolerance=tolerance, most=most)
        if chosen is None:
            break
        chunks, error = whole(bare[chosen][0])
        if error <= aim and (best is None or error > best[0]):
            best = error, chunks
        if aim - 2 * tolerance <= error <= aim:
            break
        # The filter brought more or less than was expected.
        gain = error - bare[chosen][1]
        setting = chosen + (aim - tolerance / 2 - error) / slope
    return best[1] if best else None


def code(task: VideoTask, step: float, anchor: float, *, quickly: bool = False) -> Pass:
    """Every block as a video, or without loss where that is smaller; not yet filtered."""
    steps = dict.fromkeys(range(len(task.grid)), step)
    return Pass([*steps.values()], list(_all_coded(task, steps, anchor, quickly=quickly)))


def _all_coded(
    task: VideoTask,
    steps: Mapping[int, float],
    anchor: float | None = None,
    *,
    quickly: bool = False,
) -> Iterator[Chunk]:
    """Blocks by their numbers, each in its step."""
    coded = task.map(
        lambda number: _coded(task, number, steps[number], anchor, quickly=quickly),
        steps,
        task.encoder.most_threads,
    )
    for count, chunk in enumerate(coded, 1):
        yield chunk
        task.monitor.progress(count / len(steps), "compress")


def _coded(
    task: VideoTask,
    number: int,
    step: float,
    anchor: float | None = None,
    *,
    quickly: bool = False,
) -> Chunk:
    block = task.grid.box(number).of(task.voxels)
    kind, data = code_one(block, step, task.speed, task.encoder, anchor, quickly=quickly)
    let_go(task.voxels)
    trim()
    return Chunk(number, kind, task.keep(data))


def code_one(
    block: Voxels,
    step: float,
    speed: Speed,
    encoder: Encoder = LIBAOM,
    anchor: float | None = None,
    *,
    quickly: bool = False,
) -> tuple[int, bytes]:
    """Block type and bytes of one block."""
    if not video.fits(block):
        exact = code_block(block, None, speed="fast", variants=())
        return exact.kind, bytes(exact.data)
    coded = video.encode(block, step, speed=speed, encoder=encoder, anchor=anchor, quickly=quickly)
    data = coded.data
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
        data, decoded = video.filtered(bytes(chunk.data), block, task.context, most)
        kind = VIDEO
        if task.wavelet_too and block.size <= _WAVELET_VOXELS:
            wins, _, other = against_wavelet(block, data, task.context)
            if other is not None and wins < 0:
                kind, data = WAVELET, other
                decoded = decode_data(kind, data, block.shape, task.context)
        let_go(task.voxels)
        trim()
        return replace(chunk, kind=kind, data=task.keep(data)), decoded

    return task.map(finish, chunks, video.MOST_THREADS)


def against_wavelet(
    block: Voxels, data: bytes, context: DecodeContext
) -> tuple[float, float, bytes | None]:
    """By how many dB a video is nearer than a wavelet of as many bytes, its own sum of squared
    errors, and that wavelet.

    Infinity and None where the wavelet has no such code.
    """
    mine = _loss(block, VIDEO, data, context)
    other = wavelet_of(block, len(data))
    if other is None:
        return math.inf, mine, None
    return 10 * math.log10(_loss(block, WAVELET, other, context) / mine), mine, other


def _loss(block: Voxels, kind: int, data: bytes, context: DecodeContext) -> float:
    return max(video.error_of(block, decode_data(kind, data, block.shape, context)), LEAST_ERROR)


def wavelet_of(block: Voxels, size: int) -> bytes | None:
    """The wavelet's code of a block in `size` bytes, None where it has none."""
    if size <= wavelet.HEAD_BYTES + 2 or not wavelet.fits(block):
        return None
    bits = min(8 * size / block.size * 1.05 + 0.01, 8.0 * block.dtype.itemsize + 4)
    values = block.astype(wavelet.working_type(block.dtype))
    return wavelet.encode(values, bits).prefix(size)
