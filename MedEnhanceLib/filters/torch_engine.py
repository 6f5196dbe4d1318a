"""The stages of `block_matching` in PyTorch: where the compiled library is missing, and on GPUs.

Distances between blocks are computed from products, with a hundredth of the memory traffic of
differences; of blocks that are equally similar within rounding, C may select another one. The rest
uses matrix products and a Cholesky decomposition, and agrees with C within rounding.

Places are read from tables, made once for a size of slices: a device is given few operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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

#: References computed together on a CPU, and most on a device; each needs about 100 kB. All of a
#: layer of 512 × 512 voxels are less.
_AT_ONCE, _AT_ONCE_ON_A_DEVICE = 256, 32768
#: As in grouped.c: below this σ there is no noise to remove.
LEAST_LEVEL = 1e-10
#: As in grouped.c: least damping as a share of the system's trace.
_LEAST_DAMPING = 1e-6
#: Rows from which each row of a product has the same bits however many there are.
_LEAST_ROWS = 16


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
        at = grid(layer, "grouped", *slab.shape[1:], part.level.device, rows)
        at = at[part.levels(at) > LEAST_LEVEL]
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
        """Filter the blocks of references that have noise, from `grid`."""
        return self._group(at) if kind == "grouped" else self._threshold(at)

    def groups(self, at: Tensor) -> BlockGroups:
        """Search the groups of references that have noise, from `grid`; the result has tensors."""
        starts, members = self._match(at)
        if members is not None:
            starts = torch.where(members > 0, starts, starts[:, :1])
            missing = starts[:, :1].expand(-1, self.layer.round.keep - starts.shape[1])
            starts = torch.cat([starts, missing], 1)
        blocks = gather_blocks(self.pilot, self._cells(starts))
        distance = (blocks - blocks[:, :1]).square_().sum(dim=2)
        return BlockGroups(starts, distance, self.levels(at))

    def levels(self, at: Tensor) -> Tensor:
        """Return σ at references, from `grid`."""
        return gather_blocks(self.level, at[:, 3])

    def _group(self, at: Tensor) -> BlockEstimates:
        into, back = _transforms(self.spectrum)
        starts, members = self._match(at)
        where, variance = self._cells(starts), self.levels(at).square()
        noisy, pilot = (
            _product(gather_blocks(each, where), into) for each in (self.noisy, self.pilot)
        )
        weight = 1 / variance
        blocks = _product(self._filtered(noisy, pilot, members, variance, weight), back)
        weights = weight[:, None].expand(starts.shape)
        return BlockEstimates([blocks], where, _masked(weights, members), starts)

    def _threshold(self, at: Tensor) -> BlockEstimates:
        device = self.noisy.device
        atoms, taper = (constant(table, device, torch.float32) for table in (COSINES, _TAPER))
        starts = at[:, :1]
        noise = self.levels(at).square() * self.layer.round.damp * self.layer.round.damp
        where = self._cells(starts)
        blocks = _product(gather_blocks(self.noisy, where).view(-1, CELLS), atoms.T)
        ratio = blocks.square() / (self.spectrum * noise[:, None] + 1e-30)
        steep = ratio.clamp_(max=1e4).square_().square_()
        share = steep.div_(steep + 1)
        share[:, 0] = 1  # the mean of a block stays
        blocks = _product(blocks.mul_(share), atoms * taper).view(where.shape)
        return BlockEstimates([blocks], where, torch.ones_like(noise)[:, None], starts)

    def _cells(self, starts: Tensor) -> Tensor:
        """Return the indices of the voxels of blocks in the flat slab, [..., 64]."""
        return starts[..., None] + self._box(SIDE, SIDE, SIDE)

    def _box(self, *sides: int) -> Tensor:
        """Return the indices of the voxels of a box in the flat slab, from its first voxel."""
        return box(sides, *self.level.shape, self.level.device)

    def _match(self, at: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the first voxels of each group's blocks, [B, keep], and 1 for members, else 0.

        None stands for members alone.
        """
        window, keep = self.layer.window, self.layer.round.keep
        first, number = at[:, 1:2], at[:, 2]
        # The voxels that the candidates of each reference cover.
        sides = [side + SIDE - 1 for side in window]
        slabs = gather_blocks(self.matched, first + self._box(*sides)).view(-1, *sides)
        blocks = gather_blocks(self.matched, self._cells(at[:, 0])).view(-1, SIDE, SIDE, SIDE)
        mean = blocks.mean(dim=(1, 2, 3), keepdim=True)
        # By |a - b|² = |a|² - 2 ab + |b|², all minus the reference's mean: less rounding.
        blocks, slabs = blocks.sub_(mean), slabs.sub_(mean)
        products = F.conv3d(slabs[None], blocks[:, None], groups=len(blocks))[0]
        distance = F.avg_pool3d(slabs.square_(), SIDE, stride=1, divisor_override=1)
        distance = distance.sub_(products, alpha=2).flatten(1)  # |a|² is the same for all
        near, least = _near(window, self.layer.round.apart, at.device)
        if near is not None:
            distance.masked_fill_(near.index_select(0, number), torch.inf)
        distance.scatter_(1, number[:, None], -torch.inf)
        count = min(keep, distance.shape[1])
        nearest = distance.topk(count, dim=1, largest=False, sorted=True)
        starts = first + gather_blocks(self._box(*window), nearest.indices)
        return starts, None if least >= keep else (nearest.values < torch.inf).float()

    def _filtered(
        self, noisy: Tensor, pilot: Tensor, members: Tensor | None, variance: Tensor, weight: Tensor
    ) -> Tensor:
        """Return estimates of the groups' blocks times their weight, [B, keep, 64].

        noisy, pilot: [B, keep, 64], coefficients in which the noise has the variance σ²;
        overwritten. variance: σ² of each group. weight: of each group.
        """
        count: Any = noisy.shape[1]
        if members is not None:
            members = members[:, :, None]
            count = members.sum(dim=1, keepdim=True)
        noisy, pilot = _masked(noisy, members), _masked(pilot, members)
        variance, weight = variance[:, None, None], weight[:, None, None]
        mean, known = noisy.sum(dim=1, keepdim=True) / count, pilot.sum(dim=1, keepdim=True) / count
        noisy, pilot = _masked(noisy.sub_(mean), members), _masked(pilot.sub_(known), members)
        power = known.square_()
        mean = mean * (power / (power + variance / count))
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
        return _masked(torch.baddbmm(kept, shares.transpose(1, 2), pilot), members)


