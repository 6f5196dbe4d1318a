"""A network that sees whole slices, for errors that reach beyond blocks.

A U-Net gets five neighboring slices, before and after a filter or an inversion, relative to the
noise, and predicts the error of what was done in the middle one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.learning.precision import mixed_precision
from MedEnhanceLib.learning.unet import ResidualUNet
from MedEnhanceLib.scanner.corrector.config import ViewConfig
from MedEnhanceLib.scanner.corrector.view_inputs import (
    AROUND,
    IMAGES,
    LEAST_SIGMA,
    NEIGHBORS,
    TYPICAL_SIGMA,
    TYPICAL_VALUE,
)


class ViewNet(ResidualUNet):
    """U-Net that predicts the error of filtered slices, in σ."""

    def __init__(self, config: ViewConfig) -> None:
        super().__init__(IMAGES, config.widths, config.depth)
        self.config = config

    def forward(self, noisy: Tensor, filtered: Tensor, sigma: Tensor) -> Tensor:
        """Correct filtered slices.

        Args:
            noisy: [B, 5, J, I], on the network's scale.
            filtered: the same, filtered.
            sigma: [B, J, I], of the noise in the middle slice.
        Returns the middle slices, [B, J, I].
        """
        middle, unit = filtered[:, NEIGHBORS], sigma.clamp_min(LEAST_SIGMA)
        around, half = middle[:, None], AROUND // 2
        for size, padding in (
            ((AROUND, 1), (0, 0, half, half)),
            ((1, AROUND), (half, half, 0, 0)),
        ):
            around = F.avg_pool2d(F.pad(around, padding, mode="replicate"), size, stride=1)
        removed = (noisy - filtered) / unit[:, None]
        relative = torch.asinh((filtered - around) / unit[:, None])
        kind = [(unit / TYPICAL_SIGMA).log(), middle / TYPICAL_VALUE]
        images = torch.cat([removed, relative, torch.stack(kind, dim=1)], dim=1)
        return middle + sigma * self.change(images)

    def corrected(self, images: Sequence[Tensor], top: float) -> Tensor:
        """Correct a slice, [J, I].

        Args:
            images: noisy and filtered slices, [5, J, I], and σ, as of `forward`, but without B.
            top: what is 1 on the network's scale.
        """
        with torch.inference_mode(), mixed_precision(str(images[0].device)):
            result: Tensor = self(*(each[None] / top for each in images))[0] * top
        return result
