"""Calibration: from the error that a network expects to a measured standard deviation.

    σ = ratio · √2 b        b: the network's expected absolute error (Laplace)

The ratio is fitted where the truth is known: there ± 1.645 σ hold 90 % of the errors. It covers
errors by noise and blur, including the bias of the estimate, and not shading. All values are on the
network's scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import InputError, ModelError

Floats = npt.NDArray[np.float32]

#: Maps are fitted so that ± 1.645 σ hold 90 % of the errors.
LEVEL, LEVEL_SIGMAS = 0.9, 1.6449
_FEWEST = 200


@dataclass(frozen=True)
class Calibration:
    """Calibration of a network's uncertainty.

    Attributes:
        ratio: of the measured standard deviation to the expected one.
        fitted_on: description of the data; empty where nothing was fitted.
    """

    ratio: float = 1.0
    fitted_on: str = ""

    @property
    def is_fitted(self) -> bool:
        """Whether there is anything to apply."""
        return bool(self.fitted_on)

    @classmethod
    def fit(cls, expected: Floats, error: Floats, *, fitted_on: str) -> Calibration:
        """Fit to voxels whose true error is known.

        Args:
            expected: absolute errors that the network expects, any shape.
            error: absolute errors of the same voxels.
            fitted_on: a description of the data.
        Raises:
            InputError: there are too few voxels, or none with an error.
        """
        if expected.size < _FEWEST:
            raise InputError(
                f"{expected.size} voxels are too few to calibrate with", "Give larger volumes."
            )
        known = expected > 0
        ratios = error[known] / (math.sqrt(2) * expected[known])
        ratio = float(np.quantile(ratios, LEVEL)) / LEVEL_SIGMAS if ratios.size else 0.0
        if ratio <= 0:
            raise InputError(
                "nothing differs, so there is nothing to calibrate", "Degrade it more."
            )
        return cls(ratio, fitted_on)

    def __call__(self, expected: Floats) -> Floats:
        """Standard deviations for expected absolute errors, the same shape."""
        return np.float32(self.ratio * math.sqrt(2)) * expected

    def identity(self) -> dict[str, Any] | None:
        """As manifests record it; None where nothing was fitted."""
        return self.to_json() if self.is_fitted else None

    def to_json(self) -> dict[str, Any]:
        """For a bundle's metadata."""
        return {"fitted_on": self.fitted_on, "ratio": float(f"{self.ratio:.6g}")}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any] | None) -> Calibration:
        """The inverse of `to_json`; None is no calibration. Raises ModelError for damage."""
        if not fields:
            return cls()
        try:
            ratio, fitted_on = float(fields["ratio"]), str(fields["fitted_on"])
            if not 0 < ratio < math.inf:
                raise ValueError(f"the ratio is {ratio}")
        except (KeyError, TypeError, ValueError, OverflowError) as cause:
            raise ModelError(
                "the calibration of a model is damaged", "Import the model again."
            ) from cause
        return cls(ratio, fitted_on)
