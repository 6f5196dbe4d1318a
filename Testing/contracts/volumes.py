"""Awkward volumes: shapes, types, geometries and contents that exist, and that break programs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume

#: σ of the noise in `clean` + noise, whose tissue is about 500.
SIGMA = 30.0
SHAPE = (5, 25, 22)
OBLIQUE = Geometry(
    (0.7, 0.9, 3.3), (-12.5, 80.25, 1e3), ((0.96, -0.28, 0), (0.28, 0.96, 0), (0, 0, 1))
)
#: Slices are rows, in the other direction.
_SAGITTAL = Geometry((2, 1, 1), (3, 5, -7), ((0, 0, 1), (0, -1, 0), (1, 0, 0)))
_SHAPES = {
    "one slice": (slice(2, 3), slice(None), slice(None)),
    "two slices": (slice(1, 3), slice(None), slice(None)),
    "one row": (slice(None), slice(9, 10), slice(None)),
    "one column": (slice(None), slice(None), slice(9, 10)),
    "odd sides": (slice(None, 3), slice(4, 21), slice(5, 18)),
    "one voxel": (slice(2, 3), slice(9, 10), slice(9, 10)),
}
_TYPES = ("u1", "i2", ">i2", "u2", ">u2", "i4", "f4", ">f4", "f8")
AWKWARD = (
    *_SHAPES, *_TYPES, "negative", "anisotropic", "oblique", "sagittal", "strided", "constant",
    "air", "padded", "large", "small",
)  # fmt: skip


def clean() -> Voxels:
    """Smooth tissue of an ellipsoid in air, [K, J, I]."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    return np.where(k**2 / 4 + j**2 + i**2 < 0.9, 500 + 200 * np.sin(4 * i) * np.cos(3 * j), 0.0)


def noisy(modality: str, seed: int = 0) -> Volume:
    """Return the same with noise of SIGMA, that of magnitudes in MR; its voxels are read-only."""
    noise = np.random.default_rng(seed).normal(0, SIGMA, (2, *SHAPE))
    if modality == "MR":
        voxels = np.hypot(clean() + noise[0], noise[1])
    else:
        voxels = clean() - 500 + noise[0]
    return _fixed(Volume(voxels.astype(np.float32), Geometry((1, 1, 2)), modality=modality))


def series(modality: str, frames: int = 4, seed: int = 0) -> Volume:
    """Return frames that differ in contrast, as those of diffusion do."""
    each = [noisy(modality, seed + n).voxels * (1 - 0.15 * n) for n in range(frames)]
    directions = np.eye(3)[np.arange(frames) % 3].tolist()
    gradients = [Gradient(0.0), *(Gradient(1000.0, tuple(line)) for line in directions[1:])]
    stack = np.stack(each).astype(np.float32)
    return _fixed(replace(noisy(modality), voxels=stack, gradients=tuple(gradients)))


def awkward(name: str, volume: Volume) -> Volume:
    """Make one of AWKWARD from `noisy` or `series`; its voxels are read-only."""
    voxels, geometry = volume.voxels, volume.geometry
    if name in _SHAPES:
        voxels = np.ascontiguousarray(voxels[(..., *_SHAPES[name])])
    elif name in _TYPES:
        lowest = 0.0 if name[-2] == "u" else -np.inf
        voxels = np.clip(voxels / 4 if name == "u1" else voxels, lowest, None).astype(name)
    elif name in ("anisotropic", "oblique", "sagittal"):
        geometry = {
            "anisotropic": Geometry((0.4, 0.4, 9.0)), "oblique": OBLIQUE, "sagittal": _SAGITTAL
        }[name]  # fmt: skip
    else:
        voxels = {
            "negative": lambda: (voxels - 250).astype(np.int16),
            "strided": lambda: np.asfortranarray(voxels)[..., ::-1, :],
            "constant": lambda: np.full_like(voxels, 70),
            "air": lambda: _air(voxels.shape, volume.modality),
            "padded": lambda: np.where(np.arange(SHAPE[2]) < 9, voxels.min(), voxels),
            "large": lambda: voxels * np.float32(1e9),
            "small": lambda: voxels * np.float32(1e-3),
        }[name]()
    return _fixed(replace(volume, voxels=voxels, geometry=geometry))


def _air(shape: tuple[int, ...], modality: str) -> Voxels:
    noise = np.random.default_rng(1).normal(0, SIGMA, (2, *shape)).astype(np.float32)
    return np.hypot(*noise) if modality == "MR" else noise[0] - 1000


def _fixed(volume: Volume) -> Volume:
    """Forbid writing into the voxels."""
    volume.voxels.flags.writeable = False
    return volume
