"""The band of low frequencies that is given back in CT, so that faint lesions stay visible.

    result = filtered + G (input − filtered)        G: a Gaussian of 1.5 mm within each slice

In low-dose CT a filter cannot tell a small faint lesion from a blob of noise, and removes both.
Most of a lesion is below this Gaussian, most of the noise above it
(docs/decisions/0067-faint-lesions-in-ct.md). Slices are treated alone, so that a preview costs
nothing more and equals the whole run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, Floats, cosine_matrix
from MedEnhanceLib.core.imaging import gaussian_blur

# Tuned on planted lesions (decision 0067). Measured again by Benchmarks/faint_lesions.py.
#: σ of the Gaussian, and the largest in pixels: finer ones (of specimens) have other lesions.
SIGMA_MM, _MOST_PX = 1.5, 16.0
#: Frequencies at which power is summed, from 0 to half a cycle per pixel.
_FREQUENCIES = (np.arange(256) + 0.5) / 512


@dataclass(frozen=True)
class LesionBand:
    """The Gaussian on a grid.

    Attributes:
        sigma_px: σ in pixels along rows and columns (j, i).
    """

    sigma_px: tuple[float, float]

    @classmethod
    def on(cls, spacing: Sequence[float]) -> LesionBand | None:
        """Make the band for a grid; None for pixels below .09 mm. spacing: (i, j, k) in mm."""
        sigma_px = SIGMA_MM / spacing[1], SIGMA_MM / spacing[0]
        return cls(sigma_px) if max(sigma_px) <= _MOST_PX else None

    def of(self, removed: Floats) -> Floats:
        """Return what is given back of what was removed, both [n, J, I]."""
        return gaussian_blur(removed, self.sigma_px)

    def share_of(self, spectrum: Floats) -> float:
        """Return the standard deviation of noise within the band over that of the noise.

        Its power at frequencies is interpolated between four for each axis, so that blocks would
        have the spectrum that was measured.

        Args:
            spectrum: of the noise in blocks, [4, 4, 4], as `NoiseEstimate.spectrum`.
        """
        side = spectrum.shape[-1]
        centers = np.arange(side) / (2 * side)
        between = np.array([np.interp(_FREQUENCIES, centers, row) for row in np.eye(side)])
        waves = np.exp(-2j * np.pi * np.arange(side)[:, None] * _FREQUENCIES)
        seen = np.square(np.abs(cosine_matrix(side) @ waves))  # by each coefficient
        solved = np.linalg.inv(seen @ between.T / len(_FREQUENCIES))
        power: Doubles = np.maximum(solved @ spectrum.mean(0, np.float64) @ solved.T, 0)
        passed = [
            between @ np.exp(-np.square(2 * np.pi * _FREQUENCIES * sigma))
            for sigma in self.sigma_px
        ]
        total = between.sum(1) @ power @ between.sum(1)
        return float(np.sqrt(passed[0] @ power @ passed[1] / total)) if total > 0 else 1.0
