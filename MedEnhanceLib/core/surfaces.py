"""Surface area of labeled structures.

Surface by the Crofton formula, on grids of any spacing:

    S = 2 · mean over directions of ∫ crossings dA

A line through a body crosses its surface; the number of crossings over all parallel lines of a
direction and over all directions gives the area. The lines run through voxels and their 26
neighbors. If voxels are not cubes these directions are unevenly spread, so each is weighted with
the part of the sphere nearest to it; with the weights of cubes, areas were off by up to a third.
The error of smooth bodies is at most 8 %, with cubes 1 %. Flat faces along the grid come out 10 %
too small with cubes and up to 30 % with slices ten times as thick as pixels are wide. Longer steps
would spread the directions more evenly but miss thin structures such as cortex in thick slices.
Source: Legland, Kiêu & Devaux, Image Analysis & Stereology 26 (2007), doi 10.5566/ias.v26.p83-92.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry, Triple

Labels = npt.NDArray[np.uint8]
Step = tuple[int, int, int]
#: Points on the sphere by which its parts are measured, to about 0.1 %.
_POINTS = 40_000
#: Steps to 13 of the 26 neighbors of a voxel; the opposite ones are on the same lines.
_STEPS: tuple[Step, ...] = tuple(
    (i, j, k) for i, j, k in product((-1, 0, 1), repeat=3) if (i, j, k) > (0, 0, 0)
)


def surface_areas(labels: Labels, values: Sequence[int], geometry: Geometry) -> dict[int, float]:
    """Measure the surface of each label [K, J, I] in mm², by the Crofton formula.

    Where a structure ends at the border of the image, the cut counts as surface.

    Args:
        labels: label indices.
        values: the labels that are measured.
        geometry: of the labels.
    """
    areas = dict.fromkeys(values, 0.0)
    for value in areas:
        mask = labels == value
        sides = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        if sides[0].size:
            box = tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)
            areas[value] = _surface_area(mask[box], geometry.spacing)
    return areas


def _surface_area(mask: npt.NDArray[np.bool_], spacing: Triple) -> float:
    """Measure the surface in mm² of what is true in [K, J, I]; spacing: mm along i, j, k."""
    outside = ~np.pad(mask, 1)
    total = 0.0
    for step, length, share in _directions(spacing):
        k, j, i = (
            slice(1 + along, 1 + along + side)
            for along, side in zip(reversed(step), mask.shape, strict=True)
        )
        # A line leaves a body as often as it enters it.
        crossings = 2 * int(np.count_nonzero(mask & outside[k, j, i]))
        total += share / length * crossings
    return 2 * math.prod(spacing) * total


@lru_cache(maxsize=64)
def _directions(spacing: Triple) -> tuple[tuple[Step, float, float], ...]:
    """List each step along i, j, k with its length in mm and its share of the sphere."""
    lines = np.array(_STEPS) * np.array(spacing)
    lengths = np.linalg.norm(lines, axis=1)
    nearest = np.abs(_sphere() @ (lines / lengths[:, None]).T).argmax(axis=1)
    shares = np.bincount(nearest, minlength=len(_STEPS)) / _POINTS
    return tuple(zip(_STEPS, lengths.tolist(), shares.tolist(), strict=True))


@lru_cache(maxsize=1)
def _sphere() -> npt.NDArray[np.float64]:
    """Spread points [N, 3] evenly over the unit sphere, along the golden spiral."""
    turns = np.arange(_POINTS) + 0.5
    height = 1 - 2 * turns / _POINTS
    angle = np.pi * (1 + 5**0.5) * turns
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
