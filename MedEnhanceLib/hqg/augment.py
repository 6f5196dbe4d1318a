"""What happens to a clean slab before the network sees it: damage, and changes that keep it true.

Everything here takes slabs [D, P, P] on the network's scale and a seeded generator.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.degrade import bias_field, gaussian_blur, rician_noise
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.config import TrainConfig

Floats = npt.NDArray[np.float32]

#: Spots that are planted: radius in pixels, largest count, and how likely there are any.
_SPOT_RADIUS = (1.0, 5.0)
_MOST_SPOTS = 5
_SPOT_SHARE = 0.6
#: How much lighter or darker a spot is, on the network's scale.
_SPOT_CONTRAST = {"MR": (0.04, 0.35), "CT": (0.015, 0.15)}
#: The least share of its width that a spot is deep, in slices, which are thick in CT.
_SPOT_FLATNESS = {"MR": 1.0, "CT": 0.3}
#: How often blur is to be undone, by kind of damage: also where there is none, or what is asked
#: would be taken for what is there.
_DEBLUR_SHARES = {"composite": 0.5, "blur": 0.6, "rician": 0.15, "clean": 0.3}


class Damaged(NamedTuple):
    """A slab [D, P, P] with its damage. quiet: the same without noise; sharp: without blur too.

    Shading stays in all of them, because a patch cannot tell it from anatomy (it is corrected in a
    step of its own).
    """

    image: Floats
    quiet: Floats
    sharp: Floats


class Lesson(NamedTuple):
    """What the network is shown, what it is to answer, its guide; and whether to undo blur."""

    degraded: Floats
    target: Floats
    guide: Floats
    deblur: bool


class Damages:
    """Draws how clean slabs are damaged and what is to come back, by a training's shares."""

    def __init__(self, config: TrainConfig) -> None:
        shares = config.degradations
        self._kinds = tuple(shares)
        self._shares = np.array(list(shares.values())) / sum(shares.values())
        self._appearance = config.appearance
        self._on_request = config.network.deblurring

    def apply(
        self, clean: Floats, noise: Floats | None, guide: Floats, rng: np.random.Generator
    ) -> Lesson:
        """Damage a slab at random strength; noise: see `degrade_slab`."""
        kind = self._kinds[rng.choice(len(self._kinds), p=self._shares)]
        damaged = degrade_slab(clean, kind, noise, rng)
        deblur = self._on_request and rng.random() < _DEBLUR_SHARES.get(kind, 0.0)
        target = damaged.sharp if deblur or not self._on_request else damaged.quiet
        if rng.random() < self._appearance:
            target, guide = same_sharpness(target, guide, rng)
        return Lesson(damaged.image, target, guide, deblur)


def degrade_slab(
    clean: Floats, kind: str, noise: Floats | None, rng: np.random.Generator
) -> Damaged:
    """Damage a slab at random strength.

    noise: CT noise at the reference dose on the network's scale.
    """
    if kind == "clean":
        return Damaged(clean, clean, clean)
    if kind == "low-dose":
        if noise is None:
            raise InputError("low-dose noise was not prepared for this volume", "Train for CT.")
        dose = np.float32(np.exp(rng.uniform(np.log(0.3), np.log(1.7))))
        return Damaged(clean + noise * dose, clean, clean)
    if kind == "rician":
        return Damaged(rician_noise(clean, rng.uniform(0.01, 0.17), rng), clean, clean)
    if kind == "blur":
        blurred = gaussian_blur(clean, rng.uniform(0.4, 1.5))
        return Damaged(blurred, blurred, clean)
    field = bias_field(clean.shape, rng.uniform(0.0, 0.4), rng, spacing_mm=(1.5, 1.5, 1.5))
    shaded = clean * field
    blurred = gaussian_blur(shaded, rng.uniform(0.0, 1.2))
    return Damaged(rician_noise(blurred, rng.uniform(0.01, 0.12), rng), blurred, shaded)


def turn(slab: npt.NDArray[np.generic], turns: int, flips: tuple[bool, bool]) -> Floats:
    """Quarter turns in plane; mirrored along columns and slices where `flips` says so."""
    slab = np.rot90(slab, turns, axes=(1, 2))
    if flips[0]:
        slab = slab[:, :, ::-1]
    if flips[1]:
        slab = slab[::-1]
    return np.ascontiguousarray(slab, dtype=np.float32)


def vary_contrast(slab: Floats, rng: np.random.Generator) -> Floats:
    """Another gain and gamma, so that one T1 pool also prepares for other sequences."""
    gain, gamma = rng.uniform(0.75, 1.15), np.exp(rng.uniform(-0.5, 0.5))
    varied: Floats = np.sign(slab) * np.abs(slab) ** np.float32(gamma) * np.float32(gain)
    return varied


def plant_spots(slab: Floats, modality: str, rng: np.random.Generator) -> Floats:
    """In some slabs, a few soft ellipsoids: what is small and rare has to survive the network.

    No pool of few subjects shows enough lesions to learn from that they matter. [ours]
    """
    if rng.random() >= _SPOT_SHARE:
        return slab
    slab = slab.copy()
    axes = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in slab.shape), indexing="ij")
    lowest, highest = _SPOT_CONTRAST[modality]
    for _ in range(int(rng.integers(1, _MOST_SPOTS + 1))):
        radii = rng.uniform(*_SPOT_RADIUS) * rng.uniform(0.7, 1.3, size=3)
        radii[0] *= rng.uniform(_SPOT_FLATNESS[modality], 1.0)
        centre = rng.uniform(0, slab.shape)
        if slab[tuple(centre.astype(int))] < (0.1 if modality == "MR" else -0.3):
            continue  # not in air
        squares = [
            ((axis - middle) / radius) ** 2
            for axis, middle, radius in zip(axes, centre, radii, strict=True)
        ]
        distance = np.sqrt(squares[0] + squares[1] + squares[2])
        profile = np.clip((1 - distance) * float(radii.mean()) + 0.5, 0, 1)  # an edge of one voxel
        slab += (rng.choice((-1, 1)) * rng.uniform(lowest, highest) * profile).astype(np.float32)
    return np.maximum(slab, 0) if modality == "MR" else slab


def same_sharpness(
    target: Floats, guide: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Soften or sharpen target and guide alike: only the guide tells which was asked."""
    sigma, amount = rng.uniform(0.5, 1.0), np.float32(rng.uniform(-1.0, 0.6))
    return (
        target + amount * (target - gaussian_blur(target, sigma)),
        guide + amount * (guide - gaussian_blur(guide, sigma)),
    )
