"""Streams a volume through the stages of `block_matching` as tensors, which stay on a device.

A slice of the input is copied to the device once, ahead of its use, and one of the result back once
(pinned memory, without waiting). All between, also the search of groups, the sums and the map of σ,
is computed there; the networks of `hqg` continue there. Only slices near the current one are there.
On the CPU, where the compiled library is missing, the tensors share the memory of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.arrays import SLICES_AT_ONCE, Array, linear_places, parts_of
from MedEnhanceLib.filters.block_matching_run import Held, Run, Slab, Stage
from MedEnhanceLib.filters.layers import TAPER_LINE, BlockGroups, Layer, StageKind
from MedEnhanceLib.filters.torch_engine import BlockEstimates, TorchEngine, TorchGroups
from MedEnhanceLib.learning.precision import without_tf32
from MedEnhanceLib.native import MOST_WINDOW, SIDE
from MedEnhanceLib.noise.estimate import NoiseEstimate
from MedEnhanceLib.runtime.ordered import ahead

Outcome = TypeVar("Outcome")
#: Slices of the input that are copied to a device ahead, and slabs that are computed ahead there.
_SLICES_AHEAD, _SLABS_AHEAD = 8, 4
#: Slices of the input that stay on a device, for each stage: more than it is behind the one before.
_HELD = 14
#: Slices by which a layer may begin before the first slice that depends on it.
_BEFORE = MOST_WINDOW[0] + SIDE - 2
#: In the first stage a reference is one block, otherwise a group of 32: factor on those at once.
_BLOCKS_AT_ONCE = 16


class TensorRun(Run):
    """Run whose slices are tensors on the device of its engine.

    Args:
        engine: with the device.
        threads: that compute on the CPU.
        options: of `Run`.
    """

    def __init__(self, *arrays: Any, engine: TorchEngine, threads: int, **options: Any) -> None:
        self._is_cpu = engine.device == "cpu"
        # For a device, one thread prepares the input.
        super().__init__(*arrays, engine=engine, threads=threads if self._is_cpu else 1, **options)
        self._tensors, self._device = engine, engine.device
        self.spectrum = self._sent(self.spectrum)
        self._map = self.map_of(self._level) if isinstance(self._level, NoiseEstimate) else None
        # The networks are behind the stages.
        self._input = lru_cache(_HELD * (len(self.stages) + 2))(self._begun_input)

    def __enter__(self) -> TensorRun:
        without_tf32.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        without_tf32.__exit__()
        self._input.cache_clear()  # the cache and this object refer to each other

    def ahead(self, slabs: Iterator[Slab]) -> Iterator[Slab]:
        """Yield slabs, of a device in main memory, where a thread has them computed ahead."""
        return slabs if self._is_cpu else self._copied(slabs)

    def results(self, stage: Stage, part: slice, pilots: Iterator[Any]) -> Iterator[Any]:
        """Yield some slices of a stage, as `Run.results`.

        Args:
            stage: that filters.
            part: the slices that are yielded.
            pilots: results of the stage before: all slices that this one reads.
        """
        held = self.held(pilots, stage.reads(part).start)
        sums = TensorSums(part, self.noisy.shape[1:], self._device)
        for number in stage.layers_of(part):
            first = stage.firsts[number]
            if first - sums.first >= SLICES_AT_ONCE:
                yield from self._averaged(stage, held, sums, min(first, part.stop))
            held.let_go(min(first, sums.first))
            slab = slice(first, first + stage.tall)
            pilot = held.at(slab.start, slab.stop)
            layer, level = stage.layer(number), self.level_of(stage, number)
            noisy, matched = self.voxels(slab), pilot
            if self._matched is not None:
                matched = self._stacked("matched", slab)
            groups = TorchGroups(layer, noisy, pilot, matched, level, self.spectrum)
            for estimates in self._each(groups, stage.kind, groups.estimates):
                sums.add(slab, estimates)
        yield from self._averaged(stage, held, sums, part.stop)

    def groups(
        self, layer: Layer, pilot: Tensor, level: Tensor, at_once: int
    ) -> Iterator[BlockGroups]:
        """Search the groups of a layer, as `Run.groups`.

        Args:
            layer: whose groups are searched.
            pilot: its slab, in which blocks are compared.
            level: σ, from `level_of`.
            at_once: not used: the engine has its own.
        """
        groups = TorchGroups(layer, pilot, pilot, pilot, level)
        return self._each(groups, "grouped", lambda _, at: groups.groups(at))

    def held(self, stream: Iterator[Tensor], first: int) -> Held:
        """Keep the slices of a stream that begins with slice `first`."""
        return Held(stream, first, torch.stack)

    def voxels(self, part: slice) -> Tensor:
        """Return some slices of the input."""
        return self._stacked("noisy", part)

    def pilots(self, part: slice) -> Tensor:
        """Return some slices of the first stage's pilot."""
        return self.voxels(part) if self._pilot is self.noisy else self._sent(self._pilot[part])

    def map_of(self, noise: NoiseEstimate) -> LevelMap:
        """Return the map of σ on the device."""
        return LevelMap(noise, self._sent)

    def level(self, part: slice) -> Tensor:
        """Return σ of the noise in some slices."""
        return self._stacked("level", part)

    def level_of(self, stage: Stage, number: int) -> Tensor:
        """Return σ for a layer of a stage, [J, I], in the slice of the references' middles.

        It is 0 where no groups are needed.
        """
        given = self._input(stage.firsts[number] + stage.layer(number).z + 1).result()
        if given.air is None or stage.kind != "grouped":
            return given.level
        return given.level.masked_fill(given.air, 0)

    def _each(
        self,
        groups: TorchGroups,
        kind: StageKind,
        function: Callable[[StageKind, Tensor], Outcome],
    ) -> Iterator[Outcome]:
        """Call a function for the references of a layer, some at once, in order."""

        def compute(at: Tensor) -> Outcome:
            self.monitor.check()
            return function(kind, at)

        at_once = self._tensors.at_once * (_BLOCKS_AT_ONCE if kind == "threshold" else 1)
        some = torch.split(groups.references(kind), at_once)
        each = self.in_order if self._is_cpu else map
        return each(compute, (at for at in some if len(at)))

    def _averaged(self, stage: Stage, pilots: Held, sums: TensorSums, end: int) -> Iterator[Tensor]:
        """Yield the results of the slices up to `end`, whose sums are complete."""
        for part in parts_of(sums.first, end):
            before, level = self.voxels(part), self.level(part)
            if self._air is not None and stage.kind == "grouped":
                pilot = pilots.at(part.start, part.stop)
                smooth = _smooth_in_air(pilot, level, self._stacked("air", part))
                before = torch.where(level > 0, smooth, before)
            yield sums.means(part.stop, level, before)[0]

    def _stacked(self, name: str, part: slice) -> Tensor:
        """Return an attribute of some slices of the input; more slices are begun."""
        for z in range(part.start, min(part.stop + _SLICES_AHEAD, self.noisy.shape[0])):
            self._input(z)
        return torch.stack(
            [getattr(self._input(z).result(), name) for z in range(part.start, part.stop)]
        )

    def _begun_input(self, z: int) -> Future[_Input]:
        return self._pool.submit(self._input_of, z)

    def _input_of(self, z: int) -> _Input:
        """Copy a slice of the input to the device."""
        part = slice(z, z + 1)
        level = self._sent(self._level[part]) if self._map is None else self._map[part]
        return _Input(
            noisy=self._sent(self.noisy[part])[0],
            level=level[0],
            air=None if self._air is None else self._sent(self._air.far_from_tissue(z), np.bool_),
            matched=None if self._matched is None else self._sent(self._matched[part])[0],
        )

    def _sent(self, values: Array, dtype: Any = np.float32) -> Tensor:
        """Copy an array to the device, without waiting; on the CPU it is shared."""
        tensor = torch.from_numpy(np.require(values, dtype, ["C", "W"]))
        if self._is_cpu:
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _copied(self, slabs: Iterator[Slab]) -> Iterator[Slab]:
        for slab, copied in ahead(map(self._fetched, slabs), _SLABS_AHEAD):
            copied.synchronize()
            yield slab

    def _fetched(self, slab: Slab) -> tuple[Slab, Any]:
        """Begin to copy a slab to main memory; also returns the event of its end."""
        voxels, change = (
            None if each is None else each.to("cpu", non_blocking=True)
            for each in (slab.voxels, slab.change)
        )
        copied: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(self._device))
        return Slab(voxels, change), copied


