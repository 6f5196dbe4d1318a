"""Trains a small network on images, distilled or others, and measures what it restores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.options import check_range
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.nets.training import set_learning_rate
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import ImageConfig
from MedEnhanceLib.spg.loop import Tensors
from MedEnhanceLib.spg.networks import make_network, near_input
from MedEnhanceLib.spg.patches import Patches, Places
from MedEnhanceLib.spg.slices import Floats, shown
from MedEnhanceLib.spg.tasks import Task, psnr_db

#: Images that are damaged whole get new numbers after so many steps: drawing them takes long.
_REDRAWN_EVERY = 50
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class RestorerConfig:
    """One training. network: "srcnn", "edsr" or "unet"; batch: patches of a step.

    patch: their side; images that are smaller are taken whole. warm_up: share of the steps over
    which the learning rate rises; start: what the last layer's weights are cut to, so that a
    network begins near its input. Without the two (0.02 and 1) one seed in three of SRCNN lost all
    its units to the first steps, in CT, and learned nothing.
    """

    network: str = "srcnn"
    steps: int = 1000
    batch: int = 8
    patch: int = 48
    learning_rate: float = 1e-3
    warm_up: float = 0.1
    start: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 1, 10_000_000)
        check_range("batch", self.batch, 1, 4096)
        check_range("patch", self.patch, 8, 4096)
        check_range("learning_rate", self.learning_rate, 0, 1)
        check_range("warm_up", self.warm_up, 0, 1)
        check_range("start", self.start, 0, 1)


def train_restorer(
    images: Floats,
    task: Task,
    modality: str,
    config: RestorerConfig,
    *,
    scaling: ImageConfig | None = None,
    device: str = "cpu",
    monitor: Monitor | None = None,
) -> nn.Module:
    """A network that undoes the task's damage, from images [N, H, W] in [0, 1] alone.

    The damage is drawn anew for every patch, so that N is what limits it. scaling: how the images
    were made, which tells tissue from air. Raises InputError where there is no image.
    """
    monitor = monitor or Monitor()
    learner = Learner(images, task, modality, config, scaling or ImageConfig(), device)
    for number in range(config.steps):
        monitor.progress(number / config.steps, f"step {number} of {config.steps}")
        learner.step(number)
    return learner.network.eval()


class Learner:
    """A network with its optimiser and its pairs, and what a numbered step does to them."""

    def __init__(
        self,
        images: Floats,
        task: Task,
        modality: str,
        config: RestorerConfig,
        scaling: ImageConfig,
        device: str,
    ) -> None:
        if images.ndim != 3 or not images.size:
            raise InputError(f"images of shape {images.shape}", "Give [N, H, W].")
        self._config = config
        rng = np.random.default_rng((config.seed, 0))
        self.network = near_input(make_network(config.network, rng), config.start).to(device)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.pairs = Pairs(images, task, modality, config, scaling, device)

    def step(self, number: int) -> Tensor:
        """One step; its loss, the mean square of what is not restored."""
        config = self._config
        set_learning_rate(
            self.adam, config.learning_rate, number, config.steps, warm_up=config.warm_up
        )
        low, high = next(self.pairs)
        loss: Tensor = (self.network(low) - high).square().mean()
        self.adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.adam.step()
        return loss.detach()


class Pairs(Iterator[tuple[Tensor, Tensor]]):
    """Endless batches (damaged, whole), [B, 1, P, P] each.

    rng and drawn are all that the next batch depends on: with them a training can go on.
    """

    def __init__(
        self,
        images: Floats,
        task: Task,
        modality: str,
        config: RestorerConfig,
        scaling: ImageConfig,
        device: str,
    ) -> None:
        self.rng = np.random.default_rng((config.seed, 1))
        #: Images that are damaged whole: which, how they look then, and batches left of them.
        self.drawn = Tensors(device)
        self._task, self._batch, self._device = task, config.batch, device
        side = min(config.patch, *images.shape[1:])
        self._patches = Patches(shown(images, modality, scaling), side)
        whole = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        self._whole = whole[:, None].to(device)

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self._task.on_patches:
            chosen = self.rng.integers(len(self._whole), size=self._batch)
            high = self._places(chosen, turned=True).cut(self._whole)
            return self._task.damage(high, self._task.draw(high, self.rng)), high
        if not int(self.drawn.get("left", 0)):
            self._damage_some()
        self.drawn["left"] = self.drawn["left"] - 1
        few = self.drawn["which"].cpu().numpy()
        slots = self.rng.integers(len(few), size=self._batch)
        places = self._places(few[slots], turned=False)
        here = replace(places, image=torch.from_numpy(slots).to(self._device))
        return here.cut(self.drawn["damaged"]), places.cut(self._whole)

    def _damage_some(self) -> None:
        which = torch.from_numpy(self.rng.permutation(len(self._whole))[:_AT_ONCE])
        high = self._whole[which.to(self._device)]
        damaged = self._task.damage(high, self._task.draw(high, self.rng))
        self.drawn.update(which=which, damaged=damaged, left=torch.tensor(_REDRAWN_EVERY))

    def _places(self, chosen: npt.NDArray[np.intp], *, turned: bool) -> Places:
        return self._patches.draw(chosen, self.rng, turned=turned, device=self._device)


@torch.no_grad()
def restored_psnr(
    network: nn.Module,
    images: Floats,
    task: Task,
    modality: str,
    *,
    seed: int = 0,
    scaling: ImageConfig | None = None,
    device: str = "cpu",
) -> tuple[float, float]:
    """PSNR in dB of whole images [N, H, W] damaged with a seed, and of what the network restores.

    Over the pixels that show something: air would only dilute it. The peak is 1.
    """
    inside = torch.from_numpy(shown(images, modality, scaling or ImageConfig()))
    damaged = torch.from_numpy(task.damaged(images, seed))
    batches = torch.split(damaged[:, None], _AT_ONCE)
    restored = torch.cat([network(low.to(device)).cpu() for low in batches])[:, 0]
    truth = torch.from_numpy(np.ascontiguousarray(images, np.float32))
    return psnr_db((damaged - truth)[inside]), psnr_db((restored - truth)[inside])
