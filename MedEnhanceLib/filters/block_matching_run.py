"""Streams a volume through the stages of `block_matching`, with few slices in memory.

Threads compute bands of rows. Bands of all stages share one queue, hardly longer than the number of
threads, which bounds the memory of a run. They are added to the sums of their stages in the order
of the queue, so that threads change no bit.
"""

from __future__ import annotations

import math
import mmap
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from MedEnhanceLib.core.arrays import SLICES_AT_ONCE, Array, Floats, Mask, parts_of, trim
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.filters.layers import (
    Layer,
    LayerArrays,
    RegionCrop,
    Round,
    StageKind,
    places,
)
from MedEnhanceLib.filters.regions import Air, reduce_windows
from MedEnhanceLib.native import SIDE
from MedEnhanceLib.runtime.machine import Pool
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.filters.native_engine import NativeEngine
    from MedEnhanceLib.noise.estimate import NoiseEstimate

#: σ of the noise, [K, J, I], or the estimate, whose map is made slice by slice as it is read.
Level: TypeAlias = "Array | NoiseEstimate"
#: Images that a run reads slice by slice.
ImageKind = Literal["noisy", "pilot", "matched"]
#: Approximate number of references in a band. A thread computes one band at a time, and a job can
#: be canceled between bands. The last bits of the result depend on this number.
REFERENCES_IN_BAND: dict[StageKind, int] = {"threshold": 65536, "grouped": 4096}
#: Slices of σ that are held: stages are about ten slices behind one another.
_HELD = 64
#: Slices of means that lie one after another, so that most slabs of them need no copy.
_MEANS_IN_ARRAY = 8 * SLICES_AT_ONCE
#: Slabs after which free memory returns to the system: the heap fragments with every slice.
_PARTS_TO_A_TRIM = 8


