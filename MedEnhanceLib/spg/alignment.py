"""How far the gradient that distilled images give a network is from that of raw ones.

Source: Zhao, Mopuri and Bilen, Dataset Condensation with Gradient Matching, ICLR 2021 (the form);
per layer and not per output channel, and the relative distance, as our first trial found better.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Gradients = Sequence[Tensor]
_LENGTHS = 0.1
#: Far below any gradient: it only keeps what is exactly 0 from dividing.
_LEAST = 1e-12


def layer_gradients(loss: Tensor, network: nn.Module, *, differentiable: bool) -> list[Tensor]:
    """The gradient of each convolution's weights and biases, as one vector a layer.

    differentiable: whether the vectors can be differentiated again, by what `loss` was made from.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    parameters = [list(layer.parameters()) for layer in layers]
    flat = [weight for group in parameters for weight in group]
    found = iter(torch.autograd.grad(loss, flat, create_graph=differentiable))
    return [torch.cat([next(found).flatten() for _ in group]) for group in parameters]


def cosine_distance(raw: Gradients, distilled: Gradients) -> Tensor:
    """Σ over layers of 1 − cosine, and of a tenth of the squared difference of log lengths.

    The lengths keep a direction from being matched by a gradient of no size. The divisor has no
    1e-6 in it, as it has for cross-entropy: gradients of a squared error are that small.
    """
    total = raw[0].new_zeros(())
    for theirs, ours in zip(raw, distilled, strict=True):
        lengths = _length(theirs), _length(ours)
        total = total + 1 - (theirs * ours).sum() / (lengths[0] * lengths[1])
        total = total + _LENGTHS * (lengths[0].log() - lengths[1].log()).square()
    return total


def direction_distance(raw: Gradients, distilled: Gradients) -> Tensor:
    """Σ over layers of 1 − cosine: where the raw gradient is noised its length says nothing."""
    total = raw[0].new_zeros(())
    for theirs, ours in zip(raw, distilled, strict=True):
        total = total + 1 - (theirs * ours).sum() / (_length(theirs) * _length(ours))
    return total


def relative_distance(raw: Gradients, distilled: Gradients) -> Tensor:
    """Σ over layers of |raw − distilled|² / |raw|²: well posed also where gradients are noise."""
    total = raw[0].new_zeros(())
    for theirs, ours in zip(raw, distilled, strict=True):
        total = total + (theirs - ours).square().sum() / (theirs.square().sum() + _LEAST)
    return total


DISTANCES = {"cosine": cosine_distance, "relative": relative_distance}


def _length(vector: Tensor) -> Tensor:
    return (vector.square().sum() + _LEAST**2).sqrt()
