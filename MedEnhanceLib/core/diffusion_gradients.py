"""Diffusion weighting of frames, and its tables in FSL's format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.core.geometry import Geometry

#: How far the length of a direction may be from 1.
_LENGTH_ERROR = 0.1
#: b-values up to which a frame has no weighting; s/mm².
_UNWEIGHTED = 50.0


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
    """Read the two tables of FSL, with spaces, tabs, commas or semicolons between numbers.

    Directions may stand in three columns. Where a frame has no weighting, NaN counts as no
    direction.

    Args:
        b_values: text of the first table, s/mm².
        directions: text of the second one.
        frames: of the volume that they belong to.
        geometry: of that volume.
    Raises ValueError if they are not the tables of such a volume.
    """
    comma = re.search(r"(?<![^\s;])-?\d+,\d+(?![^\s;])", f"{b_values} {directions}")
    b_values, directions = (re.sub("[,;]", " ", text) for text in (b_values, directions))
    values = np.array([*map(_number, b_values.split())])
    rows = [[*map(_number, row.split())] for row in directions.splitlines() if row.strip()]
    table = np.array(rows if len({*map(len, rows)}) == 1 else [])
    reason = f"not {frames} b-values of at least 0 and {frames} directions of length 1"
    if comma:
        reason = f"the comma in {comma[0]:.40} separates two numbers; write decimals with a point"
    for along in (table.T, table):
        if values.shape != (frames,) or along.shape != (frames, 3):
            continue
        is_none = (values <= _UNWEIGHTED) & np.isnan(along).any(axis=1)
        along = np.where(is_none[:, None], 0.0, along)
        length = np.linalg.norm(along, axis=1)
        is_unit = (values == 0) | (length == 0) | (abs(length - 1) < _LENGTH_ERROR)
        if (is_unit & (values >= 0) & np.isfinite(values + length)).all():
            return gradients_of(values, along @ _fsl_axes(geometry).T)
        if (lacks := np.isnan(values + length)).any():
            frame = int(lacks.argmax())
            reason = f"NaN as b-value or direction of frame {frame} (b = {values[frame]:g} s/mm²)"
    raise ValueError(reason)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"not numbers: {word!r:.40}") from None


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
