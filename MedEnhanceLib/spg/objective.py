"""Objective of matching: distance between gradients, and distance of images from the prior.

Source: Zhao, Mopuri and Bilen, Dataset Condensation with Gradient Matching, ICLR 2021 (the form of
the distance; per layer and not per output channel is ours).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from MedEnhanceLib.runtime.dependencies import require

Gradients = Sequence[Tensor]
# Chosen in trials; no table isolates them. Measured as a whole by Benchmarks/distillation.py.
_LENGTH_WEIGHT = 0.1
#: Far below any gradient: it only prevents a division by exactly 0.
_LEAST = 1e-12
_SSIM, _GRADIENT, _VALUE = 0.5, 0.5, 0.1
#: Weight of the structure loss at the beginning and at the end. At .5 to .05 networks learned
#: little more than from the prior.
_STRUCTURE = 0.1, 0.02


def layer_gradients(loss: Tensor, network: nn.Module, *, differentiable: bool) -> list[Tensor]:
    """Compute the gradient of each layer's weights and biases, one vector for each.

    Args:
        loss: a scalar.
        network: has the layers.
        differentiable: whether the result can be differentiated again.
    """
    layers = [list(layer.parameters(recurse=False)) for layer in network.modules()]
    layers = [group for group in layers if group]
    flat = [weight for group in layers for weight in group]
    gradients = iter(
        torch.autograd.grad(
            loss, flat, create_graph=differentiable, allow_unused=True, materialize_grads=True
        )
    )
    return [torch.cat([next(gradients).flatten() for _ in group]) for group in layers]


def cosine_distance(raw: Gradients, distilled: Gradients) -> Tensor:
    """Average over layers 1 − cosine + 0.1 · (difference of log lengths)².

    The lengths keep a gradient of almost zero length from matching by direction alone. No 1e-6 is
    added to the divisor, unlike for cross-entropy: gradients of squared errors are that small.
    """
    total = raw[0].new_zeros(())
    for raw_layer, distilled_layer in zip(raw, distilled, strict=True):
        lengths = _length(raw_layer), _length(distilled_layer)
        total = total + 1 - (raw_layer * distilled_layer).sum() / (lengths[0] * lengths[1])
        total = total + _LENGTH_WEIGHT * (lengths[0].log() - lengths[1].log()).square()
    return total / len(raw)


def _length(vector: Tensor) -> Tensor:
    return (vector.square().sum() + _LEAST**2).sqrt()


def structure_loss(volume: Tensor, prior: Tensor) -> Tensor:
    """Compute 0.5 · (1 − SSIM(S, A)) + 0.5 · |∇S − ∇A|₁ + 0.1 · |S − A|₁, means over [K, J, I].

    SSIM is that of the slices, by MONAI; values in [0, 1].
    """
    losses: Any = require("monai.losses", purpose="Distilling")
    dissimilar: Tensor = losses.SSIMLoss(spatial_dims=2, data_range=1.0)(
        volume[:, None], prior[:, None]
    )
    change = volume - prior
    gradient = sum((change.diff(dim=axis).abs().mean() for axis in range(3)), change.new_zeros(()))
    return _SSIM * dissimilar + _GRADIENT * gradient + _VALUE * change.abs().mean()


def structure_weight(share: float) -> float:
    """Compute the weight after a share of the distillation, 0 to 1: it falls as a cosine."""
    start, end = _STRUCTURE
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
