"""Networks of a head: one places the anatomy, one corrects the mixture."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

#: Side of the voxels that networks see, mm.
VOXEL_MM = 2.0
#: Scale of places, mm, as networks see them.
PLACE_MM = 50.0
# Chosen in trials (decision 0075); no table isolates them. Measured by Benchmarks/segmentation.py.
#: Points of a locator's affine.
_POINTS = 32
#: Channels at half resolution that carry details to voxels.
_DETAILS = 14


class Levels(nn.Module):
    """U-Net body: [B, C, k, j, i] → [B, widths[0], k, j, i].

    Args:
        channels: of the input.
        widths: channels of each level.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        inputs = (channels, *widths[:-1])
        self.down = nn.ModuleList(_block(a, b) for a, b in zip(inputs, widths, strict=True))
        pairs = list(itertools.pairwise(widths))
        self.up = nn.ModuleList(_block(a + b, a) for a, b in pairs)

    def forward(self, values: Tensor) -> Tensor:
        """Pass all levels."""
        skips = []
        for level, block in enumerate(self.down):
            values = block(F.max_pool3d(values, 2) if level else values)
            skips.append(values)
        for level in reversed(range(len(self.up))):
            values = F.interpolate(values, size=skips[level].shape[2:], mode="nearest")
            values = self.up[level](torch.cat([values, skips[level]], 1))
        return values


class Locator(nn.Module):
    """Predicts where cells lie in the common space, and which show structures.

    Points to which heat maps gravitate give an affine, which layers that normalize each feature
    over the volume could not; the rest is predicted cell by cell.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.body = Levels(8, widths)
        self.out = nn.Conv3d(widths[0], 4, 1)
        self.heat = nn.Conv3d(widths[0], _POINTS, 1)
        self.affine = nn.Linear(3 * _POINTS, 12)
        for layer in (self.out, self.affine):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Locate the cells of an image.

        Args:
            image: [B, 1, K, J, I], 0 to 1, voxels of 4 mm; sides are even.
        Returns places [B, 3, K/2, J/2, I/2] in mm, and logits [B, K/2, J/2, I/2].
        """
        features = self.body(_to_depth(image))
        lines = [(torch.arange(n) - (n - 1) / 2) * 8 / PLACE_MM for n in features.shape[2:]]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1]).to(image.device)
        heat = self.heat(features).float().flatten(2).softmax(2)
        with torch.autocast(image.device.type, enabled=False):
            points = torch.einsum("bmn,dn->bmd", heat, grid.flatten(1))
            affine = self.affine(points.flatten(1)).view(-1, 3, 4)
            linear = affine[:, :, :3] + torch.eye(3, device=image.device)
            places = torch.einsum("bde,ekji->bdkji", linear, grid)
            places = places + affine[:, :, 3, None, None, None]
        values = self.out(features).float()
        return (values[:, :3] + places) * PLACE_MM, values[:, 3]


class Corrector(nn.Module):
    """Corrects posteriors by what is seen.

    It sees voxels of 2 mm, thinks in cells of 4 mm, and answers for voxels.
    """

    def __init__(self, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.body = Levels(8 + 2 * classes + 3, widths)
        self.spread = nn.Conv3d(widths[0], 8 * _DETAILS, 1)
        self.fine = _block(_DETAILS + 1 + classes, 16, count=1)
        self.out = nn.Conv3d(16, classes + 1, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.trust = nn.Parameter(torch.tensor(0.7))

    def forward(
        self, image: Tensor, share: Tensor, prior: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return logits of the classes [B, C, K, J, I], and of the left side [B, K, J, I].

        Args:
            image: [B, 1, K, J, I], 0 to 1; sides are multiples of 16.
            share: [B, C, K, J, I], posteriors of the mixture.
            prior: [B, C, K/2, J/2, K/2].
            places: [B, 3, K/2, J/2, I/2], mm of the common space.
        """
        coarse = [_to_depth(image), F.avg_pool3d(share, 2), prior, places / PLACE_MM]
        values = self.spread(self.body(torch.cat(coarse, 1)))
        fine = torch.cat([_to_space(values), image.to(values.dtype), share.to(values.dtype)], 1)
        logits = self.out(self.fine(fine)).float()
        side = F.interpolate(places[:, :1] / 3, size=image.shape[2:], mode="trilinear")
        return logits[:, :-1] + self.trust * (share.float() + 3e-3).log(), (logits[:, -1:] + side)[
            :, 0
        ]


def _block(inputs: int, outputs: int, count: int = 2) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(count):
        first = inputs if index == 0 else outputs
        layers.append(nn.Conv3d(first, outputs, 3, padding=1, bias=False))
        layers.append(nn.InstanceNorm3d(outputs, affine=True))
        layers.append(nn.LeakyReLU(0.01, inplace=True))
    return nn.Sequential(*layers)


def _to_depth(values: Tensor) -> Tensor:
    """Turn blocks of 2 × 2 × 2 voxels into channels."""
    b, c, k, j, i = values.shape
    parts = values.view(b, c, k // 2, 2, j // 2, 2, i // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return parts.reshape(b, c * 8, k // 2, j // 2, i // 2)


def _to_space(values: Tensor) -> Tensor:
    """Turn channels into blocks of 2 × 2 × 2 voxels."""
    b, c, k, j, i = values.shape
    parts = values.view(b, c // 8, 2, 2, 2, k, j, i).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return parts.reshape(b, c // 8, k * 2, j * 2, i * 2)


def scaled(image: Tensor, scale: tuple[float, float]) -> Tensor:
    """Map intensities from scale[0] and scale[1] to 0 and 1, and clip the others."""
    return ((image - scale[0]) / (scale[1] - scale[0])).clamp(0, 1)


def scale_of(image: Tensor) -> tuple[float, float]:
    """Return what becomes 0 and 1: the percentiles 0.5 and 99.5 of what is not 0, or the least."""
    values = image[image != 0]
    values = values[:: max(1, values.numel() // 100_000)]
    if values.numel() < 100:
        return 0.0, 1.0
    low, high = torch.quantile(values, torch.tensor([0.005, 0.995])).tolist()
    least = float(image.min())
    return (min(low, least) if least >= 0 else low), high + 1e-6 * (abs(high) + 1e-30)
