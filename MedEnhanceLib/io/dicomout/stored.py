"""Intensities → stored numbers of 16 bits: exact where that can be, by the source's own rescale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import InputError

_SIGNED, _UNSIGNED = (-(2**15), 2**15 - 1), (0, 2**16 - 1)
#: Slopes and intercepts that float32 holds: most readers rescale in it.
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max) / 2


@dataclass(frozen=True)
class Rescale:
    """intensity = stored × slope + intercept; both as DICOM writes them, in 16 characters."""

    slope: str = "1"
    intercept: str = "0"

    @property
    def numbers(self) -> tuple[float, float]:
        """Slope and intercept as a reader gets them."""
        return float(self.slope), float(self.intercept)


@dataclass(frozen=True)
class Stored:
    """How the slices of one series are stored.

    rescales: one per slice. bits: BitsStored. signed: whether in two's complement.
    is_own: whether the rescales are those of the source. error: how far an intensity may be from
    what a reader gets, measured; 0 where every one comes back exactly.
    """

    rescales: tuple[Rescale, ...]
    bits: int
    signed: bool
    is_own: bool
    error: float = 0.0

    def numbers(self, index: int, slice_: Voxels) -> npt.NDArray[np.int16] | npt.NDArray[np.uint16]:
        """The stored numbers of slice `index`, [J, I]."""
        slope, intercept = self.rescales[index].numbers
        low, high = _SIGNED if self.signed else _UNSIGNED
        stored = np.clip(_stored(slice_, slope, intercept), low, high)
        return stored.astype("<i2") if self.signed else stored.astype("<u2")


def plan_storage(
    slices: Sequence[Voxels],
    own: Sequence[Rescale],
    *,
    bits: int = 16,
    signed: bool = False,
    from_zero: bool = False,
    one_rescale: bool = False,
) -> Stored:
    """Decide how slices [J, I] are stored, in 16 bits at most.

    own: the rescale of the source's slice, for each. bits, signed: how the source stored; widened
    where values do not fit. from_zero: the intercept has to be 0, and slices may differ in slope
    (PET). one_rescale: slices may not differ in it, as in a file of many frames, of which GDCM
    applies the first frame's to all.
    The first of these that holds every value is taken: the source's own rescale; whole numbers
    from one offset; steps of a 65,535th of the range, or of a 32,767th of the largest value.
    Raises InputError for NaN and infinity, and for numbers too large or too close together.
    """
    for slice_ in slices:
        if slice_.dtype.kind == "f" and not np.isfinite(slice_).all():
            raise InputError("the volume holds NaN or infinity", "DICOM stores finite numbers.")
    may_own = not one_rescale or len(set(own)) == 1
    if may_own and (fit := _fit(slices, own, bits, signed)) is not None:
        return Stored(tuple(own), *fit, is_own=True)
    if not from_zero and (offset := _whole(slices)) is not None:
        rescales = [Rescale("1", str(offset))] * len(slices)
        if (fit := _fit(slices, rescales, bits, signed)) is not None:
            return Stored(tuple(rescales), *fit, is_own=False)
    if from_zero:
        rescales = (
            [_from_zero(slices)] * len(slices)
            if one_rescale
            else [_from_zero([slice_]) for slice_ in slices]
        )
        return _measured(Stored(tuple(rescales), 16, True, is_own=False), slices)
    rescale = _over_range(slices)
    return _measured(Stored((rescale,) * len(slices), 16, False, is_own=False), slices)


def _measured(stored: Stored, slices: Sequence[Voxels]) -> Stored:
    """With the error that the rescales make as they are written: they too are rounded."""
    error = 0.0
    for index, slice_ in enumerate(slices):
        slope, intercept = stored.rescales[index].numbers
        if not (_SMALLEST <= abs(slope) <= _LARGEST and abs(intercept) <= _LARGEST):
            raise InputError(
                f"its intensities, from {slice_.min():.3g} to {slice_.max():.3g}, are too large or "
                "too close together for DICOM's numbers",
                "Rescale them first, for instance to 0 … 1.",
            )
        # As readers get it, ours too, where slopes are no whole numbers.
        found = (stored.numbers(index, slice_) * slope + intercept).astype(np.float32)
        error = max(error, float(np.abs(found - slice_.astype(np.float64)).max()))
    return replace(stored, error=error)


def _stored(slice_: Voxels, slope: float, intercept: float) -> npt.NDArray[np.float64]:
    wide: npt.NDArray[np.float64] = slice_.astype(np.float64)
    stored: npt.NDArray[np.float64] = np.rint((wide - intercept) / slope)
    return stored


def _fit(
    slices: Sequence[Voxels], rescales: Sequence[Rescale], bits: int, signed: bool
) -> tuple[int, bool] | None:
    """Bits and sign with which these rescales give every value back exactly, or None."""
    low, high = np.inf, -np.inf
    for slice_, rescale in zip(slices, rescales, strict=True):
        slope, intercept = rescale.numbers
        stored = _stored(slice_, slope, intercept)
        if not np.array_equal((stored * slope + intercept).astype(slice_.dtype), slice_):
            return None
        if slice_.dtype.itemsize == 8 and np.abs(stored).max() >= 2**52:
            return None
        low, high = min(low, stored.min()), max(high, stored.max())
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if ends[0] <= low and high <= ends[1]:
        return bits, signed
    if _UNSIGNED[0] <= low and high <= _UNSIGNED[1]:
        return 16, False
    if _SIGNED[0] <= low and high <= _SIGNED[1]:
        return 16, True
    return None


def _whole(slices: Sequence[Voxels]) -> int | None:
    """The offset from which whole numbers fit into 16 bits; None where they are not whole."""
    for slice_ in slices:
        if slice_.dtype.kind == "f" and not np.array_equal(np.rint(slice_), slice_):
            return None
    low = int(min(slice_.min() for slice_ in slices))
    high = int(max(slice_.max() for slice_ in slices))
    if (_SIGNED[0] <= low and high <= _SIGNED[1]) or (low >= 0 and high <= _UNSIGNED[1]):
        return 0
    return low if high - low <= _UNSIGNED[1] else None


def _from_zero(slices: Sequence[Voxels]) -> Rescale:
    largest = max(float(np.abs(slice_.astype(np.float64)).max()) for slice_ in slices)
    return Rescale(decimal(largest / _SIGNED[1]) if largest > 0 else "1")


def _over_range(slices: Sequence[Voxels]) -> Rescale:
    low = min(float(slice_.min()) for slice_ in slices)
    high = max(float(slice_.max()) for slice_ in slices)
    if high == low:
        return Rescale("1", decimal(low))
    # From the intercept as it is written, at or below the lowest: 16 characters may round it.
    intercept = decimal(low)
    if float(intercept) > low:
        intercept = decimal(low - 2 * (float(intercept) - low))
    return Rescale(decimal((high - float(intercept)) / _UNSIGNED[1]), intercept)


def decimal(value: float) -> str:
    """A number as DICOM writes decimals: all digits that 16 characters hold."""
    from pydicom.valuerep import format_number_as_ds

    text = repr(float(value))
    if text.endswith(".0"):
        text = text[:-2]
    return text if len(text) <= 16 else str(format_number_as_ds(float(value)))
