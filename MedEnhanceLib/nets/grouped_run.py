"""A volume on its way through the stages of `nets.grouped`: only slices near the present one are in
memory.

Threads compute bands of rows. Those of all stages wait in one line, in which there is hardly more
than one for each thread: what they hold bounds the memory of a run. Each is added to its stage's
sums in the order in which it began, so that threads change no bit.
"""

from __future__ import annotations

import math
import mmap
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from MedEnhanceLib import native
from MedEnhanceLib.native import CELLS, SIDE, Array, Layer, LayerArrays
from MedEnhanceLib.runtime.progress import Monitor

T = TypeVar("T")
#: Shape of the weight of places in a block (Kaiser window).
_TAPER_SHAPE = 2.0
#: Weight of each place along a side of a block, [4], and of each place of a block, [64].
TAPER_LINE: Array = np.kaiser(SIDE, _TAPER_SHAPE).astype(np.float32)
TAPER: Array = np.einsum("i,j,k->ijk", *(3 * [TAPER_LINE])).reshape(-1).astype(np.float32)
#: References of a band, about: what one thread computes before it takes the next, and between which
#: a job can be canceled. The result depends on it in the last bits.
_REFERENCES_IN_BAND: dict[native.Stage, int] = {"threshold": 65536, "grouped": 4096}
#: Slices that pass from stage to stage at a time, at most.
_SLICES = 4
#: Least relative variance of a frequency; none at all would mean infinite weights.
_LEAST_SHARE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round over all groups.

    Attributes:
        step: voxels between references, 1 to 4; the cost falls with its cube.
        keep: blocks in a group, 1 to 64.
        damp: factor on the variance of the noise: above 1 smooths more.
        apart: least distance in voxels, along one axis, of other blocks from the reference; for
            noise that neighboring voxels share.
    """

    step: int
    keep: int = 32
    damp: float = 1.0
    apart: int = 0


class Slices(Protocol):
    """A volume in memory, or one whose slices are made when they are read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, J, I)."""

    def __getitem__(self, slices: slice, /) -> npt.NDArray[Any]:
        """Some slices, [n, J, I]."""


class Engine(Protocol):
    """What computes layers: the compiled library, or PyTorch."""

    def run(
        self, stage: native.Stage, layer: Layer, rows: range, arrays: LayerArrays[Array]
    ) -> None:
        """As `native.Library.run`."""

    def match(self, layer: Layer, rows: range, *, pilot: Array, level: Array) -> native.Groups:
        """As `native.Library.match`."""


class Stage:
    """One stage over a volume: which layers of references it has, and what slices they need."""

    def __init__(
        self,
        shape: tuple[int, ...],
        window: tuple[int, int, int],
        settings: Round,
        kind: native.Stage = "grouped",
    ) -> None:
        """shape: of the volume. window: starting places of candidates along each axis."""
        widths = [min(w, side - SIDE + 1) for w, side in zip(window, shape, strict=True)]
        self.kind, self._settings = kind, settings
        self._window = widths[0], widths[1], widths[2]
        self.deep, self.tall = widths[0], widths[0] + SIDE - 1
        between = settings.step if kind == "grouped" else 1
        self._starts = native.places(shape[0], between, is_shifted=False)
        last = shape[0] - self.tall
        self.firsts = [min(max(z - widths[0] // 2, 0), last) for z in self._starts]

    def layer(self, number: int) -> Layer:
        """One layer, for the engine."""
        s, at = self._settings, self._starts[number] - self.firsts[number]
        return Layer(number, at, self._window, s.step, s.keep, s.apart, s.damp)

    def layers_of(self, part: slice) -> list[int]:
        """The layers that some slices depend on."""
        return [
            number
            for number, first in enumerate(self.firsts)
            if first < part.stop and first + self.tall > part.start
        ]

    def reads(self, part: slice) -> slice:
        """The slices of the pilot that some slices depend on."""
        numbers = self.layers_of(part)
        return slice(self.firsts[numbers[0]], self.firsts[numbers[-1]] + self.tall)


class Run:
    """A volume, its noise and the threads of a run; a context, which ends the threads.

    Attributes:
        noisy: [K, J, I], at least a block along each axis.
        spectrum: [64], relative variance of the noise in each frequency.
    """

    def __init__(
        self,
        noisy: npt.NDArray[Any],
        level: Slices,
        spectrum: npt.NDArray[Any] | None,
        *,
        window: tuple[int, int, int],
        engine: Engine,
        threads: int,
        monitor: Monitor,
    ) -> None:
        self.noisy, self._level, self.spectrum = noisy, level, _spectrum(spectrum)
        self._window, self._engine, self._threads = window, engine, threads
        self.monitor = monitor
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="denoising")
        self._begun: deque[tuple[Callable[[Band], None], Future[Band]]] = deque()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def stage(self, settings: Round) -> Stage:
        """A round of the grouped filter over this volume."""
        return Stage(self.noisy.shape, self._window, settings)

    def stream(
        self, stages: Sequence[Stage], needed: slice, pilot: npt.NDArray[Any] | None = None
    ) -> Iterator[Array]:
        """Some slices after all stages, in parts, from a pilot or from the input."""
        ranges = ranges_of(stages, needed)
        begin = self.noisy if pilot is None else pilot
        parts = parts_of(ranges[0].start, ranges[0].stop)
        stream: Iterator[Array] = (_floats(begin[part]) for part in parts)
        for stage, part in zip(stages, ranges[1:], strict=True):
            stream = self.results(stage, part, stream)
        return stream

    def submit(self, work: Callable[..., T], *args: Any, **options: Any) -> Future[T]:
        """Let one of this run's threads do something."""
        return self._pool.submit(work, *args, **options)

    def results(self, stage: Stage, part: slice, pilots: Iterator[Array]) -> Iterator[Array]:
        """Stream of some slices from a stream of the pilot's slices that they need."""
        held = Held(pilots, stage.reads(part).start)
        sums = Sums(part, self.noisy.shape[1:])
        waiting: deque[int] = deque()  # where the layers begin whose bands are not in the sums

        def add(first: int, band: Band) -> None:
            sums.add(first, band)
            waiting.popleft()

        for number in stage.layers_of(part):
            first, layer = stage.firsts[number], stage.layer(number)
            pilot = held.at(first, first + stage.tall)
            held.let_go(first)
            noisy = _floats(self.noisy[first : first + stage.tall])
            level = self.level_of(layer, first)
            for rows in self._bands(stage.kind, layer):
                while len(self._begun) > self._threads:
                    self._add_first()
                waiting.append(first)
                band = self._pool.submit(self._band, stage.kind, layer, rows, noisy, pilot, level)
                self._begun.append((partial(add, first), band))
            del noisy, pilot, level
            yield from self._means(sums, min(waiting[0] if waiting else first, part.stop))
        while waiting:
            self._add_first()
        yield from self._means(sums, part.stop)

    def _means(self, sums: Sums, end: int) -> Iterator[Array]:
        """Results of the slices up to `end`, to which nothing is added any more."""
        for part in parts_of(sums.first, end):
            yield sums.means(part.stop, _floats(self.noisy[part]), self.level(part))

    def _add_first(self) -> None:
        """Add the band that began first to its sums."""
        add, band = self._begun.popleft()
        add(band.result())

    def _bands(self, kind: native.Stage, layer: Layer) -> list[range]:
        """The rows of references of a layer in parts that threads share."""
        _, ny, nx = self.noisy.shape
        rows, at_once = layer.rows(ny), max(1, _REFERENCES_IN_BAND[kind] * layer.step // nx)
        return [range(row, min(row + at_once, rows)) for row in range(0, rows, at_once)]

    def _band(
        self,
        kind: native.Stage,
        layer: Layer,
        rows: range,
        noisy: Array,
        pilot: Array,
        level: Array,
    ) -> Band:
        """What some rows of references of a layer add to the sums."""
        self.monitor.check()
        slab = noisy.shape[1:]
        total, weight = _untouched((len(noisy), *slab)), _untouched((layer.window[0], *slab))
        arrays = LayerArrays(noisy, pilot, level, self.spectrum, TAPER, total, weight)
        self._engine.run(kind, layer, rows, arrays)
        reach = layer.window[1] + SIDE
        lines = slice(max(0, (rows.start - 1) * layer.step - reach), rows.stop * layer.step + reach)
        return Band(lines, total[:, lines], weight[:, lines])

    def level(self, part: slice) -> Array:
        """σ of the noise in some slices."""
        return _floats(self._level[part])

    def level_of(self, layer: Layer, first: int) -> Array:
        """The level as an engine reads it of a layer whose slab begins at slice `first`.

        [window[0] + 3, J, I], of which one slice alone is filled: that of a reference's middle.
        """
        level = np.empty((layer.window[0] + SIDE - 1, *self.noisy.shape[1:]), np.float32)
        middle = layer.z + 1
        level[middle] = self.level(slice(first + middle, first + middle + 1))[0]
        return level


class Held:
    """Slices of a stream that are kept until they are let go."""

    def __init__(self, stream: Iterator[Array], first: int) -> None:
        self._stream, self._first, self._end = stream, first, first
        self._slices: deque[Array] = deque()

    def passing(self) -> Iterator[Array]:
        """The stream, for another reader; its slices stay here."""
        while (slab := self._next()) is not None:
            yield slab

    def at(self, first: int, end: int) -> Array:
        """Some slices, [n, J, I]; reads on as far as needed."""
        while self._end < end:
            if self._next() is None:
                raise RuntimeError(f"a stream ended at slice {self._end}, before {end}")
        return np.stack([self._slices[z - self._first] for z in range(first, end)])

    def let_go(self, first: int) -> None:
        """Slices before this one are not needed any more."""
        while self._first < first and self._slices:
            self._slices.popleft()
            self._first += 1

    def _next(self) -> Array | None:
        slab = next(self._stream, None)
        if slab is not None:
            self._slices.extend(slab)
            self._end += len(slab)
        return slab


@dataclass(frozen=True, eq=False)
class Band:
    """Sums and weights of some lines of slices, [n, lines, I] each."""

    lines: slice
    total: Array
    weight: Array


class Sums:
    """Sums of the layers so far, of slices that are not complete; slices before `first` are not."""

    def __init__(self, part: slice, shape: tuple[int, ...]) -> None:
        """part: the slices that are wanted. shape: of a slice."""
        self.first, self._end, self._shape = part.start, part.stop, shape
        self._totals: dict[int, Array] = {}
        self._weights: dict[int, Array] = {}
        self._over: dict[int, Array] = {}

    def add(self, first: int, band: Band) -> None:
        """Add a part of a layer whose slab begins at slice `first`."""
        for parts, added in ((self._totals, band.total), (self._weights, band.weight)):
            for z, values in enumerate(added, first):
                if not self.first - SIDE < z < self._end:  # nothing that is wanted depends on it
                    continue
                if z not in parts:
                    parts[z] = np.zeros(self._shape, np.float32)
                parts[z][band.lines] += values

    def means(self, end: int, noisy: Array, level: Array) -> Array:
        """The mean of the blocks over each voxel of slices `first` to `end`; the input where there
        is no noise. These slices are let go.
        """
        result = np.empty_like(noisy)
        for z in range(self.first, end):
            over = np.zeros_like(noisy[0])
            for k, share in enumerate(TAPER_LINE):
                if z - k in self._weights:
                    self._over[z - k] = _within_slice(self._weights.pop(z - k))
                if z - k in self._over:
                    over += share * self._over[z - k]
            here = z - self.first
            is_noisy = (over > 0) & (level[here] > 0)
            np.copyto(result[here], noisy[here])
            np.divide(self._totals.pop(z), over, out=result[here], where=is_noisy)
        for z in [z for z in self._over if z < end - SIDE + 1]:
            del self._over[z]
        self.first = end
        return result


def _within_slice(weight: Array) -> Array:
    """Weights of blocks by starting place → of the places that they cover, in one slice."""
    for axis in (0, 1):
        spread = np.zeros_like(weight)
        for offset, share in enumerate(TAPER_LINE):
            ahead = np.moveaxis(spread, axis, 0)[offset:]
            ahead += share * np.moveaxis(weight, axis, 0)[: len(ahead)]
        weight = spread
    return weight


def parts_of(first: int, end: int, at_once: int | None = None) -> Iterator[slice]:
    """The slices from `first` to `end`, a few at a time."""
    at_once = at_once or _SLICES
    for begin in range(first, end, at_once):
        yield slice(begin, min(begin + at_once, end))


def ranges_of(stages: Sequence[Stage], needed: slice) -> list[slice]:
    """What each stage reads for some slices of the last one; and these slices."""
    ranges = [needed]
    for stage in reversed(stages):
        ranges.insert(0, stage.reads(ranges[0]))
    return ranges


def large_enough(volume: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], float]:
    """At least a block's voxels along each axis, by mirroring; and the factor on the noise for it.

    What is mirrored repeats its noise, so less of it averages out.
    """
    missing = [max(0, SIDE - side) for side in volume.shape]
    if not any(missing):
        return volume, 1.0
    louder = math.prod(math.sqrt(SIDE / min(side, SIDE)) for side in volume.shape)
    return np.pad(volume, [(0, count) for count in missing], mode="symmetric"), louder


def _untouched(shape: tuple[int, ...]) -> Array:
    """Zeros that take memory only where something is written, and give it back at once."""
    try:
        memory = mmap.mmap(-1, 4 * math.prod(shape))
    except OSError as cause:
        raise MemoryError("no memory for sums of the denoising filter") from cause
    return np.frombuffer(memory, np.float32).reshape(shape)


def _spectrum(spectrum: npt.NDArray[Any] | None) -> Array:
    """64 relative variances of mean 1, none of them 0."""
    if spectrum is None:
        return np.ones(CELLS, np.float32)
    given = np.asarray(spectrum, np.float64).reshape(-1)
    if given.shape != (CELLS,) or not np.isfinite(given).all() or (given < 0).any():
        raise ValueError("a spectrum has 64 finite variances of 0 or more")
    return np.maximum(given, _LEAST_SHARE).astype(np.float32)


def _floats(values: npt.NDArray[Any]) -> Array:
    return np.ascontiguousarray(values, dtype=np.float32)
