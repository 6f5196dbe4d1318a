"""The generator of a patient's volumes: it changes the shared prior by a bounded residual."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.arrays import Where

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/distillation.py.
#: Channels of the generator, and the dilation of its layers along rows and columns.
_WIDTH, _DILATIONS = 12, (1, 2, 4)
#: The most by which a voxel may leave the prior, ρ.
RHO = 0.15
#: Voxels along each axis for one of ζ.
_COARSE = 8
#: A residual counts as saturated beyond this share of rho.
_SATURATED = 0.95


class Generator(nn.Module):
    """Generator S = clip(A + ρ · tanh(U([A, ζ, grain])), 0, 1); at the beginning S = A.

    U is a network of three dilated layers, so that its output at a voxel does not depend on where a
    crop is cut; its last layer starts at zero. ζ is one learned map of an eighth of the resolution,
    the same for all volumes of the patient. U also gets a fixed map of noise, the grain, drawn from
    the seed: a smooth prior and ζ alone would give no texture.
    Three dimensions, dilation and the grain are this project's own.

    Args:
        shape: of a volume, [K, J, I].
        rng: draws the weights and the grain.
    """

    def __init__(self, shape: tuple[int, int, int], rng: np.random.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv3d(
                _WIDTH if level else 3, _WIDTH, 3, padding=(1, step, step), dilation=(1, step, step)
            )
            for level, step in enumerate(_DILATIONS)
        )
        self.last = nn.Conv3d(_WIDTH, 1, 3, padding=1)
        _draw_weights(self, rng)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self._shape = shape
        self.zeta = nn.Parameter(torch.zeros(1, 1, *(-(-side // _COARSE) for side in shape)))
        grain = rng.standard_normal(shape, dtype=np.float32)
        self.grain: Tensor
        self.register_buffer("grain", torch.from_numpy(grain))

    def forward(self, prior: Tensor) -> Tensor:
        """Generate a whole volume from the prior's, [K, J, I] in [0, 1]."""
        everywhere = slice(None), slice(None), slice(None)
        return self.add(prior, self.residual(prior, everywhere))

    def add(self, prior: Tensor, residual: Tensor) -> Tensor:
        """Change a part of the prior [k, j, i] by ρ · tanh(residual)."""
        return (prior + RHO * residual.tanh()).clamp(0, 1)

    def residual(self, prior: Tensor, where: Where) -> Tensor:
        """Compute U([A, ζ, grain]), in units of ρ, before tanh bounds it: [k, j, i].

        prior: [k, j, i], the part of a volume at `where`.
        """
        zeta = F.interpolate(self.zeta, self._shape, mode="trilinear", align_corners=False)[0, 0]
        features = torch.stack([prior, zeta[where], self.grain[where]])[None]
        for layer in self.layers:
            features = F.silu(layer(features))
        residual: Tensor = self.last(features)[0, 0]
        return residual


@torch.no_grad()
def _draw_weights(network: nn.Module, rng: np.random.Generator) -> None:
    """Draw new weights and biases for all convolutions, uniform as PyTorch does by default.

    Not by PyTorch's own generator: all threads of a process share it, and patients may be
    distilled in parallel.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            bound = layer.weight[0].numel() ** -0.5
            for parameter in layer.parameters():
                drawn = rng.uniform(-bound, bound, tuple(parameter.shape)).astype(np.float32)
                parameter.copy_(torch.from_numpy(drawn))


def saturation(residual: Tensor) -> Tensor:
    """Compute the share of voxels whose residual is saturated, so that its gradient vanishes."""
    return (residual.detach().tanh().abs() > _SATURATED).float().mean()
