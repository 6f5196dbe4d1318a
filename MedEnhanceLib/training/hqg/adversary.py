"""The adversary: a discriminator of high-quality and corrected patches, with its optimizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.learning.training import set_learning_rate
from MedEnhanceLib.training.hqg.style_code import Features

# Chosen by hand (decision 0111).
#: Channels of the discriminator, weight of the penalty on its gradient, and decays of Adam.
_WIDTHS, _PENALTY, _BETAS = (32, 64, 96), 1.0, (0.0, 0.99)


class Adversary(nn.Module):
    """A discriminator that learns beside the network, with a non-saturating loss.

    learning_rate: its peak.
    """

    def __init__(self, learning_rate: float) -> None:
        super().__init__()
        self.features = Features(_WIDTHS)
        self.last = nn.Conv2d(_WIDTHS[-1], 1, 3, padding=1)
        self._learning_rate = learning_rate
        self.optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate, betas=_BETAS)

    def forward(self, images: Tensor) -> Tensor:
        """Judge about 40 pixels around each place: [B, J, I] → [B, M, W], high for quality."""
        judged: Tensor = self.last(self.features(images)[-1])[:, 0]
        return judged

    def learn(self, real: Tensor, fake: Tensor, number: int, total: int) -> Tensor:
        """Make a step of the discriminator; returns its loss.

        Args:
            real: patches of high quality, [B, J, I].
            fake: corrected ones, [B, J, I].
            number: of the step, from 0.
            total: number of all steps.
        """
        real = real.detach().requires_grad_()
        judged = self(real)
        (slope,) = torch.autograd.grad(judged.mean((1, 2)).sum(), real, create_graph=True)
        error = F.softplus(-judged).mean() + F.softplus(self(fake.detach())).mean()
        penalty = slope.square().sum((1, 2)).mean()  # R1
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(error + _PENALTY / 2 * penalty)
        set_learning_rate(self.optimizer, self._learning_rate, number, total)
        self.optimizer.step()
        return error.detach()

    def loss(self, fake: Tensor) -> Tensor:
        """Compute what corrected patches, [B, J, I], lose by being found out."""
        return F.softplus(-self(fake)).mean()
