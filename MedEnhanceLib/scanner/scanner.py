"""A scanner as two pools of volumes show it: how one source differs from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.core.modality import ModalityName
from MedEnhanceLib.core.options import About, Options, config_from_json, option
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.json_input import read_json

#: The axes of a volume in canonical order (`Geometry.turn`), [K, J, I].
AXES = ("slices", "rows", "columns")
_Share = Annotated[float, About(low=0, high=1)]
_Numbers = Annotated[tuple[float, ...], About(low=0, high=1e6, items=(2, 1000))]
_Shares = Annotated[tuple[float, ...], About(low=0, high=1, items=(2, 1000))]
_Positive = Annotated[float, About(above=0, high=1e6)]


@dataclass(frozen=True, kw_only=True)
class Measured(Options):
    """A figure, and the interval that nine of ten pools of this size would give."""

    value: Annotated[float, About(low=0, high=1e6)]
    low: Annotated[float, About(low=0, high=1e6)]
    high: Annotated[float, About(low=0, high=1e6)]


@dataclass(frozen=True, kw_only=True)
class Pool(Options):
    """The volumes of one source.

    Attributes:
        files: names without folders, in the order in which they were measured.
        spacing_mm: the median along columns, rows and slices.
        noise: σ as a share of the 99th percentile of tissue; of CT in HU.
        field: standard deviation of the bias field's logarithm in tissue, as N4 measures it.
    """

    files: Annotated[tuple[str, ...], About(items=(3, 100_000))]
    spacing_mm: Annotated[tuple[float, float, float], About(above=0, high=1e6)]
    noise: Measured
    field: Measured


@dataclass(frozen=True, kw_only=True)
class Resolution(Options):
    """What is left of each frequency along one axis, compared with the high-quality pool.

    Attributes:
        frequencies: cycles per mm, ascending.
        mtf: modulation transfer, 0 to 1, not increasing; low, high: its interval.
        mtf50: frequency at which half is left; the highest that the pool shows if more is left.
    """

    frequencies: _Numbers
    mtf: _Shares
    low: _Shares
    high: _Shares
    mtf50: Measured

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_curve("frequencies", self.frequencies, self.mtf, self.low, self.high)

    def at(self, count: int, spacing_mm: float) -> Doubles:
        """Interpolate the transfer at the frequencies of `numpy.fft.rfft` of `count` samples."""
        places = np.fft.rfftfreq(count, spacing_mm)
        return np.asarray(np.interp(places, self.frequencies, self.mtf))


@dataclass(frozen=True, kw_only=True)
class ContrastCurve(Options):
    """Which intensity the scanner shows where the high-quality pool shows another.

    Both are shares of the 99th percentile of the tissue of a volume, without bias field.

    Attributes:
        high_quality: from 0, ascending.
        scanner: likewise; low, high: its interval.
    """

    high_quality: _Numbers
    scanner: _Numbers
    low: _Numbers
    high: _Numbers

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_curve("high_quality", self.high_quality, self.scanner, self.low, self.high)
        _check_curve("scanner", self.scanner)

    def to_scanner(self, values: Any) -> Any:
        """Convert intensities of the high-quality pool to those of the scanner."""
        return _along(values, self.high_quality, self.scanner)

    def to_high_quality(self, values: Any) -> Any:
        """Convert intensities of the scanner to those of the high-quality pool."""
        return _along(values, self.scanner, self.high_quality)


@dataclass(frozen=True, kw_only=True)
class Scanner(Options):
    """How one source of volumes differs from another, measured without pairs.

    Attributes:
        modality: of both pools.
        low_quality: the pool of the scanner.
        high_quality: the pool that it is compared with.
        rician_share: of the scanner's volumes whose noise is Rician.
        spectrum: of its noise: 64 variances of cosine coefficients, as `NoiseEstimate.spectrum`.
        slices, rows, columns: resolution along the axes, thick slices first.
        curve: of contrast; None for CT, whose units are fixed.
        artifacts: what inspection finds unusual, with the number of volumes.
        warnings: reasons not to rely on the measurement.
    """

    modality: ModalityName
    low_quality: Pool
    high_quality: Pool
    rician_share: _Share
    spectrum: Annotated[tuple[float, ...], About(low=0, high=64, items=(64, 64))]
    slices: Resolution
    rows: Resolution
    columns: Resolution
    curve: ContrastCurve | None = option(None)
    artifacts: tuple[str, ...] = option(())
    warnings: tuple[str, ...] = option(())

    @classmethod
    def read(cls, path: str | Path) -> Scanner:
        """Read a measured scanner; InputError for any other file."""
        path = Path(path)
        try:
            return config_from_json(cls, read_json(path), "scanner")
        except OSError as cause:
            raise InputError(f"{path}: cannot be read: {cause.strerror}", _MEASURE) from cause
        except (ValueError, ConfigError) as cause:
            fault = f"{path.name}: not a measured scanner: {str(cause).splitlines()[0]}"
            raise InputError(fault, _MEASURE) from cause

    @property
    def axes(self) -> tuple[Resolution, Resolution, Resolution]:
        """The resolution along slices, rows and columns."""
        return self.slices, self.rows, self.columns


_MEASURE = "Measure it: medenhance scanner LOW/ --high-quality GOOD/ --out page/"


def _along(values: Any, given: Sequence[float], result: Sequence[float]) -> Any:
    """Interpolate a curve from 0 on; beyond its end in proportion to the last node."""
    inside = np.interp(values, given, result).astype(np.float32)
    return np.where(values > given[-1], values * np.float32(result[-1] / given[-1]), inside)


def _check_curve(name: str, places: Sequence[float], *values: Sequence[float]) -> None:
    if not all(a < b for a, b in pairwise(places)):
        raise ConfigError(f"{name} do not ascend", _MEASURE)
    if any(len(each) != len(places) for each in values):
        raise ConfigError(f"{name} and values differ in number", _MEASURE)
