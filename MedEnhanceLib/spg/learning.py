"""Trains the small network whose gradients are matched, and measures what it restores.

It shows what images teach; nobody enhances with it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.nets.training import set_learning_rate
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.images import Floats, shown
from MedEnhanceLib.spg.networks import make_network, near_input
from MedEnhanceLib.spg.tasks import Patches, Task, psnr_db

#: Share of the steps over which the learning rate rises, and factor of the last layer's first
#: weights. At 0.02 and 1 one seed in three lost all its units in CT, and learned nothing.
_WARM_UP, _START = 0.1, 0.1
#: Steps after which whole images are degraded anew, which takes long, and how many at once.
_REDRAWN_EVERY, _AT_ONCE = 50, 8
#: Patches of a step, the side of a patch in pixels, and the learning rate.
_BATCH, _PATCH, _RATE = 4, 24, 3e-3


def train_network(
    images: Floats,
    task: Task,
    modality: str,
    steps: int,
    *,
    seed: int,
    device: str,
    monitor: Monitor,
) -> nn.Module:
    """Train SRCNN to undo the task's degradation, which is drawn anew in every step.

    Args:
        images: float32 [N, H, W] in [0, 1].
        task: the degradation.
        modality: "CT" or "MR".
        steps: of the optimizer.
        seed: of weights and batches.
        device: a torch device.
        monitor: gets progress and may cancel.
    Returns:
        The network in evaluation mode.
    """
    network = near_input(make_network(np.random.default_rng((seed, 0))), _START)
    network = network.to(device)
    adam = torch.optim.Adam(network.parameters(), lr=_RATE)
    pairs = _Pairs(images, task, modality, device)
    rng = np.random.default_rng((seed, 1))
    for number in range(steps):
        monitor.progress(number / steps, f"step {number} of {steps}")
        set_learning_rate(adam, _RATE, number, steps, warm_up=_WARM_UP)
        low, high = pairs.draw(rng)
        loss: Tensor = (network(low) - high).square().mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return network.eval()


class _Pairs:
    """Draws batches of degraded and original patches, [B, 1, P, P] each."""

    def __init__(self, images: Floats, task: Task, modality: str, device: str) -> None:
        self._task, self._device = task, device
        side = min(_PATCH, *images.shape[1:])
        self._patches = Patches(shown(images, modality), side)
        whole = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        self._whole = whole[:, None].to(device)
        #: Numbers of the images that are degraded as a whole, and the result.
        self._degraded: tuple[np.ndarray[tuple[int], np.dtype[np.intp]], Tensor] | None = None
        self._drawn = 0

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The next batch."""
        if self._task.on_patches:
            chosen = rng.integers(len(self._whole), size=_BATCH)
            places = self._patches.draw(chosen, rng, turned=True, device=self._device)
            high = places.cut(self._whole)
            return self._task.damage(high, self._task.draw(high, rng)), high
        if self._degraded is None or self._drawn % _REDRAWN_EVERY == 0:
            which = rng.permutation(len(self._whole))[:_AT_ONCE]
            some = self._whole[torch.from_numpy(which).to(self._device)]
            self._degraded = which, self._task.damage(some, self._task.draw(some, rng))
        self._drawn += 1
        which, damaged = self._degraded
        slots = rng.integers(len(which), size=_BATCH)
        places = self._patches.draw(which[slots], rng, turned=False, device=self._device)
        here = replace(places, image=torch.from_numpy(slots).to(self._device))
        return here.cut(damaged), places.cut(self._whole)


@torch.no_grad()
def restored_psnr(
    network: nn.Module,
    images: Floats,
    task: Task,
    modality: str,
    device: str,
) -> float:
    """PSNR in dB of what the network restores from degraded whole images; the peak is 1.

    Over the pixels that show something: air would only dilute it.

    Args:
        network: from `train_network`.
        images: float32 [N, H, W] in [0, 1].
        task: the degradation.
        modality: "CT" or "MR".
        device: of the network, a torch device.
    """
    inside = torch.from_numpy(shown(images, modality))
    batches = torch.split(torch.from_numpy(task.damaged(images, seed=0))[:, None], _AT_ONCE)
    restored = torch.cat([network(low.to(device)).cpu() for low in batches])[:, 0]
    truth = torch.from_numpy(np.ascontiguousarray(images, np.float32))
    return psnr_db((restored - truth)[inside])
