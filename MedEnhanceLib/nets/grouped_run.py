"""A volume on its way through the stages of `nets.grouped`: only slices near the present one are in
memory.

Threads compute bands of rows. Those of all stages wait in one line, in which there is hardly more
than one for each thread: what they hold bounds the memory of a run. Each is added to its stage's
sums in the order in which it began, so that threads change no bit.
"""

from __future__ import annotations

import math
import mmap
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from MedEnhanceLib import native
from MedEnhanceLib.native import CELLS, SIDE, Array, Layer, LayerArrays
from MedEnhanceLib.nets.grouped_sums import Band, Held, Sums
from MedEnhanceLib.runtime.progress import Monitor

T = TypeVar("T")
#: Threshold of the first stage in σ (2.7 as in BM3D), and steps of its grid.
_THRESHOLD, _THRESHOLD_STEP = 2.7, 2
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
    """A volume whose slices are made when they are read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, J, I)."""

    def __getitem__(self, slices: slice, /) -> Array:
        """Some slices, float32 [n, J, I]."""


class Engine(Protocol):
    """What computes layers: the compiled library, or PyTorch."""

    def run(self, stage: native.Stage, layer: Layer, rows: range, arrays: LayerArrays) -> None:
        """As `native.Library.run`."""

    def match(self, layer: Layer, rows: range, *, pilot: Array, level: Array) -> native.Groups:
        """As `native.Library.match`."""


