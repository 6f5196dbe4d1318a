"""Training pairs from clean volumes: simulated degradation, augmentation, targets without noise.

Slabs are [D, P, P] on the network's scale; random numbers come from a seeded generator.
A network taught with noisy targets learns to give noise back, as it cannot separate the target's
noise from the input's. Therefore high-quality volumes are denoised before they become targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.degrade import bias_field, gaussian_blur, rician_noise
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.network import STRIDE, Enhancer, noise_level
from MedEnhanceLib.nets.shrinkage import BLOCK, BlockShrinkage

Floats = npt.NDArray[np.float32]
#: Synthetic spots: radius in pixels, largest number, share of slabs that have any.
_SPOT_RADIUS = (1.0, 5.0)
_MOST_SPOTS = 5
_SPOT_SHARE = 0.6
#: How much lighter or darker a spot is, on the network's scale.
_SPOT_CONTRAST = {"MR": (0.04, 0.35), "CT": (0.015, 0.15)}
#: The least share of its width that a spot is deep, in slices, which are thick in CT.
_SPOT_FLATNESS = {"MR": 1.0, "CT": 0.3}
#: Slices of a volume's noise that its spectrum is measured on.
_DEPTH = 12
_MOST_VOLUMES = 8


class Degraded(NamedTuple):
    """A slab [D, P, P] with simulated degradation. sharp: without noise and blur.

    Shading stays in both: in a patch it cannot be separated from anatomy, so it is corrected
    in a step of its own.
    """

    image: Floats
    sharp: Floats


class Example(NamedTuple):
    """Input [D, P, P], target [D, P, P] and guide [1, P, P]."""

    degraded: Floats
    target: Floats
    guide: Floats


class Degradations:
    """Random degradations of clean slabs, by the shares of a training's configuration."""

    def __init__(self, config: TrainConfig) -> None:
        shares = config.degradations
        self._kinds = tuple(shares)
        self._shares = np.array(list(shares.values())) / sum(shares.values())
        self._appearance = config.appearance

    def apply(
        self, clean: Floats, noise: Floats | None, guide: Floats, rng: np.random.Generator
    ) -> Example:
        """Degrade a slab at random strength; noise: see `degrade_slab`."""
        kind = self._kinds[rng.choice(len(self._kinds), p=self._shares)]
        degraded = degrade_slab(clean, kind, noise, rng)
        target = degraded.sharp
        if rng.random() < self._appearance:
            target, guide = same_sharpness(target, guide, rng)
        return Example(degraded.image, target, guide)


def degrade_slab(
    clean: Floats, kind: str, noise: Floats | None, rng: np.random.Generator
) -> Degraded:
    """Degrade a slab at random strength.

    Args:
        clean: [D, P, P] on the network's scale.
        kind: "rician", "blur", "composite", "low-dose" or "clean".
        noise: CT noise at the reference dose, [D, P, P] on the network's scale; None in MR.
        rng: source of the strength and the noise.
    """
    if kind == "clean":
        return Degraded(clean, clean)
    if kind == "low-dose":
        if noise is None:
            raise InputError("low-dose noise was not prepared for this volume", "Train for CT.")
        dose = np.float32(np.exp(rng.uniform(np.log(0.3), np.log(1.7))))
        return Degraded(clean + noise * dose, clean)
    if kind == "rician":
        return Degraded(rician_noise(clean, rng.uniform(0.01, 0.17), rng), clean)
    if kind == "blur":
        return Degraded(gaussian_blur(clean, rng.uniform(0.4, 1.5)), clean)
    field = bias_field(clean.shape, rng.uniform(0.0, 0.4), rng, spacing_mm=(1.5, 1.5, 1.5))
    shaded = clean * field
    blurred = gaussian_blur(shaded, rng.uniform(0.0, 1.2))
    return Degraded(rician_noise(blurred, rng.uniform(0.01, 0.12), rng), shaded)


def turn(slab: npt.NDArray[np.generic], turns: int, flips: tuple[bool, bool]) -> Floats:
    """Quarter turns in plane; mirrored along columns and slices where `flips` says so."""
    slab = np.rot90(slab, turns, axes=(1, 2))
    if flips[0]:
        slab = slab[:, :, ::-1]
    if flips[1]:
        slab = slab[::-1]
    return np.ascontiguousarray(slab, dtype=np.float32)


