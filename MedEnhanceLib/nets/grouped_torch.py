"""The stages of `nets.grouped` in PyTorch: where the compiled library is missing, and on GPUs.

On a CPU distances between blocks are summed in the same order as in C, and of equal ones the first
counts, so on the same pilot both choose the same blocks. A GPU has them from products, a hundredth
of the traffic; of blocks that are alike within rounding it may choose another. What follows uses
matrix products and a Cholesky decomposition, and agrees within rounding.
"""

from __future__ import annotations

import math
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib import native
from MedEnhanceLib.native import CELLS, SIDE, Array, Layer, places
from MedEnhanceLib.nets.grouped import Engine, default_engine
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.runtime.device import is_out_of_memory
from MedEnhanceLib.runtime.locks import release_memory
from MedEnhanceLib.runtime.progress import Monitor

#: References computed together; on a GPU more, which then has work for longer: the most (1.2 GB,
#: see Testing/Benchmarks/cuda_counts.py), and the least before the CPU takes over (0.1 GB).
_AT_ONCE, _AT_ONCE_ON_GPU, _LEAST_ON_GPU = 256, 16384, 1024
#: As in grouped.c: below this σ there is no noise to remove.
_LEAST_LEVEL = 1e-10
#: Bits that number the candidates of a window, and a key beyond all that are chosen.
_INDEX_BITS, _EXCLUDED = 11, 1 << 50


