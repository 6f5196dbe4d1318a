"""What an audit looks at: arrays alone, checked before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import InputError

Images = npt.NDArray[np.float32]

#: The filters need this much, and nothing smaller shows anatomy.
SMALLEST_SIDE = 16
#: In floating point, [0, 1] is exceeded by a rounding; a little more is a wrong window.
_SLACK = 1e-3
_FEWEST = 2


@dataclass(frozen=True)
class Audited:
    """A distilled set, the patients it was made from, and patients it never saw.

    distilled: float32 [N, H, W], in [0, 1]. training, held_out: by patient, float32 [n, H, W],
    scaled as the distilled images; at least two patients each, put at random into one or the
    other: every exact test of the audit rests on that draw. prior: float32 [M, H, W], what the
    distillation began with; None leaves it out. prior_owner: the patient whose anatomy the prior
    is; None for a public template or an average. owners: the patient of each distilled image, for
    the attack on identities; None leaves that out.
    Raises InputError naming what is empty, not finite, out of range or of another size.
    """

    distilled: Images
    training: Mapping[str, Images]
    held_out: Mapping[str, Images]
    prior: Images | None = None
    prior_owner: str | None = None
    owners: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        size = _check_images("the distilled set", self.distilled, None)
        for name, group in (("training", self.training), ("held-out", self.held_out)):
            count = sum(patient != self.prior_owner for patient in group)
            if count < _FEWEST:
                raise InputError(
                    f"the audit got {count} {name} patients besides the prior's",
                    "It compares patients that were used with patients that were not: give at "
                    "least two of each, drawn at random.",
                )
            for number, images in enumerate(group.values(), start=1):
                _check_images(f"{name} patient {number}", images, size)
        both = set(self.training) & set(self.held_out)
        if both:
            raise InputError(
                f"{len(both)} patients are in training and held out at once",
                "Split by patient, so that nobody is in both groups.",
            )
        if self.prior is not None:
            _check_images("the prior", self.prior, size)
        if self.owners is not None:
            self._check_owners(self.owners)

    def _check_owners(self, owners: tuple[str, ...]) -> None:
        if len(owners) != len(self.distilled):
            raise InputError(
                f"{len(owners)} owners for {len(self.distilled)} distilled images",
                "Name the training patient of each image, in order.",
            )
        strangers = set(owners) - set(self.training)
        if strangers:
            raise InputError(
                f"{len(strangers)} owners of distilled images are no training patients",
                "Name the training patient of each image, in order.",
            )

    @property
    def patients(self) -> dict[str, Images]:
        """All patients but the prior's, training first: whom the tests are about.

        The prior's patient is in every image by construction; the report names that by itself.
        """
        everyone = {**self.training, **self.held_out}
        return {name: images for name, images in everyone.items() if name != self.prior_owner}

    @property
    def tested_training(self) -> list[str]:
        """The training patients among `patients`."""
        return [name for name in self.training if name != self.prior_owner]

    @property
    def tested_held_out(self) -> list[str]:
        """The held-out patients among `patients`."""
        return [name for name in self.held_out if name != self.prior_owner]

    @property
    def aliases(self) -> dict[str, str]:
        """Patient → what reports call them: T1, T2, … of training, H1, H2, … held out."""
        named = {name: f"T{number}" for number, name in enumerate(self.training, start=1)}
        named |= {name: f"H{number}" for number, name in enumerate(self.held_out, start=1)}
        if self.prior_owner is not None:
            named.setdefault(self.prior_owner, "A1")
        return named


def check_redistilled(images: object, audited: Audited) -> Images:
    """What a distillation for the audit gave, as it must be: images of the audited size."""
    if not isinstance(images, np.ndarray):
        raise InputError(
            f"redistill gave {type(images).__name__}", "It has to give float32 [N, H, W]."
        )
    _check_images("what redistill gave", images, audited.distilled.shape[1:])
    return images


def _check_images(what: str, images: Images, size: tuple[int, ...] | None) -> tuple[int, ...]:
    if not isinstance(images, np.ndarray) or images.ndim != 3:
        shape = getattr(images, "shape", type(images).__name__)
        raise InputError(f"{what} is {shape}", "Give a float32 array [N, H, W] of images.")
    if images.dtype != np.float32:
        raise InputError(f"{what} is {images.dtype}", "Give float32, in [0, 1].")
    if images.size == 0:
        raise InputError(f"{what} is empty", "Give at least one image.")
    if min(images.shape[1:]) < SMALLEST_SIDE:
        raise InputError(
            f"{what} has images of {images.shape[1]} × {images.shape[2]} pixels",
            f"Give {SMALLEST_SIDE} × {SMALLEST_SIDE} or more.",
        )
    if size is not None and images.shape[1:] != size:
        raise InputError(
            f"{what} has images of {images.shape[1]} × {images.shape[2]} pixels, the distilled "
            f"set {size[0]} × {size[1]}",
            "Bring all of them to one size and pixel spacing.",
        )
    broken = ~np.isfinite(images).all(axis=(1, 2))
    if broken.any():
        raise InputError(
            f"{what}: {np.count_nonzero(broken)} images hold NaN or infinity, first image "
            f"{int(np.argmax(broken))}",
            "Repair the images, or distil again.",
        )
    low, high = float(images.min()), float(images.max())
    if low < -_SLACK or high > 1 + _SLACK:
        raise InputError(
            f"{what} reaches from {low:.3g} to {high:.3g}",
            "Scale all images to [0, 1] through the same intensity window.",
        )
    return images.shape[1:]
