"""From a block to its latents: one encoder for the low band, one for the details."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.unicompress.implicit.config import CELL, TokenConfig
from MedEnhanceLib.unicompress.implicit.fusion import cosines
from MedEnhanceLib.unicompress.implicit.prior import haar, inverse_haar
from MedEnhanceLib.unicompress.implicit.quantiser import principal_axes

#: Details of a block; of thick slices there are three, the others stay zero.
_DETAILS = 7
#: Details are small; this brings them to the order of the low band.
_DETAIL_GAIN = 4.0
#: Standard deviation of the largest component when learning begins.
_SPREAD = 2.0
_RESIDUALS = 3
#: A cell in the bands.
_STRIDE = 4


class Encoders(nn.Module):
    """E_L and E_H. Reconstructed: the paper names two branches and no layers.

    No layer normalises over the block: a cell's latents are those of its surroundings, whatever
    block they are cut with.
    """

    def __init__(self, config: TokenConfig) -> None:
        super().__init__()
        self.high_band, self.latent = config.high_band, config.latent
        self.layers = nn.ModuleList(_encoder(channels, config) for channels in (1, _DETAILS))
        #: A linear transform of each cell beside the layers: it begins as the best there is.
        self.straight = nn.ModuleList(
            nn.Conv3d(channels, config.latent, _STRIDE, stride=_STRIDE)
            for channels in (1, _DETAILS)
        )
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Layers add nothing until they have learned something."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        for layers in self.layers:
            assert isinstance(layers, nn.Sequential)
            last = layers[-1]
            assert isinstance(last, nn.Conv3d)
            nn.init.zeros_(last.weight)
        for module in self.modules():
            if isinstance(module, _Residual):
                module.second.weight.mul_(0.3)

    @torch.no_grad()
    def start(self, batches: Sequence[tuple[Tensor, bool]]) -> None:
        """Make latents the principal components of cells of blocks [B, 1, K, J, I], thick or not.

        What is coded first is then what a linear transform would keep first.
        """
        for branch, straight in enumerate(self.straight):
            found = [self._bands(block, thick)[branch] for block, thick in batches]
            cells = torch.cat([_cells(bands) for bands in found])
            if not cells.any():  # without the high band
                continue
            axes = principal_axes(cells)[: self.latent]
            rows = axes * (_SPREAD / (cells @ axes[0]).std())
            assert isinstance(straight, nn.Conv3d)
            assert straight.bias is not None
            straight.weight.zero_()
            straight.weight[: len(rows)] = rows.view(-1, *straight.weight.shape[1:])
            straight.bias.zero_()

    def forward(self, block: Tensor, *, thick: bool) -> tuple[Tensor, Tensor]:
        """Latents of both branches, [B, latent, k, j, i]: a cell spans 8 × 8 × 8 units.

        block: [B, 1, K, J, I], extents multiples of 8 (K of 4 where slices are thick).
        """
        bands = self._bands(block, thick)
        low, high = (
            layers(one) + straight(one)
            for layers, straight, one in zip(self.layers, self.straight, bands, strict=True)
        )
        return low, high

    @torch.no_grad()
    def amplitudes(self, branch: int) -> Tensor:
        """The cosines [latent, latent] of which each latent is, by the linear transform alone."""
        straight = self.straight[branch]
        assert isinstance(straight, nn.Conv3d)
        rows = straight.weight.flatten(1)
        undone = torch.linalg.pinv(rows).T.view(-1, *straight.weight.shape[1:])
        gain = 8**-0.5 * (_DETAIL_GAIN if branch else 1.0)
        low = undone if not branch else torch.zeros_like(undone[:, :1])
        high = undone if branch else torch.zeros_like(undone).expand(-1, _DETAILS, -1, -1, -1)
        cells = inverse_haar(low / gain, high / gain)[:, 0]
        centres = (torch.arange(CELL, device=rows.device) + 0.5) / CELL - 0.5
        places = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"), dim=-1)
        basis = cosines(places, self.latent)
        found: Tensor = (cells.flatten(1) @ basis.flatten(0, 2)) / (basis**2).sum(dim=(0, 1, 2))
        return found.T

    def _bands(self, block: Tensor, thick: bool) -> tuple[Tensor, Tensor]:
        low, high = haar(block, thick=thick)
        high = F.pad(high, (0, 0, 0, 0, 0, 0, 0, _DETAILS - high.shape[1]))
        if not self.high_band:
            high = torch.zeros_like(high)
        # Orthonormal bands of a constant are its value times 2 or √8.
        gain = 0.5 if thick else 8**-0.5
        return gain * low, _DETAIL_GAIN * gain * high


def _encoder(channels: int, config: TokenConfig) -> nn.Sequential:
    """A cell's patch of bands at once: layers at their full size would cost most of a step."""
    return nn.Sequential(
        nn.Conv3d(channels, config.width, _STRIDE, stride=_STRIDE),
        *(_Residual(config.width) for _ in range(_RESIDUALS)),
        nn.GELU(),
        nn.Conv3d(config.width, config.latent, 1),
    )


def _cells(bands: Tensor) -> Tensor:
    """Bands [B, C, K, J, I] → what each cell spans of them, [N, C · 64]."""
    batch, channels, *extents = bands.shape
    counts = [extent // _STRIDE for extent in extents]
    sides = [part for count in counts for part in (count, _STRIDE)]
    split = bands.view(batch, channels, *sides)
    return split.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(-1, channels * _STRIDE**3)


class _Residual(nn.Module):
    """Looks at the cells around in few channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        few = max(1, width // 4)
        self.first = nn.Conv3d(width, few, 3, padding=1, padding_mode="replicate")
        self.second = nn.Conv3d(few, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(F.gelu(self.first(F.gelu(x))))
        return x + y
