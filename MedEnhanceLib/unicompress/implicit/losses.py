"""Where a block is looked at, and how far off it is there.

Source: reconstructed. Coordinates come in cubes of 2 × 2 × 2 voxels, so that the wavelet's bands
can be compared where nothing but these coordinates was decoded.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.unicompress.implicit.prior import haar

CUBE = 8


def draw_cubes(blocks: Tensor, count: int, gradient_share: float) -> Tensor:
    """Numbers [B, count] of cubes of blocks [B, 1, K, J, I], all extents even.

    A share is drawn in proportion to the gradient's magnitude, the others evenly.
    """
    steep = round(count * gradient_share)
    magnitude = sum(F.pad(blocks.diff(dim=axis).abs(), _behind(axis)) for axis in (2, 3, 4))
    assert isinstance(magnitude, Tensor)
    weights = F.avg_pool3d(magnitude, 2).flatten(1) + 1e-6
    even = torch.randint(weights.shape[1], (len(blocks), count - steep), device=blocks.device)
    if not steep:
        return even
    return torch.cat([even, torch.multinomial(weights, steep, replacement=True)], dim=1)


def _behind(axis: int) -> tuple[int, ...]:
    """One more at the end of `axis` of five, as F.pad takes it."""
    pads = [0] * 6
    pads[2 * (4 - axis) + 1] = 1
    return tuple(pads)


def cube_voxels(cubes: Tensor, extents: tuple[int, int, int]) -> Tensor:
    """Indices (k, j, i) [B, count · 8, 3] of all voxels of cubes, cube by cube."""
    _, rows, columns = (extent // 2 for extent in extents)
    k, rest = cubes // (rows * columns), cubes % (rows * columns)
    corner = 2 * torch.stack([k, rest // columns, rest % columns], dim=-1)
    offsets = torch.tensor([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    return (corner[:, :, None] + offsets.to(cubes.device)).flatten(1, 2)


def pick(blocks: Tensor, voxels: Tensor) -> Tensor:
    """Values [B, N] of blocks [B, 1, K, J, I] at indices [B, N, 3]."""
    _, _, _, rows, columns = blocks.shape
    flat = (voxels[..., 0] * rows + voxels[..., 1]) * columns + voxels[..., 2]
    return blocks.flatten(1).gather(1, flat)


def positions_of(voxels: Tensor, *, thick: bool) -> Tensor:
    """Centres of voxels, in units, from their indices [..., 3]."""
    step = torch.tensor([2.0 if thick else 1.0, 1.0, 1.0], device=voxels.device)
    return (voxels + 0.5) * step


def reconstruction_loss(values: Tensor, wanted: Tensor, bands_weight: float) -> Tensor:
    """Squared error and, weighted, the absolute error of the wavelet's bands of each cube."""
    error = (values - wanted).view(-1, 1, 2, 2, 2)
    low, high = haar(error)
    bands = torch.cat([low, high], dim=1)
    return (error**2).mean() + bands_weight * bands.abs().mean()