class TorchEngine:
    """Computes layers on a device, in place of `native.Library`.

    as_gpu: whether as on a GPU; by default where the device is one. For tests without one.
    """

    def __init__(self, device: torch.device | str = "cpu", *, as_gpu: bool | None = None) -> None:
        self.device = torch.device(device)
        self._atoms = _cosines().to(self.device)
        self._is_gpu = self.device.type != "cpu" if as_gpu is None else as_gpu
        self.at_once = _AT_ONCE_ON_GPU if self._is_gpu else _AT_ONCE
        # A GPU does one thing after another anyway; side by side they would need its memory twice.
        self._turn: AbstractContextManager[Any] = (
            threading.Lock() if self._is_gpu else nullcontext()
        )

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
        """As `native.Library.run`; on a GPU the sums have no fixed order.

        Nothing is added where it fails.
        """
        references = _references(layer, rows, noisy.shape, level, is_grouped=stage == "grouped")
        if not len(references):
            return
        lines = _lines(layer, references, noisy.shape[1]) if self._is_gpu else slice(None)
        with self._turn, without_tf32(), torch.inference_mode():
            # Of the level the slice in the middle of the references' blocks; the first stage has no
            # pilot but its input.
            middle = level[layer.z + 1, lines]
            here = self._moved(noisy[:, lines])
            known = here if stage == "threshold" else self._moved(pilot[:, lines])
            inputs = [here, known, *(self._moved(each) for each in (middle, spectrum, taper))]
            if self._is_gpu:  # added to what is here, so that one direction of copies is enough
                shapes = (total[:, lines].shape, weight[:, lines].shape)
                sums = [torch.zeros(shape, device=self.device) for shape in shapes]
            else:
                sums = [torch.from_numpy(values) for values in (total, weight)]
            top = lines.start or 0
            part = _Part(layer, self._is_gpu, self._atoms, noisy.shape[1], top, *inputs, *sums)
            at = self._moved(references)
            compute, at_once = part.group, self.at_once
            if stage == "threshold":  # one block each, of 32 in a group
                compute, at_once = part.threshold, 16 * self.at_once
            for some in torch.split(at, at_once):
                compute(some)
            if self._is_gpu:
                found = [values.cpu().numpy() for values in sums]
        if self._is_gpu:
            total[:, lines] += found[0]
            weight[:, lines] += found[1]

    def _moved(self, values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


class CardEngine:
    """Computes layers on a CUDA device: fewer groups at once where its memory runs out, then on
    the CPU.
    """

    #: More than a CPU's thread takes: each band copies its surroundings too.
    references_in_band: ClassVar[dict[native.Stage, int]] = {"threshold": 65536, "grouped": 32768}

    def __init__(self, device: str, monitor: Monitor) -> None:
        self._device, self._monitor = device, monitor
        self._engine: Engine | None = None
        self._turn = threading.Lock()

    def run(self, stage: native.Stage, layer: Layer, rows: range, **arrays: Array) -> None:
        """As `native.Library.run`."""
        while True:
            engine, at_once = self._engine, getattr(self._engine, "at_once", 0)
            try:
                if engine is None:
                    with self._turn:
                        self._engine = self._engine or TorchEngine(self._device)
                    continue
                engine.run(stage, layer, rows, **arrays)
            except (MemoryError, RuntimeError) as cause:
                if not is_out_of_memory(cause) or (engine and not at_once):
                    raise
            else:
                return
            self._use_less(engine, at_once)  # only now: the error held what it had

    def _use_less(self, engine: Engine | None, at_once: int) -> None:
        """Of several threads the first one decides, and says so."""
        with self._turn:
            if self._engine is engine and getattr(engine, "at_once", 0) == at_once:
                if isinstance(engine, TorchEngine) and at_once > _LEAST_ON_GPU:
                    engine.at_once = at_once // 4
                    how = f"{engine.at_once} groups at once"
                else:
                    self._engine = default_engine(self._monitor)
                    how = "the CPU, slower"
                self._monitor.warn(
                    f"memory ran out on {self._device}; removing noise goes on with {how}"
                )
        release_memory(self._device)


class _Part:
    """A layer with its slab as tensors [n, lines, nx], and the level at its references.

    full: lines of the whole slab. top: the first of them that is here.
    """

    def __init__(
        self,
        layer: Layer,
        is_gpu: bool,
        atoms: Tensor,
        full: int,
        top: int,
        noisy: Tensor,
        pilot: Tensor,
        level: Tensor,
        spectrum: Tensor,
        taper: Tensor,
        total: Tensor,
        weight: Tensor,
    ) -> None:
        self.layer, self.is_gpu, self.atoms = layer, is_gpu, atoms
        self.full, self.top = full, top
        self.noisy, self.pilot, self.level = noisy, pilot, level
        self.spectrum, self.taper = spectrum, taper
        self.total, self.weight = total, weight
        _, self.ny, self.nx = noisy.shape
        self.images = torch.stack([noisy, pilot]).flatten(1)
        side = torch.arange(SIDE, device=noisy.device)
        cells = (side[:, None, None] * self.ny + side[:, None]) * self.nx + side
        self.cells = cells.flatten()

    def group(self, references: Tensor) -> None:
        """The grouped filter on references (row, column) [n, 2] of the whole slab."""
        deviation = self.spectrum.sqrt()[:, None]
        into, back = (self.atoms / deviation).T, self.atoms * deviation * self.taper
        level = self._levels(references)
        starts, members = self._match(references)
        at = starts[:, :, None] + self.cells
        blocks = self._filtered(self.images[:, at] @ into, members, level.square()) @ back
        weights = (1 / level.square())[:, None]
        weights = weights.expand_as(starts) if members is None else weights * members
        self._add(blocks, at, starts, weights)

    def threshold(self, references: Tensor) -> None:
        """The first stage on references (row, column) [n, 2] of the whole slab."""
        rows, columns = references[:, :1] - self.top, references[:, 1:]
        starts = (self.layer.z * self.ny + rows) * self.nx + columns
        noise = self._levels(references).square() * self.layer.damp * self.layer.damp
        at = starts[:, :, None] + self.cells
        blocks = self.noisy.flatten()[at[:, 0]] @ self.atoms.T
        ratio = blocks.square() / (self.spectrum * noise[:, None] + 1e-30)
        steep = ratio.clamp(max=1e4).square().square()
        share = steep / (steep + 1)
        share[:, 0] = 1  # the mean of a block stays
        ones = torch.ones(starts.shape, device=starts.device)
        self._add(((blocks * share) @ (self.atoms * self.taper))[:, None], at, starts, ones)

    def _levels(self, references: Tensor) -> Tensor:
        rows, columns = references[:, 0] - self.top, references[:, 1]
        return self.level[rows + 1, columns + 1]

    def _match(self, references: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where the blocks of each group start, [B, keep], and 1 for members, 0 for none.

        None for the latter where all are members.
        """
        deep, wide, long = self.layer.window
        device = references.device
        rows, columns = references[:, 0], references[:, 1]
        first_y = _first(rows, wide, self.full)
        first_x = _first(columns, long, self.nx)
        top = first_y - self.top
        window_y = top[:, None] + torch.arange(wide + 3, device=device)
        window_x = first_x[:, None] + torch.arange(long + 3, device=device)
        window = self.pilot[:, window_y[:, :, None], window_x[:, None, :]]  # [n, B, wide, long]
        own = torch.stack([torch.full_like(rows, self.layer.z), rows - first_y, columns - first_x])
        own_number = (own[0] * wide + own[1]) * long + own[2]
        near, apart = None, self.layer.apart
        if apart:
            near_z, near_y, near_x = (
                (torch.arange(count, device=device) - at[:, None]).abs() < apart
                for count, at in zip((deep, wide, long), own, strict=True)
            )
            near = near_z[:, :, None, None] & near_y[:, None, :, None] & near_x[:, None, None]
            near = near.flatten(1)
        find = self._nearest_by_products if self.is_gpu else self._nearest
        number, is_member = find(window, own, own_number, near)
        z, y, x = number // (wide * long), number // long % wide, number % long
        starts = (z * self.ny + y + top[:, None]) * self.nx + x + first_x[:, None]
        most_near = min(deep, 2 * apart) * min(wide, 2 * apart) * min(long, 2 * apart)
        is_full = deep * wide * long - most_near >= number.shape[1]
        return starts, None if is_full else is_member.float()

    def _nearest(
        self, window: Tensor, own: Tensor, own_number: Tensor, near: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Numbers of the candidates that are most alike, and which of them belong to the group."""
        deep, wide, long = self.layer.window
        every = torch.arange(len(own_number), device=window.device)
        distance = torch.zeros(deep, len(own_number), wide, long, device=window.device)
        for k in range(SIDE):
            for j in range(SIDE):
                for i in range(SIDE):
                    here = window[own[0] + k, every, own[1] + j, own[2] + i]
                    difference = window[k : k + deep, :, j : j + wide, i : i + long]
                    difference = difference - here[:, None, None]
                    distance += difference * difference
        distance = distance.transpose(0, 1).flatten(1)
        numbers = torch.arange(distance.shape[1], device=window.device)
        # Bits of positive floats have the order of the floats; the number decides between equals.
        keys = (distance.view(torch.int32).long() << _INDEX_BITS) | numbers
        if near is not None:
            keys += near * _EXCLUDED
        keys.scatter_(1, own_number[:, None], own_number[:, None] - _EXCLUDED)
        count = min(self.layer.keep, keys.shape[1])
        chosen = keys.topk(count, dim=1, largest=False, sorted=True).values
        return chosen & ((1 << _INDEX_BITS) - 1), chosen < _EXCLUDED

    def _nearest_by_products(
        self, window: Tensor, own: Tensor, own_number: Tensor, near: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As `_nearest`, by |a - b|² = |a|² - 2 ab + |b|² of what differs from the block's mean."""
        side = torch.arange(SIDE, device=window.device)
        z, y, x = (at[:, None] + side for at in own)
        every = torch.arange(len(own_number), device=window.device)[:, None, None, None]
        here = window[z[:, :, None, None], every, y[:, None, :, None], x[:, None, None]]
        mean = here.mean(dim=(1, 2, 3), keepdim=True)
        here, slabs = here - mean, window.transpose(0, 1) - mean
        products = F.conv3d(slabs[None], here[:, None], groups=len(here))[0]
        distance = F.avg_pool3d(slabs.square_(), SIDE, stride=1, divisor_override=1)
        distance.sub_(products, alpha=2).add_(here.square().sum(dim=(1, 2, 3), keepdim=True))
        distance = distance.flatten(1)
        if near is not None:
            distance.masked_fill_(near, torch.inf)
        distance.scatter_(1, own_number[:, None], -torch.inf)
        count = min(self.layer.keep, distance.shape[1])
        chosen = distance.topk(count, dim=1, largest=False, sorted=True)
        return chosen.indices, chosen.values < torch.inf

    def _filtered(self, both: Tensor, members: Tensor | None, variance: Tensor) -> Tensor:
        """Estimates of the groups' blocks, [B, keep, 64] in frequencies of variance 1 times σ².

        both: [2, B, keep, 64], the noisy blocks and those of the pilot. variance: σ² of each group.
        """
        keep = both.shape[2]
        if members is None:
            count = torch.full_like(variance, keep)[:, None, None]
        else:
            count = members.sum(dim=1)[:, None, None]
            both = both * members[:, :, None]
        noisy, pilot = both
        mean, known = both.sum(dim=2, keepdim=True) / count
        variance = variance[:, None, None]
        noisy, pilot = noisy - mean, pilot - known
        if members is not None:
            noisy, pilot = noisy * members[:, :, None], pilot * members[:, :, None]
        mean = mean * (known.square() / (known.square() + variance / count))
        gram = pilot @ pilot.transpose(1, 2)
        gram.diagonal(dim1=1, dim2=2).add_((variance * count)[:, 0] * self.layer.damp)
        right = pilot @ noisy.transpose(1, 2)
        shares = torch.cholesky_solve(right, torch.linalg.cholesky(gram))
        return torch.baddbmm(mean, shares.transpose(1, 2), pilot)

    def _add(self, blocks: Tensor, at: Tensor, starts: Tensor, weights: Tensor) -> None:
        """Add tapered blocks [B, keep, 64], by their weights [B, keep], to the sums."""
        values = blocks * weights[:, :, None]
        self.total.view(-1).index_add_(0, at.flatten(), values.flatten())
        self.weight.view(-1).index_add_(0, starts.flatten(), weights.flatten())


def _first(places_of: Tensor, size: int, side: int) -> Tensor:
    """The first candidate of a window of that size along a side of the slab."""
    return (places_of - (size - 1) // 2).clamp(0, side - 3 - size)


def _references(
    layer: Layer, rows: range, shape: tuple[int, ...], level: Array, *, is_grouped: bool
) -> npt.NDArray[np.int64]:
    """(row, column) of each reference, [n, 2], in the order in which C adds them.

    Of the grouped filter only where there is noise to remove: found on the host, which then does
    not wait for the device.
    """
    number, step = layer.number, layer.step
    places_y = places(shape[1], step, is_shifted=bool(number & 1))
    found = []
    for row in rows:
        odd = (row + number // 2) & 1 if is_grouped else number & 1
        columns = np.array(places(shape[2], step, is_shifted=bool(odd)))
        found.append(np.stack([np.full_like(columns, places_y[row]), columns], axis=1))
    at = np.concatenate(found) if found else np.empty((0, 2), np.int64)
    if is_grouped:
        at = at[level[layer.z + 1, at[:, 0] + 1, at[:, 1] + 1] > _LEAST_LEVEL]
    return at


def _lines(layer: Layer, references: npt.NDArray[np.int64], full: int) -> slice:
    """The lines of a slab that these references read and write."""
    wide = layer.window[1]
    ends = torch.from_numpy(references[[0, -1], 0])  # in order
    first, last = _first(ends, wide, full).tolist()
    return slice(first, last + wide + 3)


def _cosines() -> Tensor:
    """The orthonormal cosine transform of a block, [64 frequencies, 64 places]."""
    at, frequencies = torch.arange(SIDE) + 0.5, torch.arange(SIDE)
    basis = torch.cos(math.pi / SIDE * frequencies[:, None] * at) * math.sqrt(2 / SIDE)
    basis[0] /= math.sqrt(2)
    return torch.einsum("ai,bj,ck->abcijk", basis, basis, basis).reshape(CELLS, CELLS)
