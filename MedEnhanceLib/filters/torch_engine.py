"""The stages of `block_matching` in PyTorch: where the compiled library is missing, and on GPUs.

Distances between blocks are computed from products, with a hundredth of the memory traffic of
differences; of blocks that are equally similar within rounding, C may select another one. The rest
uses matrix products and a Cholesky decomposition, and agrees with C within rounding.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Array, Floats, Longs
from MedEnhanceLib.filters.layers import TAPER, BlockGroups, Layer, LayerArrays, StageKind, places
from MedEnhanceLib.filters.native_engine import NativeEngine
from MedEnhanceLib.learning.precision import constant, without_tf32
from MedEnhanceLib.native import CELLS, SIDE
from MedEnhanceLib.runtime.device import is_out_of_memory, release_memory
from MedEnhanceLib.runtime.progress import Monitor

#: References computed together on a CPU, and most on a device; each needs about 100 kB.
_AT_ONCE, _AT_ONCE_ON_A_DEVICE = 256, 4096
#: As in grouped.c: below this σ there is no noise to remove.
LEAST_LEVEL = 1e-10
#: As in grouped.c: least damping as a share of the system's trace.
_LEAST_DAMPING = 1e-6


class TorchEngine:
    """Engine in place of `NativeEngine`, on the CPU or on a CUDA device.

    On a device one thread computes at a time. When its memory runs out, fewer references are
    computed together, and in the end all on the CPU; each step gives a warning.
    """

    def __init__(self, device: str = "cpu", monitor: Monitor | None = None) -> None:
        self._device, self._monitor = device, monitor or Monitor()
        self._at_once = _AT_ONCE if device == "cpu" else _AT_ONCE_ON_A_DEVICE
        self._only = threading.Lock()

    def run(self, stage: StageKind, layer: Layer, rows: range, arrays: LayerArrays) -> None:
        """Filter a layer as `NativeEngine.run` does, on the device while its memory lasts.

        Args:
            stage: "threshold" or "grouped".
            layer: whose groups are filtered.
            rows: numbers of the rows of references, from 0.
            arrays: NumPy arrays in main memory; `total` and `weight` are added to.
        """
        at = _references(layer, rows, arrays.level, is_grouped=stage == "grouped")
        pilot = arrays.pilot if stage == "grouped" else arrays.noisy
        inputs = arrays.noisy, pilot, arrays.matched, arrays.level, arrays.spectrum
        sums = arrays.total, arrays.weight
        if self._device == "cpu":
            self._add(stage, layer, at, inputs, [torch.from_numpy(each) for each in sums])
            return
        with self._only:
            while self._at_once >= _AT_ONCE:
                try:
                    added = [torch.zeros(each.shape, device=self._device) for each in sums]
                    self._add(stage, layer, at, inputs, added)
                    # Both are fetched before either is added, or a second try would add it twice.
                    fetched = [each.cpu().numpy() for each in added]
                    for total, part in zip(sums, fetched, strict=True):
                        total += part
                except (MemoryError, RuntimeError) as cause:
                    if not is_out_of_memory(cause):
                        raise
                else:
                    return
                self._use_less()
        library = native.load(monitor=self._monitor)
        instead = NativeEngine(library) if library is not None else TorchEngine()
        instead.run(stage, layer, rows, arrays)

    def match(self, layer: Layer, rows: range, *, pilot: Floats, level: Floats) -> BlockGroups:
        """Search groups as `NativeEngine.match` does, always on the CPU.

        Args:
            layer: whose groups are searched.
            rows: numbers of the rows of references, from 0.
            pilot: the slab [window[0] + 3, ny, nx] that blocks are compared in.
            level: σ of the noise, like the slab, ≥ 0; a reference without noise gets no group.
        """
        at = torch.from_numpy(_references(layer, rows, level, is_grouped=True))
        if not len(at):
            nothing = np.empty((0, layer.round.keep), np.float32)
            return BlockGroups(nothing.astype(np.int32), nothing, nothing[:, 0])
        with without_tf32, torch.inference_mode():
            slab, sigma = (_tensor_on(values, "cpu") for values in (pilot, level))
            part = TorchGroups(layer, LayerArrays(slab, slab, slab, sigma, None, None, None))
            parts = [part.matched(some) for some in torch.split(at, _AT_ONCE)]
            index, distance, sigmas = map(torch.cat, zip(*parts, strict=True))
        return BlockGroups(index.int().numpy(), distance.numpy(), sigmas.numpy())

    def _add(
        self,
        stage: StageKind,
        layer: Layer,
        at: Longs,
        inputs: Sequence[Floats],
        sums: Sequence[Tensor],
    ) -> None:
        """Add the blocks of references [n, 3] to total and weight, which are on the device."""
        with without_tf32, torch.inference_mode():
            sent = [_tensor_on(each, self._device) for each in inputs]
            part = TorchGroups(layer, LayerArrays(*sent, *sums))
            # In the first stage a reference is one block, otherwise a group of 32.
            most = self._at_once * (1 if stage == "grouped" else 16)
            for some in torch.split(torch.from_numpy(at).to(self._device), most):
                part.add(stage, some)

    def _use_less(self) -> None:
        self._at_once //= 4
        means = f"{self._at_once} groups at once"
        if self._at_once < _AT_ONCE:
            means = "the CPU, slower"
        self._monitor.warn(f"memory ran out on {self._device}; removing noise goes on with {means}")
        release_memory(self._device)


@dataclass(frozen=True, eq=False)
class TorchGroups:
    """Groups of blocks of a layer, and the sums that their estimates are added to.

    Attributes:
        arrays: tensors on the device.
    """

    layer: Layer
    arrays: LayerArrays

    def add(self, stage: StageKind, at: Tensor) -> None:
        """Add the filtered blocks of references [n, 3]: the slice, row and column of each."""
        if len(at):
            (self._group if stage == "grouped" else self._threshold)(at)

    def matched(self, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return index, distance and level of groups of references [n, 3], as `BlockGroups`."""
        starts, members = self._match(at)
        starts = torch.where(members > 0, starts, starts[:, :1])
        missing = starts[:, :1].expand(-1, self.layer.round.keep - starts.shape[1])
        starts = torch.cat([starts, missing], 1)
        blocks = self.arrays.pilot.reshape(-1)[self._cells(starts)]
        distance = (blocks - blocks[:, :1]).square_().sum(dim=2)
        return starts, distance, self._levels(at)

    def _group(self, at: Tensor) -> None:
        atoms, taper = self._tables()
        deviation = self.arrays.spectrum.sqrt()[:, None]
        into, back = (atoms / deviation).T, atoms * deviation * taper
        level = self._levels(at)
        is_noisy = level > LEAST_LEVEL
        level = torch.where(is_noisy, level, 1)
        starts, members = self._match(at)
        where = self._cells(starts)
        noisy, pilot = (
            values.reshape(-1).index_select(0, where.view(-1)).view(where.shape) @ into
            for values in (self.arrays.noisy, self.arrays.pilot)
        )
        weight = is_noisy / level.square()
        blocks = self._filtered(noisy, pilot, members, level.square(), weight) @ back
        weights = weight[:, None].expand_as(starts)
        self._sum(blocks, where, starts, weights * members)

    def _threshold(self, at: Tensor) -> None:
        (atoms, taper), starts = self._tables(), self._starts(*at.T)[:, None]
        noise = self._levels(at).square() * self.layer.round.damp * self.layer.round.damp
        where = self._cells(starts)
        blocks = (
            self.arrays.noisy.reshape(-1).index_select(0, where.view(-1)).view(-1, CELLS) @ atoms.T
        )
        ratio = blocks.square() / (self.arrays.spectrum * noise[:, None] + 1e-30)
        steep = ratio.clamp_(max=1e4).square_().square_()
        share = steep.div_(steep + 1)
        share[:, 0] = 1  # the mean of a block stays
        ones = torch.ones(starts.shape, device=starts.device)
        self._sum(blocks.mul_(share) @ (atoms * taper), where, starts, ones)

    def _tables(self) -> tuple[Tensor, Tensor]:
        """Return the cosine transform and the weights of a block's voxels, on the device."""
        device = self.arrays.noisy.device
        cosines, taper = (constant(table, device, torch.float32) for table in (COSINES, _TAPER))
        return cosines, taper

    def _starts(self, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return indices in the flat slab."""
        ny, nx = (int(side) for side in self.arrays.pilot.shape[1:])
        return (z * ny + y) * nx + x

    def _cells(self, starts: Tensor) -> Tensor:
        """Return the indices of the voxels of blocks in the flat slab, [..., 64]."""
        side = torch.arange(SIDE, device=starts.device, dtype=starts.dtype)
        return starts[..., None] + self._starts(side[:, None, None], side[:, None], side).flatten()

    def _levels(self, at: Tensor) -> Tensor:
        z, y, x = at.T
        levels: Tensor = self.arrays.level[z + 1, y + 1, x + 1]
        return levels

    def _match(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first voxels of each group's blocks, [B, keep], and 1 for members, else 0."""
        deep, wide, long = self.layer.window
        _, ny, nx = self.arrays.pilot.shape
        z, rows, columns = at.T
        first_y = (rows - (wide - 1) // 2).clip(0, ny - 3 - wide)
        first_x = (columns - (long - 1) // 2).clip(0, nx - 3 - long)
        window_y, window_x = (
            first[:, None] + torch.arange(side + 3, device=at.device, dtype=at.dtype)
            for first, side in ((first_y, wide), (first_x, long))
        )
        # The voxels that the candidates of each reference cover.
        window = self.arrays.matched[:, window_y[:, :, None], window_x[:, None]].transpose(0, 1)
        reference = torch.stack([z, rows - first_y, columns - first_x])
        reference_number = ((reference[0] * wide + reference[1]) * long + reference[2]).long()
        near, apart = None, self.layer.round.apart
        if apart:
            near_z, near_y, near_x = (
                (torch.arange(count, device=at.device) - place[:, None]).abs() < apart
                for count, place in zip((deep, wide, long), reference, strict=True)
            )
            near = near_z[:, :, None, None] & near_y[:, None, :, None] & near_x[:, None, None]
            near = near.flatten(1)
        number, is_member = self._nearest(window.contiguous(), reference, reference_number, near)
        number = number.to(at.dtype)
        starts = self._starts(
            number // (wide * long),
            first_y[:, None] + number // long % wide,
            first_x[:, None] + number % long,
        )
        return starts, is_member.float()

    def _nearest(
        self, window: Tensor, reference: Tensor, reference_number: Tensor, near: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the numbers of the most similar candidates, and which of them are members."""
        side = torch.arange(SIDE, device=window.device)
        z, y, x = (at[:, None] + side for at in reference)
        every = torch.arange(len(reference_number), device=window.device)[:, None, None, None]
        blocks = window[every, z[:, :, None, None], y[:, None, :, None], x[:, None, None]]
        mean = blocks.mean(dim=(1, 2, 3), keepdim=True)
        # By |a - b|² = |a|² - 2 ab + |b|², all minus the reference's mean: less rounding.
        blocks, slabs = blocks.sub_(mean), window.sub_(mean)
        products = F.conv3d(slabs[None], blocks[:, None], groups=len(blocks))[0]
        distance = F.avg_pool3d(slabs.square_(), SIDE, stride=1, divisor_override=1)
        distance = distance.sub_(products, alpha=2).flatten(1)  # |a|² is the same for all
        if near is not None:
            distance.masked_fill_(near, torch.inf)
        distance.scatter_(1, reference_number[:, None], -torch.inf)
        count = min(self.layer.round.keep, distance.shape[1])
        nearest = distance.topk(count, dim=1, largest=False, sorted=True)
        return nearest.indices, nearest.values < torch.inf

    def _filtered(
        self, noisy: Tensor, pilot: Tensor, members: Tensor, variance: Tensor, weight: Tensor
    ) -> Tensor:
        """Return estimates of the groups' blocks times their weight, [B, keep, 64].

        noisy, pilot: [B, keep, 64], coefficients in which the noise has the variance σ²;
        overwritten. variance: σ² of each group. weight: of each group.
        """
        members = members[:, :, None]
        count = members.sum(dim=1, keepdim=True)
        noisy, pilot = noisy.mul_(members), pilot.mul_(members)
        variance, weight = variance[:, None, None], weight[:, None, None]
        mean, known = noisy.sum(dim=1, keepdim=True) / count, pilot.sum(dim=1, keepdim=True) / count
        noisy, pilot = noisy.sub_(mean).mul_(members), pilot.sub_(known).mul_(members)
        mean = mean * (known.square() / (known.square() + variance / count))
        gram = pilot @ pilot.transpose(1, 2)
        diagonal, damping = gram.diagonal(dim1=1, dim2=2), variance * count * self.layer.round.damp
        least = _LEAST_DAMPING * diagonal.sum(dim=1)[:, None, None]
        share = damping / torch.maximum(damping, least)
        diagonal.add_((damping / share)[:, 0])
        right = (pilot @ noisy.transpose(1, 2)).mul_(weight * share)
        # Unlike cholesky, cholesky_ex does not wait for the device.
        shares = torch.cholesky_solve(right, torch.linalg.cholesky_ex(gram).L)
        # Where the damping had to be increased, the correction is smaller by the same factor.
        kept = (mean * weight).addcmul(noisy, (1 - share) * weight)
        return torch.baddbmm(kept, shares.transpose(1, 2), pilot).mul_(members)

    def _sum(self, blocks: Tensor, where: Tensor, starts: Tensor, weights: Tensor) -> None:
        """Add weighted and tapered blocks, and their weights, to the sums."""
        self.arrays.total.view(-1).index_add_(0, where.view(-1), blocks.view(-1))
        self.arrays.weight.view(-1).index_add_(0, starts.reshape(-1), weights.reshape(-1))


def _references(layer: Layer, rows: range, level: Floats, *, is_grouped: bool) -> Longs:
    """List the references of a layer, [n, 3], in the order of C; grouped ones have noise."""
    _, ny, nx = level.shape
    number, step = layer.number, layer.round.step
    columns = [places(nx, step, is_shifted=odd) for odd in (False, True)]
    at = np.array(
        [
            (layer.z, y, x)
            for row, y in enumerate(places(ny, step, is_shifted=bool(number & 1)))
            if row in rows
            for x in columns[(row + number // 2) & 1 if is_grouped else number & 1]
        ],
        np.int64,
    ).reshape(-1, 3)
    if is_grouped:
        at = at[level[layer.z + 1, at[:, 1] + 1, at[:, 2] + 1] > LEAST_LEVEL]
    return at


def _tensor_on(values: Array, device: str) -> Tensor:
    """Copy an array to a device; PyTorch requires writable memory."""
    return torch.from_numpy(np.require(values, np.float32, ["C", "W"])).to(device)


def _cosine_line() -> Tensor:
    at, frequencies = torch.arange(SIDE) + 0.5, torch.arange(SIDE)
    basis = torch.cos(math.pi / SIDE * frequencies[:, None] * at) * math.sqrt(2 / SIDE)
    basis[0] /= math.sqrt(2)
    return basis


#: The orthonormal cosine transform of a block, [frequencies, places].
COSINES = torch.einsum("ai,bj,ck->abcijk", *(3 * [_cosine_line()])).reshape(CELLS, CELLS)
_TAPER = torch.from_numpy(TAPER)
