"""Building blocks of the networks: residual blocks, exchange between slices, AdaLIN, sharpening.

Exchange of features between neighboring slices: Lin et al., Temporal shift module,
arXiv 1811.08383, along slices instead of time.
Variational normalization: features restyled by a vector (AdaLIN), arXiv 2307.07829 (HQG-Net).
Initial values, the identity at the start and the local statistics are our reconstruction.
Sharpening: an adaptive unsharp mask of three scales [ours]. A correction in units of the noise is
close to nothing where there is no noise, while undoing a blur of one pixel needs fine detail to
become fifty times as strong.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

#: Initial gain of the second convolution. At 0 the first one learns nothing in the beginning, and a
#: training took twice the steps; at 1 features grow from block to block.
_SECOND_GAIN = 0.5
#: A quarter of the channels comes from the slice before, another quarter from the one after.
_SHARE = 4
_EPSILON = 1e-5
#: σ of the Gaussians, in pixels, between which the bands lie; the first is above the first of them.
_SIGMAS = (0.5, 1.0, 2.0)
#: By how much a map of ones strengthens each band: the finest have to become strong.
_GAINS = (8.0, 8.0, 1.0)
_RADIUS = 6


def neighbors(slabs: Tensor, reach: int) -> Tensor:
    """Each slice with `reach` slices on either side; the last ones are repeated at the ends.

    slabs: [B, D, …] → [B, D, 2·reach + 1, …].
    """
    depth = slabs.shape[1]
    places = torch.arange(depth, device=slabs.device)
    parts = [
        slabs.index_select(1, (places + offset).clamp(0, depth - 1))
        for offset in range(-reach, reach + 1)
    ]
    return torch.stack(parts, dim=2)


def exchange(features: Tensor, depth: int) -> Tensor:
    """A quarter of the channels from the slice before, a quarter from the one after.

    features: [B·depth, C, H, W], the slices of each slab in order; at a slab's ends its last
    slice stands in for the missing one.
    """
    count, channels = features.shape[:2]
    part = channels // _SHARE
    places = torch.arange(count, device=features.device)
    inside = places % depth
    before = torch.where(inside > 0, places - 1, places)
    after = torch.where(inside < depth - 1, places + 1, places)
    return torch.cat(
        [
            features[:, :part].index_select(0, before),
            features[:, part : 2 * part].index_select(0, after),
            features[:, 2 * part :],
        ],
        dim=1,
    )


def exchange_with(features: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """`exchange` for slices that go on beyond these: the neighbors at both ends are given.

    features: [N, C, H, W], neighboring slices in order; before, after: [1, C, H, W].
    """
    part = features.shape[1] // _SHARE
    own = features[:, :part], features[:, part : 2 * part]
    return torch.cat(
        [
            torch.cat([before[:, :part], own[0][:-1]]) if len(features) > 1 else before[:, :part],
            torch.cat([own[1][1:], after[:, part : 2 * part]])
            if len(features) > 1
            else after[:, part : 2 * part],
            features[:, 2 * part :],
        ],
        dim=1,
    )


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut; no normalization, which would undo intensities."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut: nn.Module = (
            nn.Identity()
            if channels_in == channels_out
            else nn.Conv2d(channels_in, channels_out, 1)
        )
        for convolution, gain in ((self.first, 1.0), (self.second, _SECOND_GAIN)):
            nn.init.kaiming_normal_(convolution.weight, a=0.2)
            convolution.weight.data.mul_(gain)

    def forward(self, features: Tensor, depth: int = 0, seen: Tensor | None = None) -> Tensor:
        """[B, channels_in, H, W] → [B, channels_out, H, W].

        depth: number of slices of the slabs in the batch; if not 0, the first convolution sees
        features of neighboring slices (`exchange`), the shortcut does not.
        seen: input of the first convolution where the caller has exchanged features already.
        """
        if seen is None:
            seen = exchange(features, depth) if depth > 1 else features
        inner = F.leaky_relu(self.first(seen), 0.2)
        return F.leaky_relu(self.shortcut(features) + self.second(inner), 0.2)


def local_moments(features: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Mean and mean square over the cells of a fixed grid, per channel, in float32.

    features: [B, C, H, W]. window: twice a cell's side in pixels of `features`; 0 makes one
    cell of the whole image. Returns two of [B, C, h, w].
    """
    height, width = features.shape[-2:]
    values = features.float()  # mean square less square of the mean needs more bits than half
    cell = max(window // 2, 1)
    if window == 0 or (height <= cell and width <= cell):
        return values.mean(dim=(2, 3), keepdim=True), values.square().mean(dim=(2, 3), keepdim=True)
    mean, square = (
        F.avg_pool2d(part, cell, ceil_mode=True, count_include_pad=False)
        for part in (values, values.square())
    )
    return mean, square


def adalin(
    features: Tensor,
    rho: Tensor,
    window: int = 0,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """σ·(ρ·AdaIN + (1 − ρ)·AdaLN) + μ.

    features: [B, C, H, W]; rho: [1, C, 1, 1] in [0, 1]; scale (σ), shift (μ): [B, C, 1, 1], 1 and
    0 where left out. AdaIN normalizes each channel over H, W; AdaLN all channels together over
    C, H, W. With a `window` the statistics are those of cells of a fixed grid, linearly
    interpolated between, so that a patch, a tile and a whole slice are normalized alike.

    All of it is one gain and one offset for each pixel: these are made on the grid and
    interpolated, which is a fraction of the work at the pixels.
    """
    with torch.autocast(features.device.type, enabled=False):
        mean, square = local_moments(features, window)
        layer_mean, layer_square = mean.mean(1, keepdim=True), square.mean(1, keepdim=True)
        instance, layer = rho * _rsqrt(mean, square), (1 - rho) * _rsqrt(layer_mean, layer_square)
        gain, offset = instance + layer, -(instance * mean + layer * layer_mean)
        if scale is not None:
            gain, offset = gain * scale.float(), offset * scale.float()
        if shift is not None:
            offset = offset + shift.float()
    cell = max(window // 2, 1)
    return torch.addcmul(
        at_pixels(offset, features, cell), features, at_pixels(gain, features, cell)
    )


def _rsqrt(mean: Tensor, square: Tensor) -> Tensor:
    return torch.rsqrt((square - mean.square()).clamp_min(0) + _EPSILON)


def at_pixels(grid: Tensor, features: Tensor, cell: int) -> Tensor:
    """Values of cells of `cell` pixels, interpolated at every pixel of `features`, in its type.

    grid: [B, C, h, w] → [B, C, H, W]; of a single cell [B, C, 1, 1], which broadcasts.
    """
    grid = grid.to(features.dtype)
    if grid.shape[-2:] == (1, 1):
        return grid
    height, width = features.shape[-2:]
    size = (grid.shape[2] * cell, grid.shape[3] * cell)
    larger = F.interpolate(grid, size=size, mode="bilinear", align_corners=False)
    return larger[..., :height, :width]


class VariationalNormalization(nn.Module):
    """f + Conv3×3(LeakyReLU(σ·AdaLIN(f) + μ)), with [μ, σ] linear in the conditioning vector.

    At the start σ = 1, μ = 0 and the convolution is zero: features pass as they were.
    """

    def __init__(self, channels: int, condition_size: int, window: int = 0) -> None:
        super().__init__()
        self.window = window
        self.modulation = nn.Linear(condition_size, 2 * channels)
        self.rho = nn.Parameter(torch.full((1, channels, 1, 1), 0.9))
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in (*self.modulation.parameters(), *self.convolution.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """features: [B, C, H, W]; condition: [B, condition_size] → [B, C, H, W]."""
        shift, scale = self.modulation(condition)[..., None, None].chunk(2, dim=1)
        styled = adalin(features, self.rho.clamp(0, 1), self.window, 1 + scale, shift)
        restyled: Tensor = features + self.convolution(F.leaky_relu(styled, 0.2))
        return restyled


class Sharpening(nn.Module):
    """What to add to an image so that blur is undone; nothing before anything is learned."""

    bands: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Conv2d(channels, len(_SIGMAS), 3, padding=1)
        for parameter in self.strength.parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("bands", _bands(), persistent=False)

    def forward(self, slabs: Tensor, features: Tensor) -> Tensor:
        """slabs: [B, D, H, W]; features of them, [B·D, channels, H/2, W/2] → [B, D, H, W].

        Slices stay apart, as blur is undone in plane.
        """
        planes = F.pad(slabs.flatten(0, 1)[:, None], (_RADIUS,) * 4, mode="reflect")
        detail = F.conv2d(planes, self.bands)
        strength = F.interpolate(self.strength(features), scale_factor=2, mode="nearest")
        return (strength * detail).sum(dim=1).view_as(slabs)


def _bands() -> Tensor:
    """[3, 1, 13, 13]: differences of one Gaussian and the next, the first of the image itself."""
    places = torch.arange(-_RADIUS, _RADIUS + 1.0)
    lowpass = [(places == 0).float()]
    lowpass += [torch.softmax(-0.5 * (places / sigma).square(), dim=0) for sigma in _SIGMAS]
    images = torch.stack([taps[:, None] * taps for taps in lowpass])
    gains = torch.tensor(_GAINS)[:, None, None]
    return (gains * (images[:-1] - images[1:]))[:, None]
