"""Degradations computed on images: Rician noise, smooth shading; blur is in core/imaging."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask, cubic_spline

#: Distance of the shading's control points: sensitivities of head coils vary over such lengths.
KNOT_MM = 100.0


def rician_noise(voxels: Array, sigma: float, rng: np.random.Generator) -> Floats:
    """Add the noise of magnitude MR: Rician in tissue, Rayleigh in air.

    Source: Gudbjartsson and Patz, Magn. Reson. Med. 34 (1995) 910.

    voxels: any shape, any unit; values below 0 (undershoot of an interpolation) count as 0.
    sigma: standard deviation in each channel of the complex signal, in the unit of `voxels`.
    rng: two numbers per voxel are drawn from it.
    Returns √((x + n₁)² + n₂²), float32, same shape.
    """
    real = rng.standard_normal(voxels.shape, dtype=np.float32)
    real *= sigma
    real += np.maximum(voxels, 0)
    imaginary = rng.standard_normal(voxels.shape, dtype=np.float32)
    imaginary *= sigma
    return np.hypot(real, imaginary, out=real)


def bias_field(
    shape: tuple[int, ...],
    strength: float,
    rng: np.random.Generator,
    *,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    within: Mask | None = None,
) -> Floats:
    """Draw smooth multiplicative shading, as receive coils cause it.

    The logarithm of the field has mean 0 and is a cubic B-spline over control points 100 mm apart:
    over the same extent in mm the same draw gives the same field, whatever the voxel size.

    shape: (K, J, I).
    strength: 0.3 gives a field that multiplies or divides by 1.3 at most.
    spacing_mm: along i, j, k, as in `Geometry`.
    within: [K, J, I], where mean and maximum are taken; None takes the whole volume.
    Returns float32 [K, J, I], positive, no unit.
    """
    bases = [
        _spline_basis(count, spacing)
        for count, spacing in zip(shape, reversed(tuple(spacing_mm)), strict=True)
    ]
    log_field = rng.standard_normal([basis.shape[1] for basis in bases])
    for basis in bases:
        # Contracts the first axis and appends the new one: after three, the order is K, J, I.
        log_field = np.tensordot(log_field, basis, axes=(0, 1))
    log_field -= log_field.mean(where=True if within is None else within)
    peak = float(np.abs(log_field if within is None else log_field[within]).max())
    if peak > 0:
        log_field *= math.log1p(strength) / peak
    return np.exp(log_field).astype(np.float32)


def _spline_basis(count: int, spacing_mm: float) -> Doubles:
    """Return [count, control points]: weights of the cubic B-spline at voxel centers."""
    spans = max(1, math.ceil(count * spacing_mm / KNOT_MM - 1e-9))
    position = (np.arange(count) + 0.5) / count * spans
    return cubic_spline(position[:, None] - (np.arange(spans + 3) - 1))
