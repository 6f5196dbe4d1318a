"""The physics of a slice: how thin slices become thick ones, and the grid between the two.

Across slices everything is linear, so a stack is described by two small matrices: `thicken` [K, M]
makes K thick slices of M thin ones, `interpolate` [M, K] is the cubic B-spline through the thick
slices. Both stacks share the edges of the volume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, cubic_spline

Shape = Literal["gaussian", "box"]
#: Standard deviation of a Gaussian of full width 1 at half maximum.
_SIGMA = 1 / (2 * math.sqrt(2 * math.log(2)))
#: Reach of a Gaussian profile in standard deviations: beyond is less than 1e-5 of it, each side.
_REACH = 4.3
#: Least variance of the noise over that of what is missing: keeps the inverse finite.
_LEAST_DAMPING = 1e-3


@dataclass(frozen=True)
class SliceStack:
    """K thick slices and the M thin ones that fill the same extent.

    Attributes:
        thick: number K of slices that were measured.
        spacing_mm: between their centers.
        thickness_mm: full width of the slice profile at half maximum.
        thin: number M of slices to restore.
        shape: of the profile: gaussian (2-D MR), or box.
    """

    thick: int
    spacing_mm: float
    thickness_mm: float
    thin: int
    shape: Shape = "gaussian"

    @property
    def thin_mm(self) -> float:
        """Spacing of the thin slices."""
        return self.thick * self.spacing_mm / self.thin

    @property
    def ratio(self) -> float:
        """Thin slices for each thick one."""
        return self.thin / self.thick

    @property
    def width(self) -> float:
        """Thickness of a slice in thin slices."""
        return self.thickness_mm / self.thin_mm

    def phases(self) -> Doubles:
        """Return the position of each thin slice in its thick one, [M]: −½ to ½, 0: the center."""
        place = (np.arange(self.thin) + 0.5) / self.ratio
        return np.asarray(place - np.floor(place) - 0.5)

    def sources(self) -> list[int]:
        """Return the number of the thick slice at the center of each thin one, [M]."""
        return [int((thin + 0.5) / self.ratio) for thin in range(self.thin)]

    def thicken(self) -> Doubles:
        """Build [K, M]: each row is a slice's profile, cut at the volume's edge, with sum 1."""
        # Centers of thick slices, counted in thin slices from the center of the first one.
        centers = (np.arange(self.thick) + 0.5) * self.ratio - 0.5
        apart = np.arange(self.thin)[None] - centers[:, None]
        if self.shape == "gaussian":
            sigma = max(self.width * _SIGMA, 1e-3)
            weights = np.exp(-0.5 * np.square(apart / sigma))
            weights[np.abs(apart) > max(_REACH * sigma, 0.75)] = 0.0
        else:
            low = np.maximum(apart - 0.5, -self.width / 2)
            high = np.minimum(apart + 0.5, self.width / 2)
            weights = np.maximum(high - low, 0.0)
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def interpolate(self) -> Doubles:
        """Build [M, K], the cubic B-spline through the thick slices, mirrored at the edge."""
        through = _spline(np.arange(self.thick, dtype=np.float64), self.thick)
        centers = np.asarray((np.arange(self.thin) + 0.5) / self.ratio - 0.5, np.float64)
        return np.asarray(_spline(centers, self.thick) @ np.linalg.inv(through))

    def correct(self, noise: float | Doubles = 0.0) -> Doubles:
        """Build [..., M, K], the change of thin slices for each unit of error of the thick ones.

        The least change that corrects the error after thickening: Aᵀ(AAᵀ + λ)⁻¹, A = `thicken`.

        noise: [...], variance of the noise of a thick slice over that of what is missing; the more
            noise, the less closely slices are followed.
        """
        a = self.thicken()
        # AAᵀ of independent thin slices falls with the width: the damping is scaled alike.
        gram = a @ a.T
        damping = np.maximum(noise, _LEAST_DAMPING)[..., None, None] * np.diag(gram).mean()
        return np.asarray(a.T @ np.linalg.inv(gram + damping * np.eye(self.thick)))


def _spline(at: Doubles, count: int) -> Doubles:
    """Return the cubic B-splines of a mirrored series at these positions, [len(at), count]."""
    weights = cubic_spline(at[:, None] - np.arange(-2, count + 2))
    rows = weights[:, 2:-2]
    # Half-sample mirror: the series repeats as …1 0 0 1 2…
    rows[:, :2] += weights[:, 1::-1]
    rows[:, -2:] += weights[:, :-3:-1]
    return rows
