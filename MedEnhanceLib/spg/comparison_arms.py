"""The arms of a comparison: ways to a small training set, and the material that all of them get.

Some arms choose images and change nothing: a random coreset, k-center, the prior alone. The others
make images by matching: pixels by gradients (DC) or features (DM), and SPG.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig, GeneratorConfig, ImageConfig
from MedEnhanceLib.spg.images import Floats, shown, spread_over
from MedEnhanceLib.spg.matching import PatientLoop, Raw
from MedEnhanceLib.spg.networks import PriorChange, make_network
from MedEnhanceLib.spg.patient import distill_patient
from MedEnhanceLib.spg.prepare import prepare, with_intensities
from MedEnhanceLib.spg.statistics import imposed, mean_over, measure
from MedEnhanceLib.spg.tasks import Patches, make_task
from MedEnhanceLib.spg.worth import share_to_keep, with_share

#: Candidates to choose from, and the side to which they are reduced for comparison.
_CANDIDATES, _REDUCED = 256, 8
#: Bins of the histograms by which pieces of the prior are chosen.
_BINS = 64
#: Adam's learning rate of pixels; the best in a first trial.
_PIXEL_RATES = {"denoise": 2e-2, "undersample": 1e-2, "sr2": 5e-3, "sr4": 5e-3}
_NO_CLIP = 1e6


@dataclass(frozen=True)
class Budget:
    """The size of an arm's result.

    Args:
        name: in tables.
        count: number of images.
        side: of an image in pixels; 0: whole slices.
        per_patient: whether `count` is for each training patient.
    """

    name: str
    count: int
    side: int = 0
    per_patient: bool = False


@dataclass(frozen=True)
class Material:
    """What every arm gets.

    Args:
        modality: "CT" or "MR".
        scaling: how the images were made.
        training: float32 [N, H, W] in [0, 1] by patient.
        held_out: the same of the patients to measure on.
        public: the prior as it is public, [M, H, W].
        prior: the same with the intensities of the training patients.
    """

    modality: str
    scaling: ImageConfig
    training: dict[str, Floats]
    held_out: dict[str, Floats]
    public: Floats
    prior: Floats

    @cached_property
    def pool(self) -> Floats:
        """All training images, [N, H, W]."""
        return np.concatenate(list(self.training.values()))

    @cached_property
    def textured(self) -> Floats:
        """The public prior with the intensities and textures of the training patients, [M, H, W].

        What the method `statistics` gives, and what matching starts from.
        """
        found = (measure(one, self.modality, self.scaling) for one in self.training.values())
        return imposed(self.public, mean_over(found), self.modality, self.scaling)

    def test_images(self, per_patient: int) -> Floats:
        """`per_patient` images of each held-out patient, at equal quantiles of their order."""
        return np.concatenate(self.tests(per_patient))

    def tests(self, per_patient: int) -> list[Floats]:
        """The same, patient by patient."""
        held_out = self.held_out.values()
        return [spread_over(images, min(per_patient, len(images))) for images in held_out]

    def count(self, budget: Budget) -> int:
        """The total number of images."""
        return budget.count * (len(self.training) if budget.per_patient else 1)

    def cut(self, images: Floats, count: int, side: int, rng: np.random.Generator) -> Floats:
        """`count` random crops [count, side, side] that show something, from different images.

        side 0: whole images. Images are used again if there are fewer than `count`.
        """
        order = np.concatenate(
            [rng.permutation(len(images)) for _ in range(-(-count // len(images)))]
        )[:count]
        few: Floats = images[order]
        if not side or side >= min(images.shape[1:]):
            return few
        patches = Patches(shown(few, self.modality, self.scaling), side)
        tops, lefts = patches.corners(np.arange(count), rng)
        crops: Floats = np.stack(
            [
                image[top : top + side, left : left + side]
                for image, top, left in zip(few, tops, lefts, strict=True)
            ]
        )
        return crops


def gather(cohort: Cohort, config: DistillConfig, monitor: Monitor) -> Material:
    """Prepare a cohort for the arms; makes both priors, whatever `config.intensities` is.

    Raises as `prepare`, and ConfigError if nobody is held out.
    """
    prepared = prepare(cohort, replace(config, intensities="own"), monitor)
    if not prepared.held_out:
        raise ConfigError(
            "nobody is held out, so that there is nobody to measure on",
            "Give more patients, or a larger share (held_out).",
        )
    matched = with_intensities(
        prepared.prior, prepared.training.values(), prepared.modality, config.images
    )
    return Material(
        prepared.modality,
        config.images,
        prepared.training,
        prepared.held_out,
        prepared.prior.images,
        matched.images,
    )


def random_coreset(material: Material, budget: Budget, seed: int) -> Floats:
    """Random raw images or crops, [N, h, w]; at a budget per patient as many of each."""
    rng = np.random.default_rng((seed, 10))
    pools = list(material.training.values()) if budget.per_patient else [material.pool]
    return np.concatenate([material.cut(pool, budget.count, budget.side, rng) for pool in pools])


def k_center(material: Material, budget: Budget, seed: int) -> Floats:
    """Raw pieces that are far apart: the most central one, then always the farthest.

    Features are the means over 8 × 8 fields and the standard deviations in them. Source: the greedy
    choice of Sener and Savarese, ICLR 2018; the features are ours.
    """
    rng = np.random.default_rng((seed, 11))
    pieces = material.cut(material.pool, _CANDIDATES, budget.side, rng)
    points = _described(pieces)
    distance = np.linalg.norm(points - points.mean(axis=0), axis=1)
    chosen = [int(distance.argmin())]
    nearest = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < material.count(budget):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return pieces[chosen]


def public_prior(material: Material, budget: Budget, seed: int) -> Floats:
    """The prior's own slices, or crops of them: public without any patient.

    At a budget per patient the prior's images, once.
    """
    if budget.per_patient:
        return material.public
    rng = np.random.default_rng((seed, 12))
    return material.cut(material.public, budget.count, budget.side, rng)


def prior_alone(material: Material, budget: Budget, seed: int) -> Floats:
    """The same with the intensities of the training patients."""
    return _of_prior(material, material.prior, budget, seed)


def statistics(material: Material, budget: Budget, seed: int) -> Floats:
    """The same with their intensities and textures: the start of a distillation."""
    return _of_prior(material, material.textured, budget, seed)


def _of_prior(material: Material, images: Floats, budget: Budget, seed: int) -> Floats:
    """All of a changed prior, or crops of it.

    Crops are chosen so that together they show the patients' intensities best: a network that has
    seen dark crops alone fails on bright ones.
    """
    if budget.per_patient:
        return images
    rng = np.random.default_rng((seed, 12))
    candidates = max(_CANDIDATES if budget.side else len(images), budget.count)
    pieces = material.cut(images, candidates, budget.side, rng)
    wanted = _levels(material.pool)
    chosen: list[int] = []
    while len(chosen) < material.count(budget):
        together = [_levels(pieces[[*chosen, n]]) for n in range(len(pieces))]
        distance = np.abs(np.stack(together) - wanted).sum(axis=1)
        distance[chosen] = np.inf
        chosen.append(int(distance.argmin()))
    return pieces[chosen]


def _levels(images: Floats) -> Floats:
    """The cumulative histogram of intensities, [64]."""
    found: Floats = np.cumsum(np.histogram(images, _BINS, (0, 1))[0] / images.size)
    return found


def _described(pieces: Floats) -> Floats:
    """[N, 128]: means over 8 × 8 fields, and standard deviations in them."""
    count, side = len(pieces), pieces.shape[1] // _REDUCED
    kept = pieces[:, : side * _REDUCED, : side * _REDUCED]
    fields = kept.reshape(count, _REDUCED, side, _REDUCED, side)
    parts = fields.mean(axis=(2, 4)), fields.std(axis=(2, 4))
    described: Floats = np.concatenate([part.reshape(count, -1) for part in parts], axis=1)
    return described


class Pixels(PriorChange):
    """Images whose every pixel is learned: S = clip(start + change, 0, 1)."""

    def __init__(self, start: Floats) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.zeros(len(start), 1, *start.shape[1:]))

    def residual(self, prior: Tensor) -> Tensor:
        """The learned change."""
        return self.change

    def add(self, prior: Tensor, residual: Tensor) -> Tensor:
        """The prior plus the change."""
        return (prior + residual).clamp(0, 1)


def spg(
    material: Material,
    budget: Budget,
    seed: int,
    config: DistillConfig,
    monitor: Monitor | None = None,
) -> Floats:
    """The method, patient by patient; at a total budget with the cohort as one patient."""
    monitor = monitor or Monitor()
    chosen = replace(config, seed=seed)
    start = statistics(material, budget, seed)
    sources = list(material.training.values()) if budget.per_patient else [material.pool]
    parts = []
    for number, images in enumerate(sources):
        part = monitor.part(number / len(sources), (number + 1) / len(sources))
        raw = Raw(images, start, material.modality, number)
        parts.append(distill_patient(raw, chosen, monitor=part).images)
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
    """Dataset condensation from noise with the mean and standard deviation of the training images.

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
    """Dataset condensation from a random coreset, whose patients stay recognizable."""
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
    """Distribution matching of the mean features of random networks, with as many matches.

    Features are those before the last layer, of degraded and original patches: means and mean
    squares over batch and pixels. Source: Zhao and Bilen, WACV 2023; for pairs of images and with
    squares reconstructed.
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