def vary_contrast(slab: Floats, rng: np.random.Generator) -> Floats:
    """Random gain and gamma, so that a T1 pool also covers other sequences."""
    gain, gamma = rng.uniform(0.75, 1.15), np.exp(rng.uniform(-0.5, 0.5))
    varied: Floats = np.sign(slab) * np.abs(slab) ** np.float32(gamma) * np.float32(gain)
    return varied


def plant_spots(slab: Floats, modality: str, rng: np.random.Generator) -> Floats:
    """Add a few soft ellipsoids to some slabs, so that small lesions survive the network. [ours]

    A pool of few subjects has too few lesions to learn that they matter.
    """
    if rng.random() >= _SPOT_SHARE:
        return slab
    slab = slab.copy()
    axes = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in slab.shape), indexing="ij")
    lowest, highest = _SPOT_CONTRAST[modality]
    for _ in range(int(rng.integers(1, _MOST_SPOTS + 1))):
        radii = rng.uniform(*_SPOT_RADIUS) * rng.uniform(0.7, 1.3, size=3)
        radii[0] *= rng.uniform(_SPOT_FLATNESS[modality], 1.0)
        center = rng.uniform(0, slab.shape)
        if slab[tuple(center.astype(int))] < (0.1 if modality == "MR" else -0.3):
            continue  # not in air
        squares = [
            ((axis - middle) / radius) ** 2
            for axis, middle, radius in zip(axes, center, radii, strict=True)
        ]
        distance = np.sqrt(squares[0] + squares[1] + squares[2])
        profile = np.clip((1 - distance) * float(radii.mean()) + 0.5, 0, 1)  # an edge of one voxel
        slab += (rng.choice((-1, 1)) * rng.uniform(lowest, highest) * profile).astype(np.float32)
    return np.maximum(slab, 0) if modality == "MR" else slab


def same_sharpness(
    target: Floats, guide: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Soften or sharpen target and guide alike, so that only the guide determines the target."""
    sigma, amount = rng.uniform(0.5, 1.0), np.float32(rng.uniform(-1.0, 0.6))
    return (
        target + amount * (target - gaussian_blur(target, sigma)),
        guide + amount * (guide - gaussian_blur(guide, sigma)),
    )


def without_noise(voxels: Floats, noise: npt.NDArray[np.float16] | None) -> Floats:
    """A high-quality volume after the shrinkage of blocks, at the level of its own noise.

    Args:
        voxels: [K, J, I] on the network's scale.
        noise: a realization of the noise of such images, for its spectrum; None assumes white
            noise.
    """
    rows, columns = voxels.shape[1:]
    if min(rows, columns) <= STRIDE:
        return voxels
    shrinkage = BlockShrinkage().requires_grad_(False)
    if noise is not None:
        _measure(shrinkage, [noise])
    padding = (0, -columns % STRIDE, 0, -rows % STRIDE)
    slab = torch.nn.functional.pad(torch.from_numpy(voxels)[None], padding, mode="reflect")
    with torch.inference_mode():
        shrunk: Tensor = shrinkage(slab, noise_level(slab, reach=0))
    return np.ascontiguousarray(shrunk[0, :, :rows, :columns].numpy())


def begin_with_spectrum(enhancer: Enhancer, noises: Sequence[npt.NDArray[np.float16]]) -> None:
    """Initialize an enhancer's shrinkage with the spectrum of known noise, if any."""
    if enhancer.shrinkage is not None and noises:
        _measure(enhancer.shrinkage, noises)


def _measure(shrinkage: BlockShrinkage, noises: Sequence[npt.NDArray[np.float16]]) -> None:
    spectra = []
    for noise in noises[:: -(-len(noises) // _MOST_VOLUMES)]:
        first = max(0, (len(noise) - _DEPTH) // 2)
        slab = torch.from_numpy(noise[first : first + _DEPTH].astype(np.float32))[None]
        sides = [side // STRIDE * STRIDE for side in slab.shape[-2:]]
        slab = slab[..., : sides[0], : sides[1]].contiguous()
        if min(sides) > 0 and slab.shape[1] >= BLOCK:
            spectra.append(shrinkage.spectrum(slab, noise_level(slab, reach=0)))
    if spectra:
        shrinkage.begin_with(torch.stack(spectra).log().mean(dim=0).exp())
