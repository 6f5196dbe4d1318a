"""Small parts that several networks share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.nets.shift import exchange

#: Of the second convolution at the start. At 0 the first one learns nothing at first, and a
#: training took twice the steps; at 1 features grow from block to block.
_SECOND_GAIN = 0.5


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut; no normalisation, which would undo intensities."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut: nn.Module = (
            nn.Identity()
            if channels_in == channels_out
            else nn.Conv2d(channels_in, channels_out, 1)
        )
        for convolution, gain in ((self.first, 1.0), (self.second, _SECOND_GAIN)):
            nn.init.kaiming_normal_(convolution.weight, a=0.2)
            convolution.weight.data.mul_(gain)

    def forward(self, features: Tensor, depth: int = 0, seen: Tensor | None = None) -> Tensor:
        """[B, channels_in, H, W] → [B, channels_out, H, W].

        depth: where it is not 0, the batch is slabs of so many slices, and the first convolution
        sees features of the neighbouring ones (`exchange`); the shortcut does not.
        seen: what the first convolution sees where the caller has exchanged features already.
        """
        if seen is None:
            seen = exchange(features, depth) if depth > 1 else features
        inner = F.leaky_relu(self.first(seen), 0.2)
        return F.leaky_relu(self.shortcut(features) + self.second(inner), 0.2)