class Run:
    """A volume, its noise and the threads of a run; a context, which ends the threads."""

    def __init__(
        self,
        noisy: npt.NDArray[Any],
        level: npt.NDArray[Any] | Slices,
        spectrum: npt.NDArray[Any] | None,
        *,
        engine: Engine,
        line: Array,
        taper: Array,
        window: tuple[int, int, int],
        threads: int,
        monitor: Monitor,
    ) -> None:
        if noisy.ndim != 3 or not noisy.size or level.shape != noisy.shape:
            raise ValueError(f"noisy is {noisy.shape} and level {level.shape}: [K, J, I] twice")
        self._shape = noisy.shape
        self.noisy, louder = _large_enough(noisy)
        self.level, _ = _large_enough(level)
        self._louder = np.float32(louder)
        self.spectrum = _spectrum(spectrum)
        self.line, self._taper = line, taper
        self._engine, self._window, self.monitor = engine, window, monitor
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="denoising")
        self._begun: deque[tuple[Callable[[Band], None], Future[Band]]] = deque()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def stream(
        self, stages: Sequence[Stage], wanted: slice, pilot: npt.NDArray[Any] | None = None
    ) -> Iterator[Array]:
        """The wanted slices after all stages, in parts, from a pilot or from the input."""
        ranges = ranges_of(stages, wanted)
        begin = self.noisy if pilot is None else self.mirrored(pilot)
        parts = parts_of(ranges[0].start, ranges[0].stop)
        stream: Iterator[Array] = (_floats(begin[part]) for part in parts)
        for stage, needed in zip(stages, ranges[1:], strict=True):
            stream = self.results(stage, needed, stream)
        return stream

    def submit(self, work: Callable[..., T], *args: Any, **options: Any) -> Future[T]:
        """Let one of this run's threads do something."""
        return self._pool.submit(work, *args, **options)

    def mirrored(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A volume like the input, mirrored on where it is smaller than a block."""
        if volume.shape != self._shape:
            raise ValueError(f"a pilot of {volume.shape} for a volume of {self._shape}")
        large: npt.NDArray[Any] = _large_enough(volume)[0]
        return large

    def padded(self, wanted: slice) -> slice:
        """The wanted slices; of a volume that is mirrored to a block's depth, all of them."""
        return wanted if self._shape[0] >= SIDE else slice(0, SIDE)

    def threshold(self) -> Stage:
        """The first stage."""
        return Stage(
            self.noisy.shape,
            (1, 1, 1),
            "threshold",
            1,
            Round(step=_THRESHOLD_STEP, keep=1, damp=_THRESHOLD),
        )

    def stage(self, each: Round) -> Stage:
        """One round of the grouped filter."""
        return Stage(self.noisy.shape, self._window, "grouped", each.step, each)

    def results(self, stage: Stage, part: slice, pilots: Iterator[Array]) -> Iterator[Array]:
        """Stream of some slices from a stream of the pilot's slices that they need."""
        held = Held(pilots, stage.reads(part).start)
        sums = Sums(self.line, part, self.noisy.shape[1:])
        waiting: deque[int] = deque()  # where the layers begin whose bands are not in the sums
        for number in stage.layers_of(part):
            first, layer = stage.firsts[number], stage.layer(number, part)
            pilot = held.at(first, first + stage.tall)
            held.let_go(first)
            noisy = _floats(self.noisy[first : first + stage.tall])
            level = self.level_of(layer, first)

            def add(band: Band, first: int = first) -> None:
                sums.add(first, band)
                waiting.popleft()

            for rows in self._bands(stage, number):
                waiting.append(first)
                self._begin(add, stage, layer, rows, noisy, pilot, level)
            del noisy, pilot, level
            yield from self._complete(sums, min(waiting[0] if waiting else first, part.stop))
        while waiting:
            self._add_first()
        yield from self._complete(sums, part.stop)

    def _complete(self, sums: Sums, end: int) -> Iterator[Array]:
        """Means of the slices up to `end`, to which nothing is added any more."""
        for here in parts_of(sums.first, end):
            yield sums.means(here.stop, *self.input(here.start, here.stop))

    def _begin(self, add: Callable[[Band], None], *band: Any) -> None:
        """Let a thread compute a band; before that, bands that are done enter their sums."""
        while len(self._begun) > self._threads:
            self._add_first()
        self._begun.append((add, self._pool.submit(self._band, *band)))

    def _add_first(self) -> None:
        """Add the band that began first to its sums."""
        add, band = self._begun.popleft()
        add(band.result())

    def _bands(self, stage: Stage, number: int) -> list[range]:
        """The rows of references of a layer in parts that threads share."""
        rows, step = stage.layer(number).rows(self.noisy.shape[1]), stage.layer(number).step
        at_once = max(1, _REFERENCES_IN_BAND[stage.kind] * step // self.noisy.shape[2])
        return [range(row, min(row + at_once, rows)) for row in range(0, rows, at_once)]

    def _band(
        self, stage: Stage, layer: Layer, rows: range, noisy: Array, pilot: Array, level: Array
    ) -> Band:
        """What some rows of references of a layer add to the sums."""
        self.monitor.check()
        slab = noisy.shape[1:]
        total, weight = _untouched((stage.tall, *slab)), _untouched((stage.deep, *slab))
        arrays = LayerArrays(noisy, pilot, level, self.spectrum, self._taper, total, weight)
        self._engine.run(stage.kind, layer, rows, arrays)
        reach = layer.window[1] + SIDE
        lines = slice(max(0, (rows.start - 1) * layer.step - reach), rows.stop * layer.step + reach)
        return Band(lines, total[:, lines], weight[:, lines])

    def input(self, first: int, last: int) -> tuple[Array, Array]:
        """Slices of the input and of its level."""
        return _floats(self.noisy[first:last]), self._levels(first, last)

    def level_of(self, layer: Layer, first: int) -> Array:
        """The level as an engine reads it of a layer whose slab begins at slice `first`.

        [window[0] + 3, J, I], of which one slice alone is filled: that of a reference's middle.
        """
        level = np.empty((layer.window[0] + SIDE - 1, *self.noisy.shape[1:]), np.float32)
        middle = layer.z + 1
        level[middle] = self._levels(first + middle, first + middle + 1)[0]
        return level

    def _levels(self, first: int, last: int) -> Array:
        level = _floats(self.level[first:last])
        return level if self._louder == 1 else level * self._louder


def parts_of(first: int, end: int, at_once: int | None = None) -> Iterator[slice]:
    """The slices from `first` to `end`, a few at a time."""
    at_once = at_once or _SLICES
    for begin in range(first, end, at_once):
        yield slice(begin, min(begin + at_once, end))


def _untouched(shape: tuple[int, ...]) -> Array:
    """Zeros that take memory only where something is written, and give it back at once."""
    try:
        memory = mmap.mmap(-1, 4 * math.prod(shape))
    except OSError as cause:
        raise MemoryError("no memory for sums of the denoising filter") from cause
    return np.frombuffer(memory, np.float32).reshape(shape)


def ranges_of(stages: Sequence[Stage], wanted: slice) -> list[slice]:
    """What each stage reads for some slices of the last one; and these slices."""
    ranges = [wanted]
    for stage in reversed(stages):
        ranges.insert(0, stage.reads(ranges[0]))
    return ranges


class Stage:
    """One stage over a volume: which layers of references it has, and what slices they need.

    shape: of the volume. window: starting places of candidates. step_z: slices between layers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        window: tuple[int, int, int],
        kind: native.Stage,
        step_z: int,
        settings: Round,
    ) -> None:
        widths = [min(w, side - SIDE + 1) for w, side in zip(window, shape, strict=True)]
        self.kind, self.step_z, self._settings = kind, step_z, settings
        self._window = widths[0], widths[1], widths[2]
        self.deep, self.tall = widths[0], widths[0] + SIDE - 1
        self._starts = native.places(shape[0], step_z, is_shifted=False)
        last = shape[0] - self.tall
        self.firsts = [min(max(z - widths[0] // 2, 0), last) for z in self._starts]

    def layer(self, number: int, part: slice = slice(0, sys.maxsize)) -> Layer:
        """One layer, for the engine; part: the slices of the volume that are wanted."""
        s, first = self._settings, self.firsts[number]
        wanted = min(max(part.start - first, 0), self.tall), min(part.stop - first, self.tall)
        at = self._starts[number] - first
        return Layer(number, at, self._window, s.step, s.keep, s.apart, s.damp, wanted)

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


def _large_enough(volume: Any) -> tuple[Any, float]:
    """At least a block's voxels along each axis, by mirroring; and the factor on the noise for it.

    What is mirrored repeats its noise, so less of it averages out.
    """
    louder = 1.0
    for axis, side in enumerate(volume.shape):
        if side < SIDE:
            louder *= math.sqrt(SIDE / side)
            volume = np.pad(
                volume[:],
                [(0, SIDE - side if a == axis else 0) for a in range(3)],
                mode="symmetric",
            )
    return volume, louder
