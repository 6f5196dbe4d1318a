"""The networks: the one whose gradients are matched, and the generator of a patient's images.

The one that is matched takes and gives [B, 1, H, W] and adds a correction to its input. It does not
normalize and nothing works in place, so that a gradient can be differentiated again. The generator
changes the shared prior by a bounded residual.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.spg.config import GRID

#: Channels of the generator's three levels, and the most by which a pixel may leave the prior, ρ.
_WIDTHS = (16, 32, 64)
RHO = 0.15
#: A residual counts as saturated beyond this share of rho.
_SATURATED = 0.95


class Correction(nn.Module):
    """Network that adds body(x) to x."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 1, H, W] → the same shape."""
        corrected: Tensor = images + self.body(images)
        return corrected


def make_network(rng: np.random.Generator) -> Correction:
    """Make SRCNN with new weights: three layers, 10.9 thousand weights.

    Source: Dong et al., IEEE TPAMI 38 (2016) 295, the layout; the sizes are ours.
    """
    network = Correction(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 1, 5, padding=2),
    )
    draw_weights(network, rng)
    return network


@torch.no_grad()
def draw_weights(network: nn.Module, rng: np.random.Generator) -> None:
    """Draw new weights and biases for all convolutions, uniform as PyTorch does by default.

    Not by PyTorch's own generator: all threads of a process share it, and patients may be
    distilled in parallel.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            bound = layer.weight[0].numel() ** -0.5
            for parameter in layer.parameters():
                drawn = rng.uniform(-bound, bound, tuple(parameter.shape)).astype(np.float32)
                parameter.copy_(torch.from_numpy(drawn))


class Generator(nn.Module):
    """Generator S = clip(A + ρ · tanh(U([A, ζ])), 0, 1) of M images; at the beginning S = A.

    U is a U-Net of three levels without normalization, whose last layer starts at zero. ζ is one
    learned map of an eighth of the resolution, the same for all images of the patient. U also sees
    a fixed map of noise, the grain, drawn from the seed: from a smooth average and ζ alone it could
    make no texture. Source: design, spg part 4 (reconstructed); the grain is ours.
    """

    def __init__(self, count: int, size: Sequence[int], rng: np.random.Generator) -> None:
        super().__init__()
        narrow, middle, wide = _WIDTHS
        self.down = nn.ModuleList([_pair(3, narrow), _pair(narrow, middle), _pair(middle, wide)])
        self.up = nn.ModuleList([_pair(wide + middle, middle), _pair(middle + narrow, narrow)])
        self.last = nn.Conv2d(narrow, 1, 3, padding=1)
        draw_weights(self, rng)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.zeta = nn.Parameter(torch.zeros(1, 1, size[0] // GRID, size[1] // GRID))
        grain = rng.standard_normal((count, 1, *size), dtype=np.float32)
        self.grain: Tensor
        self.register_buffer("grain", torch.from_numpy(grain))

    def forward(self, prior: Tensor) -> Tensor:
        """Generate the patient's images from the prior, [M, 1, H, W] in [0, 1]."""
        return self.add(prior, self.residual(prior))

    def add(self, prior: Tensor, residual: Tensor) -> Tensor:
        """Change the prior [M, 1, H, W] by ρ · tanh(residual)."""
        return (prior + RHO * residual.tanh()).clamp(0, 1)

    def residual(self, prior: Tensor) -> Tensor:
        """Compute U([A, ζ]), in units of ρ, before tanh bounds it: [M, 1, H, W]."""
        size = (prior.shape[-2], prior.shape[-1])
        zeta = F.interpolate(self.zeta, size=size, mode="bilinear", align_corners=False)
        inputs = torch.cat([prior, zeta.expand_as(prior), self.grain], dim=1)
        fine = self.down[0](inputs)
        middle = self.down[1](F.avg_pool2d(fine, 2))
        features = self.down[2](F.avg_pool2d(middle, 2))
        for pair, beside in zip(self.up, (middle, fine), strict=True):
            grown = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = pair(torch.cat([grown, beside], dim=1))
        residual: Tensor = self.last(features)
        return residual


def saturation(residual: Tensor) -> Tensor:
    """Compute the share of pixels whose residual is as large as it can be, and stops learning."""
    return (residual.detach().tanh().abs() > _SATURATED).float().mean()


def _pair(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(outward, outward, 3, padding=1),
        nn.SiLU(),
    )
