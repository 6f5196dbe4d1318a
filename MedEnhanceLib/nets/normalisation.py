"""Variational normalisation: features restyled by a vector (AdaLIN).

Source: arXiv 2307.07829 (HQG-Net); initial values, the identity at the start and the local
statistics are our reconstruction, see docs/decisions/0004-hqg-first-form.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

_EPSILON = 1e-5


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
    0 where left out. AdaIN normalises each channel over H, W; AdaLN all channels together over
    C, H, W. With a `window` the statistics are those of cells of a fixed grid, linearly
    interpolated between, so that a patch, a tile and a whole slice are normalised alike.

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


class VariationalNormalisation(nn.Module):
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