@dataclass(frozen=True, eq=False)
class _Input:
    """A slice of the input on the device, [J, I] each.

    Attributes:
        noisy: voxels.
        level: σ of the noise.
        air: mask of the air far from tissue; None without air.
        matched: the image in which blocks are compared; None: the pilot.
    """

    noisy: Tensor
    level: Tensor
    air: Tensor | None
    matched: Tensor | None


class LevelMap:
    """The map of σ of a volume on a device, whose slices are made as they are read."""

    def __init__(self, noise: NoiseEstimate, send: Callable[..., Tensor]) -> None:
        """Copy the map of an estimate by `send`, which takes an array and its type."""
        self._cells = send(noise.sigma)
        places = zip(noise.places, noise.sigma.shape, strict=True)
        self._places = [
            (send(low, np.int64), send(high, np.int64), send(share))
            for low, high, share in (linear_places(*each) for each in places)
        ]

    def __getitem__(self, part: slice) -> Tensor:
        """Interpolate as `NoiseEstimate.__getitem__`, [n, J, I]."""
        values, slices = self._cells, tuple(each[part] for each in self._places[0])
        for axis, (low, high, share) in enumerate([slices, *self._places[1:]]):
            share = share.reshape([-1 if other == axis else 1 for other in range(3)])
            below = values.index_select(axis, low)
            values = below + share * (values.index_select(axis, high) - below)
        return values


