"""Undoes blur by bands of fine detail of the image itself, each as strong as a learned map says.

A correction in units of the noise is next to nothing where there is none, while to undo a blur of
one pixel the finest detail has to become fifty times as strong. Reconstructed from nothing
published: an adaptive unsharp mask of three scales. [ours]
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

#: σ of the Gaussians, in pixels, between which the bands lie; the first is above the first of them.
_SIGMAS = (0.5, 1.0, 2.0)
#: By how much a map of ones strengthens each band: the finest have to become strong.
_GAINS = (8.0, 8.0, 1.0)
_RADIUS = 6


class Sharpening(nn.Module):
    """What to add to an image so that blur is undone; nothing before anything is learned."""

    bands: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Conv2d(channels, len(_SIGMAS), 3, padding=1)
        for parameter in self.strength.parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("bands", _bands(), persistent=False)

    def forward(self, slabs: Tensor, features: Tensor) -> Tensor:
        """slabs: [B, D, H, W]; features of them, [B·D, channels, H/2, W/2] → [B, D, H, W].

        Slices stay apart, as blur is undone in plane.
        """
        planes = F.pad(slabs.flatten(0, 1)[:, None], (_RADIUS,) * 4, mode="reflect")
        detail = F.conv2d(planes, self.bands)
        strength = F.interpolate(self.strength(features), scale_factor=2, mode="nearest")
        return (strength * detail).sum(dim=1).view_as(slabs)


def _bands() -> Tensor:
    """[3, 1, 13, 13]: differences of one Gaussian and the next, the first of the image itself."""
    places = torch.arange(-_RADIUS, _RADIUS + 1.0)
    lowpass = [(places == 0).float()]
    lowpass += [torch.softmax(-0.5 * (places / sigma).square(), dim=0) for sigma in _SIGMAS]
    images = torch.stack([taps[:, None] * taps for taps in lowpass])
    gains = torch.tensor(_GAINS)[:, None, None]
    return (gains * (images[:-1] - images[1:]))[:, None]
