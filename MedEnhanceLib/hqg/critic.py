"""The critic of enhanced images: it learns to tell them from high-quality ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.hqg import losses
from MedEnhanceLib.hqg.config import LossConfig
from MedEnhanceLib.hqg.network import make_discriminator
from MedEnhanceLib.nets.training import finite_gradients, frozen

_RATE = 2e-4

#: Averages the gradients of parameters over the processes of a training.
Share = Callable[[Iterable[nn.Parameter]], None]


class PastImages:
    """Enhanced images of earlier steps, so that the critic does not forget them.

    Source: Shrivastava et al., arXiv 1612.07828.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def mix(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """images: [B, 1, H, W]. Half of them, once there are enough, are exchanged for old ones."""
        if not self.size:
            return images
        shown = []
        for image in images:
            if len(self.images) < self.size:
                self.images.append(image.clone())
                shown.append(image)
            elif rng.random() < 0.5:
                place = int(rng.integers(self.size))
                shown.append(self.images[place])
                self.images[place] = image.clone()
            else:
                shown.append(image)
        return torch.stack(shown)

    def state_dict(self) -> dict[str, Tensor]:
        """All images in one tensor; nothing where there are none."""
        return {"images": torch.stack(self.images)} if self.images else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        self.images = list(state["images"]) if "images" in state else []


class Critic:
    """A PatchGAN with least squares, its optimiser and the images it has seen."""

    def __init__(self, config: LossConfig, device: str, autocast: torch.autocast) -> None:
        self.network = make_discriminator().to(device)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=_RATE, betas=(0.5, 0.999))
        self.past = PastImages(config.past_images)
        self._config, self._autocast = config, autocast
        self._criterion = losses.adversarial_loss()

    def teach(self, enhanced: Tensor, real: Tensor, rng: np.random.Generator, share: Share) -> None:
        """One step of its own on images [B, 1, H, W] each; left out where it is not finite."""
        shown = self.past.mix(enhanced.detach().float(), rng)
        loss: Tensor = self._criterion(
            self._scores(shown), target_is_real=False, for_discriminator=True
        ) + self._criterion(self._scores(real), target_is_real=True, for_discriminator=True)
        if self._config.r1:
            # In full precision: it is a gradient of a gradient.
            loss = loss + self._config.r1 * losses.gradient_penalty(self.network, real)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        share(self.network.parameters())
        if finite_gradients(self.network.parameters()):
            self.optimiser.step()

    def judge(self, enhanced: Tensor) -> Tensor:
        """How far it can tell images [B, 1, H, W] from real ones; teaches the enhancer alone."""
        with frozen(self.network):
            loss: Tensor = self._criterion(
                self._scores(enhanced), target_is_real=True, for_discriminator=False
            )
        return loss

    def _scores(self, images: Tensor) -> Tensor:
        with self._autocast:
            scores: Tensor = self.network(images)[-1].float()
        return scores
