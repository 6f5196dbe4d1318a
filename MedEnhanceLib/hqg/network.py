"""The networks of HQG-Net: guidance encoder, enhancer, discriminator.

Implements the published idea (arXiv 2307.07829); layers and weights are reconstructed. Why no
shipped enhancer applies them by default: docs/decisions/0051-no-network-by-default.md.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.hqg.config import NetworkConfig
from MedEnhanceLib.nets.blocks import (
    ResidualBlock,
    Sharpening,
    VariationalNormalization,
    at_pixels,
    neighbors,
)
from MedEnhanceLib.nets.shrinkage import TOTAL_REACH, BlockShrinkage, without_bias

#: Sides of what goes into the enhancer must be multiples of this (unshuffle and three poolings).
STRIDE = 16
#: Places where slices exchange features, after the stem; those that gain most first.
_EXCHANGES = (
    "encoder 0",
    "encoder 3",
    "decoder 0",
    "encoder 2",
    "decoder 1",
    "encoder 1",
    "decoder 2",
)
#: Before anything is learned, an error of 2 % of the scale is expected.
_FIRST_ERROR = 0.02
#: What is learned is in units of the noise and this share of the scale.
_LEAST_STEP = 0.01
#: Side of a cell of the local mean, in pixels.
_MEAN_CELL = 8
#: Side of a cell of the noise map, in pixels of half the resolution.
_NOISE_CELL = 16
#: (E √|d|)² of a Gaussian is 0.6760 σ.
_ROOT_TO_SIGMA = 1 / 0.6760
#: The map as the stem sees it, of the order of the image.
_NOISE_GAIN = 5.0


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
        self.guidance, self.variational = config.guidance, config.variational
        self.head = nn.Linear(widths[-1], 2 * config.cue_size)
        nn.init.normal_(self.head.weight, std=0.05)
        nn.init.zeros_(self.head.bias)

    def forward(self, slices: Tensor) -> Cue:
        """slices: [B, 1, H, W], scaled intensities → Cue of [B, cue_size]."""
        features = slices
        for stage in self.stages:
            features = F.avg_pool2d(stage(features), 2)
        mean, log_variance = self.head(features.mean(dim=(2, 3))).float().chunk(2, dim=1)
        if not self.guidance:
            mean = torch.zeros_like(mean)
        if not (self.guidance and self.variational):
            return Cue(mean, torch.full_like(mean, -math.inf))
        return Cue(mean, log_variance.clamp(-8, 4))


class Estimate(NamedTuple):
    """The enhancer's output for slabs: image and expected absolute error, [B, D, H, W] each."""

    image: Tensor
    error: Tensor


