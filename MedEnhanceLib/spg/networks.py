"""The small restoration networks: two whose gradients are matched, one that matching never sees.

All take and give [B, 1, H, W] and add a correction to their input. None normalises, none works in
place, so that a gradient's gradient can be taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.dependencies import require

#: Never matched: what it gains from distilled images, they give to networks at large.
UNSEEN = "unet"


class Correction(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """[B, 1, H, W] → the same."""
        corrected: Tensor = images + self.body(images)
        return corrected


class _Block(nn.Module):
    """EDSR's residual block: two convolutions, no normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.second(self.first(features).relu())
        return features + changed


def srcnn() -> nn.Module:
    """Three layers, 10.9 thousand weights.

    Source: Dong et al., IEEE TPAMI 38 (2016) 295, the layout; sizes are those of our first trial.
    """
    return Correction(
        nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 1, 5, padding=2),
        )
    )


def edsr(width: int = 16, blocks: int = 3) -> nn.Module:
    """A small EDSR, 14 thousand weights; images come in at their full size.

    Source: Lim et al., CVPR Workshops 2017; reduced.
    """
    return Correction(
        nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            *(_Block(width) for _ in range(blocks)),
            nn.Conv2d(width, 1, 3, padding=1),
        )
    )


def unet() -> nn.Module:
    """MONAI's U-Net of three levels, 8-16-32, without normalisation; sides are multiples of 4."""
    nets: Any = require("monai.networks.nets", purpose="The unseen network")
    return Correction(
        nets.UNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            channels=(8, 16, 32),
            strides=(2, 2),
            num_res_units=1,
            norm=None,
        )
    )


_NETWORKS: dict[str, Callable[[], nn.Module]] = {"srcnn": srcnn, "edsr": edsr, UNSEEN: unet}


def make_network(name: str, rng: np.random.Generator) -> nn.Module:
    """The network of that name with new weights; raises ConfigError for another name."""
    if name not in _NETWORKS:
        raise ConfigError(f"unknown network {name!r}", f"Use one of {', '.join(_NETWORKS)}.")
    return draw_weights(_NETWORKS[name](), rng)


@torch.no_grad()
def draw_weights(network: nn.Module, rng: np.random.Generator) -> nn.Module:
    """New weights and biases for all convolutions, uniform as PyTorch draws them by itself.

    Not by PyTorch's own generator: all threads of a process share that one, and patients may be
    distilled side by side.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            bound = layer.weight[0].numel() ** -0.5
            for parameter in layer.parameters():
                drawn = rng.uniform(-bound, bound, tuple(parameter.shape)).astype(np.float32)
                parameter.copy_(torch.from_numpy(drawn))
    return network


@torch.no_grad()
def near_input(network: nn.Module, share: float) -> nn.Module:
    """The same network with a last convolution that adds next to nothing to the input."""
    last = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)][-1]
    last.weight.mul_(share)
    if last.bias is not None:
        last.bias.mul_(share)
    return network
