"""Stored numbers → intensities: value = stored × slope + intercept, applied once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_INTEGERS = tuple(np.dtype(name) for name in ("int16", "uint16", "int32", "uint32", "int64"))


def rescale_slices(
    slices: Sequence[npt.NDArray[Any]] | npt.NDArray[Any],
    slopes: Sequence[float],
    intercepts: Sequence[float],
) -> npt.NDArray[Any]:
    """Slices [J, I] with a slope and an intercept each → [K, J, I] in one type for all.

    Slices in one array already are not copied where there is nothing to do, which keeps the
    stored type. Whole slopes and intercepts give the smallest integers
    that hold every value, beginning with int16; others give float32, or float64 where the stored
    numbers have more than 16 bits.
    """
    stored = np.result_type(*[part.dtype for part in slices])
    if all(slope == 1 and shift == 0 for slope, shift in zip(slopes, intercepts, strict=True)):
        if isinstance(slices, np.ndarray):
            return slices
        return np.stack([part.astype(stored, copy=False) for part in slices])
    dtype = _target_type(stored, slices, slopes, intercepts)
    result = np.empty((len(slices), *slices[0].shape), dtype)
    wide = np.empty(slices[0].shape) if dtype.kind == "f" else None
    for part, slope, shift, out in zip(slices, slopes, intercepts, result, strict=True):
        if wide is None:
            _scale_whole(part, slope, shift, out)
        else:  # in float64, rounded once
            wide[...] = part
            wide *= slope
            wide += shift
            out[...] = wide
    return result


def _scale_whole(
    stored: npt.NDArray[Any], slope: float, shift: float, out: npt.NDArray[Any]
) -> None:
    """In the type of the result: what goes beyond it on the way comes back.

    Integers count in circles, and the ends are known to fit.
    """
    added = stored
    if slope != 1:
        added = np.multiply(stored, _wrapped(slope, out.dtype), out=out, **_in_type_of(out))
    np.add(added, _wrapped(shift, out.dtype), out=out, **_in_type_of(out))


def _in_type_of(out: npt.NDArray[Any]) -> dict[str, Any]:
    return {"dtype": out.dtype, "casting": "unsafe"}


def _wrapped(number: float, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    mask = (1 << 8 * dtype.itemsize) - 1
    return np.array(int(number) & mask, f"u{dtype.itemsize}").astype(dtype)


def _target_type(
    stored: np.dtype[Any],
    slices: Sequence[npt.NDArray[Any]] | npt.NDArray[Any],
    slopes: Sequence[float],
    intercepts: Sequence[float],
) -> np.dtype[Any]:
    if stored.kind == "f":
        return stored
    if all(float(number).is_integer() for number in (*slopes, *intercepts)):
        ends = [
            int(end) * int(slope) + int(shift)
            for part, slope, shift in zip(slices, slopes, intercepts, strict=True)
            for end in (part.min(), part.max())
        ]
        for dtype in _INTEGERS:
            if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
                return dtype
    return np.dtype(np.float32 if stored.itemsize <= 2 else np.float64)
