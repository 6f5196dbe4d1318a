"""Measurement and resampling of unevenly spaced slices, and of slices stacked at a slant.

A slant is undone by moving each slice within its own plane, by the fraction of a pixel that its
position states, without interpolation between slices. Only uneven distances need new slices; each
of them lies between two that were measured. GantryDetectorTilt is ignored: scanners keep it in
series that were straightened since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Mask, Voxels
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import restore_dtype
from MedEnhanceLib.io.dicom.sources import named
from MedEnhanceLib.runtime.progress import Monitor

#: In spacings: tolerance for the distance of a slice from the even grid.
_MOST_UNEVEN = 0.05
#: In spacings or pixels: largest tolerance for the sake of rounding in headers.
_MOST_ROUNDED = 0.2
#: In spacings: a larger distance is a gap.
_GAP = 1.5
#: Steps of one size that make a part of a scan: heads are scanned with thinner slices below.
_LEAST_STEPS = 3
#: At most this many slices in a row are interpolated.
MOST_FILLED = 2
#: In pixels: tolerance for the distance of a slice from the normal through the first.
_MOST_ASIDE = 0.05
#: Degrees: gantries tilt less, so a larger slant means damaged positions.
_MOST_TILT = 45.0
#: mm: no gantry moves slices farther aside.
_MOST_MOVED_MM = 1000.0
#: Share of a slice: a smaller border of the lowest value is not padding.
_LEAST_BORDER = 0.01
#: Pixels to either side of an interpolated one that contribute to it, and the window's shape.
#: About as accurate as SimpleITK's B-spline of order 5, which takes 14 to 29 times as long.
_REACH, _KAISER = 5, 6.0

Places = tuple[tuple[float, float], ...]
Limits = tuple[Any, Any]


@dataclass(frozen=True)
class Spacing:
    """The positions of slices along their normal.

    Attributes:
        along: mm, ascending.
        step: mm, the even spacing, or the one to resample to.
        fault: what is uneven, for messages; "" where nothing is.
        cause: the same without names of files, which may be those of patients, for the history.
        gaps: (slice before, number missing).
    """

    along: Doubles
    step: float
    fault: str = ""
    cause: str = ""
    gaps: tuple[tuple[int, int], ...] = ()

    @property
    def count(self) -> int:
        """Number of slices of the even grid."""
        return 1 + max(1, round(float(self.along[-1] - self.along[0]) / self.step))

    @property
    def can_be_evened(self) -> bool:
        """Whether at most MOST_FILLED slices in a row would be interpolated."""
        return float(np.diff(self.along).max()) <= (MOST_FILLED + 1.5) * self.step

    def evened(self) -> tuple[tuple[int, float], ...]:
        """Return, for each slice of the even grid, the slice before and the weight of the next."""
        targets = np.linspace(self.along[0], self.along[-1], self.count)
        lower = np.searchsorted(self.along, targets, "right") - 1
        lower = np.clip(lower, 0, len(self.along) - 2)
        shares = (targets - self.along[lower]) / np.diff(self.along)[lower]
        # A slice on the grid, up to rounding, is not interpolated.
        nearest = np.round(shares)
        passes = np.abs(shares - nearest) * np.diff(self.along)[lower] < 1e-3 * self.step
        lower = np.where(passes, lower + nearest.astype(int), lower)
        shares = np.where(passes, 0.0, shares)
        return tuple(zip(lower.tolist(), shares.tolist(), strict=True))

    @property
    def even_step(self) -> float:
        """The spacing of the even grid, mm."""
        return float(self.along[-1] - self.along[0]) / (self.count - 1)

    def note(self) -> str:
        """Describe the resampling, for the history of the volume."""
        steps, size_mm = np.diff(self.along), self.along[-1] - self.along[0]
        missing_mm = sum(steps[index] * count / (count + 1) for index, count in self.gaps)
        gaps = f" (gaps: {missing_mm:.2f} of {size_mm:.2f} mm)" if self.gaps else ""
        added = sum(share > 0 for _, share in self.evened())
        return (
            f"resampled across the slices to an even {self.even_step:.3f} mm, because "
            f"{self.cause}: {added} of {self.count} slices{gaps} were not imaged but interpolated "
            "linearly"
        )


def measure_spacing(along: Doubles, labels: Sequence[str], rounding_mm: float) -> Spacing:
    """Measure the distances of slices.

    Args:
        along: mm, two or more ascending positions that all differ.
        labels: the name of each slice, for messages.
        rounding_mm: rounding error of the positions.
    """
    steps = np.diff(along)
    even = float(along[-1] - along[0]) / (len(along) - 1)
    off = np.abs(along - along[0] - even * np.arange(len(along)))
    if off.max() <= max(_MOST_UNEVEN * even, min(rounding_mm, _MOST_ROUNDED * even)):
        return Spacing(along, even)
    # If the spacing changes, that of the finer part, unless it is only a few slices.
    fine, usual = np.quantile(steps, (0.25, 0.5), method="lower").tolist()
    changes = usual > _GAP * fine
    usual = fine if changes else usual
    gaps = tuple(
        (index, round(float(steps[index]) / usual) - 1)
        for index in np.flatnonzero(steps > _GAP * usual).tolist()
    )
    if sizes := _distances(steps, rounding_mm):
        what = f"the distance of slices changes, each part is even: {sizes}"
        return Spacing(along, usual, what, what)
    if gaps:
        places = [
            f"between {along[index]:.2f} and {along[index + 1]:.2f} mm ({missing} missing)"
            for index, missing in gaps
        ]
        files = [
            f"{place} [{labels[index]} … {labels[index + 1]}]"
            for place, (index, _) in zip(places, gaps, strict=True)
        ]
        what = "missing, or farther apart," if changes else "missing"
        fault, cause = (
            f"slices are {what} {named(each)}; the others are {usual:.3f} mm apart"
            for each in (files, places)
        )
        return Spacing(along, usual, fault, cause, gaps)
    worst = int(off.argmax())
    fault, cause = (
        f"uneven spacing: slices are {steps.min():.3f} to {steps.max():.3f} mm apart; the one at "
        f"{along[worst]:.2f} mm{file} is {off[worst]:.3f} mm off a regular grid"
        for file in (f" ({labels[worst]})", "")
    )
    return Spacing(along, usual, fault, cause)


def _distances(steps: Doubles, rounding_mm: float) -> str:
    """Describe parts of a stack, each even for itself, whose distances grow or shrink; "" for none.

    A single step may lie between two parts.
    """
    is_new = np.abs(np.diff(steps)) > max(_MOST_UNEVEN * steps.min(), 2 * rounding_mm)
    runs = np.split(steps, np.flatnonzero(is_new) + 1)
    parts = [run for run in runs if len(run) >= _LEAST_STEPS]
    changes = np.diff([run.mean() for run in runs])
    is_one_way = (changes > 0).all() or (changes < 0).all()
    if not is_one_way or len(parts) < 2 or sum(map(len, parts)) < len(steps) - 1:
        return ""
    return ", then ".join(f"{len(part)} × {part.mean():.3f} mm" for part in parts)


@dataclass(frozen=True)
class Slant:
    """The places of slices relative to the first, if they do not lie on one normal.

    Attributes:
        along: [K], mm along the normal.
        aside: [K, 2], mm down a column and along a row.
        pixel_mm: between rows, between columns.
    """

    along: Doubles
    aside: Doubles
    pixel_mm: tuple[float, float]

    @cached_property
    def degrees(self) -> float:
        """The angle between the best-fitting line and the normal."""
        return float(np.degrees(np.arctan(np.linalg.norm(self._slope))))

    @property
    def is_strewn(self) -> bool:
        """Whether the slices lie on no line, so that the cause is not a tilted gantry."""
        astray = self.aside - np.outer(self.along - self.along[0], self._slope)
        most = max(*self.pixel_mm, 0.1 * np.linalg.norm(self.aside, axis=1).max())
        return bool(np.linalg.norm(astray, axis=1).max() > most)

    @property
    def is_a_tilt(self) -> bool:
        """Whether a gantry can tilt that way; otherwise the positions are damaged."""
        is_near = np.abs(self.aside).max() <= _MOST_MOVED_MM
        return bool(self.degrees <= _MOST_TILT and is_near and not self.is_strewn)

    @property
    def _slope(self) -> Doubles:
        """[2]: mm aside per mm along the normal."""
        height = self.along - self.along[0]
        slope: Doubles = height @ self.aside / (height @ height)
        return slope

    @property
    def _angle(self) -> str:
        return f"{self.degrees:.1f}°" if self.degrees >= 0.95 else f"{self.degrees:.2g}°"

    def fault(self, labels: Sequence[str]) -> str:
        """Describe the fault, for messages; labels: the name of each slice."""
        distance = np.linalg.norm(self.aside, axis=1)
        worst = int(distance.argmax())
        where = f"{labels[worst]} lies {distance[worst]:.2f} mm beside the first"
        if self.is_strewn:
            return f"the slices lie neither along their normal nor along a slanted line: {where}"
        cause = "a tilted gantry" if self.degrees >= 0.5 else "or cosines of too few digits"
        if not self.is_a_tilt:
            cause = "more than any gantry tilts"
        return f"the slices are stacked at a slant of {self._angle} ({cause}): {where}"

    def note(self) -> str:
        """Describe the resampling, for the history of the volume."""
        return (
            f"resampled within the slices, moved by up to {np.abs(self.aside).max():.2f} mm onto a "
            f"rectangular grid, because they were stacked at a slant of {self._angle}"
        )

    def grid(self, size: tuple[int, int]) -> tuple[tuple[int, int], Places]:
        """Find the grid in the plane that holds all slices; size: rows and columns of a slice.

        Returns rows and columns of the grid; and the (row, column) of each slice's first pixel in
        it, which are whole numbers for the first slice.
        """
        pixels = np.round(self.aside / np.asarray(self.pixel_mm), 3)  # whole pixels stay whole
        # An axis with rounding errors alone is not interpolated.
        pixels[:, np.abs(pixels).max(axis=0) <= _MOST_ASIDE] = 0
        places: Doubles = pixels - np.floor(pixels.min(axis=0))
        rows, columns = (np.ceil(places.max(axis=0)) + size).astype(int).tolist()
        return (rows, columns), tuple((float(row), float(column)) for row, column in places)


def measure_slant(
    positions: Doubles,
    cosines: Doubles,
    along: Doubles,
    axes: tuple[Doubles, Doubles],
    pixel_mm: tuple[float, float],
) -> Slant | None:
    """Measure how far slices lie beside the normal through the first.

    Args:
        positions: [K, 3], mm.
        cosines: [K, 6], direction cosines of rows and columns.
        along: [K], mm along the normal, ascending.
        axes: unit vectors down a column and along a row.
        pixel_mm: between rows, between columns.
    Returns None if they lie on the normal, up to the rounding of their headers.
    """
    aside: Doubles = (positions - positions[0]) @ np.column_stack(axes)
    rounded_mm = last_digit(positions) + last_digit(cosines) * float(along[-1] - along[0])
    pixel = min(pixel_mm)
    allowed = max(_MOST_ASIDE * pixel, min(rounded_mm, _MOST_ROUNDED * pixel))
    if np.linalg.norm(aside, axis=1).max() <= allowed:
        return None
    return Slant(along, aside, pixel_mm)


def last_digit(numbers: Doubles) -> float:
    """Return the unit of the last decimal, at most 0.1; 0 for no decimal and for more than 4."""
    for digits in range(5):
        if np.abs(numbers - np.round(numbers, digits)).max() < 1e-9:
            return float(10.0**-digits) if digits else 0.0
    return 0.0


@dataclass(frozen=True)
class Repair:
    """A plan to resample slices to an even, rectangular volume.

    Attributes:
        geometry: of the result.
        rows, columns: its size in the plane.
        places: for each slice, the row and the column of the result where its first pixel lies, at
            least 0, with fractions. None where slices are not moved within their planes.
        mixes: for each slice of the result, the slice before it, and the weight of the next slice,
            at least 0 and below 1.
        notes: what is resampled, for the history of the volume.
    """

    geometry: Geometry
    rows: int
    columns: int
    places: Places | None
    mixes: tuple[tuple[int, float], ...]
    notes: tuple[str, ...]

    def apply(
        self, voxels: Voxels, monitor: Monitor, *, padding: tuple[float, float] | None = None
    ) -> tuple[Voxels, Geometry, tuple[str, ...]]:
        """Resample a volume; slices that need no interpolation stay as they are.

        Padding is never mixed into what was measured, and stays padding.

        Args:
            voxels: [K, J, I] or [T, K, J, I], finite.
            monitor: for progress and cancellation.
            padding: the intensity of padding, and the other end of its range. None: a border that
                has the lowest value of the volume is padding.
        Returns the voxels, of the same type (pixels that were not imaged have the value of the
        padding, or the lowest of the volume, as air has), the geometry, and the notes.
        """
        frames = voxels if voxels.ndim == 4 else voxels[np.newaxis]
        lowest = min(frame.min() for frame in frames)
        if padding is not None and padding[0] > lowest and not _holds(frames, padding):
            padding = None  # scanners write the bits of a negative number as a positive one
        fill = lowest if padding is None else restore_dtype(np.array(padding[0]), voxels.dtype)[()]
        empty = partial(_padding_of, padding=padding, lowest=lowest)
        limits = [_limits(frame, empty) for frame in frames]
        result = np.empty((len(frames), len(self.mixes), self.rows, self.columns), voxels.dtype)
        for number, (frame, target) in enumerate(zip(frames, result, strict=True)):
            share = monitor.part(number / len(frames), (number + 1) / len(frames))
            for index, (before, weight) in enumerate(self.mixes):
                share.progress(index / len(self.mixes), "resampling slices")
                plane = self._placed(frame, before, limits[number], empty)
                if weight:
                    after = self._placed(frame, before + 1, limits[number], empty)
                    mixed = (1 - weight) * plane + weight * after
                    # Where one of them was not imaged, the nearer one is used.
                    nearer = after if weight > 0.5 else plane
                    plane = np.where(np.isnan(mixed), nearer, mixed)
                is_imaged = ~np.isnan(plane)
                target[index] = fill
                target[index][is_imaged] = restore_dtype(plane[is_imaged], target.dtype)
        notes = self.notes
        if self.places is not None:
            what = "its lowest value" if padding is None else "the value of its padding"
            notes += (f"where no slice reaches, the volume holds {what}, {fill}",)
        return result if voxels.ndim == 4 else result[0], self.geometry, notes

    def _placed(
        self, slices: Voxels, index: int, limits: Limits, empty: Callable[[Array], Mask]
    ) -> Array:
        """Return one slice on the grid of the result; NaN outside it, and for its padding."""
        plane, padding = _floating(slices[index]), empty(slices[index])
        if self.places is None:
            plane[padding] = np.nan
            return plane
        result = np.full((self.rows, self.columns), np.nan, plane.dtype)
        (row, column), (height, width) = self.places[index], plane.shape
        first_row, first_column = (int(np.ceil(place - 0.5)) for place in (row, column))
        moved = _shifted(_continued(plane, padding, 0), first_row - row, 0)
        moved = _shifted(_continued(moved, padding, 1), first_column - column, 1)
        # Interpolation overshoots at edges; the result stays within the measured values.
        np.clip(moved, *limits, out=moved)
        moved[padding] = np.nan
        result[first_row : first_row + height, first_column : first_column + width] = moved
        return result


def _padding_of(plane: Array, padding: tuple[float, float] | None, lowest: Any) -> Mask:
    """Mark where a slice holds padding: a range of values, or a border of the lowest value."""
    if padding is not None:
        rounded = 1e-6 * max(map(abs, padding)) if plane.dtype.kind == "f" else 0.0
        inside: Mask = (plane >= min(padding) - rounded) & (plane <= max(padding) + rounded)
        return inside
    is_lowest = plane == lowest
    border = np.zeros(plane.shape, bool)
    for axis in (0, 1):
        for line in (is_lowest, np.flip(is_lowest, axis)):
            run = np.logical_and.accumulate(line, axis)
            border |= run if line is is_lowest else np.flip(run, axis)
    return border if border.mean() >= _LEAST_BORDER else np.zeros_like(border)


def _holds(frames: Voxels, padding: tuple[float, float]) -> bool:
    return any(_padding_of(plane, padding, None).any() for frame in frames for plane in frame)


def _limits(slices: Voxels, empty: Callable[[Array], Mask]) -> Limits:
    """Return the lowest and the highest value that was measured."""
    measured = [plane[~empty(plane)] for plane in slices]
    measured = [values for values in measured if values.size] or [slices]
    return min(values.min() for values in measured), max(values.max() for values in measured)


def _continued(plane: Array, gaps: Mask, axis: int) -> Array:
    """Fill gaps by the nearest measured pixel of each line along `axis`."""
    if not gaps.any():
        return plane
    lines, is_gap = np.moveaxis(plane, axis, 1), np.moveaxis(gaps, axis, 1)
    count = lines.shape[1]
    places = np.arange(count)
    before = np.maximum.accumulate(np.where(is_gap, -count, places), 1)
    after = np.minimum.accumulate(np.where(is_gap, 2 * count, places)[:, ::-1], 1)[:, ::-1]
    nearest = np.where(after - places < places - before, after, before)
    nearest = np.clip(nearest, 0, count - 1)  # a line of gaps alone stays one
    return np.moveaxis(np.take_along_axis(lines, nearest, 1), 1, axis)


def _shifted(plane: Array, offset: float, axis: int) -> Array:
    """Interpolate the plane at its pixels plus `offset`, -0.5 to 0.5; edges are continued."""
    if offset == 0:
        return plane.copy()
    taps = np.arange(-_REACH, _REACH + 1)
    away = np.minimum(np.abs(taps - offset), _REACH)
    weights = np.sinc(away) * np.i0(_KAISER * np.sqrt(1 - (away / _REACH) ** 2))
    size = plane.shape[axis]
    source = np.pad(plane, [(_REACH, _REACH) if k == axis else (0, 0) for k in (0, 1)], "edge")
    total = np.zeros_like(plane)
    for tap, weight in zip(taps, weights / weights.sum(), strict=True):
        part = [slice(None), slice(None)]
        part[axis] = slice(_REACH + tap, _REACH + tap + size)
        total += plane.dtype.type(weight) * source[tuple(part)]
    return total


def _floating(plane: Array) -> Array:
    """Return the plane in a float type that holds its values exactly (except 64-bit integers)."""
    exact = plane.dtype.itemsize <= 2 or plane.dtype == np.float32
    return plane.astype(np.float32 if exact else np.float64)
