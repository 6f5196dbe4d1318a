"""Position of a volume's voxels in the patient: spacing, origin, direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import GeometryError

Triple = tuple[float, float, float]
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_ORTHONORMAL_TOLERANCE = 1e-3
#: Ratio of largest to smallest spacing below which voxels count as cubes.
_NEARLY_ISOTROPIC = 1.3


@dataclass(frozen=True)
class Geometry:
    """Maps voxel indices (i, j, k) to millimeters in LPS, the frame of ITK and DICOM.

    spacing: mm between voxel centers along i (columns), j (rows), k (slices).
    origin: mm, LPS, the center of voxel (0, 0, 0).
    direction: 3×3, row by row; its columns are the unit vectors of i, j, k in LPS.
    Raises GeometryError for a spacing that is not positive and finite, or for a direction
    whose columns are not orthonormal (a sheared grid, as a tilted gantry gives).

    Equality is exact, bit for bit; `is_close` compares within a tolerance.
    """

    spacing: Triple = (1.0, 1.0, 1.0)
    origin: Triple = (0.0, 0.0, 0.0)
    direction: tuple[Triple, Triple, Triple] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "spacing", _floats(self.spacing, "spacing"))
        object.__setattr__(self, "origin", _floats(self.origin, "origin"))
        rows = _matrix(self.direction, "direction")
        if rows.shape not in ((3, 3), (9,)):
            raise GeometryError(f"direction has shape {rows.shape}", "Give 3×3 numbers.")
        rows = rows.reshape(3, 3)
        object.__setattr__(
            self, "direction", tuple(_floats(row.tolist(), "direction") for row in rows)
        )
        if not all(0 < value < np.inf for value in self.spacing):
            raise GeometryError(
                f"spacing is {self.spacing} mm", "Correct the file's voxel size: it must be > 0."
            )
        deviation = float(np.abs(rows.T @ rows - np.eye(3)).max())
        if deviation > _ORTHONORMAL_TOLERANCE:
            raise GeometryError(
                f"direction is not orthonormal (off by {deviation:.3g})",
                "The grid is sheared: resample the volume to a rectangular grid first.",
            )

    @classmethod
    def from_affine_ras(cls, affine: npt.ArrayLike) -> Geometry:
        """From a 4×4 matrix (i, j, k) → mm in RAS, as NIfTI and Slicer write it.

        Raises GeometryError for other shapes, and for axes that are not at right angles.
        """
        ras = _matrix(affine, "affine")
        if ras.shape != (4, 4) or not np.isfinite(ras).all():
            raise GeometryError(f"affine is {ras.tolist()}", "Give 4×4 finite numbers.")
        lps = _LPS_TO_RAS @ ras
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        if not (spacing > 0).all():
            raise GeometryError("the affine has a column of zero length", "Correct the header.")
        return cls(
            spacing=tuple(spacing.tolist()),
            origin=tuple(lps[:3, 3].tolist()),
            direction=tuple(tuple(row) for row in (lps[:3, :3] / spacing).tolist()),  # type: ignore[arg-type]
        )

    @property
    def affine_lps(self) -> npt.NDArray[np.float64]:
        """4×4, (i, j, k) → mm in LPS."""
        affine = np.eye(4)
        affine[:3, :3] = np.asarray(self.direction) * np.asarray(self.spacing)
        affine[:3, 3] = self.origin
        return affine

    @property
    def affine_ras(self) -> npt.NDArray[np.float64]:
        """4×4, (i, j, k) → mm in RAS, as NIfTI and Slicer use it."""
        return _LPS_TO_RAS @ self.affine_lps

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

    def is_close(
        self, other: Geometry, tolerance: float = 1e-5, *, shape: Sequence[int] | None = None
    ) -> bool:
        """Whether the same voxels of both are within `tolerance` voxels of each other.

        Args:
            other: the geometry to compare with.
            tolerance: in voxels of the smaller spacing.
            shape: (…, K, J, I) of the volume, whose corners are compared. None compares only the
                first voxel and the steps to its neighbors; at n steps, deviations are n times
                larger.
        """
        scale = min(*self.spacing, *other.spacing)
        difference = self.affine_lps - other.affine_lps
        if shape is None:
            return bool(np.abs(difference).max() <= tolerance * scale)
        last = np.asarray(shape[-3:])[::-1] - 1  # of i, j, k
        corners = np.vstack([np.indices((2, 2, 2)).reshape(3, 8) * last[:, None], np.ones(8)])
        return bool(np.linalg.norm((difference @ corners)[:3], axis=0).max() <= tolerance * scale)

    def cropped(self, start: tuple[int, int, int]) -> Geometry:
        """The geometry of a sub-volume whose first voxel is `start` = (k, j, i)."""
        k, j, i = start
        if (k, j, i) == (0, 0, 0):
            return self
        origin = self.affine_lps @ np.array([i, j, k, 1.0])
        return Geometry(self.spacing, tuple(origin[:3].tolist()), self.direction)

    def to_json(self) -> dict[str, Any]:
        """As plain lists; floats keep every bit."""
        return {
            "spacing_mm": list(self.spacing),
            "origin_lps_mm": list(self.origin),
            "direction_lps": [list(row) for row in self.direction],
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Geometry:
        """The inverse of `to_json`; raises GeometryError on what is missing."""
        try:
            return cls(
                tuple(fields["spacing_mm"]),
                tuple(fields["origin_lps_mm"]),
                tuple(tuple(row) for row in fields["direction_lps"]),  # type: ignore[arg-type]
            )
        except (KeyError, TypeError) as cause:
            raise GeometryError(f"the stored geometry is incomplete: {cause}") from cause


def _matrix(values: npt.ArrayLike, field: str) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as cause:
        raise GeometryError(f"{field} is {values!r}", "Give a matrix of numbers.") from cause


def _floats(values: Sequence[float], field: str) -> Triple:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError) as cause:
        raise GeometryError(f"{field} is {values!r}", "Give three numbers.") from cause
    if len(numbers) != 3 or not np.isfinite(numbers).all():
        raise GeometryError(f"{field} is {numbers}", "Give three finite numbers.")
    return numbers