class TensorSums:
    """Sums of overlapping blocks in the slices that are not complete yet.

    Attributes:
        first: the first of them.
    """

    def __init__(self, part: slice, shape: tuple[int, ...], device: str, count: int = 1) -> None:
        """Begin without blocks.

        Args:
            part: the slices that are needed.
            shape: of a slice.
            device: of the tensors.
            count: of the images that blocks are estimates of.
        """
        self.first, self._origin = part.start, part.start - _BEFORE
        # The sums of each image, and last the weights by the place in which blocks start.
        self._sums = torch.zeros((count + 1, 0, *shape), device=device)

    def add(self, slab: slice, estimates: BlockEstimates) -> None:
        """Add blocks of a layer that covers a slab."""
        sums = self._part(slab)
        into = estimates.voxels.reshape(-1)
        for total, blocks in zip(sums, estimates.blocks, strict=False):
            total.view(-1).index_add_(0, into, blocks.reshape(-1))
        weights = estimates.weights.reshape(-1)
        sums[-1].view(-1).index_add_(0, estimates.starts.reshape(-1).long(), weights)

    def means(self, end: int, level: Tensor, before: Tensor) -> Tensor:
        """Average the blocks over each voxel of slices `first` to `end`, and release their sums.

        Args:
            end: one past the last slice.
            level: σ in the slices.
            before: what the slices are where there is no noise or no block.
        Returns [count, n, J, I].
        """
        spread = self._part(slice(self.first - SIDE + 1, end))[-1]
        for axis in (1, 2):
            spread = _spread(spread, axis)
        weight = _spread(spread, 0)[SIDE - 1 :]
        totals = self._part(slice(self.first, end))[:-1]
        is_noisy = (weight > 0) & (level > 0)
        result = torch.where(is_noisy, totals / weight, before)
        self._sums = self._sums[:, end - SIDE + 1 - self._origin :]
        self.first, self._origin = end, end - SIDE + 1
        return result

    def _part(self, slices: slice) -> Tensor:
        """Return the sums of some slices, [count + 1, n, J, I]."""
        missing = slices.stop - self._origin - self._sums.shape[1]
        if missing > 0:
            self._sums = F.pad(self._sums, (0, 0, 0, 0, 0, missing))
        return self._sums[:, slices.start - self._origin : slices.stop - self._origin]


def as_tensor(values: Any, device: str) -> Tensor:
    """Return an array or a tensor as float32 on a device; on the CPU its memory may be shared."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
    return values.to(device)  # type: ignore[no-any-return]


def _spread(weight: Tensor, axis: int) -> Tensor:
    """Sum the tapered weights of blocks, [n, J, I], along an axis; rounded as by NumPy."""
    spread, side = torch.zeros_like(weight), weight.shape[axis]
    for offset, share in enumerate(TAPER_LINE[:side].tolist()):
        spread.narrow(axis, offset, side - offset).add_(
            weight.narrow(axis, 0, side - offset) * share
        )
    return spread


def _smooth_in_air(pilot: Tensor, level: Tensor, air: Tensor) -> Tensor:
    """Smooth slices of a pilot, [n, J, I], as `Run` does; air: mask of what is far from tissue."""
    padded = F.pad(pilot, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    mean = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9
    return torch.where(air & ((mean - pilot).abs() < level), mean, pilot)
