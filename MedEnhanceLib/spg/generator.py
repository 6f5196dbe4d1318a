"""The personalised generator: a patient's images as a bounded change of the shared prior."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.spg.config import GRID, GeneratorConfig
from MedEnhanceLib.spg.networks import draw_weights

#: A residual counts as saturated beyond this share of rho.
_SATURATED = 0.95


class Changer(nn.Module, ABC):
    """Anything that makes images out of a prior by a change that is learned."""

    @abstractmethod
    def wish(self, prior: Tensor) -> Tensor:
        """The change that is learned, before it is bounded: [M, 1, H, W]."""

    @abstractmethod
    def moved(self, prior: Tensor, wish: Tensor) -> Tensor:
        """The prior [M, 1, H, W], changed by a wish: in [0, 1]."""

    def forward(self, prior: Tensor) -> Tensor:
        """[M, 1, H, W] in [0, 1] → the patient's images, the same shape and range."""
        return self.moved(prior, self.wish(prior))


class Generator(Changer):
    """S = clip(A + ρ · tanh(U([A, ζ])), 0, 1); at the beginning S = A.

    U is a U-Net of three levels without normalisation, whose last layer starts at zero. ζ is one
    learned map of an eighth of the resolution, the same for all images of the patient. U also sees
    a fixed map of noise, the grain, drawn from the seed: out of a smooth average alone, and ζ,
    it could make no texture. Source: design, spg part 4 (reconstructed); the grain is ours.
    """

    def __init__(
        self, config: GeneratorConfig, count: int, size: Sequence[int], rng: np.random.Generator
    ) -> None:
        """count, size: of the images, M and [H, W]; rng: for the weights and the grain."""
        super().__init__()
        self._rho = config.rho
        narrow, middle, wide = config.widths
        inputs = 3 if config.grain else 2
        self.down = nn.ModuleList(
            [_pair(inputs, narrow), _pair(narrow, middle), _pair(middle, wide)]
        )
        self.up = nn.ModuleList([_pair(wide + middle, middle), _pair(middle + narrow, narrow)])
        self.last = nn.Conv2d(narrow, 1, 3, padding=1)
        draw_weights(self, rng)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.zeta = nn.Parameter(torch.zeros(1, 1, size[0] // GRID, size[1] // GRID))
        grain = rng.standard_normal((count, 1, *size), dtype=np.float32) if config.grain else None
        self.grain: Tensor | None
        self.register_buffer("grain", None if grain is None else torch.from_numpy(grain))

    def moved(self, prior: Tensor, wish: Tensor) -> Tensor:
        """The prior, changed by ρ · tanh of a wish."""
        return (prior + self._rho * wish.tanh()).clamp(0, 1)

    def wish(self, prior: Tensor) -> Tensor:
        """What U would change the prior by, in units of ρ, before tanh bounds it: [M, 1, H, W]."""
        size = (prior.shape[-2], prior.shape[-1])
        zeta = F.interpolate(self.zeta, size=size, mode="bilinear", align_corners=False)
        inputs = [prior, zeta.expand_as(prior)]
        if self.grain is not None:
            inputs.append(self.grain)
        fine = self.down[0](torch.cat(inputs, dim=1))
        middle = self.down[1](F.avg_pool2d(fine, 2))
        features = self.down[2](F.avg_pool2d(middle, 2))
        for pair, beside in zip(self.up, (middle, fine), strict=True):
            grown = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = pair(torch.cat([grown, beside], dim=1))
        wish: Tensor = self.last(features)
        return wish


def saturation(wish: Tensor) -> Tensor:
    """The share of pixels whose change is as large as it can be, and learns no more."""
    return (wish.detach().tanh().abs() > _SATURATED).float().mean()


def _pair(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(outward, outward, 3, padding=1),
        nn.SiLU(),
    )
