"""Intensities → stored numbers of 16 bits: if possible exact, with the rescale of the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, Shorts, Voxels, Words
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout.derivation import ds_text

_SIGNED, _UNSIGNED = (-(2**15), 2**15 - 1), (0, 2**16 - 1)
#: Limits of slopes and intercepts in float32, in which most readers rescale.
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max) / 2


@dataclass(frozen=True)
class Rescale:
    """Relation of a series: intensity = stored × slope + intercept.

    Attributes:
        slope, intercept: decimal strings, as DICOM writes them.
    """

    slope: str = "1"
    intercept: str = "0"

    @property
    def numbers(self) -> tuple[float, float]:
        """Slope and intercept as a reader gets them."""
        return float(self.slope), float(self.intercept)


@dataclass(frozen=True)
class Stored:
    """The way in which the slices of one series are stored, in 16 bits.

    Attributes:
        rescales: one for each slice.
        signed: whether in two's complement.
        error: the largest difference between an intensity and what a reader gets, measured; 0 if
            all are exact.
    """

    rescales: tuple[Rescale, ...]
    signed: bool
    error: float = 0.0

    def numbers(self, index: int, slice_: Voxels) -> Shorts | Words:
        """Return the stored numbers of slice `index`, [J, I]."""
        low, high = _SIGNED if self.signed else _UNSIGNED
        stored = np.clip(_stored(slice_, self.rescales[index]), low, high)
        return stored.astype("<i2") if self.signed else stored.astype("<u2")


def plan_storage(
    slices: Sequence[Voxels], source_rescales: Sequence[Rescale], *, from_zero: bool = False
) -> Stored:
    """Choose how slices are stored.

    The first of these that holds every value is used: the source's own rescale; whole numbers
    from one offset; steps of a 65,535th of the range, or of a 32,767th of the largest value (PET).

    Args:
        slices: [J, I] each, intensities.
        source_rescales: the rescale of each source slice.
        from_zero: the intercept must be 0, and slices may differ in slope (PET).
    Raises InputError: NaN or infinity, or numbers too large or too close together for DICOM.
    """
    for slice_ in slices:
        if slice_.dtype.kind == "f" and not np.isfinite(slice_).all():
            raise InputError("the volume holds NaN or infinity", "DICOM stores finite numbers.")
    lows, highs = [slice_.min() for slice_ in slices], [slice_.max() for slice_ in slices]
    candidates = [tuple(source_rescales)]
    if not from_zero:
        lowest = str(int(min(lows))) if abs(float(min(lows))) < 2**53 else "0"
        candidates += [(Rescale("1", offset),) * len(slices) for offset in ("0", lowest)]
    for rescales in candidates:
        signed = _sign_if_exact(slices, rescales)
        if signed is not None:
            return Stored(rescales, signed)
    if from_zero:
        rescales = tuple(
            Rescale(decimal(max(abs(float(low)), abs(float(high))) / _SIGNED[1] or 1.0))
            for low, high in zip(lows, highs, strict=True)
        )
    else:
        rescales = (_over_range(float(min(lows)), float(max(highs))),) * len(slices)
    return Stored(rescales, from_zero, _error(slices, Stored(rescales, from_zero)))


def _stored(slice_: Voxels, rescale: Rescale) -> Doubles:
    slope, intercept = rescale.numbers
    stored: Doubles = np.rint((slice_.astype(np.float64) - intercept) / slope)
    return stored


def _sign_if_exact(slices: Sequence[Voxels], rescales: Sequence[Rescale]) -> bool | None:
    """Return whether the stored numbers are signed; None if they cannot be exact."""
    low, high = np.inf, -np.inf
    for slice_, rescale in zip(slices, rescales, strict=True):
        slope, intercept = rescale.numbers
        stored = _stored(slice_, rescale)
        if not np.array_equal((stored * slope + intercept).astype(slice_.dtype), slice_):
            return None
        low, high = min(low, stored.min()), max(high, stored.max())
    preferred = slices[0].dtype.kind != "u"  # so that integers come back in their own type
    for is_signed in (preferred, not preferred):
        lowest, highest = _SIGNED if is_signed else _UNSIGNED
        if lowest <= low and high <= highest:
            return is_signed
    return None


def _error(slices: Sequence[Voxels], stored: Stored) -> float:
    """Return the largest error, with the rescales rounded as they are written."""
    error = 0.0
    for index, slice_ in enumerate(slices):
        slope, intercept = stored.rescales[index].numbers
        if not (_SMALLEST <= abs(slope) <= _LARGEST and abs(intercept) <= _LARGEST):
            raise InputError(
                f"its intensities, from {slice_.min():.3g} to {slice_.max():.3g}, are too large or "
                "too close together for DICOM's numbers",
                "Rescale them first, for instance to 0 … 1.",
            )
        # In float32, as readers rescale if slopes are not whole numbers.
        read = (stored.numbers(index, slice_) * slope + intercept).astype(np.float32)
        error = max(error, float(np.abs(read - slice_.astype(np.float64)).max()))
    return error


def _over_range(low: float, high: float) -> Rescale:
    if high == low:
        return Rescale("1", decimal(low))
    # The intercept as it is written, rounded to 16 characters, must not be above the lowest value.
    intercept = decimal(low)
    if float(intercept) > low:
        intercept = decimal(low - 2 * (float(intercept) - low))
    return Rescale(decimal((high - float(intercept)) / _UNSIGNED[1]), intercept)


def decimal(value: float) -> str:
    """Return a number as a decimal string of DICOM: all digits that fit into 16 characters."""
    return ds_text(repr(float(value)).removesuffix(".0"))
