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
    """Mean and mean square over a neighbourhood, per channel.

    features: [B, C, H, W]. window: its side in pixels of `features`; 0 takes all of H, W.
    Returns two of [B, C, 1, 1] (window 0) or [B, C, H, W], linearly interpolated between cells
    of a fixed grid, so that a patch, a tile and a whole slice see the same statistics.
    """
    height, width = features.shape[-2:]
    if window == 0 or (height <= window and width <= window):
        return (
            features.mean(dim=(2, 3), keepdim=True),
            features.square().mean(dim=(2, 3), keepdim=True),
        )
    cell = max(window // 2, 1)
    pooled = [
        F.avg_pool2d(values, cell, ceil_mode=True, count_include_pad=False)
        for values in (features, features.square())
    ]
    size = (pooled[0].shape[2] * cell, pooled[0].shape[3] * cell)
    mean, square = (
        F.interpolate(values, size=size, mode="bilinear", align_corners=False)[..., :height, :width]
        for values in pooled
    )
    return mean, square


def adalin(features: Tensor, rho: Tensor, window: int = 0) -> Tensor:
    """ρ·AdaIN + (1 − ρ)·AdaLN, before scale and shift.

    features: [B, C, H, W]; rho: [1, C, 1, 1] in [0, 1]. AdaIN normalises each channel over H, W;
    AdaLN all channels together over C, H, W (within `window`, see local_moments).
    """
    mean, square = local_moments(features, window)
    layer_mean = mean.mean(dim=1, keepdim=True)
    layer_square = square.mean(dim=1, keepdim=True)
    instance = _standardise(features, mean, square)
    layer = _standardise(features, layer_mean, layer_square)
    return rho * instance + (1 - rho) * layer


def _standardise(features: Tensor, mean: Tensor, square: Tensor) -> Tensor:
    variance = (square - mean.square()).clamp_min(0)
    return (features - mean) * torch.rsqrt(variance + _EPSILON)


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
        # Statistics lose too many bits in bfloat16: mean square minus square of the mean.
        with torch.autocast(features.device.type, enabled=False):
            styled = adalin(features.float(), self.rho.clamp(0, 1), self.window)
        styled = (1 + scale) * styled.to(features.dtype) + shift
        restyled: Tensor = features + self.convolution(F.leaky_relu(styled, 0.2))
        return restyled
