"""The networks of HQG-Net: guidance encoder, enhancer, discriminator.

Implements the published idea (arXiv 2307.07829); details reconstructed, with what we changed
recorded in docs/decisions/0004-hqg-first-form.md.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.hqg.config import NetworkConfig
from MedEnhanceLib.nets.blocks import ResidualBlock
from MedEnhanceLib.nets.normalisation import VariationalNormalisation

#: Sides of what goes into the enhancer must be multiples of this (unshuffle and three poolings).
STRIDE = 16


class Cue(NamedTuple):
    """The guide as a distribution: mean and log-variance, [B, cue_size] each."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw m + s·ε, differentiable in both."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + torch.exp(0.5 * self.log_variance) * noise.to(self.mean.device)

    def kl_divergence(self) -> Tensor:
        """To the standard normal: ½(m² + s² − 1 − log s²), [B, cue_size], nats."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance)


class GuidanceEncoder(nn.Module):
    """Reduces high-quality slices to the cue v_z; four residual + pooling stages, then linear."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        widths = (1, *config.guide_widths)
        self.stages = nn.ModuleList(
            ResidualBlock(before, after) for before, after in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], 2 * config.cue_size)
        nn.init.normal_(self.head.weight, std=0.05)
        nn.init.zeros_(self.head.bias)

    def forward(self, slices: Tensor) -> Cue:
        """slices: [B, 1, H, W], scaled intensities → Cue of [B, cue_size]."""
        features = slices
        for stage in self.stages:
            features = F.avg_pool2d(stage(features), 2)
        mean, log_variance = self.head(features.mean(dim=(2, 3))).float().chunk(2, dim=1)
        return Cue(mean, log_variance.clamp(-8, 4))


class Enhancer(nn.Module):
    """E(y, v_z): a residual U-Net over 2k + 1 slices, restyled by the cue in every decoder stage.

    The first stage's pooling is a pixel-unshuffle, so that the full resolution costs little.
    The output is the middle slice plus a correction that starts at zero.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        condition = config.cue_size + config.content_size
        self.stem = nn.Conv2d(4 * config.channels, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(
            ResidualBlock(before, after)
            for before, after in zip((widths[0], *widths[:-1]), widths, strict=True)
        )
        self.content = nn.Linear(widths[-1], config.content_size)
        self.decoder = nn.ModuleList(
            ResidualBlock(deeper + finer, finer)
            for deeper, finer in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.restyle = nn.ModuleList(
            VariationalNormalisation(width, condition, config.window // (2 << level))
            for level, width in reversed(list(enumerate(widths)))
        )
        self.head = nn.Conv2d(widths[0], 4, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def encode(self, stacks: Tensor) -> list[Tensor]:
        """Features of the four stages, finest first, at 1/2, 1/4, 1/8 and 1/16 of the side."""
        features = self.stem(F.pixel_unshuffle(stacks, 2))
        stages = []
        for level, stage in enumerate(self.encoder):
            features = stage(features if level == 0 else F.avg_pool2d(features, 2))
            stages.append(features)
        return stages

    def content_vector(self, stages: list[Tensor]) -> Tensor:
        """v_y [B, content_size]: what the input tells of itself (noise level, contrast)."""
        vector: Tensor = self.content(stages[-1].mean(dim=(2, 3)))
        return vector

    def forward(self, stacks: Tensor, cue: Tensor, content: Tensor | None = None) -> Tensor:
        """Enhance the middle slice of each stack.

        stacks: [B, 2k + 1, H, W], H and W multiples of STRIDE. cue: [B, cue_size].
        content: [B, content_size], v_y where it is known for the whole volume (then tiles and
        slices agree); None takes each stack's own. Returns [B, 1, H, W] in float32.
        """
        stages = self.encode(stacks)
        if content is None:
            content = self.content_vector(stages)
        condition = torch.cat([cue.to(content.dtype), content], dim=1)
        features = self.restyle[0](stages[-1], condition)
        for stage, restyle, skip in zip(
            self.decoder, self.restyle[1:], stages[-2::-1], strict=True
        ):
            larger = F.interpolate(features, scale_factor=2, mode="nearest")
            features = restyle(stage(torch.cat([larger, skip], dim=1)), condition)
        correction = F.pixel_shuffle(self.head(features), 2).float()
        middle = self.config.context
        return stacks[:, middle : middle + 1].float() + correction


def make_discriminator() -> nn.Module:
    """PatchGAN of three layers (through MONAI), [B, 1, H, W] → list whose last item is scores."""
    from monai.networks.nets.patchgan_discriminator import PatchDiscriminator

    network: nn.Module = PatchDiscriminator(
        spatial_dims=2, num_layers_d=3, channels=24, in_channels=1, out_channels=1, norm="INSTANCE"
    )
    return network
