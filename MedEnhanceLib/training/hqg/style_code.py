"""The code of a high-quality image, which changes the channels of the network that corrects.

    relu(W x + b) → relu(s · (W x + b) + t)      s = 1 + A z, t = B z, z: code

That is in the first convolution of each residual block. A constant code folds into weights and
biases (s W, s b + t), so that a trained network is a plain `ViewNet`. Source: variational
normalization of HQG-Net (arXiv 2307.07829); encoder and place are ours.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.learning.unet import ResidualBlock
from MedEnhanceLib.scanner.corrector.view_network import ViewNet

# Chosen by hand (decision 0111).
#: Numbers of a code, and channels of the encoder.
CODE, _WIDTHS = 16, (16, 32, 64)
#: Limits of the logarithm of the variance of a code, and its start: nearly no noise.
_LOG_VARIANCE, _START = (-8.0, 2.0), -4.0


class Features(nn.Module):
    """Convolutions that halve the sides of an image.

    widths: channels of each.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        pairs = zip((1, *widths[:-1]), widths, strict=True)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairs)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features of each layer, [B, C, M, W], of images [B, J, I]."""
        values, features = images[:, None], list[Tensor]()
        for layer in self.layers:
            values = F.leaky_relu(layer(values), 0.2)
            features.append(values)
        return features


class StyleEncoder(nn.Module):
    """Encodes images as means and standard deviations of features, which no place is left in."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Features(_WIDTHS)
        self.mean = nn.Linear(2 * _WIDTHS[-1], CODE)
        self.log_variance = nn.Linear(2 * _WIDTHS[-1], CODE)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, _START)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the codes, [B, 16] each, of images [B, J, I]."""
        last = self.features(images)[-1].flatten(2)
        # The root has no slope at 0.
        spread = (last.var(2, unbiased=False) + 1e-6).sqrt()
        pooled = torch.cat([last.mean(2), spread], dim=1)
        return self.mean(pooled), self.log_variance(pooled).clamp(*_LOG_VARIANCE)


class CodedNetwork(nn.Module):
    """A network of slices with the encoder of codes, and what codes do to its channels."""

    def __init__(self, network: ViewNet) -> None:
        super().__init__()
        self.network, self.encoder = network, StyleEncoder()
        widths = (block.one.out_channels for block in _blocks(network))
        self.modulations = nn.ModuleList(nn.Linear(CODE, 2 * width, bias=False) for width in widths)
        for weight in self.modulations.parameters():
            nn.init.zeros_(weight)

    def forward(self, images: Sequence[Tensor], code: Tensor | None = None) -> Tensor:
        """Correct slices.

        images: noisy and filtered ones, and σ, as of `ViewNet.forward`. code: of each, [B, 16];
        None: without.
        """
        with nullcontext() if code is None else self._modulated(code):
            corrected: Tensor = self.network(*images)
        return corrected

    def folded(self, images: Tensor | None) -> ViewNet:
        """Return a plain network into which a code is folded.

        images: [B, J, I], whose mean code it is; None: without a code.
        """
        plain = copy.deepcopy(self.network)
        if images is None:
            return plain
        with torch.no_grad():
            code = self.encoder(images)[0].mean(0, keepdim=True)
            for block, (scale, shift) in zip(_blocks(plain), self._changes(code), strict=True):
                block.one.weight.mul_(scale[0][:, None, None, None])
                assert block.one.bias is not None
                block.one.bias.mul_(scale[0]).add_(shift[0])
        return plain

    @contextmanager
    def _modulated(self, code: Tensor) -> Iterator[None]:
        """Change channels by the code of each image within the context."""
        pairs = zip(_blocks(self.network), self._changes(code), strict=True)
        hooks = [
            block.one.register_forward_hook(partial(_modulate, *change)) for block, change in pairs
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _changes(self, code: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return scale and shift of the channels of each block, [B, C]."""
        halves = [each(code).chunk(2, dim=1) for each in self.modulations]
        return [(1 + scale, shift) for scale, shift in halves]


def drawn(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Draw codes of a mean and log-variance."""
    return mean + torch.randn_like(mean) * (0.5 * log_variance).exp()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Average the Kullback-Leibler divergence of codes from a standard normal distribution."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def _blocks(network: ViewNet) -> list[ResidualBlock]:
    return [each for each in network.modules() if isinstance(each, ResidualBlock)]


def _modulate(
    scale: Tensor, shift: Tensor, _layer: nn.Module, _inputs: tuple[Tensor, ...], values: Tensor
) -> Tensor:
    return scale[:, :, None, None] * values + shift[:, :, None, None]
