"""Arms that make images by matching: pixels by gradients (DC) or features (DM), and SPG."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.arms.chosen import prior_alone, random_coreset
from MedEnhanceLib.spg.arms.material import Budget, Material
from MedEnhanceLib.spg.config import DistillConfig, GeneratorConfig
from MedEnhanceLib.spg.generator import Changer
from MedEnhanceLib.spg.keeping import share_to_keep, with_share
from MedEnhanceLib.spg.loop import PatientLoop, Raw
from MedEnhanceLib.spg.networks import make_network
from MedEnhanceLib.spg.patches import Patches
from MedEnhanceLib.spg.patient import distil_patient
from MedEnhanceLib.spg.slices import Floats, shown
from MedEnhanceLib.spg.tasks import make_task

#: Adam's rate of pixels, by what our first trial found best.
_PIXEL_RATES = {"denoise": 2e-2, "undersample": 1e-2, "sr2": 5e-3, "sr4": 5e-3}
_NO_CLIP = 1e6


class Pixels(Changer):
    """Images whose every pixel is learned: S = clip(start + change, 0, 1)."""

    def __init__(self, start: Floats) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.zeros(len(start), 1, *start.shape[1:]))

    def wish(self, prior: Tensor) -> Tensor:
        """The change itself."""
        return self.change

    def moved(self, prior: Tensor, wish: Tensor) -> Tensor:
        """The prior plus the change."""
        return (prior + wish).clamp(0, 1)


def spg(
    material: Material,
    budget: Budget,
    seed: int,
    config: DistillConfig,
    monitor: Monitor | None = None,
) -> Floats:
    """The method: patient by patient, or, at a budget in all, the cohort as one patient."""
    monitor = monitor or Monitor()
    chosen = replace(config, seed=seed)
    start = prior_alone(material, budget, seed)
    sources = list(material.training.values()) if budget.per_patient else [material.pool]
    parts = []
    for number, images in enumerate(sources):
        part = monitor.part(number / len(sources), (number + 1) / len(sources))
        raw = Raw(images, start, material.modality, number)
        parts.append(distil_patient(raw, chosen, monitor=part).images)
    if not budget.per_patient:
        return np.concatenate(parts)
    kept = share_to_keep(parts, start, material.training, material.modality, chosen)
    monitor.log(f"{kept.share:.0%} of the change is kept: {kept.psnr_db}")
    return with_share(np.concatenate(parts), start, kept.share)


def gradients_from_noise(
    material: Material,
    budget: Budget,
    seed: int,
    config: DistillConfig,
    monitor: Monitor | None = None,
) -> Floats:
    """Dataset condensation from noise with the mean and spread of the training images.

    Source: Zhao, Mopuri and Bilen, ICLR 2021.
    """
    some = random_coreset(material, replace(budget, name="mean", count=8), seed)
    shape = (material.count(budget), *some.shape[1:])
    noise = np.random.default_rng((seed, 13)).standard_normal(shape, dtype=np.float32)
    start = np.clip(some.mean() + some.std() * noise, 0, 1).astype(np.float32)
    return _by_gradients(material, start, seed, config, monitor)


def gradients_from_real(
    material: Material,
    budget: Budget,
    seed: int,
    config: DistillConfig,
    monitor: Monitor | None = None,
) -> Floats:
    """The same from a random coreset, whose patients stay recognisable."""
    start = random_coreset(material, budget, seed)
    return _by_gradients(material, start, seed, config, monitor)


def _by_gradients(
    material: Material, start: Floats, seed: int, config: DistillConfig, monitor: Monitor | None
) -> Floats:
    monitor = monitor or Monitor()
    free = GeneratorConfig(
        rate=_PIXEL_RATES[config.task], clip=_NO_CLIP, structure=(0.0, 0.0), restraint=0.0
    )
    chosen = replace(config, seed=seed, generator=free)
    raw = Raw(material.pool, start, material.modality, 0)
    loop = PatientLoop(raw, chosen, "cpu", generator=Pixels(start))
    for number in range(loop.steps):
        monitor.progress(number / loop.steps, "matching gradients")
        loop.step(number)
    return loop.images()


def features_from_real(
    material: Material,
    budget: Budget,
    seed: int,
    config: DistillConfig,
    monitor: Monitor | None = None,
) -> Floats:
    """Distribution matching: the mean features that networks drawn anew give to patches.

    As many matches as the others have. Features are those before the last layer, of damaged and
    of undamaged patches, their means and mean squares over batch and places.
    Source: Zhao and Bilen, WACV 2023; for pairs of images, and squares besides, reconstructed.
    """
    monitor = monitor or Monitor()
    start = random_coreset(material, budget, seed)
    task = make_task(config, material.modality)
    images = torch.from_numpy(start.copy())[:, None].requires_grad_()
    adam = torch.optim.Adam([images], lr=_PIXEL_RATES[config.task])
    side, batch = config.loop.patch, config.loop.batch
    theirs = Patches(shown(material.pool, material.modality, material.scaling), side)
    ours = Patches(shown(start, material.modality, material.scaling), side)
    pool = torch.from_numpy(material.pool)[:, None]
    matches = config.loop.outer * config.loop.inner
    for number in range(matches):
        monitor.progress(number / matches, "matching features")
        rng = np.random.default_rng((seed, 14, number))
        names = config.loop.networks
        network = make_network(names[number % len(names)], rng)
        few = rng.permutation(len(pool))[:batch]
        own = np.arange(batch) % len(images)
        pairs = []
        for source, patches, chosen in ((pool[few], theirs, few), (images, ours, own)):
            shared = np.random.default_rng((seed, 15, number))
            low = task.damage(source, task.draw(source, shared))
            places = patches.draw(chosen, rng, turned=task.on_patches, device="cpu")
            if source is not images:
                places = replace(places, image=torch.arange(batch) % len(few))
            pairs.append([_features(network, places.cut(part)) for part in (low, source)])
        loss = sum(
            ((a - b).square() / (a.square().mean() + 1e-12)).mean()
            for a, b in zip(*pairs, strict=True)
        )
        assert isinstance(loss, Tensor)
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    found: Floats = images.detach()[:, 0].numpy()
    return found


def _features(network: nn.Module, images: Tensor) -> Tensor:
    """Means and mean squares of the features before the last layer, [2 · channels]."""
    body = network.body
    assert isinstance(body, nn.Sequential)
    features = body[:-1](images)
    return torch.cat([features.mean(dim=(0, 2, 3)), features.square().mean(dim=(0, 2, 3))])
