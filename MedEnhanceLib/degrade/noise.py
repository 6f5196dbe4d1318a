"""Noise of magnitude MR: Rician in tissue, Rayleigh in air."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def rician_noise(voxels: npt.NDArray[Any], sigma: float, rng: np.random.Generator) -> Floats:
    """The magnitude of `voxels` with Gaussian noise in both channels of a complex signal.

    voxels: any shape, any unit. sigma: standard deviation per channel, in the unit of `voxels`.
    Returns √((x + n₁)² + n₂²), float32, same shape. A magnitude is never negative: values below
    0 (undershoot of an interpolation) count as 0. Draws two numbers per voxel from `rng`.
    Source: Gudbjartsson and Patz, Magn. Reson. Med. 34 (1995) 910.
    """
    real = rng.standard_normal(voxels.shape, dtype=np.float32)
    real *= sigma
    real += np.maximum(voxels, 0)
    imaginary = rng.standard_normal(voxels.shape, dtype=np.float32)
    imaginary *= sigma
    return np.hypot(real, imaginary, out=real)


def foreground(voxels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """What lies above the mean of all voxels: finds a head in air, and costs nothing.

    Everything where nothing does, which is a constant.
    """
    above: npt.NDArray[np.bool_] = voxels > voxels.mean(dtype=np.float64)
    return above if above.any() else np.ones_like(above)


def robust_max(voxels: npt.NDArray[Any]) -> float:
    """The 99.5th percentile of the foreground, in the unit of `voxels`."""
    return float(np.percentile(voxels[foreground(voxels)], 99.5))