class Stage:
    """Layers of references that a stage has in a volume, and the slices that they read."""

    def __init__(
        self,
        shape: tuple[int, ...],
        window: tuple[int, int, int],
        settings: Round,
        kind: StageKind = "grouped",
    ) -> None:
        """Lay out a stage.

        Args:
            shape: of the volume.
            window: starts of candidates along each axis.
            settings: of the groups.
            kind: of the engine's functions, which computes the stage.
        """
        widths = [min(w, side - SIDE + 1) for w, side in zip(window, shape, strict=True)]
        self.kind, self._settings = kind, settings
        self.window = widths[0], widths[1], widths[2]
        self.tall = widths[0] + SIDE - 1
        between = settings.step if kind == "grouped" else 1
        self._starts = places(shape[0], between, is_shifted=False)
        last = shape[0] - self.tall
        self.firsts = [min(max(z - widths[0] // 2, 0), last) for z in self._starts]

    def layer(self, number: int) -> Layer:
        """Return a layer for the engine."""
        at = self._starts[number] - self.firsts[number]
        return Layer(number, at, self.window, self._settings)

    def layers_of(self, part: slice) -> list[int]:
        """Return the numbers of the layers that some slices depend on."""
        return [
            number
            for number, first in enumerate(self.firsts)
            if first < part.stop and first + self.tall > part.start
        ]

    def reads(self, part: slice) -> slice:
        """Return the slices of the pilot that some slices depend on."""
        numbers = self.layers_of(part)
        return slice(self.firsts[numbers[0]], self.firsts[numbers[-1]] + self.tall)


class Run:
    """Run of stages over a volume, with its threads; a context, which ends them.

    Attributes:
        noisy: [K, J, I], at least a block along each axis.
        spectrum: [64], relative variance of the noise in each frequency.
        stages: of the filter, first to last; the first one takes `pilot`, [K, J, I].
        box: the voxels of `noisy` that the result has, without mirrored ones.
        crop: of the slices, which `noisy` and all other arrays are.
        needed: the slices that the last stage has to yield: those of `box`, or those of a block.
    """

    def __init__(
        self,
        noisy: Array,
        level: Level,
        spectrum: Floats,
        *,
        stages: Sequence[Stage],
        pilot: Array,
        matched: Array | None,
        box: tuple[slice, ...],
        crop: RegionCrop,
        air: Air | None,
        engine: NativeEngine,
        threads: int,
        monitor: Monitor,
    ) -> None:
        self.stages, self._pilot, self.box, self._crop = stages, pilot, box, crop
        self._matched = matched
        self.needed = box[0] if noisy.shape[0] > SIDE else slice(0, SIDE)
        self._stop, self._finished = self.needed.start, 0
        self.noisy, self._air, self._map = noisy, air, level
        # Each stage reads the map of the noise; slices are held for all of them.
        self._level = lru_cache(_HELD)(lambda z: _floats(level[z : z + 1])[0])
        self.spectrum, self.engine = spectrum, engine
        self._threads, self.monitor = threads, monitor
        self._pool: Executor = Pool(threads, "denoising")
        self._begun: deque[tuple[Callable[[Band], None], Future[Band]]] = deque()
        self._spare: dict[tuple[int, ...], list[Floats]] = {}  # zeros, by shape

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def slabs(self) -> Iterator[Floats]:
        """Yield the needed slices after all stages, [n, J, I], in order."""
        return met(self._stream())

    def finished(self, slab: Floats) -> tuple[slice, Floats]:
        """Check the next slab and crop it to the result's box; reports progress.

        Returns the range of its slices in the result, and the cropped slab. Raises
        MedEnhanceError where a value is not finite; Cancelled by the monitor.
        """
        if not np.isfinite(slab).all():
            raise MedEnhanceError(
                "the denoising filter computed values that are not finite, from slice "
                f"{self._stop} on",
                "This is an error of MedEnhance. Report it, with the range of the intensities.",
            )
        start, self._stop = self._stop, self._stop + len(slab)
        stop = min(self._stop, self.box[0].stop)
        part = slice(min(max(start, self.box[0].start), stop), stop)
        if self._finished % _PARTS_TO_A_TRIM == 0:
            trim()
        self._finished += 1
        fraction = (self._stop - self.needed.start) / (self.needed.stop - self.needed.start)
        self.monitor.progress(fraction, "removing noise")
        return part, slab[part.start - start : part.stop - start, *self.box[1:]]

    def _stream(self) -> Iterator[Floats | Need]:
        """Yield slices after the last stage, in parts, from the pilot on; also its needs."""
        ranges = [self.needed]
        for stage in reversed(self.stages):
            ranges.insert(0, stage.reads(ranges[0]))
        parts = parts_of(ranges[0].start, ranges[0].stop)
        stream: Iterator[Floats | Need] = (self._slices("pilot", part) for part in parts)
        for stage, part in zip(self.stages, ranges[1:], strict=True):
            stream = self._results(stage, part, stream)
        return stream

    def _results(
        self, stage: Stage, part: slice, pilots: Iterator[Floats | Need]
    ) -> Iterator[Floats | Need]:
        """Yield some slices of a stage, from a stream of the pilot's slices; also its needs.

        Args:
            stage: that filters.
            part: the slices that are yielded.
            pilots: results of the stage before, all slices that this one reads, and its needs.
        """
        held = Held(pilots, stage.reads(part).start)
        sums = Sums(part, self.noisy.shape[1:], self._spare, self.engine)
        waiting: deque[int] = deque()  # first slices of the layers whose bands are not added yet

        def add(first: int, band: Band) -> None:
            sums.add(first, band)
            waiting.popleft()

        for number in stage.layers_of(part):
            first, layer = stage.firsts[number], stage.layer(number)
            slab = slice(first, first + stage.tall)
            yield Need(held, slab.stop)
            pilot = held.at(slab.start, slab.stop)
            held.let_go(min(first, sums.first))
            noisy, level = self._slices("noisy", slab), self._level_of(stage, number)
            matched = pilot if self._matched is None else self._slices("matched", slab)
            for rows in self._crop.bands(
                layer, REFERENCES_IN_BAND[stage.kind], self.stages.index(stage)
            ):
                while len(self._begun) > self._threads:
                    self._add_first()
                waiting.append(first)
                band = self._pool.submit(
                    self._band, stage, layer, rows, noisy, pilot, matched, level
                )
                self._begun.append((partial(add, first), band))
            del noisy, pilot, matched, level
            complete = min(waiting[0] if waiting else first, part.stop)
            if complete - sums.first >= SLICES_AT_ONCE:
                yield from self._means(stage, held, sums, complete)
        while waiting:
            self._add_first()
        yield from self._means(stage, held, sums, part.stop)

    def _means(self, stage: Stage, pilots: Held, sums: Sums, end: int) -> Iterator[Floats]:
        """Yield the results of the slices up to `end`, whose sums are complete."""
        for part in parts_of(sums.first, end):
            level = np.stack([self._level(z) for z in range(part.start, part.stop)])
            before = self._slices("noisy", part)
            if self._air is not None and stage.kind == "grouped":
                pilot = pilots.at(part.start, part.stop)
                before = self._smooth_in_air(part, before, pilot, level)
            yield sums.means(part.stop, before, level)

    def _smooth_in_air(self, part: slice, before: Floats, pilot: Floats, level: Floats) -> Floats:
        """Smooth slices of a pilot in air: mean over 3 × 3 voxels where it differs by less than σ.

        Returns `before` where there is no noise. Groups leave less noise than the pilot has, so
        that a border would be visible.
        """
        smooth = pilot.copy()
        for z, plane, sigma in zip(range(part.start, part.stop), smooth, level, strict=True):
            far = self._far_air(z)
            if far is not None and far.any():
                total = reduce_windows(np.add, np.pad(plane, 1, mode="edge"), (3, 3))
                mean = total / np.float32(9)
                np.copyto(plane, mean, where=far & (np.abs(mean - plane) < sigma))
        return np.where(level > 0, smooth, before)

    def _add_first(self) -> None:
        """Add the band that began first to its sums."""
        add, band = self._begun.popleft()
        add(band.result())

    def _band(
        self,
        stage: Stage,
        layer: Layer,
        rows: range,
        noisy: Floats,
        pilot: Floats,
        matched: Floats,
        level: Floats,
    ) -> Band:
        """Compute the sums of some rows of references of a layer."""
        self.monitor.check()
        depth, *sides = noisy.shape
        total, weight = (self._zeros((count, *sides)) for count in (depth, layer.window[0]))
        arrays = LayerArrays(noisy, pilot, matched, level, self.spectrum, total, weight)
        self.engine.run(stage.kind, layer, rows, arrays)
        step, reach = layer.round.step, layer.window[1] + SIDE
        lines = slice(max(0, (rows.start - 1) * step - reach), rows.stop * step + reach)
        return Band(lines, total[:, lines], weight[:, lines], (total, weight))

    def _zeros(self, shape: tuple[int, ...]) -> Floats:
        """Return zeros: those of an earlier band, if any, as new memory costs more time."""
        try:
            return self._spare[shape].pop()
        except (KeyError, IndexError):
            return _untouched(shape)

    def _slices(self, name: ImageKind, part: slice) -> Floats:
        """Return some slices of the input, the first pilot, or the image that is compared."""
        image = {"noisy": self.noisy, "pilot": self._pilot, "matched": self._matched}[name]
        assert image is not None
        return _floats(image[part])

    def _far_air(self, z: int) -> Mask | None:
        """Mask the air far from tissue in a slice, [J, I]; None where air is not known."""
        if self._air is None:
            return None
        return self._air.far_from_tissue(z)[self._crop.region]

    def _level_of(self, stage: Stage, number: int) -> Floats:
        """Return σ for a layer of a stage, as an engine reads it: [window[0] + 3, J, I].

        Only the slice of the references' middles is filled. It is 0 where no groups are needed.
        """
        layer, first = stage.layer(number), stage.firsts[number]
        level = np.empty((layer.window[0] + SIDE - 1, *self.noisy.shape[1:]), np.float32)
        middle, z = level[layer.z + 1], first + layer.z + 1
        needed = self._crop.references[self.stages.index(stage)]
        middle[...] = 0
        middle[needed] = self._level(z)[needed]
        if (far := self._far_air(z)) is not None and stage.kind == "grouped":
            np.copyto(middle, 0, where=far)
        return level


class Held:
    """Buffer of a stream's slices, which are kept until they are let go.

    A stream that reads another one yields a `Need` of its slices before it takes them, and whoever
    reads it meets the need: stages do not call one another, however many there are.
    """

    def __init__(self, stream: Iterator[Floats | Need], first: int) -> None:
        self._stream, self._first, self._end = stream, first, first
        self._slices: deque[Floats] = deque()

    def at(self, first: int, end: int) -> Floats:
        """Return some slices, [n, J, I]; reads on as far as needed."""
        self.read_to(end)
        if first < self._first:
            raise RuntimeError(f"slice {first} of a stream was let go")
        return _stacked([self._slices[z - self._first] for z in range(first, end)])

    def read_to(self, end: int) -> None:
        """Read the stream up to a slice, excluded, and before it whatever that needs."""
        waiting = [Need(self, end)]
        while waiting:
            held, end = waiting[-1]
            if held._end >= end:
                waiting.pop()
                continue
            each = next(held._stream, None)
            if each is None:
                raise RuntimeError(f"a stream ended at slice {held._end}, before {end}")
            if isinstance(each, Need):
                waiting.append(each)
            else:
                held._keep(each)

    def let_go(self, first: int) -> None:
        """Forget the slices before this one."""
        while self._first < first and self._slices:
            self._slices.popleft()
            self._first += 1

    def _keep(self, slab: Floats) -> None:
        self._slices.extend(slab)
        self._end += len(slab)


class Need(NamedTuple):
    """Slices that a stream is about to take from a buffer: those before `end`."""

    held: Held
    end: int


def met(stream: Iterator[Floats | Need]) -> Iterator[Floats]:
    """Yield the slices of a stream, and meet its needs."""
    for each in stream:
        if isinstance(each, Need):
            each.held.read_to(each.end)
        else:
            yield each


@dataclass(frozen=True, eq=False)
class Band:
    """Sums and weights of some lines of slices.

    Attributes:
        lines: the rows of each slice.
        total, weight: [n, lines, I]: sums of the weighted estimates, and of their weights.
        memory: the arrays of all rows that these are parts of, with zeros in the others.
    """

    lines: slice
    total: Floats
    weight: Floats
    memory: Sequence[Floats]


class Sums:
    """Sums of the layers so far, from the first incomplete slice on."""

    def __init__(
        self,
        part: slice,
        shape: tuple[int, ...],
        spare: dict[tuple[int, ...], list[Floats]],
        engine: NativeEngine,
    ) -> None:
        """Begin without layers.

        Args:
            part: the slices that are needed.
            shape: of a slice.
            spare: takes the memory of bands, by shape, once they are added and 0 again.
            engine: that adds.
        """
        self.first, self._end, self._shape, self._spare = part.start, part.stop, shape, spare
        self._engine = engine
        self._totals: dict[int, Floats] = {}
        self._weights: dict[int, Floats] = {}
        self._room: Floats = np.empty((0, *shape), np.float32)  # for the next means

    def add(self, first: int, band: Band) -> None:
        """Add a part of a layer whose slab begins at slice `first`."""
        for parts, added in ((self._totals, band.total), (self._weights, band.weight)):
            into: list[Floats | None] = [None] * len(added)
            for at, z in enumerate(range(first, first + len(added))):
                if not self.first - SIDE < z < self._end:  # no needed slice depends on it
                    continue
                if z not in parts:
                    parts[z] = np.zeros(self._shape, np.float32)
                into[at] = parts[z][band.lines]
            if added.size:
                self._engine.planes("add", into, added[0], added.strides[0] // added.itemsize)
        for whole in band.memory:
            self._spare.setdefault(whole.shape, []).append(whole)

    def means(self, end: int, before: Floats, level: Floats) -> Floats:
        """Average the blocks over each voxel of slices `first` to `end`, and release their sums.

        Args:
            end: one past the last slice.
            before: the slices before the stage, which stay where there is no noise or no block.
            level: σ in the slices.
        """
        if len(self._room) < len(before):
            self._room = np.empty((_MEANS_IN_ARRAY, *self._shape), np.float32)
        means, self._room = np.split(self._room, [len(before)])
        for row, z in enumerate(range(self.first, end)):
            starts = [self._weights.get(z - k) for k in range(SIDE)]
            arrays = {"before": before[row], "level": level[row], "mean": means[row]}
            self._engine.planes("means", starts, self._totals.pop(z), **arrays)
            self._weights.pop(z - SIDE + 1, None)
        self.first = end
        return means


def large_enough(volume: Array) -> Array:
    """Mirror the volume along axes with fewer voxels than a block."""
    missing = [max(0, SIDE - side) for side in volume.shape]
    if not any(missing):
        return volume
    return np.pad(volume, [(0, count) for count in missing], mode="symmetric")


def _untouched(shape: tuple[int, ...]) -> Floats:
    """Return zeros that take memory only where they are written, and free it at once."""
    try:
        memory = mmap.mmap(-1, 4 * math.prod(shape))
    except OSError as cause:
        raise MemoryError("no memory for sums of the denoising filter") from cause
    return np.frombuffer(memory, np.float32).reshape(shape)


def _floats(values: Array) -> Floats:
    return np.ascontiguousarray(values, dtype=np.float32)


def _stacked(slices: list[Floats]) -> Floats:
    """Join slices to a slab; not copied if they are successive slices of one array."""
    first, whole = slices[0], slices[0].base
    shape = whole.shape[1:] if isinstance(whole, np.ndarray) else ()
    if whole is None or shape != first.shape or whole.dtype != first.dtype:
        return np.stack(slices)
    if not whole.flags.c_contiguous:
        return np.stack(slices)
    start = (first.ctypes.data - whole.ctypes.data) // first.nbytes
    slab: Floats = whole[start : start + len(slices)]
    places = zip(slices, slab, strict=False)
    is_slab = all(one.ctypes.data == other.ctypes.data for one, other in places)
    return slab if len(slab) == len(slices) and is_slab else np.stack(slices)
