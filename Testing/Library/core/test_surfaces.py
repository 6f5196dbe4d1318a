"""Surfaces of labeled structures."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from MedEnhanceLib.core.geometry import Geometry, Triple
from MedEnhanceLib.core.surfaces import surface_areas

SPACINGS = [(1.0, 1.0, 1.0), (1.0, 2.0, 3.0), (0.5, 0.5, 5.0)]
#: Half axes in mm: a ball, something flat, something long along a grid's axes or across them.
BODIES = [(16.0, 16.0, 16.0), (20.0, 20.0, 8.0), (24.0, 9.0, 9.0)]
TURNED = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]


def ellipsoid(half_axes: Triple, spacing: Triple, turn: np.ndarray) -> np.ndarray:
    """Voxels [K, J, I] whose centers are inside."""
    sizes = [int(2 * max(half_axes) / step) + 4 for step in spacing]
    along = [(np.arange(n) - n / 2 + 0.5) * step for n, step in zip(sizes, spacing, strict=True)]
    k, j, i = np.meshgrid(*along[::-1], indexing="ij")
    places = np.stack([i, j, k], axis=-1) @ turn
    return ((places / np.array(half_axes)) ** 2).sum(axis=-1) < 1


@cache
def surface_of_ellipsoid(half_axes: Triple, count: int = 200) -> float:
    """Its integral over both angles."""
    a, b, c = half_axes
    theta, phi = np.meshgrid(
        (np.arange(count) + 0.5) * np.pi / count,
        (np.arange(2 * count) + 0.5) * np.pi / count,
        indexing="ij",
    )
    across = np.sin(theta) * np.hypot(b * c * np.cos(phi), a * c * np.sin(phi))
    element = np.hypot(across, a * b * np.cos(theta)) * np.sin(theta)
    return float(element.sum()) * (np.pi / count) ** 2


@pytest.mark.parametrize("turn", [np.eye(3), TURNED], ids=["straight", "oblique"])
@pytest.mark.parametrize("half_axes", BODIES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_surface_of_an_ellipsoid(spacing: Triple, half_axes: Triple, turn: np.ndarray) -> None:
    body = ellipsoid(half_axes, spacing, turn).astype(np.uint8) * 3
    area = surface_areas(body, [3, 5], Geometry(spacing))
    assert area[3] == pytest.approx(surface_of_ellipsoid(half_axes), rel=0.08)
    assert area[5] == 0


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_surface_of_a_box(spacing: Triple) -> None:
    """Flat faces along the grid are the formula's worst case: they come out too small."""
    voxels = (60, 40, 12)
    labels = np.pad(np.ones(voxels[::-1], np.uint8), 2)
    a, b, c = (n * step for n, step in zip(voxels, spacing, strict=True))
    share = surface_areas(labels, [1], Geometry(spacing))[1] / (2 * (a * b + b * c + c * a))
    assert 0.7 < share < 0.95
