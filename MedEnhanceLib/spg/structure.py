"""What keeps distilled images near the prior's structure."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from MedEnhanceLib.runtime.dependencies import require

_SSIM, _GRADIENT, _VALUE = 0.5, 0.5, 0.1


class StructureLoss:
    """0.5 · (1 − SSIM(S, A)) + 0.5 · |∇S − ∇A|₁ + 0.1 · |S − A|₁, means over [M, 1, H, W].

    Source: design, spg part 5 (reconstructed); SSIM by MONAI, values in [0, 1].
    """

    def __init__(self) -> None:
        losses: Any = require("monai.losses", purpose="Distilling")
        self._ssim = losses.SSIMLoss(spatial_dims=2, data_range=1.0)

    def __call__(self, images: Tensor, prior: Tensor) -> Tensor:
        """A scalar; 0 where both are the same."""
        value = (images - prior).abs().mean()
        gradient = sum(
            ((images - prior).diff(dim=axis).abs().mean() for axis in (-2, -1)),
            start=images.new_zeros(()),
        )
        dissimilar: Tensor = self._ssim(images, prior)
        return _SSIM * dissimilar + _GRADIENT * gradient + _VALUE * value


def structure_weight(share: float, start: float, end: float) -> float:
    """The weight after a share of the distillation, 0 to 1: a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
