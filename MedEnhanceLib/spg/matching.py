"""Distills one patient by matching the gradients of networks on raw and generated images.

    outer step: a network is drawn anew
      inner step: a match updates the generator; then the network learns on the generated images

Each match and each teaching step is one numbered step, whose random numbers depend on the seed, the
patient and the step's number alone. So a run can stop after any step and resume, in any process, to
the same bytes. Source: design, spg part 8 (reconstructed).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.images import Floats, shown
from MedEnhanceLib.spg.networks import Generator, draw_weights, make_network, saturation
from MedEnhanceLib.spg.objective import (
    cosine_distance,
    layer_gradients,
    relative_distance,
    structure_loss,
    structure_weight,
)
from MedEnhanceLib.spg.tasks import Patches, Task, draw_pairs, make_task

#: Raw images that are degraded as whole images for one network, at least, if there are as many.
_RAW_AT_ONCE = 8
#: Norm that the generator's gradient is cut to: above, tanh saturates.
_CLIP = 0.05
#: Adam's learning rate of the generator, and the weight of the mean square of what tanh is given,
#: which keeps it from saturating where it is large. At a rate of 1e-3, structure of 0.5 to 0.05 and
#: a restraint of 0.1 images stay so near the prior that networks learn little else from them.
_RATE, _RESTRAINT = 3e-3, 0.005
#: Adam's learning rate of the network that learns, and patches of one of its steps.
_NETWORK_RATE, _TEACHING_BATCH = 1e-4, 8
#: Recorded for each outer step: means over its matches; saturation is a share of the pixels.
MEASURED = ("alignment", "structure", "saturation")


@dataclass(frozen=True)
class Raw:
    """Images of a patient [N, H, W], and the prior [M, h, w] that the result starts from.

    Both are float32 in [0, 1]. modality: "CT" or "MR". number: of the patient in the run; keeps
    random numbers of patients independent.
    """

    images: Floats
    prior: Floats
    modality: str
    number: int = 0


class PatientLoop:
    """Networks and optimizers of one patient, and the numbered steps that update them."""

    def __init__(self, raw: Raw, config: DistillConfig, device: str) -> None:
        self.config, self.device, self._number = config, device, raw.number
        self._per_inner = 1 + config.loop.teaching
        self._per_outer = config.loop.inner * self._per_inner
        self.batch = config.loop.batch
        self.task: Task = make_task(config, raw.modality)
        # What each task is matched best by.
        self._distance = cosine_distance if config.task == "denoise" else relative_distance
        side = config.loop.patch
        self._raw = torch.from_numpy(raw.images)[:, None].to(device)
        self._prior = torch.from_numpy(raw.prior)[:, None].to(device)
        self._raw_patches = Patches(shown(raw.images, raw.modality), side)
        self._own_patches = Patches(shown(raw.prior, raw.modality), side)
        rng = np.random.default_rng((config.seed + 1,))  # every patient's generator begins the same
        self.generator = Generator(len(raw.prior), raw.prior.shape[1:], rng).to(device)
        self._adam = torch.optim.Adam(self.generator.parameters(), lr=_RATE)
        self.network = make_network(rng).to(device)
        self._learning = torch.optim.Adam(self.network.parameters(), lr=_NETWORK_RATE)
        #: Degradation of this outer step's generated images, where whole images are degraded.
        self._noise = torch.zeros_like(self._prior)
        #: [outer steps, 3], see MEASURED.
        self.measured = torch.zeros(config.loop.outer, len(MEASURED))
        #: Both, as a checkpoint takes them; they are changed in place alone.
        self._state = nn.Module()
        self._state.register_buffer("noise", self._noise)
        self._state.register_buffer("measured", self.measured)
        self._raw_drawn: tuple[int, npt.NDArray[np.intp], Tensor] | None = None
        self._images: Tensor | None = None

    def outer_of(self, number: int) -> int:
        """Return the outer step that a numbered step belongs to."""
        return number // self._per_outer

    def ends_outer(self, number: int) -> bool:
        """Tell whether it is the last step of its outer step."""
        return (number + 1) % self._per_outer == 0

    def step(self, number: int) -> None:
        """Run the step of that number; the same number does the same, resumed or not.

        Raises ModelError where the loss is not finite.
        """
        if number % self._per_outer == 0:
            self._begin_outer(number)
        if number % self._per_inner == 0:
            self._match(number)
        else:
            self._teach(number)

    def _rng(self, number: int, purpose: int) -> np.random.Generator:
        """Seed the random numbers of one step for one purpose (0 to 3)."""
        return np.random.default_rng((self.config.seed + 1, self._number, number, purpose))

    def _begin_outer(self, number: int) -> None:
        """Draw the network's weights, and the degradation of images that are degraded whole."""
        draw_weights(self.network, self._rng(number, 0))
        self._learning.state.clear()
        if not self.task.on_patches:
            self._noise.copy_(self.task.draw(self._generated(), self._rng(number, 1)))

    def _match(self, number: int) -> None:
        residual = self.generator.residual(self._prior)
        images = self.generator.add(self._prior, residual)
        alignment = self._distance_of(images, number)
        structure = structure_loss(images, self._prior)
        loss = alignment + structure_weight(number / self.config.loop.steps) * structure
        loss = loss + _RESTRAINT * residual.square().mean()
        self._adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.generator.parameters(), _CLIP)
        self._adam.step()
        self._images = None
        # The only time that the host waits for the device, when all of the step is on its way.
        values = torch.stack((loss, alignment, structure, saturation(residual))).detach().cpu()
        if not bool(torch.isfinite(values[0])):
            raise ModelError(
                f"the distillation diverged at step {number}",
                "Look for values in the patient's volumes that are no intensities.",
            )
        self.measured[self.outer_of(number)] += values[1:] / self.config.loop.inner

    def _distance_of(self, images: Tensor, number: int) -> Tensor:
        """Compare the network's gradients on a batch of raw images and of these."""
        rng = self._rng(number, 2)
        # Both sides share the seed of the degradation and the first image that is degraded whole.
        seed, first = int(rng.integers(2**62)), int(rng.integers(2**31))
        raw_pairs = self._raw_pairs(number, rng, seed, first)
        own_pairs = self._own_pairs(images, rng, seed, first, self.batch)
        raw = layer_gradients(_error(self.network, *raw_pairs), self.network, differentiable=False)
        own = layer_gradients(_error(self.network, *own_pairs), self.network, differentiable=True)
        return self._distance(raw, own)

    def _teach(self, number: int) -> None:
        rng = self._rng(number, 2)
        seed, first = int(rng.integers(2**62)), int(rng.integers(2**31))
        pairs = self._own_pairs(self._generated(), rng, seed, first, _TEACHING_BATCH)
        loss = _error(self.network, *pairs)
        self._learning.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._learning.step()

    def _raw_pairs(
        self, number: int, rng: np.random.Generator, seed: int, first: int
    ) -> tuple[Tensor, Tensor]:
        """Draw raw patches after and before degradation, [B, 1, P, P] each."""
        images, indices, drawn = self._raw, np.arange(len(self._raw)), None
        if self.task.on_patches:
            chosen = rng.integers(len(indices), size=self.batch)
        else:
            indices, drawn = self._raw_of_outer(number)
            images = images[torch.from_numpy(indices).to(self.device)]
            chosen = (np.arange(self.batch) + first) % len(indices)
        return draw_pairs(
            self.task, images, self._raw_patches, indices, chosen, rng, seed=seed, drawn=drawn
        )

    def _raw_of_outer(self, number: int) -> tuple[npt.NDArray[np.intp], Tensor]:
        """Choose which raw images are degraded whole in this outer step, and their degradation.

        Both follow from the number alone, so that checkpoints need not hold them.
        """
        first = number // self._per_outer * self._per_outer
        if self._raw_drawn is None or self._raw_drawn[0] != first:
            count = min(len(self._raw), max(len(self._prior), _RAW_AT_ONCE))
            indices = self._rng(first, 3).permutation(len(self._raw))[:count]
            # Purpose 1, as for the generated images: the same numbers for the same places.
            drawn = self.task.draw(self._raw[torch.from_numpy(indices)], self._rng(first, 1))
            self._raw_drawn = first, indices, drawn
        return self._raw_drawn[1:]

    def _own_pairs(
        self, images: Tensor, rng: np.random.Generator, seed: int, first: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """Draw the same of generated images."""
        indices = np.arange(len(images))
        chosen = (np.arange(count) + first) % len(images)
        drawn = None if self.task.on_patches else self._noise
        return draw_pairs(
            self.task, images, self._own_patches, indices, chosen, rng, seed=seed, drawn=drawn
        )

    @torch.no_grad()
    def _generated(self) -> Tensor:
        """Generate the patient's images as they are now, [M, 1, h, w]."""
        if self._images is None:
            self._images = self.generator(self._prior)
        return self._images

    def images(self) -> Floats:
        """Return the patient's images as they are now, float32 [M, h, w] in [0, 1]."""
        found: Floats = self._generated()[:, 0].cpu().numpy()
        return found

    def parts(self, hashes: Mapping[str, str]) -> dict[str, Any]:
        """List what a checkpoint holds; hashes: of data and prior, which it must agree in too."""
        return {
            "config": self.config.record() | dict(hashes),
            "modules": {
                "generator": self.generator,
                "network": self.network,
                "state": self._state,
            },
            "optimizers": {"adam generator": self._adam, "adam network": self._learning},
        }

    def forget_images(self) -> None:
        """Make the images anew from the weights; to be called after loading a checkpoint."""
        self._images = None


def _error(network: nn.Module, low: Tensor, high: Tensor) -> Tensor:
    restored: Tensor = network(low)
    return (restored - high).square().mean()
