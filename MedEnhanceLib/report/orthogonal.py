"""Cuts volumes with any order of axes into planes in radiological orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError

PlaneName = Literal["axial", "coronal", "sagittal"]
#: In the order of the upright axes that they are across: to the head, to the back, to the left.
PLANES: tuple[PlaneName, ...] = ("axial", "coronal", "sagittal")
Point = tuple[int, int, int]

#: Names of the voxel indices, slowest first.
_INDICES = "KJI"
#: The ends of the axes of LPS: (towards −, towards +) for x, y, z.
_ENDS = (("R", "L"), ("A", "P"), ("I", "S"))
#: A second letter is shown where the direction is off the axis by more than 15 degrees.
_SECOND_LETTER_COSINE = float(np.sin(np.deg2rad(15.0)))


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

    It is drawn radiologically: the patient's left on the right, anterior on the left of a sagittal
    plane, the head up. Voxels are not interpolated: an oblique grid is cut along its own nearest
    axes, which its letters show.

    Args:
        volume: a single frame; InputError for more.
        name: "axial", "coronal" or "sagittal".
        point: (k, j, i) in the plane; InputError where it is outside of the volume.
    """
    volume = volume.single()
    if not all(0 <= at < size for at, size in zip(point, volume.shape, strict=True)):
        raise InputError(f"the point {point} is outside of the shape {volume.shape}")
    turn, upright = volume.geometry.upright_turn, volume.upright().geometry
    normal = PLANES.index(name)
    row, column = (axis for axis in range(3) if axis != normal)
    across = turn.axes[normal]
    part = [slice(None)] * 3
    part[across] = slice(point[across], point[across] + 1)
    pixels = turn.apply(volume.voxels[tuple(part)]).squeeze(normal)
    axes = [(_INDICES[axis], range(volume.shape[axis])[:: turn.steps[axis]]) for axis in turn.axes]
    towards, spacing = np.asarray(upright.direction).T[::-1], upright.spacing[::-1]
    right, down = towards[column], towards[row]
    if row == 0:  # which runs to the head
        pixels, down, axes[row] = pixels[::-1], -down, (axes[row][0], axes[row][1][::-1])
    return Plane(
        name=name,
        pixels=pixels,
        spacing_mm=(spacing[row], spacing[column]),
        letters=tuple(
            "" if volume.profile.is_specimen else letters_towards(side)
            for side in (-right, right, -down, down)
        ),
        place=f"{_INDICES[across]} {point[across]} of 0–{volume.shape[across] - 1}",
        axes=(axes[row], axes[column]),
    )


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
