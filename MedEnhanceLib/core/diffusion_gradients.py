"""Diffusion weighting of frames: its tables in FSL's format, and the tensor that it determines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Numbers
from MedEnhanceLib.core.geometry import Geometry

#: How far the length of a direction may be from 1.
_LENGTH_ERROR = 0.1
#: b-values up to which a frame has no weighting, and above which log S is not linear; s/mm².
_UNWEIGHTED, _STRONGEST = 50.0, 1500.0
#: Largest condition number of the equations of a tensor; 10 to 30 for 6 to 30 directions.
_CONDITION = 200.0
#: Least signal in a fit, relative to the strongest one.
_LEAST_SIGNAL = 1e-3


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


def tensor_equations(gradients: Sequence[Gradient]) -> tuple[Numbers, Doubles] | None:
    """Choose the frames that determine a tensor D by log S = log S₀ − b gᵀ D g.

    gradients: of all frames.
    Returns their numbers, and [frames, 7], by which D, µm²/ms, and log S₀ give log S; None if the
    frames do not determine it.
    """
    table = np.array([(each.b_value, *each.direction) for each in gradients]).reshape(-1, 4)
    b, x, y, z = table.T
    is_plain = b <= _UNWEIGHTED
    is_used = is_plain | ((b <= _STRONGEST) & table[:, 1:].any(axis=1))
    products = np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], axis=1)
    rows = np.column_stack([-b[:, None] / 1000 * products, np.ones_like(b)])[is_used]
    if not is_plain.any() or len(rows) < 7 or np.linalg.cond(rows) > _CONDITION:
        return None
    return np.flatnonzero(is_used), rows


def fit_tensor(signals: Array, equations: Doubles) -> tuple[Doubles, Doubles]:
    """Fit a tensor at each voxel, by least squares in log S.

    Args:
        signals: [frames, voxels], as `tensor_equations` chose the frames.
        equations: [frames, 7].
    Returns fractional anisotropy, 0 to 1, and mean diffusivity, µm²/ms, of each voxel.
    """
    floor = max(_LEAST_SIGNAL * float(signals.max()), 1e-30)
    fitted = np.linalg.pinv(equations) @ np.log(np.maximum(signals, floor))
    tensors = fitted[[0, 3, 4, 3, 1, 5, 4, 5, 2]].T.reshape(-1, 3, 3)
    axes = np.maximum(np.linalg.eigvalsh(tensors), 0.0)  # noise makes some negative
    size = np.maximum(np.linalg.norm(axes, axis=1), 1e-6)
    return np.sqrt(4.5) * axes.std(axis=1) / size, axes.mean(axis=1)


def _fsl_axes(geometry: Geometry) -> Doubles:
    """Return the axes of FSL's directions as columns, LPS."""
    axes = np.array(geometry.direction)
    if np.linalg.det(axes) > 0:
        axes[:, 0] *= -1
    return axes
