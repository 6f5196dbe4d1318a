"""Removes noise from overlapping blocks of 4 × 4 × 4 voxels, and the Rician bias that it leaves.

Each block is transformed by the cosine transform (DCT), in which anatomy is a few large
coefficients and noise a little of every coefficient. A first estimate keeps the coefficients that
stand out of the noise. The mean of each voxel with similar voxels nearby improves it. A second
estimate weighs each coefficient by its share of anatomy in the improved one (an empirical Wiener
filter). The overlapping estimates of a voxel are averaged.
Sources: Yaroslavsky et al., Proc. SPIE 4304 (2001); in three dimensions, with means over similar
voxels, Manjón et al., Med. Image Anal. 16 (2012) 18. Ours: the strength of the noise in each of the
64 frequencies is learned along with the network that starts from the result.

Magnitude images are Rician: noise of both channels adds σ²/2A to the mean on tissue and 1.25 σ on
air, so a denoised mean is above the truth. `without_bias` undoes that.
Source: Koay & Basser, J. Magn. Reson. 179 (2006) 317; the ramp towards air is ours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.nets.blocks import at_pixels
from MedEnhanceLib.nets.precision import constant, without_tf32

#: Side of a block in voxels, and slices that a layer of blocks reaches beyond its first one.
BLOCK = 4
REACH = BLOCK - 1
#: Slices on each side that a result depends on: of both estimates, and of what looks alike.
TOTAL_REACH = 3 * REACH
#: Steps between the blocks of the first estimate and of the second, in pixels. The first may be
#: coarse: it only shows what is anatomy.
_STEPS = (2, 1)
#: Threshold of coefficients in multiples of the noise, before anything is learned (BM3D's 2.7).
_THRESHOLD = 2.7
_TINY = 1e-12
#: Search radius for similar voxels, and the scale of their similarity in σ.
_SEARCH, _ALIKE = 2, 0.8
#: Lowest logarithm of a weight. Below it, denormal numbers made smooth images ten times slower than
#: noisy ones.
_NOTHING = -80.0
#: Noise below this share of the scale is none.
_LEAST_NOISE = 5e-4
#: Rows of blocks at once on a CPU; constant, so that tiles give the same to the last bit.
_BAND = 17
#: Learning rate of the noise's spectrum, relative to that of weights.
_PACE = 10.0
#: The mean of air, in σ.
_AIR = math.sqrt(math.pi / 2)
#: From this mean on, in σ, its inverse is used; below, where it is infinitely steep, a ramp.
_RAMP_END = 1.7
_RAMP_START = 1.2
#: Factor on a cell's ratio of mean to spread: the measured spread of air varies by 4 %, and noise
#: that is underestimated does more harm in air than overestimated noise does in tissue.
_TOWARDS_AIR = 0.95
#: Range of the tables in σ, and their entries for each σ; beyond, a series is used.
_FAR, _PER_SIGMA = 8.0, 64
#: Side of a cell, in pixels of half the resolution, whose share of air is estimated: as in the
#: noise map, so that tiles and whole slices share cells.
_CELL = 16


class BlockShrinkage(nn.Module):
    """Both estimates of the shrinkage, as stages over the slices of slabs.

    A layer of blocks starts at each slice and covers the next three. `first_layers` and
    `second_layers` compute the contribution of layers to their slices, `gather` averages the layers
    of a slice, and `alike` improves the first estimate. `forward` runs all of it on whole slabs.
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
        """The denoised slabs, [B, D, H, W]; fewer slices than a block has are mirrored.

        Args:
            slabs: [B, D, H, W], sides even.
            level: σ of the noise at half the side, [B, D, H/2, W/2].
        """
        depth = slabs.shape[1]
        slabs, level = _deep_enough(slabs, level)
        first = gather([self.first_layers(slabs, level)], 0, slabs.shape[1])
        sources = slabs, first, surroundings(first), level
        first = self.alike(*(_with_ends(part) for part in sources))
        return gather([self.second_layers(slabs, first, level)], 0, depth)

    def spectrum(self, noise: Tensor, level: Tensor) -> Tensor:
        """Strength of noise in each coefficient, [64], in units of `level`; a robust estimate.

        noise: noise alone, [B, D, H, W], D of 4 or more; level: as in `forward`.
        """
        with torch.no_grad():
            coefficients = F.conv2d(_layers_of(noise), self.atoms, stride=2) / _of_blocks(level, 2)
            return coefficients.abs().transpose(0, 1).flatten(1).median(dim=1).values / 0.6745

    def begin_with(self, spectrum: Tensor) -> None:
        """Initialize the learned spectrum of the noise, [64]."""
        with torch.no_grad():
            self.noise.copy_(spectrum.clamp(min=1e-3).log() / _PACE)

    def first_layers(self, slabs: Tensor, level: Tensor) -> Tensor:
        """The contribution of layers to their slices; a layer starts at each slice but the last 3.

        slabs: [B, n + 3, H, W]; level: [B, n + 3, H/2, W/2] → [B, n, 4, H, W]. It has no gradient,
        which would double the cost: the second estimate teaches the same spectrum.
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
        """Each voxel's mean with nearby voxels of similar value and surroundings; no gradient.

        Args:
            slabs: [B, n + 6, H, W], with three more slices on each side than the result.
            first: the first estimate, in the same shape.
            around: `surroundings` of `first`.
            level: σ of the noise at half the side.
        Returns:
            [B, n, H, W].
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
        """Means over each layer's blocks, [B, n, 4, H, W], of the coefficients from `change`.

        change: (variance of the noise in each coefficient [B·n, 64, h, w], which it may overwrite,
        layers of slabs [B·n, 4, H, W] each) → coefficients. A CPU works by bands of rows, whose
        coefficients stay in the cache.
        """
        variance = _of_blocks(level, step).square()
        spectrum = (torch.exp(2 * _PACE * self.noise) * self.is_detail).view(1, -1, 1, 1)
        layers = [_layers_of(part) for part in slabs]
        rows, columns = slabs[0].shape[-2:]
        band = variance.shape[2]
        if not torch.is_grad_enabled() and variance.device.type == "cpu":
            band = _BAND
        total = layers[0].new_zeros(layers[0].shape)
        with without_tf32():
            for start in range(0, variance.shape[2], band):
                noise = spectrum * variance[:, :, start : start + band]
                within = slice(start * step, (start + noise.shape[2] - 1) * step + BLOCK)
                changed = change(noise, *(part[..., within, :] for part in layers))
                total[..., within, :] += self.sum_of_blocks(changed, step)
        over = _blocks_over(rows, step, level)[:, None] * _blocks_over(columns, step, level)
        return (total / over).view(len(level), -1, *total.shape[1:])

    def sum_of_blocks(self, coefficients: Tensor, step: int) -> Tensor:
        """The sum of the blocks with these coefficients, [B·n, 64, h, w] → [B·n, 4, H, W].

        A transposed convolution, computed for 2 × 2 pixels at once as channels of an ordinary
        convolution: 1.6 times as fast on a CPU.
        """
        rows, columns = (step * (side - 1) + BLOCK for side in coefficients.shape[-2:])
        if rows % 2 or columns % 2:
            coefficients = F.pad(coefficients, (0, columns % 2, 0, rows % 2))
        kernel, margin = self.get_buffer(f"quads_{step}"), REACH // step
        blocks = F.conv2d(coefficients, kernel, stride=2 // step, padding=margin)
        return F.pixel_shuffle(blocks, 2)[..., :rows, :columns]


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

    Args:
        layers: [B, n, 4, H, W] each, in order; the first one starts at slice 0.
        start: first slice of the result.
        count: number of slices of the result.
    """
    total = layers[0].new_zeros(len(layers[0]), count, *layers[0].shape[-2:])
    begins = list(itertools.accumulate((part.shape[1] for part in layers), initial=0))
    for offset in range(BLOCK):  # outermost, so that the order of each sum is independent of parts
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

    Mirrored slices repeat their noise, so less of it averages out: the level is raised for that.
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
    """Kernel from coefficients of blocks to 2 × 2 pixels of each slice, [4 · 4, 64, n, n].

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
    """Number of blocks of a layer that hold each pixel of a side of that length."""
    starts = torch.arange(0, side - REACH, step, device=like.device)
    places = torch.arange(side, device=like.device)[:, None]
    return ((places >= starts) & (places < starts + BLOCK)).sum(dim=1).to(like.dtype)


def without_bias(mean: Tensor, level: Tensor) -> Tensor:
    """The magnitudes whose Rician means these are.

    mean: denoised magnitudes, [B, D, H, W], sides even; level: their local spread before that, at
    half the side, [B, D, H/2, W/2]. Negative values, which no magnitude has, stay.
    """
    with torch.no_grad():
        half = F.avg_pool2d(mean.flatten(0, 1)[:, None], 2)
        cells = F.avg_pool2d(half, _CELL, ceil_mode=True, count_include_pad=False)
        around = at_pixels(cells, half, _CELL).expand_as(half).reshape(level.shape)
        # Air spreads less than the noise that it is made of.
        sigma = level / _spread(_TOWARDS_AIR * around / level.clamp_min(1e-6))
        sigma = F.interpolate(sigma, scale_factor=2, mode="nearest").clamp_min(1e-6)
    return amplitude(mean, sigma)


def amplitude(mean: Tensor, sigma: Tensor) -> Tensor:
    """The magnitudes whose Rician means these are, for a known σ > 0 of each channel's noise.

    mean, sigma: of shapes that fit each other. Negative values, which no magnitude has, stay.
    """
    known = mean / sigma
    truth = torch.where(known < _FAR, _inverse(known), known - 0.5 / known.clamp_min(1.0))
    return torch.where(mean > 0, sigma * truth, mean)


def _moments(amplitude: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of Rician values, σ = 1."""
    quarter = amplitude.square() / 4
    mean = _AIR * (
        (1 + 2 * quarter) * torch.special.i0e(quarter) + 2 * quarter * torch.special.i1e(quarter)
    )
    return mean, (2 + 4 * quarter - mean.square()).clamp_min(0).sqrt()


def _looked_up(table: Tensor, at: Tensor) -> Tensor:
    """Linear between the values of a table at 0, 1/_PER_SIGMA, …, _FAR."""
    place = (at * _PER_SIGMA).clamp(0, len(table) - 1.001)
    below = place.detach().nan_to_num().long()  # NaN stays NaN
    table = constant(table, at.device, at.dtype)
    first = table[below]
    return first + (place - below) * (table[below + 1] - first)


def _inverse(mean: Tensor) -> Tensor:
    """The amplitude that has this mean; σ = 1."""
    return _looked_up(_INVERSE, mean)


def _spread(ratio: Tensor) -> Tensor:
    """The standard deviation for a given ratio of mean to standard deviation; σ = 1."""
    return _looked_up(_SPREAD, ratio)


def _tables() -> tuple[Tensor, Tensor]:
    """Amplitudes by mean, and spreads by mean over spread, at the places of `_looked_up`."""
    amplitudes = torch.linspace(0, 2 * _FAR, 20_001, dtype=torch.float64)
    means, spreads = _moments(amplitudes)
    places = torch.arange(int(_FAR * _PER_SIGMA) + 1, dtype=torch.float64) / _PER_SIGMA

    def at(known: Tensor, wanted: Tensor) -> Tensor:
        return wanted[torch.searchsorted(known, places).clamp_max(len(known) - 1)]

    inverse = at(means, amplitudes)
    end = inverse[int(_RAMP_END * _PER_SIGMA)]
    ramp = end * (places - _RAMP_START) / (int(_RAMP_END * _PER_SIGMA) / _PER_SIGMA - _RAMP_START)
    inverse = torch.where(places < _RAMP_END, ramp.clamp_min(0), inverse)
    return inverse.float(), at(means / spreads, spreads).float()


_INVERSE, _SPREAD = _tables()
