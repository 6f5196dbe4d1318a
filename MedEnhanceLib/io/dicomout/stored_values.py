"""Intensities → stored numbers of 16 bits: exact if possible, with the source's own rescale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout.derivation import ds_text

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

    Attributes:
        rescales: one for each slice.
        bits: BitsStored.
        signed: whether in two's complement.
        is_own: whether the rescales are those of the source.
        error: the largest difference between an intensity and what a reader gets, measured; 0 if
            all are exact.
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
) -> Stored:
    """Decide how slices are stored, in at most 16 bits.

    The first of these that holds every value is used: the source's own rescale; whole numbers
    from one offset; steps of a 65,535th of the range, or of a 32,767th of the largest value.

    Args:
        slices: [J, I] each, intensities.
        own: the rescale of each source slice.
        bits: BitsStored of the source; widened if values do not fit.
        signed: whether the source stored two's complement; changed if values do not fit.
        from_zero: the intercept must be 0, and slices may differ in slope (PET).
    Raises:
        InputError: NaN or infinity, or numbers too large or too close together for DICOM.
    """
    for slice_ in slices:
        if slice_.dtype.kind == "f" and not np.isfinite(slice_).all():
            raise InputError("the volume holds NaN or infinity", "DICOM stores finite numbers.")
    if (fit := _fit(slices, own, bits, signed)) is not None:
        return Stored(tuple(own), *fit, is_own=True)
    if not from_zero and (offset := _whole(slices)) is not None:
        rescales = [Rescale("1", str(offset))] * len(slices)
        if (fit := _fit(slices, rescales, bits, signed)) is not None:
            return Stored(tuple(rescales), *fit, is_own=False)
    if from_zero:
        rescales = [_from_zero(slice_) for slice_ in slices]
        return _measured(Stored(tuple(rescales), 16, True, is_own=False), slices)
    rescale = _over_range(slices)
    return _measured(Stored((rescale,) * len(slices), 16, False, is_own=False), slices)


def _measured(stored: Stored, slices: Sequence[Voxels]) -> Stored:
    """Add the measured error; the rescales are rounded too as they are written."""
    error = 0.0
    for index, slice_ in enumerate(slices):
        slope, intercept = stored.rescales[index].numbers
        if not (_SMALLEST <= abs(slope) <= _LARGEST and abs(intercept) <= _LARGEST):
            raise InputError(
                f"its intensities, from {slice_.min():.3g} to {slice_.max():.3g}, are too large or "
                "too close together for DICOM's numbers",
                "Rescale them first, for instance to 0 … 1.",
            )
        # In float32, as readers rescale if slopes are no whole numbers.
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
    """Bits and sign with which these rescales reproduce every value exactly, or None."""
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
    """The offset from which whole numbers fit into 16 bits; None if they are not whole."""
    for slice_ in slices:
        if slice_.dtype.kind == "f" and not np.array_equal(np.rint(slice_), slice_):
            return None
    low = int(min(slice_.min() for slice_ in slices))
    high = int(max(slice_.max() for slice_ in slices))
    if (_SIGNED[0] <= low and high <= _SIGNED[1]) or (low >= 0 and high <= _UNSIGNED[1]):
        return 0
    return low if high - low <= _UNSIGNED[1] else None


def _from_zero(slice_: Voxels) -> Rescale:
    largest = float(np.abs(slice_.astype(np.float64)).max())
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
    """A number as a decimal string of DICOM: all digits that fit into 16 characters."""
    return ds_text(repr(float(value)).removesuffix(".0"))
