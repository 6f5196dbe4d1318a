"""Cuts volumes with any order of axes into planes in radiological orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError

PlaneName = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[PlaneName, ...] = ("axial", "coronal", "sagittal")
Point = tuple[int, int, int]

#: Names of the voxel indices, fastest first.
_INDICES = "IJK"
#: The ends of the axes of LPS: (towards −, towards +) for x, y, z.
_ENDS = (("R", "L"), ("A", "P"), ("I", "S"))
#: A second letter is shown where the direction is off the axis by more than 15 degrees.
_SECOND_LETTER_COSINE = float(np.sin(np.deg2rad(15.0)))
#: plane → (LPS axis across, LPS axis down, whether down is towards −).
#: Radiological: the patient's left on the right; anterior on the left of a sagittal; head up.
_LAYOUT: dict[PlaneName, tuple[int, int, bool]] = {
    "axial": (0, 1, False),
    "coronal": (0, 2, True),
    "sagittal": (1, 2, True),
}


@dataclass(frozen=True)
class Plane:
    """One cut, to be drawn with its first row on top.

    Attributes:
        pixels: [rows, columns], in the volume's units.
        spacing_mm: between rows, between columns.
        letters: the patient's side at the left, right, top and bottom edge ("R", "L", "A", "P",
            "I", "S", or two of them where the grid is oblique); empty for microscopy.
        place: for a caption, with voxel indices from 0 as in Python and in Slicer: "K 92 of 0–188".
        axes: of the rows and of the columns: the name of the index, and the index of each pixel.
    """

    name: PlaneName
    pixels: Array
    spacing_mm: tuple[float, float]
    letters: tuple[str, ...]
    place: str
    axes: tuple[tuple[str, range], tuple[str, range]]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width."""
        (rows, columns), (row_mm, column_mm) = self.pixels.shape, self.spacing_mm
        return rows * row_mm, columns * column_mm


def cut(volume: Volume, name: PlaneName, point: Point) -> Plane:
    """Cut along the plane nearest to an anatomical one.

    Voxels are not interpolated: an oblique grid is cut along its own nearest axes, which its
    letters show.

    Args:
        volume: a single frame; InputError for more.
        name: "axial", "coronal" or "sagittal".
        point: (k, j, i) in the plane; InputError where it is outside of the volume.
    """
    volume = volume.single()
    if not all(0 <= at < size for at, size in zip(point, volume.shape, strict=True)):
        raise InputError(f"the point {point} is outside of the shape {volume.shape}")
    across, down, reverse_down = _LAYOUT[name]
    along = nearest_axes(volume.geometry)
    column_axis, row_axis = along[across], along[down]
    array_axis = 2 - along[3 - across - down]
    index = point[array_axis]
    pixels = np.take(volume.voxels, index, axis=array_axis)
    if row_axis < column_axis:
        pixels = pixels.T
    directions = np.asarray(volume.geometry.direction)
    column, row = directions[:, column_axis], directions[:, row_axis]
    row_indices, column_indices = map(range, pixels.shape)
    if column[across] < 0:
        pixels, column = pixels[:, ::-1], -column
        column_indices = column_indices[::-1]
    if (row[down] < 0) != reverse_down:
        pixels, row = pixels[::-1], -row
        row_indices = row_indices[::-1]
    spacing = volume.geometry.spacing
    return Plane(
        name=name,
        pixels=pixels,
        spacing_mm=(spacing[row_axis], spacing[column_axis]),
        letters=tuple(
            "" if volume.profile.is_specimen else letters_towards(side)
            for side in (-column, column, -row, row)
        ),
        place=f"{_INDICES[2 - array_axis]} {index} of 0–{volume.shape[array_axis] - 1}",
        axes=((_INDICES[row_axis], row_indices), (_INDICES[column_axis], column_indices)),
    )


def nearest_axes(geometry: Geometry) -> tuple[int, int, int]:
    """Find the voxel axis (0 = i, 1 = j, 2 = k) nearest to each of x, y, z of LPS."""
    cosines = np.abs(np.asarray(geometry.direction))
    return max(
        permutations(range(3)),
        key=lambda order: sum(cosines[axis, voxel] for axis, voxel in enumerate(order)),
    )  # type: ignore[return-value]


def letters_towards(direction: Sequence[float] | Doubles) -> str:
    """Name the side of the patient that a vector in LPS points to: "L", or "LP" if oblique."""
    vector = np.asarray(direction, dtype=np.float64)
    order = np.argsort(-np.abs(vector), kind="stable")
    letters = [_ENDS[axis][int(vector[axis] > 0)] for axis in order[:2]]
    return "".join(letters if abs(vector[order[1]]) > _SECOND_LETTER_COSINE else letters[:1])


def busiest_point(volume: Volume) -> Point:
    """Find the median (k, j, i) of the foreground: planes through it show much anatomy."""
    voxels = volume.frame(0).voxels
    step = max(1, int(np.ceil((voxels.size / 2e6) ** (1 / 3))))
    coarse = np.asarray(voxels[::step, ::step, ::step], dtype=np.float32)
    low = float(np.percentile(coarse, 5))
    inside = coarse > low + 0.2 * (float(np.percentile(coarse, 99)) - low)
    if not inside.any():
        return tuple(size // 2 for size in voxels.shape)
    center = (int(np.median(axis)) * step for axis in np.nonzero(inside))
    return tuple(min(at, size - 1) for at, size in zip(center, voxels.shape, strict=True))
