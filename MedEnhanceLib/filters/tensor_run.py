"""Streams a volume through the stages of `block_matching` as tensors, which stay on a device.

A slice of the input is copied to the device once, ahead of its use, and one of the result back once
(pinned memory, without waiting). All between, also the search of groups, the sums and the map of σ,
is computed there; the networks of `hqg` continue there. Only slices near the current one are there.
On the CPU, where the compiled library is missing, the tensors share the memory of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.arrays import Array, interpolated
from MedEnhanceLib.filters.block_matching_run import ImageKind, Run, Slab, Stage
from MedEnhanceLib.filters.layers import TAPER_LINE, BlockGroups, Layer, StageKind, places
from MedEnhanceLib.filters.torch_engine import (
    LEAST_LEVEL,
    BlockEstimates,
    TorchEngine,
    TorchGroups,
    gather_blocks,
    grid,
)
from MedEnhanceLib.learning.precision import as_tensor, constant, without_tf32
from MedEnhanceLib.native import SIDE
from MedEnhanceLib.noise.estimate import NoiseEstimate
from MedEnhanceLib.runtime.machine import Pool
from MedEnhanceLib.runtime.ordered import ahead

#: Slices of the input that are copied to a device ahead, and slabs that are computed ahead there.
_SLICES_AHEAD, _SLABS_AHEAD = 24, 4
#: Slices whose air is searched at once.
_AIR_AT_ONCE = 16
#: Slices of the input that stay on a device, for each stage: more than it is behind the one before.
_HELD = 14
#: In the first stage a reference is one block, otherwise a group of 32: factor on those at once.
_BLOCKS_AT_ONCE = 16


class TensorRun(Run):
    """Run whose slices are tensors on the device of its engine.

    Args:
        arrays, options: of `Run`.
        engine: with the device.
    """

    def __init__(self, *arrays: Any, engine: TorchEngine, **options: Any) -> None:
        super().__init__(*arrays, engine=engine, **options)
        self._device, self._preparing = engine.device, self._pool
        if engine.device != "cpu":
            # A thread prepares the input; another one, of `ahead`, launches all that is computed.
            self._preparing, self._pool, self._threads = Pool(1, "medenhance-input"), _AtOnce(), 0
        self.spectrum = self._sent(self.spectrum)
        # The networks are behind the stages.
        held = _HELD * (len(self.stages) + 2) + _SLICES_AHEAD
        self._input = lru_cache(held)(self._begun_input)
        self._references = lru_cache(held)(self._begun_references)
        self._air_of = lru_cache(1 + held // _AIR_AT_ONCE)(self._searched_air)

    def __enter__(self) -> TensorRun:
        without_tf32.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._preparing.shutdown(cancel_futures=True)
        super().__exit__(*error)
        without_tf32.__exit__()
        del self._input, self._references, self._air_of  # they and this object refer to each other

    def ahead(self, slabs: Iterator[Slab], correct: Any = None) -> Iterator[Slab]:
        """Yield slabs, of a device in main memory, where a thread has them computed ahead.

        correct: on a device: makes slices of a result of them and of those before the filter.
        """
        if self._device == "cpu":
            return slabs
        slabs = self._corrected(slabs, correct) if correct else slabs
        begun = (_Copied(each.voxels, each.change) for each in slabs)
        return (Slab(*copied.result()) for copied in ahead(begun, _SLABS_AHEAD))

    def _corrected(self, slabs: Iterator[Slab], correct: Any) -> Iterator[Slab]:
        z, sides = self.needed.start, self.box[1:]  # without mirrored voxels
        for slab in slabs:
            before = self._stacked("noisy", slice(z, z + len(slab.voxels)))
            yield replace(slab, voxels=correct(slab.voxels[:, *sides], before[:, *sides]))
            z += len(before)

    def groups(
        self, layer: Layer, pilot: Tensor, level: Tensor, at_once: int
    ) -> Iterator[BlockGroups]:
        """Search the groups of a layer, as `Run.groups`.

        Args:
            layer: whose groups are searched.
            pilot: its slab, in which blocks are compared.
            level: σ, from `level_of`.
            at_once: not used, as the engine has its own.
        """
        groups = TorchGroups(layer, pilot, pilot, pilot, level)
        return self.in_order(groups.groups, self._split("grouped", layer))

    def sums(self, stage: Stage, part: slice) -> TensorSums:
        """Begin the sums of some slices of a stage."""
        return TensorSums(stage, part, self.noisy.shape[1:], self._device)

    def slices(self, name: ImageKind, part: slice) -> Tensor:
        """Return some slices of an image, as `Run.slices`."""
        if name != "pilot":
            return self._stacked(name, part)
        is_noisy = self._pilot is self.noisy
        return self._stacked("noisy", part) if is_noisy else self._sent(self._pilot[part])

    def air(self, z: int) -> Tensor | None:
        """Mask the air far from tissue in a slice, as `Run.air`."""
        if self._air is None:
            return None
        number, place = divmod(z, _AIR_AT_ONCE)
        return self._air_of(number)[place][self._crop.region]

    def level(self, part: slice) -> Tensor:
        """Return σ of the noise in some slices."""
        return self._stacked("level", part)

    def level_of(self, stage: Stage, number: int) -> Tensor:
        """Return σ for a layer of a stage, [J, I], in the slice of the references' middles.

        Where no groups are needed is known to `_split`, which is prepared a layer ahead.
        """
        for each in range(number, min(number + 2, len(stage.firsts))):
            self._references(stage.kind, stage.layer(each))
        z = stage.firsts[number] + stage.layer(number).z + 1
        return self._input(z).result()["level"]

    def stack(self, slices: list[Tensor]) -> Tensor:
        """Join slices to a slab."""
        return torch.stack(slices)

    def map_at(self, noise: NoiseEstimate, z: int) -> Tensor:
        """Return the map of σ in a slice, [1, J, I], interpolated on the device."""
        rows, columns = _weights_of(noise, self._device)
        cells = interpolated(noise.sigma, (noise.places[0][z : z + 1],))[0]
        return (rows @ self._sent(cells) @ columns.T)[None]

    def _bands(self, stage: Stage, layer: Layer, _level: Tensor) -> Iterable[Tensor]:
        """Split the references of a layer of a stage."""
        return self._split(stage.kind, layer)

    def _split(self, kind: StageKind, layer: Layer) -> Iterable[Tensor]:
        """Split the references of a layer into those that are computed at once."""
        at_once = self.engine.at_once * (_BLOCKS_AT_ONCE if kind == "threshold" else 1)
        at, count = self._references(kind, layer)
        at = at[: int(count.result()[0])]
        return torch.split(at, at_once) if len(at) else ()

    def _begun_references(self, kind: StageKind, layer: Layer) -> tuple[Tensor, _Copied]:
        """List the references of a layer, those that get groups first, and count these."""
        at = grid(layer, kind, *self.noisy.shape[1:], self._device)
        if kind == "threshold":
            return at, _Copied(torch.tensor(len(at)))
        z = places(self.noisy.shape[0], layer.round.step, is_shifted=False)[layer.number] + 1
        level, air = self._input(z).result()["level"], self.air(z)
        if air is not None:
            level = level.masked_fill(air, 0)
        is_needed = gather_blocks(level, at[:, 3]) > LEAST_LEVEL
        order = is_needed.byte().argsort(stable=True, descending=True)
        return at.index_select(0, order), _Copied(is_needed.sum(dtype=torch.float32))

    def _band(self, stage: Stage, layer: Layer, at: Tensor, *slabs: Tensor) -> BlockEstimates:
        """Filter the blocks of some references of a layer."""
        self.monitor.check()
        noisy, pilot, matched, level = slabs
        groups = TorchGroups(layer, noisy, pilot, matched, level, self.spectrum)
        return groups.estimates(stage.kind, at)

    def _smooth_in_air(self, part: slice, before: Tensor, pilot: Tensor, level: Tensor) -> Tensor:
        """Smooth slices of a pilot in air, as `Run` does."""
        padded = F.pad(pilot, (1, 1, 1, 1), mode="replicate")
        rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        mean = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9
        air: list[Any] = [self.air(z) for z in range(part.start, part.stop)]
        is_smoothed = torch.stack(air) & ((mean - pilot).abs() < level)
        return torch.where(level > 0, torch.where(is_smoothed, mean, pilot), before)

    def _stacked(self, name: str, part: slice) -> Tensor:
        """Return an image of some slices of the input; the next ones are begun."""
        for z in range(part.start, min(part.stop + _SLICES_AHEAD, self.noisy.shape[0])):
            self._input(z)
        return torch.stack([self._input(z).result()[name] for z in range(part.start, part.stop)])

    def _searched_air(self, number: int) -> Tensor:
        """Mask the air of _AIR_AT_ONCE slices, [n, J, I]."""
        first, count, air = number * _AIR_AT_ONCE, self.noisy.shape[0], self._air
        part = slice(first, min(first + _AIR_AT_ONCE, count))
        assert air is not None
        if air.voxels is self.noisy:
            return air.far_in(part, lambda around: self._stacked("noisy", around))
        return air.far_in(part, lambda around: self._sent(air.voxels[around]))

    def _begun_input(self, z: int) -> Future[dict[str, Tensor]]:
        return self._preparing.submit(self._input_of, z)

    def _input_of(self, z: int) -> dict[str, Tensor]:
        """Copy a slice of the input to the device, [J, I] each, with its σ."""
        part, level = slice(z, z + 1), self._map
        if isinstance(level, NoiseEstimate):
            sigma = self.map_at(level, z)
        else:
            sigma = self._sent(level[part])
        given = {"noisy": self._sent(self.noisy[part])[0], "level": sigma[0]}
        if self._matched is not None:
            given["matched"] = self._sent(self._matched[part])[0]
        return given

    def _sent(self, values: Array) -> Tensor:
        """Copy an array to the device, without waiting, as float32; on the CPU it is shared."""
        dtype = np.int16 if values.dtype == np.int16 else np.float32  # half as many bytes
        tensor = torch.from_numpy(np.require(values, dtype, ["C", "W"]))
        if self._device != "cpu":
            tensor = tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.float()


class _Copied:
    """Tensors on their way to main memory; None stays None."""

    def __init__(self, *tensors: Tensor | None) -> None:
        self._tensors = [
            None if each is None else each.to("cpu", non_blocking=True) for each in tensors
        ]
        self._end: Any = None
        if tensors[0] is not None and tensors[0].is_cuda:
            self._end = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._end.record(torch.cuda.current_stream(tensors[0].device))

    def result(self) -> list[Any]:
        """Return the tensors, when they have arrived."""
        if self._end is not None:
            self._end.synchronize()
        return self._tensors


class _AtOnce(Executor):
    """Executor that calls a function when it is submitted."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


