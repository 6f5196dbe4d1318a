"""Slices that lie at a slant or at uneven distances → a rectangular, even grid.

Planes stay where they are: a slant is undone by moving each slice inside its own plane, by the
fraction of a pixel that its position tells; nothing is interpolated between slices for that.
Only an uneven distance needs new slices, and each of them lies between two that were measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Voxels, restore_dtype
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.progress import Monitor

#: Pixels to either side that take part in an interpolated one, and the shape of their window.
#: Chosen by measuring: docs/decisions/0012-dicom-geometry.md.
_REACH, _KAISER = 5, 6.0

Plane = npt.NDArray[Any]
Limits = tuple[Any, Any]


@dataclass(frozen=True)
class Repair:
    """How the slices of a stack become an even, rectangular volume.

    geometry: of the result. rows, columns: its size in the plane.
    places: for each slice, the row and the column of the result where its first pixel lies;
        0 or more, with fractions. None where nothing moves inside the planes.
    mixes: for each slice of the result, the slice before it and the share, 0 to below 1, that the
        slice after that one has.
    notes: what is done, for people.
    """

    geometry: Geometry
    rows: int
    columns: int
    places: tuple[tuple[float, float], ...] | None
    mixes: tuple[tuple[int, float], ...]
    notes: tuple[str, ...]

    def apply(self, voxels: Voxels, monitor: Monitor) -> tuple[Voxels, Geometry, tuple[str, ...]]:
        """Resample [K, J, I] (or frames of it, [T, K, J, I]); the type stays.

        Slices that need no interpolation pass bit for bit. Where nothing was imaged, the result
        has the lowest value of the volume, as air has. Raises Cancelled; InputError for voxels that
        are not finite.
        """
        frames = voxels if voxels.ndim == 4 else voxels[np.newaxis]
        limits = [_limits(frame, monitor) for frame in frames]
        fill = min(low for low, _ in limits)
        result = np.empty((len(frames), len(self.mixes), self.rows, self.columns), voxels.dtype)
        for index, (frame, target) in enumerate(zip(frames, result, strict=True)):
            share = monitor.part(index / len(frames), (index + 1) / len(frames))
            self._fill(target, frame, fill, limits[index], share)
        notes = self.notes
        if self.places is not None:
            notes += (f"where no slice reaches, the volume holds its lowest value, {fill}",)
        return result if voxels.ndim == 4 else result[0], self.geometry, notes

    def _fill(
        self, target: Voxels, slices: Voxels, fill: Any, limits: Limits, monitor: Monitor
    ) -> None:
        placed: dict[int, Plane] = {}
        for index, (before, share) in enumerate(self.mixes):
            monitor.progress(index / len(self.mixes), "resampling slices")
            needed = (before, before + 1) if share else (before,)
            placed = {
                one: placed[one] if one in placed else self._placed(slices[one], one, limits)
                for one in needed
            }
            plane = placed[before]
            if share:
                plane = (1 - share) * plane + share * placed[before + 1]
            known = ~np.isnan(plane)
            target[index] = fill
            target[index][known] = restore_dtype(plane[known], target.dtype)

    def _placed(self, plane: Plane, index: int, limits: Limits) -> Plane:
        """One slice on the grid of the result; NaN where it does not reach."""
        plane = _floating(plane)
        if self.places is None:
            return plane
        result = np.full((self.rows, self.columns), np.nan, plane.dtype)
        (row, column), (height, width) = self.places[index], plane.shape
        first_row, first_column = (int(np.ceil(place - 0.5)) for place in (row, column))
        moved = shifted(shifted(plane, first_row - row, 0), first_column - column, 1)
        # Interpolation swings beyond an edge; nothing is brighter than what was measured.
        np.clip(moved, *limits, out=moved)
        result[first_row : first_row + height, first_column : first_column + width] = moved
        return result


def _limits(slices: Voxels, monitor: Monitor) -> Limits:
    """The lowest and the highest value, with safe points between the slices."""
    lows, highs = [], []
    for index, plane in enumerate(slices):
        monitor.check()
        if not np.isfinite(plane).all():
            raise InputError(
                f"slice {index} (counted from 0) holds NaN or infinity, which cannot be resampled",
                "Correct the values in the program that wrote the series.",
            )
        lows.append(plane.min())
        highs.append(plane.max())
    return min(lows), max(highs)


def shifted(plane: Plane, offset: float, axis: int) -> Plane:
    """The plane at its own places plus `offset` pixels, −0.5 to 0.5; beyond it the edge goes on."""
    if offset == 0:
        return plane.copy()
    taps = np.arange(-_REACH, _REACH + 1)
    weights = _windowed_sinc(taps - offset)
    size = plane.shape[axis]
    source = np.pad(plane, [(_REACH, _REACH) if one == axis else (0, 0) for one in (0, 1)], "edge")
    total = np.zeros_like(plane)
    for tap, weight in zip(taps, weights / weights.sum(), strict=True):
        part = [slice(None), slice(None)]
        part[axis] = slice(_REACH + tap, _REACH + tap + size)
        total += plane.dtype.type(weight) * source[tuple(part)]
    return total


def _windowed_sinc(distance: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    inside = np.abs(distance) <= _REACH
    window = np.i0(_KAISER * np.sqrt(np.maximum(0, 1 - (distance / _REACH) ** 2)))
    taps: npt.NDArray[np.float64] = np.sinc(distance) * window * inside
    return taps


def _floating(plane: Plane) -> Plane:
    """A float type that holds every value of the plane exactly (but of 64-bit integers)."""
    exact = plane.dtype.itemsize <= 2 or plane.dtype == np.float32
    return plane.astype(np.float32 if exact else np.float64)