def gather_blocks(values: Tensor, voxels: Tensor) -> Tensor:
    """Gather the values of a slab at flat places, such as [N, blocks, 64]."""
    return values.reshape(-1).index_select(0, voxels.reshape(-1)).reshape(voxels.shape)


def _product(blocks: Tensor, table: Tensor) -> Tensor:
    """Multiply blocks [..., 64] by a table [64, 64].

    MKL multiplies few rows in another order on some processors; with rows of zeros added, the
    result of a block does not depend on how many blocks there are.
    """
    rows = blocks.view(-1, CELLS)
    missing = _LEAST_ROWS - len(rows)
    padded = F.pad(rows, (0, 0, 0, missing)) if missing > 0 else rows
    return (padded @ table)[: len(rows)].view(blocks.shape)


def _masked(values: Tensor, members: Tensor | None) -> Tensor:
    """Multiply by 1 for members, else 0; None: all are members."""
    return values if members is None else values * members


@lru_cache(maxsize=64)
def grid(
    layer: Layer, kind: StageKind, ny: int, nx: int, device: Any, rows: range | None = None
) -> Tensor:
    """List the references of a layer, [n, 4], in the order of C.

    Args:
        layer: that they belong to.
        kind: of the stage.
        ny: rows of a slice.
        nx: columns of a slice.
        device: of the list.
        rows: numbers of the rows of references, from 0; None for all.
    Returns for each: the place of its first voxel, and that of the first voxel of its window, in
    the flat slab; its number among the candidates; the place of its second voxel in a slice.
    """
    if layer.number >= 4:  # layers differ by their number modulo 4 alone
        return grid(replace(layer, number=layer.number % 4), kind, ny, nx, device, rows)
    lines: Array = np.array(places(ny, layer.round.step, is_shifted=bool(layer.number & 1)))
    parity = np.full(len(lines), layer.number & 1)
    if kind == "grouped":
        parity = (np.arange(len(lines)) + layer.number // 2) & 1
    part = slice(0, len(lines)) if rows is None else slice(rows.start, rows.stop)
    along = [np.array(places(nx, layer.round.step, is_shifted=odd)) for odd in (False, True)]
    columns = [along[odd] for odd in parity[part]]
    row = lines[part].repeat([len(each) for each in columns])
    column = np.concatenate(columns)
    _, wide, long = layer.window
    top = (row - (wide - 1) // 2).clip(0, ny - SIDE + 1 - wide)
    left = (column - (long - 1) // 2).clip(0, nx - SIDE + 1 - long)
    number = (layer.z * wide + row - top) * long + column - left
    start, level = (layer.z * ny + row) * nx + column, (row + 1) * nx + column + 1
    at = np.stack([start, top * nx + left, number, level], axis=1)
    with torch.inference_mode(False):
        return torch.from_numpy(at).to(device)


@lru_cache(maxsize=64)
def box(sides: tuple[int, ...], ny: int, nx: int, device: Any) -> Tensor:
    """Return the flat places of the voxels of a box in a slab.

    Args:
        sides: of the box.
        ny: rows of a slice.
        nx: columns of a slice.
        device: of the result.
    """
    z, y, x = np.ogrid[tuple(slice(side) for side in sides)]
    with torch.inference_mode(False):
        return torch.from_numpy(((z * ny + y) * nx + x).reshape(-1)).to(device)


@lru_cache(maxsize=16)
def _near(window: tuple[int, int, int], apart: int, device: Any) -> tuple[Tensor | None, int]:
    """Return which candidates are too near to each reference, [candidates, candidates].

    None stands for none. Also returns the least number of members that a group can have.
    """
    count = math.prod(window)
    if not apart:
        return None, count
    at = np.stack(np.unravel_index(np.arange(count), window))
    near = (np.abs(at[:, :, None] - at[:, None]) < apart).all(0)
    with torch.inference_mode(False):
        return torch.from_numpy(near).to(device), 1 + int((~near).sum(1).min())


@lru_cache(maxsize=4)
def _transforms(spectrum: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tables from voxels to coefficients in which the noise is white, and back.

    spectrum: the same object at each call of a run: it is the key of the cache.
    """
    device, deviation = spectrum.device, spectrum.sqrt()[:, None]
    cosines, taper = (constant(table, device, torch.float32) for table in (COSINES, _TAPER))
    return (cosines / deviation).T, cosines * deviation * taper


def _cosine_line() -> Tensor:
    at, frequencies = torch.arange(SIDE) + 0.5, torch.arange(SIDE)
    basis = torch.cos(math.pi / SIDE * frequencies[:, None] * at) * math.sqrt(2 / SIDE)
    basis[0] /= math.sqrt(2)
    return basis


#: The orthonormal cosine transform of a block, [frequencies, places].
COSINES = torch.einsum("ai,bj,ck->abcijk", *(3 * [_cosine_line()])).reshape(CELLS, CELLS)
_TAPER = torch.from_numpy(TAPER)
