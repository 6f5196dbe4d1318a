"""The stages of `block_matching` in PyTorch: where the compiled library is missing, and on GPUs.

Distances between blocks are computed from products, with a hundredth of the memory traffic of
differences; of blocks that are equally similar within rounding, C may select another one. The rest
uses matrix products and a Cholesky decomposition, and agrees with C within rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.arrays import Array, Floats
from MedEnhanceLib.filters.layers import TAPER, BlockGroups, Layer, StageKind, places
from MedEnhanceLib.learning.precision import constant, without_tf32
from MedEnhanceLib.native import CELLS, SIDE

#: References computed together on a CPU, and most on a device; each needs about 100 kB.
_AT_ONCE, _AT_ONCE_ON_A_DEVICE = 256, 8192
#: As in grouped.c: below this σ there is no noise to remove.
LEAST_LEVEL = 1e-10
#: As in grouped.c: least damping as a share of the system's trace.
_LEAST_DAMPING = 1e-6


@dataclass(frozen=True)
class TorchEngine:
    """Engine in place of `NativeEngine`, on the CPU or on a CUDA device, for a `TensorRun`.

    Attributes:
        device: that computes.
        at_once: references computed together.
    """

    device: str = "cpu"
    at_once: int = 0

    def __post_init__(self) -> None:
        if not self.at_once:
            most = _AT_ONCE if self.device == "cpu" else _AT_ONCE_ON_A_DEVICE
            object.__setattr__(self, "at_once", most)

    def less(self) -> TorchEngine | None:
        """Return an engine that needs less of a device's memory; None if there is none."""
        at_once = self.at_once // 4
        return TorchEngine(self.device, at_once) if at_once >= _AT_ONCE else None

    def match(self, layer: Layer, rows: range, *, pilot: Floats, level: Floats) -> BlockGroups:
        """Search groups as `NativeEngine.match` does, always on the CPU.

        Args:
            layer: whose groups are searched.
            rows: numbers of the rows of references, from 0.
            pilot: the slab [window[0] + 3, ny, nx] that blocks are compared in.
            level: σ of the noise, like the slab, ≥ 0; a reference without noise gets no group.
        """
        slab, sigma = (
            torch.from_numpy(np.require(each, np.float32, ["C", "W"])) for each in (pilot, level)
        )
        part = TorchGroups(layer, slab, slab, slab, sigma[layer.z + 1])
        at = references(layer, "grouped", part.level, rows)
        if not len(at):
            nothing = np.empty((0, layer.round.keep), np.float32)
            return BlockGroups(nothing.astype(np.int32), nothing, nothing[:, 0])
        with without_tf32, torch.inference_mode():
            parts = [vars(part.groups(some)).values() for some in torch.split(at, _AT_ONCE)]
            index, distance, sigmas = map(torch.cat, zip(*parts, strict=True))
        return BlockGroups(index.int().numpy(), distance.numpy(), sigmas.numpy())


@dataclass(frozen=True, eq=False)
class BlockEstimates:
    """Estimates of blocks, to be averaged where blocks overlap.

    Attributes:
        blocks: [N, keep, 64] each, the voxels times weight and taper, of one or more images.
        voxels: [N, keep, 64], their places in the flat slab.
        weights: [N, keep].
        starts: [N, keep], places of the blocks' first voxels.
    """

    blocks: Sequence[Tensor]
    voxels: Tensor
    weights: Tensor
    starts: Tensor


