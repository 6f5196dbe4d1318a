"""The content-aware loss: structure that a corrected image and its inversion do not share.

Details of the à-trous wavelet, and features of frozen encoders, are compared, each with mean 0 and
standard deviation 1 in an image, so that contrast and sharpness may change. Encoders see images
without contrast, too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.learning.precision import move
from MedEnhanceLib.training.hqg.style_code import Features

#: Kernel of the wavelet along an axis (B3 spline), and its bands.
_SPLINE, _BANDS = (1 / 16, 1 / 4, 3 / 8, 1 / 4, 1 / 16), 3
#: Channels and seed of the random encoder; least variance of a band or feature.
_WIDTHS, _SEED, _LEAST_VARIANCE = (16, 32), 0, 1e-6


class ContentLoss:
    """Compares images by bands, a random encoder, and one that another loss trains.

    Args:
        device: as PyTorch names it.
        encoder: one more, whose weights get no gradient; None for none.
    """

    def __init__(self, device: str, encoder: Features | None = None) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            random = Features(_WIDTHS)
        move(random, device)
        self._encoders = [random] if encoder is None else [random, encoder]

    def __call__(self, result: Tensor, image: Tensor) -> Tensor:
        """Average the differences of corrected images from images, [B, J, I] each."""
        parts = [bands_of(result), bands_of(image)]
        for encoder in self._encoders:
            weights = {name: each.detach() for name, each in encoder.named_parameters()}
            for part, images in zip(parts, (result, image), strict=True):
                even = _normalized(images[:, None])[:, 0]
                part += functional_call(encoder, weights, (even,))
        pairs = zip(*parts, strict=True)
        differences = [(_normalized(a) - _normalized(b.detach())).abs().mean() for a, b in pairs]
        return torch.stack(differences).mean()


def bands_of(images: Tensor) -> list[Tensor]:
    """Return the details of the wavelet, [B, 1, J, I] each, finest first."""
    kernel = torch.tensor(_SPLINE, device=images.device, dtype=images.dtype)
    kernel = torch.outer(kernel, kernel)[None, None]
    smooth, bands = images[:, None], list[Tensor]()
    for step in (1 << band for band in range(_BANDS)):
        padded = F.pad(smooth, (2 * step,) * 4, mode="reflect")
        smoother = F.conv2d(padded, kernel, dilation=step)
        bands.append(smooth - smoother)
        smooth = smoother
    return bands


def _normalized(values: Tensor) -> Tensor:
    """Bring each channel of each image, [B, C, J, I], to mean 0 and standard deviation 1."""
    centered = values - values.mean((2, 3), keepdim=True)
    variance = centered.square().mean((2, 3), keepdim=True)
    return centered / (variance + _LEAST_VARIANCE).sqrt()