class Enhancer(nn.Module):
    """E(y, v_z): a residual U-Net over slabs of slices, restyled by the cue in every decoder stage.

    All slices of a slab are enhanced together: convolutions are 2D, and in `config.context` places
    slices exchange features with their neighbors (`_EXCHANGES`). The first stage's pooling is a
    pixel-unshuffle, so that the full resolution costs little.
    First a learned shrinkage of blocks removes most of the noise (`nets.shrinkage`). The network
    sees its result and the input, as differences to the local mean in units of the local noise. Its
    output is a correction to the shrinkage's result in the same units, so that noise looks the same
    at every strength and brightness. Amplified bands of detail undo blur
    (`nets.blocks.Sharpening`). Both are zero before the training.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        condition = config.cue_size + config.content_size
        self.sees = min(config.context, 1)
        self._exchanges = set(_EXCHANGES[: max(config.context - 1, 0)])
        self.shrinkage = BlockShrinkage() if config.shrinkage else None
        images = 4 * (2 * self.sees + 1) + (4 if config.shrinkage else 0)
        self.stem = nn.Conv2d(images + 2, widths[0], 3, padding=1)
        nn.init.kaiming_normal_(self.stem.weight, a=0.2)
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
            VariationalNormalization(width, condition, config.window // (2 << level))
            if config.restyling
            else _Unstyled()
            for level, width in reversed(list(enumerate(widths)))
        )
        self.head = nn.Conv2d(widths[0], 4, 3, padding=1)
        self.sharpening = Sharpening(widths[0]) if config.sharpening else None
        self.error_head = nn.Conv2d(widths[0], 4, 3, padding=1)
        for parameter in (*self.head.parameters(), *self.error_head.parameters()):
            nn.init.zeros_(parameter)
        assert self.error_head.bias is not None
        nn.init.constant_(self.error_head.bias, math.log(_FIRST_ERROR))

    @property
    def reach(self) -> int:
        """Slices on each side that a result depends on."""
        return self.config.context + (0 if self.shrinkage is None else TOTAL_REACH)

    def encode(self, slabs: Tensor, start: Tensor | None = None) -> list[Tensor]:
        """Features of the four stages, finest first, at 1/2, 1/4, 1/8 and 1/16 of the side.

        slabs: [B, D, H, W]; start: what `start` makes of them, where it is known.
        Returns [B·D, C, h, w] each.
        """
        depth = slabs.shape[1]
        features = self.begin(slabs, self.start(slabs) if start is None else start)
        stages = []
        for number, stage in enumerate(self.encoder):
            coarser = features if number == 0 else F.avg_pool2d(features, 2)
            features = stage(coarser, self._depth(f"encoder {number}", depth))
            stages.append(features)
        return stages

    def start(self, slabs: Tensor) -> Tensor:
        """What the correction is added to: slabs after the shrinkage, or unchanged without it."""
        if self.shrinkage is None:
            return slabs.float()
        with torch.autocast(slabs.device.type, enabled=False):
            level = noise_level(slabs, reach=0)
            shrunk: Tensor = self.shrinkage(slabs.float(), level)
            return without_bias(shrunk, level) if self.config.rician else shrunk

    def begin(self, slabs: Tensor, start: Tensor, only: slice = slice(None)) -> Tensor:
        """The stem's features of all slices, or `only` some: [B, D, H, W] → [B·D, C, H/2, W/2].

        start: of those slices. Computed in full precision, as later stages cannot restore what the
        input loses by rounding.
        """
        kind = slabs.device.type
        half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        with torch.autocast(kind, enabled=False):
            mean, detail = _local_contrast(slabs.float())
            details = neighbors(detail, self.sees)[:, only].flatten(0, 1)
            if self.shrinkage is not None:
                known = (start - mean[:, only]) / _step(slabs[:, only])
                details = torch.cat([details, known.flatten(0, 1)[:, None]], dim=1)
            mean = F.avg_pool2d(mean[:, only].flatten(0, 1)[:, None], 2)
            level = noise_level(slabs, self.sees)[:, only].flatten(0, 1)[:, None]
            seen = torch.cat([F.pixel_unshuffle(details, 2), mean, _NOISE_GAIN * level], dim=1)
            features: Tensor = self.stem(seen.contiguous(memory_format=torch.channels_last))
        return features.to(half)

    def content_vector(self, slabs: Tensor) -> Tensor:
        """v_y [B, content_size]: properties of the input, such as noise level and contrast."""
        return self._content(self.encode(slabs)[-1], slabs.shape[1])

    def forward(self, slabs: Tensor, cue: Tensor, content: Tensor | None = None) -> Tensor:
        """Enhance every slice of each slab.

        Args:
            slabs: [B, D, H, W] on the network's scale, H and W multiples of STRIDE.
            cue: [B, cue_size].
            content: [B, content_size], v_y of the whole volume (then tiles and slabs agree); None
                takes each slab's own.
        Returns:
            [B, D, H, W] in float32.
        """
        start = self.start(slabs)
        return self.finish(slabs, start, self._decode(slabs, start, cue, content))

    def correct(self, slabs: Tensor, start: Tensor) -> Tensor:
        """As a call, of a network without restyling after another filter than its own.

        slabs, start: [B, D, H, W], before and after the filter. Returns the same shape.
        """
        cue = slabs.new_zeros(len(slabs), self.config.cue_size)
        return self.finish(slabs, start.float(), self._decode(slabs, start, cue, None))

    def estimate(self, slabs: Tensor, cue: Tensor, content: Tensor | None = None) -> Estimate:
        """The enhanced slabs and their expected error; arguments as for `forward`.

        The error is a Laplace distribution's mean absolute deviation [ours]. No gradient reaches
        the features, so training it does not change the image.
        """
        start = self.start(slabs)
        features = self._decode(slabs, start, cue, content)
        image = self.finish(slabs, start, features)
        return Estimate(image, self.expected_error(slabs, features))

    @staticmethod
    def join(features: Tensor, skip: Tensor) -> Tensor:
        """What a decoder stage sees: the stage before it at twice the side, and the encoder's."""
        return torch.cat([F.interpolate(features, scale_factor=2, mode="nearest"), skip], dim=1)

    def finish(self, slabs: Tensor, start: Tensor, features: Tensor) -> Tensor:
        """The last stage's features, [B·D, widths[0], H/2, W/2] → the image in float32.

        Computed in full precision: rounding here is most of the error of half precision.
        """
        with torch.autocast(features.device.type, enabled=False):
            correction = F.pixel_shuffle(self.head(features.float()), 2).view_as(slabs)
            image = start + _step(slabs) * correction
            if self.sharpening is not None:
                image += self.sharpening(start, features.float())
        return image

    def expected_error(self, slabs: Tensor, features: Tensor) -> Tensor:
        """As `finish`, the mean absolute deviation."""
        logarithm = F.pixel_shuffle(self.error_head(features.detach()), 2).float()
        return logarithm.clamp(-12, 3).exp().view_as(slabs)

    def _decode(self, slabs: Tensor, start: Tensor, cue: Tensor, content: Tensor | None) -> Tensor:
        """Features at half the side, [B·D, widths[0], H/2, W/2]."""
        depth = slabs.shape[1]
        stages = self.encode(slabs, start)
        if content is None:
            content = self._content(stages[-1], depth)
        condition = torch.cat([cue.to(content.dtype), content], dim=1)
        condition = condition.repeat_interleave(depth, dim=0)
        features: Tensor = self.restyle[0](stages[-1], condition)
        levels = range(len(self.decoder) - 1, -1, -1)
        for level, stage, restyle in zip(levels, self.decoder, self.restyle[1:], strict=True):
            joined = self.join(features, stages[level])
            features = restyle(stage(joined, self._depth(f"decoder {level}", depth)), condition)
        return features

    def _content(self, deepest: Tensor, depth: int) -> Tensor:
        vectors: Tensor = self.content(deepest.mean(dim=(2, 3)))
        averaged: Tensor = vectors.view(-1, depth, vectors.shape[1]).mean(dim=1)
        return averaged

    def exchanges_at(self, place: str) -> bool:
        """Whether slices see their neighbors in "encoder 2", say."""
        return place in self._exchanges

    def _depth(self, place: str, depth: int) -> int:
        return depth if self.exchanges_at(place) else 0


