"""The images that arms of a distillation table learn from, of one cohort split by patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.matching import Raw
from MedEnhanceLib.spg.patient import distill_patient
from MedEnhanceLib.spg.prepare import Prepared, prepare
from MedEnhanceLib.spg.statistics import imposed, mean_over, measure
from MedEnhanceLib.spg.worth import share_to_keep, with_share


@dataclass(frozen=True)
class Material:
    """What every arm gets.

    Args:
        prepared: images of training and held-out patients, and the public prior.
        config: of the distillation; its method is not used.
    """

    prepared: Prepared
    config: DistillConfig

    @classmethod
    def of(cls, cohort: Cohort, config: DistillConfig, monitor: Monitor | None = None) -> Material:
        """Prepare a cohort; the prior stays as it is public, whatever `intensities` is."""
        public = replace(config, intensities="own")
        return cls(prepare(cohort, public, monitor or Monitor()), config)


def full(material: Material, seed: int) -> Floats:
    """All raw images of the training patients."""
    return np.concatenate(list(material.prepared.training.values()))


def random_raw(material: Material, seed: int) -> Floats:
    """As many raw images of each patient as matching makes, drawn at random."""
    rng = np.random.default_rng((seed, 10))
    count = material.config.images_per_patient
    return np.concatenate(
        [rng.permutation(images)[:count] for images in material.prepared.training.values()]
    )


def prior_alone(material: Material, seed: int) -> Floats:
    """The prior as it is public."""
    return material.prepared.prior.images


def statistics(material: Material, seed: int) -> Floats:
    """The prior with the cohort's intensities and textures: the method `statistics`."""
    prepared, scaling = material.prepared, material.config.images
    measured = [measure(one, prepared.modality, scaling) for one in prepared.training.values()]
    return imposed(prepared.prior.images, mean_over(measured), prepared.modality, scaling)


def matching(material: Material, seed: int) -> Floats:
    """SPG from there, patient by patient, with the share of the change that helps others."""
    prepared, config = material.prepared, replace(material.config, seed=seed)
    start = statistics(material, seed)
    parts = [
        distill_patient(Raw(images, start, prepared.modality, number), config).images
        for number, images in enumerate(prepared.training.values())
    ]
    kept = share_to_keep(parts, start, prepared.training, prepared.modality, config)
    return with_share(np.concatenate(parts), start, kept.share)


#: Name in tables → images float32 [N, H, W] in [0, 1], of a material and a seed.
ARMS: dict[str, Callable[[Material, int], Floats]] = {
    "all raw images": full,
    "random raw images": random_raw,
    "statistics": statistics,
    "matching": matching,
    "prior alone": prior_alone,
}
