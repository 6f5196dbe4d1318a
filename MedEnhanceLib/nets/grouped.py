"""Removes noise from groups of similar blocks of 4 × 4 × 4 voxels.

A first stage transforms each block by itself (DCT) and drops what does not stand out of the noise.
Each round then takes the result so far as *pilot*. For every reference block of a grid it searches
the most similar blocks of the pilot nearby. The mean of their noisy blocks passes a Wiener filter
in each frequency. What each block differs from that mean is estimated in the span of the pilot's
own differences: with the covariance C of these, the linear filter C (C + σ²)⁻¹. The overlapping
blocks are averaged.

Sources: groups of similar blocks and two stages, Dabov et al., IEEE Trans. Image Process. 16
(2007) 2080; in volumes, Maggioni et al., IEEE Trans. Image Process. 22 (2013) 119; mean and
covariance of a group instead of a transform, Lebrun et al., SIAM J. Imaging Sci. 6 (2013) 1665.
Written from these descriptions. Ours: the Wiener filter of the mean, the solution in as many
unknowns as a group has blocks, several rounds with more noise assumed than there is, and noise of
known spectrum.

Volumes pass as slabs from stage to stage: only slices near the present one are in memory. The
grid and the order of every sum depend on the whole volume alone, so that neither slabs nor threads
nor the width of vectors change a bit of the result. The work is done by the compiled library
(`MedEnhanceLib.native`) or, where that is missing, by `nets.grouped_torch`; on a CUDA device by
`nets.grouped_card`.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from MedEnhanceLib import native
from MedEnhanceLib.native import CELLS, SIDE, Array, Layer
from MedEnhanceLib.nets.grouped_sums import Band, Slab, Sums
from MedEnhanceLib.runtime import machine
from MedEnhanceLib.runtime.progress import Monitor

T = TypeVar("T")
#: Search window along slices, rows and columns: starting places of candidates.
WINDOW = native.MOST_WINDOW
#: Threshold of the first stage in σ (2.7 as in BM3D), and steps of its grid.
_THRESHOLD, _THRESHOLD_STEP = 2.7, 2
#: Shape of the weight of places in a block (Kaiser window).
_TAPER_SHAPE = 2.0
#: References of a band, about: what one thread computes before it takes the next, and between which
#: a job can be canceled. The result depends on it in the last bits.
_REFERENCES_IN_BAND: dict[native.Stage, int] = {"threshold": 65536, "grouped": 4096}
#: Slices that are read from the input at a time.
_SLICES = 8
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


#: For magnetic resonance: white noise. Each round has a better pilot than the one before.
MR_ROUNDS = (Round(step=4), Round(step=4, damp=1.2), Round(step=3, damp=1.2))
#: For CT after the first stage alone: noise that neighbors share.
CT_ROUNDS = (Round(step=4, damp=2.0, apart=4), Round(step=3, damp=1.4))


class Slices(Protocol):
    """A volume whose slices are made when they are read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, J, I)."""

    def __getitem__(self, slices: slice, /) -> Array:
        """Some slices, float32 [n, J, I]."""


class Engine(Protocol):
    """What computes layers: the compiled library, or PyTorch."""

    def run(
        self,
        stage: native.Stage,
        layer: Layer,
        rows: range,
        *,
        noisy: Array,
        pilot: Array,
        level: Array,
        spectrum: Array,
        taper: Array,
        total: Array,
        weight: Array,
    ) -> None:
        """As `native.Library.run`."""

    def match(self, layer: Layer, rows: range, *, pilot: Array, level: Array) -> native.Groups:
        """As `native.Library.match`."""


#: What is done to results on the device that made them: takes the values, the input and the level
#: of some slices, tensors [n, J, I] in float32, and returns tensors of the result's type.
Finish = Callable[[Any, Any, Any], Any]


@runtime_checkable
class WholeEngine(Protocol):
    """What computes all stages at once, so that nothing in between leaves its device."""

    def slabs(
        self,
        run: Run,
        stages: Sequence[Stage],
        wanted: slice,
        pilot: npt.NDArray[Any] | None,
        finish: Finish | None,
    ) -> Iterator[npt.NDArray[Any]]:
        """The wanted slices in order, in parts, finished. A part is valid until the next one."""


class After(Protocol):
    """What goes on from the results of the last two stages."""

    def slabs(
        self,
        run: Run,
        engine: Engine | WholeEngine,
        stages: Sequence[Stage],
        wanted: slice,
        finish: Finish | None,
    ) -> Iterator[npt.NDArray[Any]]:
        """The wanted slices in order, in parts, finished."""


def denoised(
    noisy: npt.NDArray[Any],
    level: npt.NDArray[Any] | Slices,
    spectrum: npt.NDArray[Any] | None = None,
    *,
    rounds: Sequence[Round] = MR_ROUNDS,
    pilot: npt.NDArray[Any] | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    engine: Engine | WholeEngine | None = None,
    threads: int | None = None,
    only: slice | None = None,
    after: After | None = None,
    finish: Finish | None = None,
    dtype: npt.DTypeLike = np.float32,
    monitor: Monitor | None = None,
) -> npt.NDArray[Any]:
    """All stages: threshold (unless there is a pilot), then the rounds.

    Args:
        noisy: [K, J, I], finite, any unit.
        level: σ of the noise at each voxel, same shape and unit, finite, ≥ 0. Where it is 0, the
            result is the input. A broadcast view serves for one σ, `Slices` for a map that is
            not in memory.
        spectrum: [64], relative variance of the noise in each frequency of a block's cosine
            transform (slices first, then rows, columns); None for white noise.
        rounds: of the grouped filter; each takes the result of the one before as pilot.
        pilot: an estimate to begin with instead of the threshold's, [K, J, I].
        spacing: mm along i, j, k, as in `Geometry`; along thick slices less is searched.
        engine: None for the compiled library, or PyTorch on the CPU where that is missing.
        threads: that compute at once; None for all that this process may use.
        only: slices (first, one after the last) that are wanted; they equal those of a whole run.
        after: what goes on from the results of the last two stages, such as a network.
        finish: what is done to the results, on the device that makes them.
        dtype: of what `finish` returns.
        monitor: for progress, cancel, and a notice where the library is missing.
    Returns:
        [K, J, I], or the wanted slices; float32 where nothing finishes them.
    Raises:
        ValueError: shapes do not match, or an option is out of range.
        Cancelled: the monitor was asked to stop.
    """
    monitor = monitor or Monitor()
    wanted = only if only is not None and len(noisy) >= SIDE else slice(0, len(noisy))
    result = np.empty((wanted.stop - wanted.start, *noisy.shape[1:]), dtype)
    engine = engine or default_engine(monitor)
    with Run(
        noisy, level, spectrum, window_for(spacing), threads or machine.cpu_threads(), monitor
    ) as run:
        stages = [run.stage(each) for each in rounds]
        if pilot is None:
            stages.insert(0, run.threshold())
        # What was mirrored on has another level and is not seen by what finishes results.
        inside = finish if run.louder == 1 else None
        if after is not None:
            stream = after.slabs(run, engine, stages, run.padded(wanted), inside)
        elif isinstance(engine, WholeEngine):
            stream = engine.slabs(run, stages, run.padded(wanted), pilot, inside)
        else:
            stream = run.stream(engine, stages, run.padded(wanted), pilot, inside)
        first = 0
        for slab in stream:
            part = run.cropped(slab, first, len(result))
            if finish is not None and inside is None:
                here = slice(wanted.start + first, wanted.start + first + len(part))
                part = finished(finish, part, noisy[here], level[here])
            result[first : first + len(part)] = part
            first += len(part)
            monitor.progress(first / max(1, len(result)), "removing noise")
    return result if only is None or len(result) == only.stop - only.start else result[only]


def grouped(
    noisy: npt.NDArray[Any],
    pilot: npt.NDArray[Any],
    level: npt.NDArray[Any],
    spectrum: npt.NDArray[Any] | None = None,
    *,
    step: int,
    keep: int = 32,
    damp: float = 1.0,
    apart: int = 0,
    **options: Any,
) -> Array:
    """One round, see `Round` and `denoised`.

    Args:
        noisy: as in `denoised`.
        pilot: a better estimate, [K, J, I].
        level: as in `denoised`.
        spectrum: as in `denoised`.
        step: as in `Round`.
        keep: as in `Round`.
        damp: as in `Round`.
        apart: as in `Round`.
        options: spacing, engine, threads, monitor of `denoised`.
    """
    rounds = (Round(step=step, keep=keep, damp=damp, apart=apart),)
    return denoised(noisy, level, spectrum, rounds=rounds, pilot=pilot, **options)


def threshold(
    noisy: npt.NDArray[Any],
    level: npt.NDArray[Any],
    spectrum: npt.NDArray[Any] | None = None,
    **options: Any,
) -> Array:
    """The first stage alone; arguments and options of `denoised`."""
    return denoised(noisy, level, spectrum, rounds=(), **options)


def window_for(spacing: Sequence[float]) -> tuple[int, int, int]:
    """Starting places of candidates along slices, rows, columns, for a spacing in mm along i, j, k.

    The full window for the smallest spacing, and as many mm along the others, but at least one
    place to each side.
    """
    least = min(spacing)
    sides = []
    for most, mm in zip(WINDOW, reversed(spacing), strict=True):
        radius = max(1, round((most - 1) // 2 * least / mm))
        sides.append(2 * radius + 1 + (most + 1) % 2)  # an even window has one place more ahead
    return sides[0], sides[1], sides[2]


def taper_line() -> Array:
    """[4]: weight of each place along a side of a block."""
    return np.kaiser(SIDE, _TAPER_SHAPE).astype(np.float32)


def block_taper() -> Array:
    """[64]: weight of each place of a block."""
    line = taper_line()
    taper: Array = np.einsum("i,j,k->ijk", line, line, line).reshape(-1).astype(np.float32)
    return taper


def default_engine(monitor: Monitor) -> Engine:
    """The compiled library; where it is missing PyTorch, with a notice."""
    library = native.load(monitor=monitor)
    if library is not None:
        return library
    from MedEnhanceLib.nets.grouped_torch import TorchEngine

    return TorchEngine()


def engine_for(device: str, monitor: Monitor) -> WholeEngine | None:
    """What computes on a device that a user chose; None for the default engine of CPUs.

    CUDA devices have the filter; other GPUs lack what it needs and leave it to the CPU.
    """
    if not device.startswith("cuda"):
        return None
    from MedEnhanceLib.nets.grouped_card import CardEngine

    return CardEngine(device, monitor)


class Run:
    """A volume on its way through the stages; a context, which ends its threads."""

    def __init__(
        self,
        noisy: npt.NDArray[Any],
        level: npt.NDArray[Any] | Slices,
        spectrum: npt.NDArray[Any] | None,
        window: tuple[int, int, int],
        threads: int,
        monitor: Monitor,
    ) -> None:
        if noisy.ndim != 3 or not noisy.size or level.shape != noisy.shape:
            raise ValueError(f"noisy is {noisy.shape} and level {level.shape}: [K, J, I] twice")
        self._shape = noisy.shape
        self.noisy, louder = _large_enough(noisy)
        self.level, _ = _large_enough(level)
        self.louder = np.float32(louder)
        self.spectrum = _spectrum(spectrum)
        self._window, self.monitor = window, monitor
        self._threads, self._scratch = threads, threading.local()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="denoising")
        self.line, self.taper = taper_line(), block_taper()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def stream(
        self,
        engine: Engine,
        stages: Sequence[Stage],
        wanted: slice,
        pilot: npt.NDArray[Any] | None,
        finish: Finish | None,
    ) -> Iterator[npt.NDArray[Any]]:
        """Slabs of the wanted slices after all stages, finished, from an engine of layers."""
        self._engine = engine
        ranges = ranges_of(stages, wanted)
        stream = self._slabs(self.start(pilot), ranges[0])
        for stage, needed in zip(stages, ranges[1:], strict=True):
            stream = self.results(stage, needed, stream)
        first = wanted.start
        for slab in stream:
            if finish is None:
                yield slab
            else:
                yield finished(finish, slab, *self.input(first, first + len(slab)))
            first += len(slab)

    def slabs(
        self, engine: Engine | WholeEngine, stages: Sequence[Stage], wanted: slice
    ) -> Iterator[npt.NDArray[Any]]:
        """Slabs of the wanted slices after these stages, from the input, not finished."""
        if isinstance(engine, WholeEngine):
            return engine.slabs(self, stages, wanted, None, None)
        self._engine = engine
        return self.stream(engine, stages, wanted, None, None)

    def submit(self, work: Callable[..., T], *args: Any, **options: Any) -> Future[T]:
        """Let one of this run's threads do something."""
        return self._pool.submit(work, *args, **options)

    def start(self, pilot: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        """What the first stage begins with: the pilot, mirrored where it is small, or the input."""
        start: npt.NDArray[Any]
        if pilot is None:
            start = self.noisy
            return start
        if pilot.shape != self._shape:
            raise ValueError(f"a pilot of {pilot.shape} for a volume of {self._shape}")
        start, _ = _large_enough(pilot)
        return start

    @staticmethod
    def _slabs(padded: npt.NDArray[Any], part: slice) -> Iterator[Array]:
        """Some slices of a volume in memory as a stream of slabs."""
        for first in range(part.start, part.stop, _SLICES):
            yield _floats(padded[first : min(first + _SLICES, part.stop)])

    def padded(self, wanted: slice) -> slice:
        """The wanted slices; of a volume that is mirrored to a block's depth, all of them."""
        return wanted if self._shape[0] >= SIDE else slice(0, SIDE)

    def cropped(self, slab: Array, first: int, deep: int) -> Array:
        """Without what was mirrored on; slices from `first` to `deep` of the wanted ones."""
        _, rows, columns = self._shape
        return slab[: max(0, deep - first), :rows, :columns]

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
        numbers, firsts, tall = stage.layers_of(part), stage.firsts, stage.tall
        held_from = stage.reads(part).start
        none = np.empty((0, *self.noisy.shape[1:]), np.float32)
        held, sums = Slab(none, none, none), Sums(self.line, part, none.shape[1:])
        begun: list[tuple[int, Future[Band]]] = []
        # The next layers begin before the sums of these are made, so that no thread waits for that.
        starts = range(0, len(numbers), self._threads)
        for batch in [*(numbers[n : n + self._threads] for n in starts), []]:
            before, begun = begun, []
            if batch:
                parts = [held.part(firsts[batch[0]] - held_from, None)]
                end = held_from + len(held.pilot)
                while end < firsts[batch[-1]] + tall:
                    pilot = next(pilots)
                    parts.append(Slab(*self.input(end, end + len(pilot)), pilot))
                    end += len(pilot)
                held, held_from = Slab.joined(parts), firsts[batch[0]]
            for number in batch:
                slab = held.part(firsts[number] - held_from, firsts[number] - held_from + tall)
                for rows in self._bands(stage, number):
                    task = self._pool.submit(
                        self._band, stage, stage.layer(number, part), rows, slab
                    )
                    begun.append((number, task))
            for number, task in before:
                sums.add(firsts[number], task.result())
            ready = min(firsts[batch[0]], part.stop) if batch else part.stop
            if ready > sums.first:
                yield sums.means(ready, *self.input(sums.first, ready))
        for _ in pilots:  # lets the stages before report their end
            pass

    def _bands(self, stage: Stage, number: int) -> list[range]:
        """The rows of references of a layer in parts that threads share."""
        rows, step = stage.layer(number).rows(self.noisy.shape[1]), stage.layer(number).step
        at_once = max(1, _REFERENCES_IN_BAND[stage.kind] * step // self.noisy.shape[2])
        return [range(row, min(row + at_once, rows)) for row in range(0, rows, at_once)]

    def _band(self, stage: Stage, layer: Layer, rows: range, slab: Slab) -> Band:
        """What some rows of references of a layer add to the sums."""
        self.monitor.check()
        total, weight = self._zeros("total", len(slab.pilot)), self._zeros("weight", stage.deep)
        self._engine.run(
            stage.kind, layer, rows, noisy=slab.noisy, pilot=slab.pilot, level=slab.level,
            spectrum=self.spectrum, taper=self.taper, total=total, weight=weight,
        )  # fmt: skip
        reach = layer.window[1] + SIDE
        lines = slice(max(0, (rows.start - 1) * layer.step - reach), rows.stop * layer.step + reach)
        made = Band(lines, total[:, lines].copy(), weight[:, lines].copy())
        total[:, lines] = 0
        weight[:, lines] = 0
        return made

    def _zeros(self, name: str, deep: int) -> Array:
        """Slices of zeros that this thread uses for each of its bands, and leaves as zeros."""
        known: Array | None = getattr(self._scratch, name, None)
        if known is None or len(known) < deep:
            known = np.zeros((deep, *self.noisy.shape[1:]), np.float32)
            setattr(self._scratch, name, known)
        return known[:deep]

    def input(self, first: int, last: int) -> tuple[Array, Array]:
        """Slices of the input and of its level."""
        noisy, level = _floats(self.noisy[first:last]), _floats(self.level[first:last])
        return noisy, level if self.louder == 1 else level * self.louder


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


def finished(finish: Finish, *values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What `finish` makes of values, input and level of some slices, on the CPU."""
    import torch

    found: npt.NDArray[Any] = finish(
        *(torch.from_numpy(each.astype(np.float32)) for each in values)
    ).numpy()
    return found


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
