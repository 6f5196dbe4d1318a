"""Removes noise from overlapping blocks of 4 × 4 × 4 voxels in the domain of the cosine transform.

Anatomy is a few large coefficients of a block, noise is all of them a little. A first estimate
keeps what stands out of the noise. Each voxel's mean with those nearby that look alike in it makes
a better one. By that one each coefficient is weighed: by how much of it is anatomy (an empirical
Wiener filter). The overlapping estimates of a voxel are averaged.

Sources: Yaroslavsky et al., Proc. SPIE 4304 (2001); in three dimensions, with means over what
looks alike, Manjón et al., Med. Image Anal. 16 (2012) 18. Ours: how strong the noise is in each of
the 64 frequencies is learned along with the network that goes on from the result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

#: Side of a block in voxels, and slices that a layer of blocks reaches beyond its first one.
BLOCK = 4
REACH = BLOCK - 1
#: Slices on each side that a result depends on: of both estimates, and of what looks alike.
TOTAL_REACH = 3 * REACH
#: Steps between the blocks of the first estimate and of the second, in pixels. The first may be
#: coarse: it only tells what is anatomy.
_STEPS = (2, 1)
#: How many times the noise a coefficient has to reach, before anything is learned (BM3D's 2.7).
_THRESHOLD = 2.7
_TINY = 1e-12
#: How far away voxels are looked for that look alike, and how alike they must be: in σ.
_SEARCH, _ALIKE = 2, 0.8
#: The logarithm of a weight that is as good as none. Numbers so small that a processor treats them
#: apart (denormal ones) made smooth images ten times slower than noisy ones.
_NOTHING = -80.0
#: Noise below this share of the scale is none.
_LEAST_NOISE = 5e-4
#: Rows of blocks at once on a CPU; always as many, so that tiles give the same to the last bit.
_BAND = 17
#: Learned so many times faster than weights: they are few, and alone tell of the noise's spectrum.
_PACE = 10.0


class BlockShrinkage(nn.Module):
    """The two estimates, as stages over the slices of slabs.

    A layer of blocks begins at each slice and takes the next three: `first_layers` and
    `second_layers` compute what layers add to their slices, `gather` averages the layers of a
    slice, `alike` makes the better estimate between them. `forward` does all that for whole slabs.
    """

    atoms: Tensor
    is_detail: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("atoms", _cosines(), persistent=False)
        for step in _STEPS:
            self.register_buffer(f"quads_{step}", _quads(self.atoms, step), persistent=False)
        is_detail = (torch.arange(BLOCK**3) > 0).float()
        self.register_buffer("is_detail", is_detail, persistent=False)
        self.noise = nn.Parameter(torch.zeros(BLOCK**3))

    def forward(self, slabs: Tensor, level: Tensor) -> Tensor:
        """slabs: [B, D, H, W], sides even; level: σ at half the side, [B, D, H/2, W/2].

        Of fewer slices than a block has, mirrored ones make it up. Returns [B, D, H, W].
        """
        depth = slabs.shape[1]
        slabs, level = _deep_enough(slabs, level)
        first = gather([self.first_layers(slabs, level)], 0, slabs.shape[1])
        sources = slabs, first, surroundings(first), level
        first = self.alike(*(_with_ends(part) for part in sources))
        return gather([self.second_layers(slabs, first, level)], 0, depth)

    def spectrum(self, noise: Tensor, level: Tensor) -> Tensor:
        """How strong noise is in each coefficient, in units of `level`: [64], robust.

        noise: noise alone, [B, D, H, W], D of 4 or more; level: as in `forward`.
        """
        with torch.no_grad():
            coefficients = F.conv2d(_layers_of(noise), self.atoms, stride=2) / _of_blocks(level, 2)
            return coefficients.abs().transpose(0, 1).flatten(1).median(dim=1).values / 0.6745

    def begin_with(self, spectrum: Tensor) -> None:
        """Expect noise of this spectrum, [64], before anything is learned."""
        with torch.no_grad():
            self.noise.copy_(spectrum.clamp(min=1e-3).log() / _PACE)

    def first_layers(self, slabs: Tensor, level: Tensor) -> Tensor:
        """What layers add to their slices: one begins at each slice but the last three.

        slabs: [B, n + 3, H, W]; level: [B, n + 3, H/2, W/2] → [B, n, 4, H, W]. Nothing is learned
        from it: it costs as much as the rest, and the second estimate tells of the same noise.
        """
        step = _STEPS[0]

        def kept(noise: Tensor, blocks: Tensor) -> Tensor:
            bound = noise.mul_(_THRESHOLD**2).add_(_TINY)
            coefficients = F.conv2d(blocks, self.atoms, stride=step)
            power = coefficients.square().div_(bound).clamp_(1e-4, 1e4)
            power.square_().square_()  # the threshold's steepness, as of a Butterworth filter
            return coefficients.mul_(power.div_(power + 1))

        with torch.no_grad():
            return self._estimate(kept, step, level, slabs)

    def alike(self, slabs: Tensor, first: Tensor, around: Tensor, level: Tensor) -> Tensor:
        """Each voxel's mean with the voxels nearby that look alike, in value and surroundings.

        slabs, first: [B, n + 6, H, W], with three slices more on each side than come out; around:
        `surroundings` of first; level: at half the side. Returns [B, n, H, W]; nothing is learned
        from it.
        """
        with torch.no_grad():
            around = (around[:, :-2] + around[:, 1:-1]).add_(around[:, 2:]).mul_(1 / 3)
            level = F.interpolate(level[:, REACH:-REACH], scale_factor=2, mode="nearest")
            spread = (2 * _PACE * self.noise[1:]).exp().mean() * (level + _LEAST_NOISE).square()
            scale = -0.5 / (_ALIKE**2 * spread)
            margin = (_SEARCH,) * 4
            values, seen, around = (
                F.pad(part, margin, mode="reflect")
                for part in (slabs[:, 1:-1], first[:, 1:-1], around)
            )
            return _weighed_mean(values, seen, around, scale)

    def second_layers(self, slabs: Tensor, first: Tensor, level: Tensor) -> Tensor:
        """As `first_layers`; first: a better estimate of the same slices, as slabs."""
        step = _STEPS[1]

        def weighed(noise: Tensor, blocks: Tensor, known: Tensor) -> Tensor:
            with torch.no_grad():
                power = F.conv2d(known, self.atoms, stride=step).square_().add_(_TINY)
            coefficients = F.conv2d(blocks, self.atoms, stride=step)
            return coefficients.mul_(power).div_(noise.add_(power))

        return self._estimate(weighed, step, level, slabs, first)

    def _estimate(
        self, change: Callable[..., Tensor], step: int, level: Tensor, *slabs: Tensor
    ) -> Tensor:
        """Means over each layer's blocks, [B, n, 4, H, W], of the coefficients that `change` makes.

        change: takes the noise's variance in each coefficient, [B·n, 64, h, w], of which it may
        make something else, and the layers of slabs, [B·n, 4, H, W] each. A CPU goes by bands of
        rows, whose coefficients stay in the cache.
        """
        variance = _of_blocks(level, step).square()
        spectrum = (torch.exp(2 * _PACE * self.noise) * self.is_detail).view(1, -1, 1, 1)
        layers = [_layers_of(part) for part in slabs]
        rows, columns = slabs[0].shape[-2:]
        band = variance.shape[2]
        if not torch.is_grad_enabled() and variance.device.type == "cpu":
            band = _BAND
        total = layers[0].new_zeros(layers[0].shape)
        with _full_precision():
            for start in range(0, variance.shape[2], band):
                noise = spectrum * variance[:, :, start : start + band]
                within = slice(start * step, (start + noise.shape[2] - 1) * step + BLOCK)
                changed = change(noise, *(part[..., within, :] for part in layers))
                total[..., within, :] += self.sum_of_blocks(changed, step)
        over = _blocks_over(rows, step, level)[:, None] * _blocks_over(columns, step, level)
        return (total / over).view(len(level), -1, *total.shape[1:])

    def sum_of_blocks(self, coefficients: Tensor, step: int) -> Tensor:
        """The sum of the blocks that have these coefficients, [B·n, 64, h, w] → [B·n, 4, H, W].

        As a transposed convolution, but computed for 2 × 2 pixels at once, as channels of an
        ordinary one: 1.6 times as fast on a CPU.
        """
        rows, columns = (step * (side - 1) + BLOCK for side in coefficients.shape[-2:])
        if rows % 2 or columns % 2:
            coefficients = F.pad(coefficients, (0, columns % 2, 0, rows % 2))
        kernel, margin = self.get_buffer(f"quads_{step}"), REACH // step
        blocks = F.conv2d(coefficients, kernel, stride=2 // step, padding=margin)
        return F.pixel_shuffle(blocks, 2)[..., :rows, :columns]


def _full_precision() -> AbstractContextManager[None]:
    """No rounding of large coefficients to the 10 bits of TF32, as cuDNN would by default."""
    enabled = torch.backends.cudnn.enabled
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=enabled, allow_tf32=False
    )
    return context


def _layers_of(slabs: Tensor) -> Tensor:
    """[B, n + 3, H, W] → [B·n, 4, H, W]."""
    layers = slabs.unfold(1, BLOCK, 1).permute(0, 1, 4, 2, 3).flatten(0, 1)
    return layers.contiguous(memory_format=torch.channels_last)


def surroundings(slices: Tensor) -> Tensor:
    """Each pixel's mean with the eight around it; [B, n, H, W]."""
    with torch.no_grad():
        return F.avg_pool2d(F.pad(slices, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _weighed_mean(values: Tensor, seen: Tensor, around: Tensor, scale: Tensor) -> Tensor:
    """Over offsets of up to `_SEARCH`; three times [B, n + 4, H + 4, W + 4] → [B, n, H, W]."""
    size = scale.shape[1:]

    def at(part: Tensor, offset: tuple[int, ...]) -> Tensor:
        for axis, (first, count) in enumerate(zip(offset, size, strict=True), start=1):
            part = part.narrow(axis, first, count)
        return part

    here = at(seen, (_SEARCH,) * 3), at(around, (_SEARCH,) * 3)
    total, weights = torch.zeros_like(scale), torch.zeros_like(scale)
    for offset in itertools.product(range(2 * _SEARCH + 1), repeat=3):
        distance = (at(around, offset) - here[1]).square_().mul_(3)
        value = at(seen, offset) - here[0]
        weight = distance.addcmul_(value, value).mul_(scale).clamp_(min=_NOTHING).exp_()
        total.addcmul_(weight, at(values, offset))
        weights += weight
    return total / weights


def _with_ends(slabs: Tensor) -> Tensor:
    """[B, D, …] → [B, D + 6, …], the first and the last slice repeated."""
    first, last = slabs[:, :1], slabs[:, -1:]
    return torch.cat([first] * REACH + [slabs] + [last] * REACH, dim=1)


def gather(layers: Sequence[Tensor], start: int, count: int) -> Tensor:
    """The mean of each slice's layers, [B, count, H, W].

    layers: [B, n, 4, H, W] each, in order; the first of them begins at slice 0. start: the slice
    to begin with.
    """
    total = layers[0].new_zeros(len(layers[0]), count, *layers[0].shape[-2:])
    begins = list(itertools.accumulate((part.shape[1] for part in layers), initial=0))
    for offset in range(BLOCK):  # so that each slice's sum has its order, whatever the parts are
        for part, begin in zip(layers, begins, strict=False):
            first = max(0, start - offset - begin)
            last = min(part.shape[1], start + count - offset - begin)
            if first < last:
                shift = begin + offset - start
                total[:, first + shift : last + shift] += part[:, first:last, offset]
    places = torch.arange(start, start + count, device=total.device)[:, None]
    holds = places - torch.arange(BLOCK, device=total.device)
    covered = ((holds >= 0) & (holds < begins[-1])).sum(dim=1)
    return total / covered[:, None, None]


def _deep_enough(slabs: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Slabs of at least a block's slices, by mirroring; [B, D, …] each.

    Mirrored slices bring no noise of their own: less of it averages out, as if it were stronger.
    """
    depth = slabs.shape[1]
    if depth >= BLOCK:
        return slabs, level
    ahead = list(range(depth))
    places = torch.tensor((ahead + ahead[::-1] + ahead + ahead[::-1])[:BLOCK], device=slabs.device)
    louder = math.sqrt(BLOCK / depth)
    return slabs.index_select(1, places), louder * level.index_select(1, places)


def _cosines() -> Tensor:
    """The orthonormal transform (DCT-II) along three axes, [64, 4, 4, 4]; the first is the mean."""
    places, frequencies = torch.arange(BLOCK) + 0.5, torch.arange(BLOCK)
    basis = torch.cos(math.pi / BLOCK * frequencies[:, None] * places) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    atoms = torch.einsum("ai,bj,ck->abcijk", basis, basis, basis)
    return atoms.reshape(-1, BLOCK, BLOCK, BLOCK).contiguous(memory_format=torch.channels_last)


def _quads(atoms: Tensor, step: int) -> Tensor:
    """What blocks of coefficients add to 2 × 2 pixels of each slice, [4 · 4, 64, n, n].

    step: between blocks. Pixel 2 k + j is the y-th of block t where 2 k + j = step · t + y; a
    convolution of stride 2 / step has t = 2 k / step - margin + u at the u-th of its kernel.
    """
    margin = REACH // step
    ahead, places = torch.arange(2)[:, None, None], torch.arange(BLOCK)
    taps = torch.arange((1 + step * margin) // step + 1)[:, None]
    meets = (ahead + step * margin - step * taps == places).to(atoms)
    quads = torch.einsum("csyx,juy,ivx->sjicuv", atoms, meets, meets)
    return quads.reshape(BLOCK * 4, *quads.shape[3:]).contiguous(memory_format=torch.channels_last)


def _of_blocks(level: Tensor, step: int) -> Tensor:
    """The noise in each block, [B·n, 1, h, w]: the mean over its slices, near its middle."""
    mean = level.unfold(1, BLOCK, 1).mean(dim=-1).flatten(0, 1)[:, None]
    if step == 1:
        mean = F.interpolate(mean, scale_factor=2, mode="nearest")[..., 1:-2, 1:-2]
    else:
        mean = mean[..., :-1, :-1]
    return mean + _LEAST_NOISE


def _blocks_over(side: int, step: int, like: Tensor) -> Tensor:
    """How many blocks of a layer hold each pixel of a side of that length."""
    starts = torch.arange(0, side - REACH, step, device=like.device)
    places = torch.arange(side, device=like.device)[:, None]
    return ((places >= starts) & (places < starts + BLOCK)).sum(dim=1).to(like.dtype)
