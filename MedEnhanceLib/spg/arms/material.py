"""What every arm is given: training patients, patients who are held out, a prior and a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig, ImageConfig
from MedEnhanceLib.spg.patches import Patches
from MedEnhanceLib.spg.prepared import prepare
from MedEnhanceLib.spg.prior import with_intensities
from MedEnhanceLib.spg.slices import Floats, shown, spread_over


@dataclass(frozen=True)
class Budget:
    """How much an arm may give. count: images; side: of theirs in pixels, 0 for whole slices.

    per_patient: whether `count` is for each training patient, not in all.
    """

    name: str
    count: int
    side: int = 0
    per_patient: bool = False


@dataclass(frozen=True)
class Material:
    """training, held_out: images [N, H, W] in [0, 1] by patient; modality "CT" or "MR".

    public: the prior as the public has it, [M, H, W]. prior: the same with the intensities of the
    training patients, which is what a distillation starts from.
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

    def test_images(self, per_patient: int) -> Floats:
        """So many images of each held-out patient, at equal quantiles of their order."""
        return np.concatenate(
            [
                spread_over(images, min(per_patient, len(images)))
                for images in self.held_out.values()
            ]
        )

    def count(self, budget: Budget) -> int:
        """Images in all."""
        return budget.count * (len(self.training) if budget.per_patient else 1)

    def cut(self, images: Floats, count: int, side: int, rng: np.random.Generator) -> Floats:
        """`count` random crops [count, side, side] that show something; side 0: whole images.

        From as many different images as there are.
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
    """A cohort as the arms need it; raises as `prepare`, and ConfigError where nobody is held out.

    `config.intensities` has no part in it: both priors are made.
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
