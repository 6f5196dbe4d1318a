"""A scanner as two pools of volumes show it: how one source differs from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from MedEnhanceLib.core.modality import ModalityName
from MedEnhanceLib.core.options import About, Options, config_from_json, option
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.json_input import read_json

#: The axes of a volume in canonical order (`Geometry.turn`), [K, J, I].
AXES = ("slices", "rows", "columns")
_Number = Annotated[float, About(low=0, high=1e6)]
_Numbers = Annotated[tuple[float, ...], About(low=0, high=1e6, items=(2, 1000))]
#: What an inversion undoes beside noise, in order.
Step = Literal["field", "resolution", "curve"]
STEPS: tuple[Step, ...] = ("field", "resolution", "curve")
_MEASURE = "Measure it: medenhance scanner LOW/ --high-quality GOOD/ --out page/"


@dataclass(frozen=True, kw_only=True)
class Measured(Options):
    """A figure, and the interval that nine of ten pools of this size would give."""

    value: _Number
    low: _Number
    high: _Number


@dataclass(frozen=True, kw_only=True)
class Gain(Options):
    """What an inversion gains over removing noise alone, in dB, in simulated scans."""

    median: Annotated[float, About(low=-1e6, high=1e6)]
    worst: Annotated[float, About(low=-1e6, high=1e6)]
    scans: Annotated[int, About(low=1, high=100_000)]


@dataclass(frozen=True, kw_only=True)
class Curve(Options):
    """A figure at ascending places, with its interval."""

    places: _Numbers
    values: _Numbers
    low: _Numbers
    high: _Numbers

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(a < b for a, b in pairwise(self.places)):
            raise ConfigError("places do not ascend", _MEASURE)
        if {len(self.values), len(self.low), len(self.high)} != {len(self.places)}:
            raise ConfigError("places and values differ in number", _MEASURE)

    @property
    def half(self) -> Measured:
        """The place at which half is left: MTF50 of a transfer.

        An end of the interval at the last place means there or beyond; at the first, there or
        below. Where it goes from the first to the last place, the pools do not show it.
        """
        lines = (self.values, self.low, self.high)
        value, low, high = (float(np.interp(-0.5, -np.array(line), self.places)) for line in lines)
        return Measured(value=value, low=low, high=high)

    def at(self, places: Any) -> Any:
        """Interpolate; beyond the last place in proportion to it."""
        return _along(places, self.places, self.values)

    def inverse(self, values: Any) -> Any:
        """Return the places of values, as `at`; the values must ascend."""
        return _along(values, self.values, self.places)


def _along(places: Any, given: Sequence[float], result: Sequence[float]) -> Any:
    inside = np.interp(places, given, result).astype(np.float32)
    return np.where(places > given[-1], places * np.float32(result[-1] / given[-1]), inside)


@dataclass(frozen=True, kw_only=True)
class VolumePool(Options):
    """The volumes of one source.

    Attributes:
        files: names without folders.
        spacing_mm: the median along columns, rows and slices.
        noise: σ as a share of the 99th percentile of tissue; of CT in HU.
        field: standard deviation of the bias field's logarithm in tissue, by N4.
    """

    files: Annotated[tuple[str, ...], About(items=(3, 100_000))]
    spacing_mm: Annotated[tuple[float, float, float], About(above=0, high=1e6)]
    noise: Measured
    field: Measured


@dataclass(frozen=True, kw_only=True)
class Scanner(Options):
    """How one source of volumes differs from another, measured without pairs.

    Attributes:
        modality: of both pools.
        low_quality: the pool of the scanner.
        high_quality: the pool that it is compared with.
        rician_share: of the scanner's volumes whose noise is Rician.
        spectrum: of its noise, as `NoiseEstimate.spectrum`.
        slices, rows, columns: modulation transfer along the axes, thick slices first, compared with
            the high-quality pool: cycles per mm → 0 to 1, not increasing.
        contrast: intensity of the high-quality pool → that of the scanner, as shares of the 99th
            percentile of tissue, without bias field; None for CT, whose units are fixed.
        misfit: of a smooth curve (RMS), as a share of the 99th percentile; large where the anatomy
            of the pools differs.
        gain: of the inversion, without the steps that are left out; None where it was not checked.
        without: steps that are not inverted.
        artifacts: what inspection finds unusual, with the number of volumes.
        warnings: reasons not to rely on the measurement.
    """

    modality: ModalityName
    low_quality: VolumePool
    high_quality: VolumePool
    rician_share: Annotated[float, About(low=0, high=1)]
    spectrum: Annotated[tuple[float, ...], About(low=0, high=64, items=(64, 64))]
    slices: Curve
    rows: Curve
    columns: Curve
    contrast: Curve | None = option(None)
    misfit: Annotated[float, About(low=0, high=1e6)] = option(0.0)
    gain: Gain | None = option(None)
    without: tuple[Step, ...] = option(())
    artifacts: tuple[str, ...] = option(())
    warnings: tuple[str, ...] = option(())

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(max(curve.values) > 1 or curve.values[0] < 0.5 for curve in self.axes):
            raise ConfigError("a transfer does not begin near 1", _MEASURE)
        if self.contrast and not all(a < b for a, b in pairwise(self.contrast.values)):
            raise ConfigError("contrast does not ascend", _MEASURE)

    @classmethod
    def read(cls, path: str | Path) -> Scanner:
        """Read a measured scanner; InputError for any other file."""
        path = Path(path)
        path = path / "scanner.json" if path.is_dir() else path
        try:
            return config_from_json(cls, read_json(path), "scanner")
        except OSError as cause:
            raise InputError(f"{path}: cannot be read: {cause.strerror}", _MEASURE) from cause
        except (ValueError, ConfigError) as cause:
            fault = str(cause).splitlines()[0]
            raise InputError(f"{path.name}: not a measured scanner: {fault}", _MEASURE) from cause

    @property
    def inverted(self) -> tuple[Step, ...]:
        """The steps of its inversion beside noise."""
        held = STEPS if self.contrast else STEPS[1:2]
        return tuple(step for step in held if step not in self.without)

    @property
    def applies(self) -> bool:
        """Whether anything is inverted."""
        return bool(self.inverted)

    @property
    def refusals(self) -> tuple[str, ...]:
        """The warnings that say why nothing is inverted; all, if a user left out the steps."""
        reasons = tuple(each for each in self.warnings if "nothing is inverted" in each)
        return reasons or self.warnings

    @property
    def axes(self) -> tuple[Curve, Curve, Curve]:
        """The transfer along slices, rows and columns."""
        return self.slices, self.rows, self.columns
