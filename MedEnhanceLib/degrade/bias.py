"""Smooth multiplicative shading, as receive coils give it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
#: Distance of the field's control points; sensitivities of head coils vary over such lengths.
KNOT_MM = 100.0


def bias_field(
    shape: tuple[int, ...],
    strength: float,
    rng: np.random.Generator,
    *,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    within: npt.NDArray[np.bool_] | None = None,
) -> Floats:
    """A random smooth field to multiply a volume with.

    shape: (K, J, I). strength: 0.3 gives a field whose largest departure from 1 is a factor of
    1.3 up or down; its logarithm has mean 0: shading is no gain.
    spacing_mm: along i, j, k, as in `Geometry`. The field is a cubic B-spline over control
    points 100 mm apart: over the same extent in mm the same draw gives the same field, whatever
    the voxel size.
    within: [K, J, I], where mean and largest departure are taken; None takes them everywhere.
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


def _spline_basis(count: int, spacing_mm: float) -> npt.NDArray[np.float64]:
    """[count, control points]: weights of the uniform cubic B-spline at each voxel's centre."""
    spans = max(1, math.ceil(count * spacing_mm / KNOT_MM - 1e-9))
    position = (np.arange(count) + 0.5) / count * spans
    distance = np.abs(position[:, None] - (np.arange(spans + 3) - 1)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far)