class _Unstyled(nn.Module):
    """Replaces the restyling where it is switched off."""

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        return features


def _step(slabs: Tensor) -> Tensor:
    """The unit of details and corrections: local noise and a little, [B, D, H, W]."""
    return _LEAST_STEP + F.interpolate(noise_level(slabs, reach=0), scale_factor=2, mode="nearest")


def _local_contrast(slabs: Tensor) -> tuple[Tensor, Tensor]:
    """The local mean, and what each pixel differs from it in units of `_step`; [B, D, H, W]."""
    planes = slabs.flatten(0, 1)[:, None]  # each slice by itself, as in `noise_level`
    cells = F.avg_pool2d(planes, _MEAN_CELL, ceil_mode=True, count_include_pad=False)
    mean = at_pixels(cells, planes, _MEAN_CELL).expand_as(planes).reshape(slabs.shape)
    return mean, (slabs - mean) / _step(slabs)


def noise_level(slabs: Tensor, reach: int = 1) -> Tensor:
    """A map of σ at half the side, robust against edges: [B, D, H, W] → [B, D, H/2, W/2].

    From diagonal differences of 2 × 2 pixels (the finest HH band), averaged as square roots over
    cells of 32 × 32 pixels and `reach` slices on either side. Gaussian noise without correlation
    gives its σ; other noise a value that belongs to it.
    """
    with torch.autocast(slabs.device.type, enabled=False):
        # Detached: where pixels are equal, as in air, the root has no finite gradient.
        values = slabs.detach().float()
        corners = [values[..., j::2, i::2] for j in (0, 1) for i in (0, 1)]
        root = (corners[0] - corners[1] - corners[2] + corners[3]).abs().mul(0.5).sqrt()
        cell = min(_NOISE_CELL, *root.shape[-2:])
        grid = F.avg_pool2d(root, cell, ceil_mode=True, count_include_pad=False)
        # Each slice by itself: the number of slices shows in the last bits of an interpolation.
        grid = neighbors(grid, reach).mean(dim=2).flatten(0, 1)[:, None]
        level = _ROOT_TO_SIGMA * at_pixels(grid, root.flatten(0, 1)[:, None], cell).square()
    return level.view(*root.shape[:2], *level.shape[-2:]).expand_as(root)


def make_discriminator() -> nn.Module:
    """PatchGAN of three layers (through MONAI), [B, 1, H, W] → list whose last item is scores."""
    from monai.networks.nets.patchgan_discriminator import PatchDiscriminator

    network: nn.Module = PatchDiscriminator(
        spatial_dims=2, num_layers_d=3, channels=24, in_channels=1, out_channels=1, norm="INSTANCE"
    )
    return network
