"""Trains a small restorer on images, distilled or others, and measures its result."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.options import Options, option
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.nets.training import set_learning_rate
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import ImageConfig
from MedEnhanceLib.spg.images import Floats, shown
from MedEnhanceLib.spg.networks import make_network, near_input
from MedEnhanceLib.spg.tasks import Patches, Places, Task, Tensors, psnr_db

#: Steps after which whole images are degraded anew: drawing their degradation takes long.
_REDRAWN_EVERY = 50
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class RestorerConfig(Options):
    """One training of a restorer.

    Without warm_up and start (at 0.02 and 1) one seed in three of SRCNN in CT lost all its units in
    the first steps, and learned nothing.
    """

    network: str = option("srcnn", help="srcnn, edsr or unet")
    steps: int = option(1000, help="of the optimizer", low=1, high=10_000_000)
    batch: int = option(8, help="patches of a step", low=1, high=4096)
    patch: int = option(
        48, help="side; smaller images are used whole", low=8, high=4096, unit="pixels"
    )
    learning_rate: float = option(1e-3, help="Adam's, at its highest", low=0, high=1)
    warm_up: float = option(
        0.1, help="share of the steps over which the learning rate rises", low=0, high=1
    )
    start: float = option(
        0.1,
        help="factor of the last layer's first weights: a network begins near its input",
        low=0,
        high=1,
    )
    seed: int = option(0, help="of weights and batches")


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
    """Train a network that undoes the task's degradation, which is drawn anew for every patch.

    Args:
        images: float32 [N, H, W] in [0, 1].
        task: the degradation.
        modality: "CT" or "MR".
        config: network and training.
        scaling: how the images were made, which separates tissue from air; None: the default.
        device: a torch device.
        monitor: gets progress and may cancel.
    Returns:
        The network in evaluation mode.
    Raises:
        InputError: there is no image.
    """
    monitor = monitor or Monitor()
    learner = Learner(images, task, modality, config, scaling or ImageConfig(), device)
    for number in range(config.steps):
        monitor.progress(number / config.steps, f"step {number} of {config.steps}")
        learner.step(number)
    return learner.network.eval()


class Learner:
    """A network with its optimizer and training pairs, and the numbered steps that update it.

    Besides network and optimizer, the next step depends on `rng` and `drawn` alone.
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
        if images.ndim != 3 or not images.size:
            raise InputError(f"images of shape {images.shape}", "Give [N, H, W].")
        self._config, self._task, self._device = config, task, device
        rng = np.random.default_rng((config.seed, 0))
        self.network = near_input(make_network(config.network, rng), config.start).to(device)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.rng = np.random.default_rng((config.seed, 1))
        #: Whole images that are degraded: their numbers, the result, and how many batches remain.
        self.drawn = Tensors(device)
        side = min(config.patch, *images.shape[1:])
        self._patches = Patches(shown(images, modality, scaling), side)
        whole = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        self._whole = whole[:, None].to(device)

    def step(self, number: int) -> Tensor:
        """Run a step; its loss, the mean squared error."""
        config = self._config
        set_learning_rate(
            self.adam, config.learning_rate, number, config.steps, warm_up=config.warm_up
        )
        low, high = self._pairs()
        loss: Tensor = (self.network(low) - high).square().mean()
        self.adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.adam.step()
        return loss.detach()

    def _pairs(self) -> tuple[Tensor, Tensor]:
        """The next batch of degraded and original patches, [B, 1, P, P] each."""
        batch = self._config.batch
        if self._task.on_patches:
            chosen = self.rng.integers(len(self._whole), size=batch)
            high = self._places(chosen, turned=True).cut(self._whole)
            return self._task.damage(high, self._task.draw(high, self.rng)), high
        if not int(self.drawn.get("left", 0)):
            self._degrade_some()
        self.drawn["left"] = self.drawn["left"] - 1
        few = self.drawn["which"].cpu().numpy()
        slots = self.rng.integers(len(few), size=batch)
        places = self._places(few[slots], turned=False)
        here = replace(places, image=torch.from_numpy(slots).to(self._device))
        return here.cut(self.drawn["damaged"]), places.cut(self._whole)

    def _degrade_some(self) -> None:
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
    """PSNR of degraded whole images, and of what the network restores from them.

    Over the pixels that show something (air would only dilute it); the peak is 1.

    Args:
        network: a restorer.
        images: float32 [N, H, W] in [0, 1].
        task: the degradation.
        modality: "CT" or "MR".
        seed: of the degradation.
        scaling: as in `train_restorer`.
        device: of the network, a torch device.
    Returns:
        dB of the degraded images, dB of the restored ones.
    """
    inside = torch.from_numpy(shown(images, modality, scaling or ImageConfig()))
    damaged = torch.from_numpy(task.damaged(images, seed))
    batches = torch.split(damaged[:, None], _AT_ONCE)
    restored = torch.cat([network(low.to(device)).cpu() for low in batches])[:, 0]
    truth = torch.from_numpy(np.ascontiguousarray(images, np.float32))
    return psnr_db((damaged - truth)[inside]), psnr_db((restored - truth)[inside])
