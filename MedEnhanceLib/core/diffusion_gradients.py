"""Diffusion weighting of frames, and its tables in FSL's format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.geometry import Geometry


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
    directions = np.array([gradient.direction for gradient in gradients])
    along = directions @ np.asarray(geometry.direction)
    if np.linalg.det(np.asarray(geometry.direction)) > 0:
        along[:, 0] *= -1
    rows = np.where(np.abs(along) < 5e-7, 0.0, along).T
    return {
        ".bval": " ".join(f"{gradient.b_value:g}" for gradient in gradients) + "\n",
        ".bvec": "".join(" ".join(f"{part:.6g}" for part in row) + "\n" for row in rows),
    }
