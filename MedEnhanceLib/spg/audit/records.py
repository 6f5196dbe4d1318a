"""The records of an audit: its input (arrays, checked first), and the findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import InputError

Images = npt.NDArray[np.float32]

#: Pixels; the filters need as many, and smaller images show no anatomy.
SMALLEST_SIDE = 16
#: Tolerance of [0, 1] for floating-point rounding; more is a wrong window.
_SLACK = 1e-3
_FEWEST = 2


@dataclass(frozen=True)
class Audited:
    """A distilled set, the patients it was made from, and patients that were held out.

    Args:
        distilled: float32 [N, H, W], in [0, 1].
        training: by patient, float32 [n, H, W], scaled as the distilled images; at least two.
        held_out: as training. Patients must have been assigned to one or the other at random:
            the exact tests of the audit depend on it.
        prior: float32 [M, H, W], the start of the distillation; None: not used.
        prior_owner: the patient whose anatomy the prior shows; None: a template or an average.
    Raises:
        InputError: names what is empty, not finite, out of range or of another size.
    """

    distilled: Images
    training: Mapping[str, Images]
    held_out: Mapping[str, Images]
    prior: Images | None = None
    prior_owner: str | None = None

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

    @property
    def patients(self) -> dict[str, Images]:
        """All patients but the prior's, training first.

        The prior's patient is in every image by construction, which the report states separately.
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
        """Patient → alias in reports: T1, T2, … training, H1, H2, … held out, A1 of the prior."""
        named = {name: f"T{number}" for number, name in enumerate(self.training, start=1)}
        named |= {name: f"H{number}" for number, name in enumerate(self.held_out, start=1)}
        if self.prior_owner is not None:
            named.setdefault(self.prior_owner, "A1")
        return named


def check_redistilled(images: Images, audited: Audited) -> Images:
    """The result of a distillation for the audit, if its images have the audited size."""
    _check_images("the result of redistill", images, audited.distilled.shape[1:])
    return images


def _check_images(what: str, images: Images, size: tuple[int, ...] | None) -> tuple[int, ...]:
    """The images' size; raises InputError unless they are images in [0, 1] of that size."""
    is_array = isinstance(images, np.ndarray) and images.ndim == 3 and images.dtype == np.float32
    if not is_array or not images.size or min(images.shape[1:]) < SMALLEST_SIDE:
        shape = getattr(images, "shape", type(images).__name__)
        raise InputError(
            f"{what} is {shape} {getattr(images, 'dtype', '')}".strip(),
            f"Give a float32 array [N, H, W] of {SMALLEST_SIDE} × {SMALLEST_SIDE} pixels or more.",
        )
    if size is not None and images.shape[1:] != size:
        raise InputError(
            f"{what} has images of {images.shape[1]} × {images.shape[2]} pixels, not of "
            f"{size[0]} × {size[1]}",
            "Bring all images to the size of the distilled ones.",
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise InputError(
            f"{what} reaches from {low:.3g} to {high:.3g}",
            "Scale all images to [0, 1] through the same intensity window.",
        )
    return images.shape[1:]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of an attack that ran.

    Args:
        attack: its stable name.
        title: for people.
        sentence: what it found.
        p: probability that a set without a leak gives a result as extreme.
        level: the p at which the alarm is raised.
        smallest_p: the smallest p possible with a cohort of this size.
        detectable: the smallest leak that is found with 80 % probability, in the unit that `power`
            names; None: even the largest leak would have been missed.
        power: `detectable` in a sentence.
        measured: the figures behind it, for JSON.
    """

    attack: str
    title: str
    sentence: str
    p: float
    level: float
    smallest_p: float
    detectable: float | None
    power: str
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alarm(self) -> bool:
        """Whether this attack found a leak."""
        return self.p <= self.level

    @property
    def is_blind(self) -> bool:
        """Whether no leak could have been found: no alarm means nothing then."""
        return self.detectable is None

    def to_json(self) -> dict[str, Any]:
        """All fields, alarm and is_blind."""
        return asdict(self) | {"alarm": self.alarm, "is_blind": self.is_blind}