@dataclass(frozen=True, eq=False)
class TorchGroups:
    """Groups of blocks of a layer, from tensors on one device.

    Attributes:
        layer: that they belong to.
        noisy: the slab [window[0] + 3, ny, nx].
        pilot: the better estimate, like the slab; in the first stage it is not read.
        matched: what blocks are compared in, like the slab: the pilot, or another image.
        level: [ny, nx], σ of the noise, ≥ 0, in the slice after that in which references start.
        spectrum: [64], > 0, variance of the noise in each frequency, in units of level².
    """

    layer: Layer
    noisy: Tensor
    pilot: Tensor
    matched: Tensor
    level: Tensor
    spectrum: Any = None

    def estimates(self, kind: StageKind, at: Tensor) -> BlockEstimates:
        """Filter the blocks of references [n, 2]."""
        return self._group(at) if kind == "grouped" else self._threshold(at)

    def groups(self, at: Tensor) -> BlockGroups:
        """Search the groups of references [n, 2]; the result has tensors."""
        starts, members = self._match(at)
        starts = torch.where(members > 0, starts, starts[:, :1])
        missing = starts[:, :1].expand(-1, self.layer.round.keep - starts.shape[1])
        starts = torch.cat([starts, missing], 1)
        blocks = self.pilot.reshape(-1)[self._cells(starts)]
        distance = (blocks - blocks[:, :1]).square_().sum(dim=2)
        return BlockGroups(starts, distance, self._levels(at))

    def _group(self, at: Tensor) -> BlockEstimates:
        atoms, taper = self._tables()
        deviation = self.spectrum.sqrt()[:, None]
        into, back = (atoms / deviation).T, atoms * deviation * taper
        level = self._levels(at)
        is_noisy = level > LEAST_LEVEL
        level = torch.where(is_noisy, level, 1)
        starts, members = self._match(at)
        where = self._cells(starts)
        noisy, pilot = (
            values.reshape(-1).index_select(0, where.view(-1)).view(where.shape) @ into
            for values in (self.noisy, self.pilot)
        )
        weight = is_noisy / level.square()
        blocks = self._filtered(noisy, pilot, members, level.square(), weight) @ back
        return BlockEstimates([blocks], where, weight[:, None] * members, starts)

    def _threshold(self, at: Tensor) -> BlockEstimates:
        (atoms, taper), starts = self._tables(), self._starts(self.layer.z, *at.T)[:, None]
        noise = self._levels(at).square() * self.layer.round.damp * self.layer.round.damp
        where = self._cells(starts)
        blocks = self.noisy.reshape(-1).index_select(0, where.view(-1)).view(-1, CELLS) @ atoms.T
        ratio = blocks.square() / (self.spectrum * noise[:, None] + 1e-30)
        steep = ratio.clamp_(max=1e4).square_().square_()
        share = steep.div_(steep + 1)
        share[:, 0] = 1  # the mean of a block stays
        blocks = (blocks.mul_(share) @ (atoms * taper)).view(where.shape)
        return BlockEstimates([blocks], where, torch.ones_like(noise)[:, None], starts)

    def _tables(self) -> tuple[Tensor, Tensor]:
        """Return the cosine transform and the weights of a block's voxels, on the device."""
        device = self.noisy.device
        cosines, taper = (constant(table, device, torch.float32) for table in (COSINES, _TAPER))
        return cosines, taper

    def _starts(self, z: Tensor | int, y: Tensor, x: Tensor) -> Tensor:
        """Return indices in the flat slab."""
        ny, nx = self.level.shape
        return (z * ny + y) * nx + x

    def _cells(self, starts: Tensor) -> Tensor:
        """Return the indices of the voxels of blocks in the flat slab, [..., 64]."""
        side = torch.arange(SIDE, device=starts.device, dtype=starts.dtype)
        return starts[..., None] + self._starts(side[:, None, None], side[:, None], side).flatten()

    def _levels(self, at: Tensor) -> Tensor:
        rows, columns = at.T + 1
        return self.level[rows, columns]

    def _match(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first voxels of each group's blocks, [B, keep], and 1 for members, else 0."""
        deep, wide, long = self.layer.window
        ny, nx = self.level.shape
        rows, columns = at.T
        first_y = (rows - (wide - 1) // 2).clip(0, ny - 3 - wide)
        first_x = (columns - (long - 1) // 2).clip(0, nx - 3 - long)
        window_y, window_x = (
            first[:, None] + torch.arange(side + 3, device=at.device, dtype=at.dtype)
            for first, side in ((first_y, wide), (first_x, long))
        )
        # The voxels that the candidates of each reference cover.
        window = self.matched[:, window_y[:, :, None], window_x[:, None]].transpose(0, 1)
        z = torch.full_like(rows, self.layer.z)
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
        # Unlike cholesky, cholesky_ex does not wait for the device. Two triangular solves, as
        # cholesky_solve of many systems is slower on GPUs before PyTorch 2.12.
        lower = torch.linalg.cholesky_ex(gram).L
        half = torch.linalg.solve_triangular(lower, right, upper=False)
        shares = torch.linalg.solve_triangular(lower.mT, half, upper=True)
        # Where the damping had to be increased, the correction is smaller by the same factor.
        kept = (mean * weight).addcmul(noisy, (1 - share) * weight)
        return torch.baddbmm(kept, shares.transpose(1, 2), pilot).mul_(members)


def references(layer: Layer, kind: StageKind, level: Tensor, rows: range | None = None) -> Tensor:
    """List the references of a layer, [n, 2], row and column of each, in the order of C.

    Args:
        layer: that they belong to.
        kind: of the stage; "grouped" leaves those without noise out.
        level: [ny, nx], σ of the noise in the slice after that in which references start.
        rows: numbers of the rows of references, from 0; None for all.
    """
    ny, nx = level.shape
    at = _grid(ny, nx, layer.round.step, layer.number % 4, kind, rows, level.device)
    return at if kind == "threshold" else at[level[at[:, 0] + 1, at[:, 1] + 1] > LEAST_LEVEL]


@lru_cache(maxsize=32)
def _grid(
    ny: int, nx: int, step: int, number: int, kind: StageKind, rows: range | None, device: Any
) -> Tensor:
    """List all references of a layer, [n, 2]; it depends on its number modulo 4 alone."""
    lines: Array = np.array(places(ny, step, is_shifted=bool(number & 1)))
    parity = np.full(len(lines), number & 1)
    if kind == "grouped":
        parity = (np.arange(len(lines)) + number // 2) & 1
    part = slice(0, len(lines)) if rows is None else slice(rows.start, rows.stop)
    along = [np.array(places(nx, step, is_shifted=odd)) for odd in (False, True)]
    columns = [along[odd] for odd in parity[part]]
    row = lines[part].repeat([len(each) for each in columns])
    at = np.stack([row, np.concatenate(columns)], axis=1)
    with torch.inference_mode(False):
        return torch.from_numpy(at).to(device)


def _cosine_line() -> Tensor:
    at, frequencies = torch.arange(SIDE) + 0.5, torch.arange(SIDE)
    basis = torch.cos(math.pi / SIDE * frequencies[:, None] * at) * math.sqrt(2 / SIDE)
    basis[0] /= math.sqrt(2)
    return basis


#: The orthonormal cosine transform of a block, [frequencies, places].
COSINES = torch.einsum("ai,bj,ck->abcijk", *(3 * [_cosine_line()])).reshape(CELLS, CELLS)
_TAPER = torch.from_numpy(TAPER)
