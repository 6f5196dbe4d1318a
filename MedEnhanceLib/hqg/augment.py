"""What happens to a clean slab before the network sees it: damage, and changes that keep it true.

Everything here takes slabs [D, P, P] on the network's scale and a seeded generator.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.degrade import bias_field, gaussian_blur, rician_noise
from MedEnhanceLib.errors import InputError

Floats = npt.NDArray[np.float32]

#: Spots that are planted: radius in pixels, largest count, and how likely there are any.
_SPOT_RADIUS = (1.0, 5.0)
_MOST_SPOTS = 3
_SPOT_SHARE = 0.3
#: How much lighter or darker a spot is, on the network's scale.
_SPOT_CONTRAST = {"MR": (0.04, 0.35), "CT": (0.015, 0.15)}


class Damages:
    """Draws how clean slabs are damaged and what is to come back, by a training's shares."""

    def __init__(self, shares: Mapping[str, float], appearance: float) -> None:
        self._kinds = tuple(shares)
        self._shares = np.array(list(shares.values())) / sum(shares.values())
        self._appearance = appearance

    def apply(
        self, clean: Floats, noise: Floats | None, guide: Floats, rng: np.random.Generator
    ) -> tuple[Floats, Floats, Floats]:
        """The damaged slab, its target and its guide; noise: see `degrade_slab`."""
        kind = self._kinds[rng.choice(len(self._kinds), p=self._shares)]
        damaged, field = degrade_slab(clean, kind, noise, rng)
        target = clean * field
        if rng.random() < self._appearance:
            target, guide = same_sharpness(target, guide, rng)
        return damaged, target, guide


def degrade_slab(
    clean: Floats, kind: str, noise: Floats | None, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Damage a slab at random strength.

    noise: CT noise at the reference dose on the network's scale. Returns the damaged slab and
    its bias field: shading stays in the target, because a patch cannot tell it from anatomy (it
    is corrected in a step of its own).
    """
    unshaded = np.ones_like(clean)
    if kind == "clean":
        return clean, unshaded
    if kind == "low-dose":
        if noise is None:
            raise InputError("low-dose noise was not prepared for this volume", "Train for CT.")
        return clean + noise * np.float32(np.exp(rng.uniform(np.log(0.3), np.log(1.7)))), unshaded
    if kind == "rician":
        return rician_noise(clean, rng.uniform(0.01, 0.17), rng), unshaded
    if kind == "blur":
        return gaussian_blur(clean, rng.uniform(0.4, 1.5)), unshaded
    field = bias_field(clean.shape, rng.uniform(0.0, 0.4), rng, spacing_mm=(1.5, 1.5, 1.5))
    shaded = gaussian_blur(clean * field, rng.uniform(0.0, 1.2))
    return rician_noise(shaded, rng.uniform(0.01, 0.12), rng), field


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
