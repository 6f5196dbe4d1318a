"""The surface of a body of voxels by the Crofton formula, on grids of any spacing.

    S = 2 · mean over directions of ∫ crossings dA

A line through a body crosses its surface; how often, over all parallel lines of a direction and
over all directions, is its area. The lines are those through voxels and their 26 neighbours. Where
voxels are no cubes these directions lie unevenly, so each counts as much as the part of the sphere
that is nearest to it; with the shares of cubes, areas were off by up to a third.

Smooth bodies are within about 8 %, with cubes within 1 %. Flat faces along the grid come out 10 %
too small with cubes and up to 30 % with slices ten times as thick as pixels are wide. Longer steps,
whose directions lie more evenly, miss what is thin: the brain's cortex between thick slices.

Source: Legland, Kiêu & Devaux, Image Analysis & Stereology 26 (2007), doi 10.5566/ias.v26.p83-92.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

Triple = tuple[float, float, float]
Step = tuple[int, int, int]

#: Points on the sphere, by which its parts are measured: to about a thousandth.
_POINTS = 40_000
#: To the neighbours of a voxel, without those that lie opposite: they are on the same lines.
_STEPS: tuple[Step, ...] = tuple(
    (i, j, k) for i, j, k in product((-1, 0, 1), repeat=3) if (i, j, k) > (0, 0, 0)
)


def surface_area(mask: npt.NDArray[np.bool_], spacing: Triple) -> float:
    """Area in mm² of the surface of what is true in [K, J, I]; the image's border is outside.

    spacing: mm along i, j, k.
    """
    inside = int(np.count_nonzero(mask))
    # Of the two neighbours of each voxel inside, those that are not inside are crossings.
    lines = (
        share / length * 2 * (inside - _pairs(mask, step))
        for step, length, share in _directions(spacing)
    )
    return 2 * math.prod(spacing) * sum(lines)


def _pairs(mask: npt.NDArray[np.bool_], step: Step) -> int:
    """How many pairs of voxels that lie a step along i, j, k apart are both inside."""
    ends = [_apart(along, size) for along, size in zip(step[::-1], mask.shape, strict=True)]
    one, other = (mask[tuple(slices)] for slices in zip(*ends, strict=True))
    planes = zip(one, other, strict=True)  # one by one, which takes no memory
    return sum(int(np.count_nonzero(first & second)) for first, second in planes)


def _apart(step: int, size: int) -> tuple[slice, slice]:
    """The places along an axis that have another one step further, and these."""
    whole = size - abs(step)
    first, second = max(0, -step), max(0, step)
    return slice(first, first + whole), slice(second, second + whole)


@lru_cache(maxsize=64)
def _directions(spacing: Triple) -> tuple[tuple[Step, float, float], ...]:
    """Each step along i, j, k with its length in mm and its share of the sphere."""
    lines = np.array(_STEPS) * np.array(spacing)
    lengths = np.linalg.norm(lines, axis=1)
    nearest = np.abs(_sphere() @ (lines / lengths[:, None]).T).argmax(axis=1)
    shares = np.bincount(nearest, minlength=len(_STEPS)) / _POINTS
    return tuple(zip(_STEPS, lengths.tolist(), shares.tolist(), strict=True))


@lru_cache(maxsize=1)
def _sphere() -> npt.NDArray[np.float64]:
    """Points [N, 3] spread evenly over the unit sphere, along the golden spiral."""
    turns = np.arange(_POINTS) + 0.5
    height = 1 - 2 * turns / _POINTS
    angle = np.pi * (1 + 5**0.5) * turns
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
