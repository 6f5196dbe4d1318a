"""From a block to its latents: one encoder for the low band, one for the details."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.unicompress.implicit.config import TokenConfig
from MedEnhanceLib.unicompress.implicit.prior import haar

#: Details of a block; of thick slices there are three, the others stay zero.
_DETAILS = 7
#: Details are small; this brings them to the order of the low band.
_DETAIL_GAIN = 4.0
#: A cell in the bands.
_STRIDE = 4


class Encoders(nn.Module):
    """E_L and E_H. Reconstructed: the paper names two branches and no layers.

    No layer normalises over the block: a cell's latents are those of its surroundings, whatever
    block they are cut with.
    """

    def __init__(self, config: TokenConfig) -> None:
        super().__init__()
        self.high_band = config.high_band
        self.low = _encoder(1, config)
        self.high = _encoder(_DETAILS, config)
        #: A linear transform of each cell beside the layers: it is what is learned first.
        self.straight = nn.ModuleList(
            nn.Conv3d(channels, config.latent, _STRIDE, stride=_STRIDE)
            for channels in (1, _DETAILS)
        )
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Latents of the order of the bands; torch's own start would leave them to the biases."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, _Residual):
                module.second.weight.mul_(0.3)

    def forward(self, block: Tensor, *, thick: bool) -> tuple[Tensor, Tensor]:
        """Latents of both branches, [B, latent, k, j, i]: a cell spans 8 × 8 × 8 units.

        block: [B, 1, K, J, I], extents multiples of 8 (K of 4 where slices are thick).
        """
        low, high = haar(block, thick=thick)
        high = F.pad(high, (0, 0, 0, 0, 0, 0, 0, _DETAILS - high.shape[1]))
        if not self.high_band:
            high = torch.zeros_like(high)
        # Orthonormal bands of a constant are its value times 2 or √8.
        low = low * (0.5 if thick else 8**-0.5)
        high = _DETAIL_GAIN * high
        straight = [layer(bands) for layer, bands in zip(self.straight, (low, high), strict=True)]
        return self.low(low) + straight[0], self.high(high) + straight[1]


def _encoder(channels: int, config: TokenConfig) -> nn.Sequential:
    width = config.width
    return nn.Sequential(
        nn.Conv3d(channels, width, 3, padding=1, padding_mode="replicate"),
        nn.GELU(),
        nn.Conv3d(width, width, 2, stride=2),
        nn.GELU(),
        nn.Conv3d(width, width, 2, stride=2),
        _Residual(width),
        _Residual(width),
        nn.GELU(),
        nn.Conv3d(width, config.latent, 1),
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1, padding_mode="replicate")
        self.second = nn.Conv3d(width, width, 3, padding=1, padding_mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(F.gelu(self.first(F.gelu(x))))
        return x + y
