"""Position of a volume's voxels in the patient: spacing, origin, direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.arrays import Array, Doubles
from MedEnhanceLib.errors import GeometryError

Triple = tuple[float, float, float]
Vector = tuple[float, ...]
#: Converts LPS to RAS, and RAS to LPS.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SPACING = "Give 3 numbers above 0: mm between columns, rows and slices, as (1, 1, 3)."
_ORTHONORMAL_TOLERANCE = 1e-3
#: Ratio of largest to smallest spacing below which voxels count as cubes.
_NEARLY_ISOTROPIC = 1.3


@dataclass(frozen=True)
class AxisTurn:
    """The way from the stored order of voxels to the canonical one, and back.

    Attributes:
        axes: of stored [K, J, I], in canonical order.
        steps: along the stored axes, -1 where the canonical order runs against them.
    """

    axes: tuple[int, ...] = (0, 1, 2)
    steps: tuple[int, ...] = (1, 1, 1)

    def apply(self, voxels: Array) -> Array:
        """Turn stored voxels, [K, J, I] or [T, K, J, I], to the canonical order, as a view."""
        k, j, i = (slice(None, None, step) for step in self.steps)
        return np.moveaxis(voxels[..., k, j, i], [axis - 3 for axis in self.axes], (-3, -2, -1))

    def undo(self, voxels: Array) -> Array:
        """Invert `apply`, as a view."""
        k, j, i = (slice(None, None, step) for step in self.steps)
        stored = np.moveaxis(voxels, (-3, -2, -1), [axis - 3 for axis in self.axes])
        return stored[..., k, j, i]


#: The turn of volumes that are stored in canonical order.
AS_STORED = AxisTurn()


@dataclass(frozen=True)
class Geometry:
    """The map from voxel indices (i, j, k) to millimeters in LPS, the frame of ITK and DICOM.

    Equality is exact, bit for bit; `is_close` compares within a tolerance.

    Attributes:
        spacing: mm between voxel centers along i (columns), j (rows), k (slices).
        origin: mm, LPS, the center of voxel (0, 0, 0).
        direction: 3×3, row by row; its columns are the unit vectors of i, j, k in LPS.
    Raises GeometryError for a spacing that is not positive and finite, or for a direction whose
    columns are not orthonormal (a sheared grid, as a tilted gantry gives).
    """

    spacing: Triple = (1.0, 1.0, 1.0)
    origin: Triple = (0.0, 0.0, 0.0)
    direction: tuple[Triple, Triple, Triple] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    def __post_init__(self) -> None:
        spacing = _numbers(self.spacing, (3,), "spacing")
        origin = _numbers(self.origin, (3,), "origin")
        rows = _numbers(self.direction, (3, 3), "direction")
        object.__setattr__(self, "spacing", tuple(spacing.tolist()))
        object.__setattr__(self, "origin", tuple(origin.tolist()))
        object.__setattr__(self, "direction", tuple(map(tuple, rows.tolist())))
        if not (spacing > 0).all():
            raise GeometryError(f"spacing is {self.spacing} mm", _SPACING)
        deviation = float(np.abs(rows.T @ rows - np.eye(3)).max())
        if deviation > _ORTHONORMAL_TOLERANCE:
            raise GeometryError(
                f"direction: the axes are not at right angles (off by {deviation:.3g})",
                "The grid is sheared: resample the volume to a rectangular grid first.",
            )

    @classmethod
    def from_affine_ras(cls, affine: npt.ArrayLike) -> Geometry:
        """Convert a 4×4 matrix (i, j, k) → mm in RAS, as NIfTI and Slicer write it.

        Raises GeometryError for other shapes, and for axes that are not at right angles.
        """
        ras = _numbers(affine, (4, 4), "affine")
        lps = LPS_TO_RAS @ ras
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        if not (spacing > 0).all():
            raise GeometryError("the affine has a column of zero length", "Correct the header.")
        return cls(
            spacing=tuple(spacing.tolist()),
            origin=tuple(lps[:3, 3].tolist()),
            direction=tuple(tuple(row) for row in (lps[:3, :3] / spacing).tolist()),  # type: ignore[arg-type]
        )

    @property
    def affine_lps(self) -> Doubles:
        """4×4, (i, j, k) → mm in LPS."""
        affine = np.eye(4)
        affine[:3, :3] = np.asarray(self.direction) * np.asarray(self.spacing)
        affine[:3, 3] = self.origin
        return affine

    @property
    def affine_ras(self) -> Doubles:
        """4×4, (i, j, k) → mm in RAS, as NIfTI and Slicer use it."""
        return LPS_TO_RAS @ self.affine_lps

    @property
    def is_right_handed(self) -> bool:
        """Whether i × j points along k, not against it."""
        return bool(np.linalg.det(np.asarray(self.direction)) > 0)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm³."""
        return float(np.prod(self.spacing))

    @property
    def is_nearly_isotropic(self) -> bool:
        """Whether voxels are nearly cubes, so that all planes have about the same resolution."""
        return max(self.spacing) / min(self.spacing) < _NEARLY_ISOTROPIC

    @property
    def upright_turn(self) -> AxisTurn:
        """The turn to the order of DICOM's axial images, which depends on the patient alone.

        Columns run to the left, rows to the back, slices to the head, by the nearest axes.
        """
        direction = np.asarray(self.direction)

        def alignment(candidate: tuple[tuple[int, ...], tuple[int, ...]]) -> list[float]:
            turned = direction[:, candidate[0]] * candidate[1]
            # Of equally near axes, as at 45°, all storages choose the same.
            return [round(float(each), 6) for each in (np.trace(turned), *turned.flat)]

        flips = product((1, -1), repeat=3)
        nearest, signs = max(product(permutations(range(3)), flips), key=alignment)
        steps = dict(zip(nearest, signs, strict=True))
        axes = tuple(2 - axis for axis in reversed(nearest))
        return AxisTurn(axes, (steps[2], steps[1], steps[0]))

    @property
    def turn(self) -> AxisTurn:
        """The turn to the canonical order, which depends on the patient and the spacing alone.

        It is the upright one, but thick slices stay slices: their axis comes first.
        """
        upright, middle = self.upright_turn, sorted(self.spacing)[1]
        thin = [round(mm / middle, 3) < _NEARLY_ISOTROPIC for mm in reversed(self.spacing)]
        return AxisTurn(tuple(sorted(upright.axes, key=thin.__getitem__)), upright.steps)

    def turned(self, turn: AxisTurn, shape: Sequence[int]) -> Geometry:
        """Return the geometry of turned voxels; shape: stored, (…, K, J, I)."""
        affine = self.affine_lps
        ijk, steps = [2 - axis for axis in reversed(turn.axes)], np.array(turn.steps[::-1])
        first = np.append((np.array(shape[-3:])[::-1] - 1) * (steps < 0), 1)
        direction = (np.asarray(self.direction) * steps)[:, ijk]
        di, dj, dk = (self.spacing[axis] for axis in ijk)
        return Geometry((di, dj, dk), tuple((affine @ first)[:3]), direction.tolist())

    def is_close(
        self, other: Geometry, tolerance: float = 1e-5, *, shape: Sequence[int] = (2, 2, 2)
    ) -> bool:
        """Return whether the same voxels of both are within `tolerance` voxels of each other.

        Args:
            other: the geometry to compare with.
            tolerance: in voxels of the smaller spacing.
            shape: (…, K, J, I) of the volume, whose corners are compared. The default compares
                the first voxel and its neighbors; at n steps, deviations are n times larger.
        """
        scale = min(*self.spacing, *other.spacing)
        difference = self.affine_lps - other.affine_lps
        last = np.asarray(shape[-3:])[::-1] - 1  # of i, j, k
        corners = np.vstack([np.indices((2, 2, 2)).reshape(3, 8) * last[:, None], np.ones(8)])
        return bool(np.linalg.norm((difference @ corners)[:3], axis=0).max() <= tolerance * scale)

    def cropped(self, start: tuple[int, int, int]) -> Geometry:
        """Return the geometry of a sub-volume whose first voxel is `start` = (k, j, i)."""
        k, j, i = start
        if (k, j, i) == (0, 0, 0):
            return self
        origin = self.affine_lps @ np.array([i, j, k, 1.0])
        return Geometry(self.spacing, tuple(origin[:3].tolist()), self.direction)

    def to_json(self) -> dict[str, Any]:
        """Return plain lists; floats keep every bit."""
        return {
            "spacing_mm": list(self.spacing),
            "origin_lps_mm": list(self.origin),
            "direction_lps": [list(row) for row in self.direction],
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Geometry:
        """Read the object that `to_json` returns; raises GeometryError for a missing field."""
        try:
            return cls(fields["spacing_mm"], fields["origin_lps_mm"], fields["direction_lps"])
        except (KeyError, TypeError) as cause:
            raise GeometryError(f"the stored geometry is incomplete: {cause}") from cause


def _numbers(values: npt.ArrayLike, shape: tuple[int, ...], field: str) -> Doubles:
    try:
        numbers = np.asarray(values, np.float64).reshape(shape)
        if np.isfinite(numbers).all():
            return numbers
    except (TypeError, ValueError, OverflowError):
        pass
    size = "×".join(map(str, shape))
    hint = _SPACING if field == "spacing" else f"Give {size} finite numbers."
    raise GeometryError(f"{field} is {values!r}", hint)
