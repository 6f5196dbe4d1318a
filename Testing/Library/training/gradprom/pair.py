"""A small network with two losses that agree in some steps and not in others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from MedEnhanceLib.training.gradprom.gate import GradientGate


class OpenGate(GradientGate):
    """Adds the gradient of the task at any cosine: plain joint training."""

    def admits(self, cosine: float) -> bool:
        return True


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def losses(model: nn.Module, step: int) -> tuple[Tensor, Tensor]:
    """Of a batch of 16."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(16, 6, generator=generator)
    requests = torch.randn(2, 16, 4, generator=generator)
    output = model(images)
    return (output - requests[0]).square().mean(), (output - requests[1]).square().mean()


def flat(gradients: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


def alone(loss: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters()), retain_graph=True))


def descend(model: nn.Module, gradients: Sequence[Tensor | None], rate: float = 0.1) -> None:
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            if gradient is not None:
                parameter -= rate * gradient
