"""Trains the small network whose gradients are matched, and measures what it restores.

It shows what images teach; nobody enhances with it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.nets.training import set_learning_rate
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.images import Floats, shown
from MedEnhanceLib.spg.networks import make_network
from MedEnhanceLib.spg.tasks import Patches, Task, draw_pairs

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
    network = make_network(np.random.default_rng((seed, 0))).to(device)
    with torch.no_grad():
        for parameter in network.body[-1].parameters():
            parameter.mul_(_START)
    adam = torch.optim.Adam(network.parameters(), lr=_RATE)
    patches = Patches(shown(images, modality), min(_PATCH, *images.shape[1:]))
    everything = torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None].to(device)
    numbers, some, drawn = np.arange(len(images)), everything, None
    rng = np.random.default_rng((seed, 1))
    for number in range(steps):
        monitor.progress(number / steps, f"step {number} of {steps}")
        set_learning_rate(adam, _RATE, number, steps, warm_up=_WARM_UP)
        if not task.on_patches and number % _REDRAWN_EVERY == 0:
            numbers = rng.permutation(len(images))[:_AT_ONCE]
            some = everything[torch.from_numpy(numbers).to(device)]
            drawn = task.draw(some, rng)
        chosen, noise = rng.integers(len(numbers), size=_BATCH), int(rng.integers(2**62))
        low, high = draw_pairs(task, some, patches, numbers, chosen, rng, seed=noise, drawn=drawn)
        loss: Tensor = (network(low) - high).square().mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return network.eval()


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
    batches = torch.split(torch.from_numpy(task.damaged(images, seed=0))[:, None], _AT_ONCE)
    restored = torch.cat([network(low.to(device)).cpu() for low in batches])[:, 0].numpy()
    return psnr(images, restored, 1.0, mask=shown(images, modality))