#: Weights of a side of a block, from the last voxel to the first.
_TAPER_LINE = torch.from_numpy(TAPER_LINE[::-1].copy())


class TensorSums:
    """Sums of overlapping blocks in the slices that are not complete yet.

    Attributes:
        first: the first of them.
    """

    def __init__(
        self, stage: Stage, part: slice, shape: tuple[int, ...], device: str, count: int = 1
    ) -> None:
        """Begin without blocks.

        Args:
            stage: whose blocks are added.
            part: the slices that are needed.
            shape: of a slice.
            device: of the tensors.
            count: of the images that blocks are estimates of.
        """
        self.first, self._tall, self._device = part.start, stage.tall, device
        # The sums of each image, and last the weights by the place in which blocks start.
        self._origin = part.start - stage.tall
        self._sums = torch.zeros((count + 1, 0, *shape), device=device)

    def add(self, first: int, estimates: BlockEstimates) -> None:
        """Add blocks of a layer whose slab begins at slice `first`."""
        sums = self._part(slice(first, first + self._tall))
        into = estimates.voxels.reshape(-1)
        for total, blocks in zip(sums, estimates.blocks, strict=False):
            total.view(-1).scatter_add_(0, into, blocks.reshape(-1))
        weights = estimates.weights.reshape(-1)
        sums[-1].view(-1).scatter_add_(0, estimates.starts.reshape(-1).long(), weights)

    def means(self, end: int, before: Tensor, level: Tensor) -> Tensor:
        """Average the blocks of the first image over each voxel, [n, J, I].

        Args:
            end: as of `all_means`.
            before: likewise.
            level: likewise.
        """
        return self.all_means(end, before, level)[0]

    def all_means(self, end: int, before: Tensor, level: Tensor) -> Tensor:
        """Average the blocks of all images, [count, n, J, I].

        Args:
            end: one past the last slice.
            before: what slices are where there is no noise or no block.
            level: σ in the slices.
        """
        weight = self._part(slice(self.first - SIDE + 1, end))[-1]
        weight = _spread(weight)
        totals = self._part(slice(self.first, end))[:-1]
        result = torch.where((weight > 0) & (level > 0), totals / weight, before)
        self.first, kept = end, end - SIDE + 1
        self._sums, self._origin = self._sums[:, kept - self._origin :], kept
        return result

    def _part(self, slices: slice) -> Tensor:
        """Return the sums of some slices, [count + 1, n, J, I]."""
        missing = slices.stop - self._origin - self._sums.shape[1]
        if missing > 0:
            images, _, *sides = self._sums.shape
            self._sums = torch.cat([self._sums, self._sums.new_zeros(images, missing, *sides)], 1)
        return self._sums[:, slices.start - self._origin : slices.stop - self._origin]


@lru_cache(maxsize=4)
def _weights_of(noise: NoiseEstimate, device: str) -> list[Tensor]:
    """Return the weights of a map's cells for each row and for each column, [places, cells]."""
    cells = zip(noise.places[1:], noise.sigma.shape[1:], strict=True)
    every = (interpolated(np.eye(n, dtype=np.float32)[..., None], (at,)) for at, n in cells)
    return [as_tensor(each[..., 0], device) for each in every]


def _spread(weights: Tensor) -> Tensor:
    """Sum the tapered weights of blocks over the voxels that they cover, [3 + n, J, I] → [n, J, I].

    Products of matrices would do it, in an order of sums that depends on sizes and processor.

    weights: by the place in which blocks start.
    """
    line = constant(_TAPER_LINE, weights.device, weights.dtype)
    spread = F.pad(weights, (SIDE - 1, 0, SIDE - 1, 0))
    for axis in range(3):
        spread = (spread.unfold(axis, SIDE, 1) * line).sum(-1)
    return spread
