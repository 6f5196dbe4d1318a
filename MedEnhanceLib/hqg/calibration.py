"""Calibration: from the network's uncertainty to measured standard deviations.

All values are on the network's scale. Needs numpy alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import InputError, ModelError

Floats = npt.NDArray[np.float32]

#: Maps are fitted so that ± 1.645 σ hold 90 % of the errors.
LEVEL, LEVEL_SIGMAS = 0.9, 1.6449
#: Further levels whose half widths are measured, in σ.
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
#: One ratio for all: curves of 16 points kept their coverage worse on other subjects.
BINS = 1
_FEWEST = 200


@dataclass(frozen=True)
class Curve:
    """A monotone map from raw to measured standard deviation.

    raw, measured: ascending points, with linear interpolation between them and the ratio of the
    nearest point outside.
    """

    raw: tuple[float, ...]
    measured: tuple[float, ...]

    def __post_init__(self) -> None:
        good = (
            len(self.raw) == len(self.measured) > 0 and np.isfinite(self.raw + self.measured).all()
        )
        if not (good and min(self.raw) > 0 and min(self.measured) > 0 and _ascends(self.raw)):
            raise ModelError("the calibration of a model is damaged", "Import the model again.")

    @classmethod
    def fit(cls, raw: Floats, error: Floats, bins: int = BINS) -> Curve:
        """Fit to voxels whose true error is known.

        Within each of `bins` equally filled bins of `raw`, 90 % of the errors lie within 1.645 σ.

        Args:
            raw: raw standard deviations, any shape.
            error: absolute errors of the same voxels.
            bins: number of points.
        Raises:
            InputError: there are too few voxels, or none with an error.
        """
        raw, error = raw.ravel(), error.ravel()
        if raw.size < _FEWEST:
            raise InputError(
                f"{raw.size} voxels are too few to calibrate with", "Give larger volumes."
            )
        edges = np.quantile(raw, np.linspace(0, 1, bins + 1)[1:-1])
        which = np.searchsorted(edges, raw)
        known = [(which == number) & (raw > 0) for number in range(bins)]
        points = [
            (middle, middle * float(np.quantile(error[chosen] / raw[chosen], LEVEL)) / LEVEL_SIGMAS)
            for chosen in known
            if np.count_nonzero(chosen) >= _FEWEST // bins
            for middle in [float(np.median(raw[chosen]))]
        ]
        # A raw value of 0 has no ratio, and equal values are one point.
        kept = {before: after for before, after in points if before > 0 and after > 0}
        if not kept:
            raise InputError(
                "nothing differs, so there is nothing to calibrate", "Degrade it more."
            )
        ordered = sorted(kept)
        measured = np.maximum.accumulate([kept[before] for before in ordered])
        return cls(tuple(ordered), tuple(float(value) for value in measured))

    def __call__(self, raw: Floats) -> Floats:
        """Measured standard deviations for raw ones, the same shape."""
        before, after = np.array(self.raw), np.array(self.measured)
        inside = np.interp(raw, before, after).astype(np.float32)
        inside = np.where(raw < before[0], raw * np.float32(after[0] / before[0]), inside)
        result: Floats = np.where(
            raw > before[-1], raw * np.float32(after[-1] / before[-1]), inside
        ).astype(np.float32, copy=False)
        return result


@dataclass(frozen=True)
class Calibration:
    """Calibration of a model's uncertainty; without curves it is not calibrated.

    Attributes:
        curves: "error" for the expected error alone, "samples" for the spread of samples.
        intervals: for the same keys, level → half width of the interval in σ.
        fitted_on: description of the data.
        samples: number of sampled runs.
    """

    curves: Mapping[str, Curve] = field(default_factory=dict)
    intervals: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    fitted_on: str = ""
    samples: int = 0

    @property
    def is_fitted(self) -> bool:
        """Whether there is anything to apply."""
        return bool(self.curves)

    def identity(self) -> dict[str, Any]:
        """The data it was fitted on and its hash, as manifests record them."""
        digest = hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode())
        return {"fitted_on": self.fitted_on, "sha256": digest.hexdigest()}

    def __call__(self, raw: Floats, *, sampled: bool) -> Floats:
        """Standard deviations for raw ones; unchanged where nothing was fitted."""
        curve = self.curves.get(_kind(sampled))
        return raw if curve is None else curve(raw)

    def interval(self, level: float, *, sampled: bool) -> float:
        """Half width, in σ, of the interval that holds this share of the errors (0.1 to 0.99).

        Without calibration, that of a Laplace distribution, as in the training's loss.
        """
        measured = self.intervals.get(_kind(sampled))
        if not measured:
            return float(-np.log(1 - level) / np.sqrt(2))
        levels = sorted(measured)
        return float(np.interp(level, levels, [measured[entry] for entry in levels]))

    def to_json(self) -> dict[str, Any]:
        """For a bundle's metadata."""
        return {
            "fitted_on": self.fitted_on,
            "samples": self.samples,
            "curves": {
                kind: {"raw": _rounded(curve.raw), "measured": _rounded(curve.measured)}
                for kind, curve in self.curves.items()
            },
            "intervals": {
                kind: {f"{level:g}": round(width, 4) for level, width in widths.items()}
                for kind, widths in self.intervals.items()
            },
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any] | None) -> Calibration:
        """The inverse of `to_json`; None is no calibration. Raises ModelError for damage."""
        if not fields:
            return cls()
        try:
            curves = {
                kind: Curve(tuple(map(float, curve["raw"])), tuple(map(float, curve["measured"])))
                for kind, curve in fields["curves"].items()
            }
            intervals = {
                kind: {float(level): float(width) for level, width in widths.items()}
                for kind, widths in fields["intervals"].items()
            }
            if not all(
                0 <= one < np.inf for widths in intervals.values() for one in widths.values()
            ):
                raise ValueError("a width is negative or infinite")
            return cls(curves, intervals, str(fields["fitted_on"]), int(fields["samples"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as cause:
            raise ModelError(
                "the calibration of a model is damaged", "Import the model again."
            ) from cause


def fit_calibration(
    raw: Mapping[str, Floats], error: Floats, *, fitted_on: str, samples: int, bins: int = BINS
) -> Calibration:
    """Curves and intervals for each kind of raw standard deviation of the same voxels."""
    curves = {kind: Curve.fit(values, error, bins) for kind, values in raw.items()}
    intervals = {
        kind: dict(zip(LEVELS, _widths(error, curves[kind](values)), strict=True))
        for kind, values in raw.items()
    }
    return Calibration(curves, intervals, fitted_on, samples)


def _widths(error: Floats, deviation: Floats) -> list[float]:
    ratio = error / np.maximum(deviation, np.finfo(np.float32).tiny)
    return [float(width) for width in np.quantile(ratio, LEVELS)]


def _kind(sampled: bool) -> str:
    return "samples" if sampled else "error"


def _ascends(values: Sequence[float]) -> bool:
    return all(before < after for before, after in pairwise(values))


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
