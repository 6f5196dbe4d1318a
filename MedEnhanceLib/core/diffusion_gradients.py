"""Diffusion weighting of frames, and its tables in FSL's format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.core.geometry import Geometry

#: How far the length of a direction may be from 1.
_LENGTH_ERROR = 0.1


@dataclass(frozen=True)
class Gradient:
    """The diffusion weighting of one frame.

    Attributes:
        b_value: s/mm².
        direction: a unit vector in the patient, LPS; zeros for a frame without one (b = 0, a trace
            image).
    """

    b_value: float
    direction: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __str__(self) -> str:
        along = ", ".join(f"{part:.4f}" for part in self.direction)
        return f"b = {self.b_value:g} s/mm²" + (f" along ({along})" if any(self.direction) else "")


def fsl_tables(gradients: Sequence[Gradient], geometry: Geometry) -> dict[str, str]:
    """Format b-values and directions as the two tables of FSL.

    FSL's directions are along the axes of the voxel grid; the first axis is mirrored if the affine
    of the NIfTI file has a positive determinant.

    gradients: of the frames, in their order.
    geometry: of the volume.
    Returns the text of each file by its ending, ".bval" and ".bvec".
    """
    along = np.array([gradient.direction for gradient in gradients]) @ _fsl_axes(geometry)
    rows = [[gradient.b_value for gradient in gradients], *np.where(abs(along) < 5e-7, 0, along).T]
    b_values, *directions = (
        " ".join(repr(float(number)).removesuffix(".0") for number in row) + "\n" for row in rows
    )
    return {".bval": b_values, ".bvec": "".join(directions)}


def read_fsl_tables(
    b_values: str, directions: str, frames: int, geometry: Geometry
) -> tuple[Gradient, ...]:
    """Read the two tables of FSL; directions in three columns, as some programs write, too.

    Args:
        b_values: text of the first table, s/mm².
        directions: text of the second one.
        frames: of the volume that they belong to.
        geometry: of that volume.
    Raises ValueError if they are not the tables of such a volume.
    """
    values = np.array(b_values.split(), np.float64)
    table = np.array([row.split() for row in directions.splitlines() if row.strip()], np.float64)
    for along in (table.T, table):
        if values.shape == (frames,) and along.shape == (frames, 3) and np.isfinite(along).all():
            length = np.linalg.norm(along, axis=1)
            is_unit = (values == 0) | (length == 0) | (abs(length - 1) < _LENGTH_ERROR)
            if (is_unit & (values >= 0) & (values < np.inf)).all():
                return gradients_of(values, along @ _fsl_axes(geometry).T)
    raise ValueError(f"not {frames} b-values of at least 0 and {frames} directions of length 1")


def gradients_of(b_values: Doubles, along: Doubles) -> tuple[Gradient, ...]:
    """Make the gradients of frames; b_values: [T], s/mm²; along: [T, 3], LPS."""
    rows = np.column_stack([b_values, along]).tolist()
    return tuple(Gradient(b, (x, y, z)) for b, x, y, z in rows)


def are_same(some: Sequence[Gradient], others: Sequence[Gradient]) -> bool:
    """Return whether gradients are equal but for the digits that tables of text lose."""
    first, second = ([(each.b_value, *each.direction) for each in part] for part in (some, others))
    return len(first) == len(second) and np.allclose(first, second, rtol=0, atol=1e-6)


def _fsl_axes(geometry: Geometry) -> Doubles:
    """Return the axes of FSL's directions as columns, LPS."""
    axes = np.array(geometry.direction)
    if np.linalg.det(axes) > 0:
        axes[:, 0] *= -1
    return axes
