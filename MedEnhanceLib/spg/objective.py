"""What a match minimizes: the distance between gradients, and how far images leave the prior.

With differential privacy the gradient of a patient's raw images is clipped, all layers together,
and Gaussian noise is added before it is compared with anything: it is the only information that
leaves the raw images, and further computation on the noised gradient reveals no more. The noise
comes from a secret that is never published: whoever knows it could subtract the noise.

Source: Zhao, Mopuri and Bilen, Dataset Condensation with Gradient Matching, ICLR 2021 (the form of
the distance; per layer and not per output channel, and the relative distance, are ours). The
Gaussian mechanism: Dwork and Roth 2014, appendix A; clipping: Abadi et al., CCS 2016. That the clip
is relative to the gradient of the distilled images, which is public, is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.privacy import noisy_steps

Gradients = Sequence[Tensor]
_LENGTH_WEIGHT = 0.1
#: Far below any gradient: it only prevents a division by exactly 0.
_LEAST = 1e-12
_SSIM, _GRADIENT, _VALUE = 0.5, 0.5, 0.1


def layer_gradients(loss: Tensor, network: nn.Module, *, differentiable: bool) -> list[Tensor]:
    """The gradient of each convolution's weights and biases.

    Args:
        loss: a scalar.
        network: what the loss was computed with.
        differentiable: whether the result can be differentiated again.
    Returns:
        One vector for each convolution.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    parameters = [list(layer.parameters()) for layer in layers]
    flat = [weight for group in parameters for weight in group]
    found = iter(torch.autograd.grad(loss, flat, create_graph=differentiable))
    return [torch.cat([next(found).flatten() for _ in group]) for group in parameters]


def cosine_distance(raw: Gradients, distilled: Gradients, *, with_lengths: bool = True) -> Tensor:
    """Σ over layers of 1 − cosine, and of 0.1 · (difference of log lengths)².

    The lengths prevent that a gradient of nearly no size matches by its direction. The divisor has
    no 1e-6 as it has for cross-entropy: gradients of a squared error are that small.
    """
    total = raw[0].new_zeros(())
    for theirs, ours in zip(raw, distilled, strict=True):
        lengths = _length(theirs), _length(ours)
        total = total + 1 - (theirs * ours).sum() / (lengths[0] * lengths[1])
        if with_lengths:
            total = total + _LENGTH_WEIGHT * (lengths[0].log() - lengths[1].log()).square()
    return total


def relative_distance(raw: Gradients, distilled: Gradients) -> Tensor:
    """Σ over layers of |raw − distilled|² / |raw|²: well posed also where gradients are noise."""
    total = raw[0].new_zeros(())
    for theirs, ours in zip(raw, distilled, strict=True):
        total = total + (theirs - ours).square().sum() / (theirs.square().sum() + _LEAST)
    return total


DISTANCES = {"cosine": cosine_distance, "relative": relative_distance}
#: With differential privacy: the length of a noised gradient says nothing.
NOISED_DISTANCES = DISTANCES | {"cosine": partial(cosine_distance, with_lengths=False)}


def _length(vector: Tensor) -> Tensor:
    return (vector.square().sum() + _LEAST**2).sqrt()


class Noising:
    """Clips the gradients of one patient and adds noise; the same step draws the same noise.

    Args:
        config: with `dp`.
        secret: of the run; the noise is drawn from it.
        patient: number in the run; keeps the noise of patients independent.
    """

    def __init__(self, config: DistillConfig, secret: int, patient: int) -> None:
        assert config.dp is not None
        self._clip = config.dp.clip
        self._multiplier = noisy_steps(config).noise_multiplier
        self._seed = (secret, patient)

    def __call__(self, raw: Gradients, distilled: Gradients, number: int) -> list[Tensor]:
        """The clipped and noised gradient of step `number`.

        Args:
            raw: gradient of the patient's raw images, one vector a layer.
            distilled: gradient of the distilled images; the clip is in units of its norm.
            number: of the step.
        Returns:
            One vector a layer, as `raw`.
        """
        most = self._clip * norm([layer.detach() for layer in distilled])
        rng = np.random.default_rng((*self._seed, number))
        deviation = self._multiplier * most
        return [layer + deviation * _normal(layer, rng) for layer in clipped(raw, most)]


def norm(gradients: Gradients) -> Tensor:
    """The norm of all layers together."""
    return torch.stack([layer.square().sum() for layer in gradients]).sum().sqrt()


def clipped(gradients: Gradients, most: Tensor) -> list[Tensor]:
    """The same direction, with a norm of at most `most` over all layers.

    Zeros for a gradient that is not finite: it has no norm to be clipped to.
    """
    length = norm(gradients)
    if not bool(torch.isfinite(length)):
        return [torch.zeros_like(layer) for layer in gradients]
    share = (most / length.clamp_min(torch.finfo(length.dtype).tiny)).clamp_max(1)
    return [layer * share for layer in gradients]


def _normal(like: Tensor, rng: np.random.Generator) -> Tensor:
    drawn = rng.standard_normal(tuple(like.shape))
    return torch.from_numpy(drawn).to(like.device, like.dtype)


class StructureLoss:
    """0.5 · (1 − SSIM(S, A)) + 0.5 · |∇S − ∇A|₁ + 0.1 · |S − A|₁, means over [M, 1, H, W].

    Source: design, spg part 5 (reconstructed); SSIM by MONAI, values in [0, 1].
    """

    def __init__(self) -> None:
        losses: Any = require("monai.losses", purpose="Distilling")
        self._ssim = losses.SSIMLoss(spatial_dims=2, data_range=1.0)

    def __call__(self, images: Tensor, prior: Tensor) -> Tensor:
        """A scalar; 0 where images and prior are equal."""
        value = (images - prior).abs().mean()
        gradient = sum(
            ((images - prior).diff(dim=axis).abs().mean() for axis in (-2, -1)),
            start=images.new_zeros(()),
        )
        dissimilar: Tensor = self._ssim(images, prior)
        return _SSIM * dissimilar + _GRADIENT * gradient + _VALUE * value


def structure_weight(share: float, start: float, end: float) -> float:
    """The weight after a share of the distillation, 0 to 1: a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
