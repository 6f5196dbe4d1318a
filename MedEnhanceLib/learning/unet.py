"""The body of networks that predict a change of images: a residual U-Net of two dimensions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name


class ResidualUNet(nn.Module):
    """U-Net of residual blocks, whose change is 0 before training.

    Args:
        channels: of the input.
        widths: channels of each level.
        depth: residual blocks of each level on the way down.
    """

    def __init__(self, channels: int, widths: Sequence[int], depth: int) -> None:
        super().__init__()
        self.widths, self.depth = tuple(widths), depth
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(depth))) for width in widths
        )
        pairs = list(itertools.pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(ResidualBlock(a) for a, _ in pairs)
        self.last = nn.Conv2d(widths[0], 1, 3, padding=1)
        _start_at_zero(self.last)
        self.multiple = 1 << len(pairs)

    def change(self, x: Tensor) -> Tensor:
        """Compute a change, [B, M, W], from images [B, channels, M, W]."""
        m, w = x.shape[-2:]
        x = F.pad(x, (0, -w % self.multiple, 0, -m % self.multiple), mode="replicate")
        x = self.first(x.contiguous(memory_format=torch.channels_last))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            x = blocks(x)
            if level < len(self.shrink):
                skips.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.grow))):
            x = self.up[level](self.grow[level](x) + skips[level])
        change: Tensor = self.last(x)[:, 0, :m, :w].float()
        return change


class ResidualBlock(nn.Module):
    """Residual block of two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        _start_at_zero(self.two)

    def forward(self, x: Tensor) -> Tensor:
        """Add a change to features, [B, width, M, W]."""
        change: Tensor = self.two(F.relu(self.one(x)))
        return x + change


def _start_at_zero(layer: nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
