"""Trains a small network on images, distilled or others, and measures what it restores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.config import check_range
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.nets.training import set_learning_rate
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.spg.config import ImageConfig
from MedEnhanceLib.spg.networks import make_network
from MedEnhanceLib.spg.patches import Patches
from MedEnhanceLib.spg.slices import Floats, shown
from MedEnhanceLib.spg.tasks import Task, psnr_db

#: Images that are damaged whole get new numbers after so many steps: drawing them takes long.
_REDRAWN_EVERY = 50
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class RestorerConfig:
    """One training. network: "srcnn", "edsr" or "unet"; batch: patches of a step.

    patch: their side; images that are smaller are taken whole.
    """

    network: str = "srcnn"
    steps: int = 1000
    batch: int = 8
    patch: int = 48
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 1, 10_000_000)
        check_range("batch", self.batch, 1, 4096)
        check_range("patch", self.patch, 8, 4096)
        check_range("learning_rate", self.learning_rate, 0, 1)


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
    if images.ndim != 3 or not images.size:
        raise InputError(f"images of shape {images.shape}", "Give [N, H, W].")
    network = make_network(config.network, np.random.default_rng((config.seed, 0))).to(device)
    adam = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    pairs = _pairs(images, task, modality, config, scaling or ImageConfig(), device)
    for number in range(config.steps):
        monitor.progress(number / config.steps, f"step {number} of {config.steps}")
        set_learning_rate(adam, config.learning_rate, number, config.steps)
        low, high = next(pairs)
        loss = (network(low) - high).square().mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
    return network.eval()


def _pairs(
    images: Floats,
    task: Task,
    modality: str,
    config: RestorerConfig,
    scaling: ImageConfig,
    device: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches (damaged, whole), [B, 1, P, P] each."""
    rng = np.random.default_rng((config.seed, 1))
    side = min(config.patch, *images.shape[1:])
    patches = Patches(shown(images, modality, scaling), side)
    whole = torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None].to(device)
    while True:
        if task.on_patches:
            chosen = rng.integers(len(images), size=config.batch)
            high = patches.draw(chosen, rng, turned=True, device=device).cut(whole)
            yield task.damage(high, task.draw(high, rng)), high
            continue
        few = torch.from_numpy(rng.permutation(len(images))[:_AT_ONCE]).to(device)
        damaged = whole.clone()
        damaged[few] = task.damage(whole[few], task.draw(whole[few], rng))
        for _ in range(_REDRAWN_EVERY):
            chosen = few.cpu().numpy()[rng.integers(len(few), size=config.batch)]
            places = patches.draw(chosen, rng, turned=False, device=device)
            yield places.cut(damaged), places.cut(whole)


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
