"""Sorting of slices by position, and the geometry of their volume.

Positions decide. A SpacingBetweenSlices that contradicts them gives a warning; SliceThickness is
used for a single slice only. Tolerances: docs/decisions/0012-dicom-geometry.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io.dicom.even_grid import (
    MOST_FILLED,
    Repair,
    Slant,
    Spacing,
    last_digit,
    measure_slant,
    measure_spacing,
)
from MedEnhanceLib.io.dicom.slices import Slice, Slices
from MedEnhanceLib.io.dicom.sources import named
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import counted

#: Differences between slices: of direction cosines without a warning, and at most, as rounding to
#: three or four digits gives; of pixel sizes, relative: 0.05 pixels in 512.
_NO_TURN, _MOST_TURN, _MOST_STRETCH = 1e-4, 1e-3, 1e-4
#: Relative: a SpacingBetweenSlices that differs more from the positions gives a warning.
_MOST_OTHER = 0.1
_PLACE = {
    "position": "ImagePositionPatient",
    "orientation": "ImageOrientationPatient",
    "pixel_spacing": "PixelSpacing",
}
_MOST_NAMED = 3
#: In voxels: largest distance between the corners of frames of one 4D volume.
_SAME_GRID = 0.05


@dataclass(frozen=True)
class Stack:
    """Slices in ascending order along their normal, and the geometry of the volume.

    Attributes:
        repair: the resampling that gives the volume this geometry; None where none is needed.
    """

    slices: list[Slice]
    geometry: Geometry
    repair: Repair | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, J, I) of the volume, after its repair."""
        if self.repair is not None:
            return (len(self.repair.mixes), self.repair.rows, self.repair.columns)
        return (len(self.slices), self.slices[0].rows, self.slices[0].columns)


@dataclass(frozen=True)
class _Plane:
    """Unit vectors along a row, down a column and across; mm between rows, between columns."""

    row: Doubles
    column: Doubles
    normal: Doubles
    pixel_mm: tuple[float, float]

    def geometry(self, origin: Sequence[float] | None, step: float) -> Geometry:
        """Make the geometry of slices that begin at `origin`, `step` mm apart."""
        rows_mm, columns_mm = self.pixel_mm
        return Geometry(
            (columns_mm, rows_mm, float(f"{step:.12g}")),  # without noise of large positions
            tuple(origin or ()),  # type: ignore[arg-type]
            np.column_stack([self.row, self.column, self.normal]).tolist(),
        )


def stack(slices: Slices, name: str, monitor: Monitor, *, resample: bool = False) -> Stack:
    """Sort slices by position along their normal and derive spacing, origin and direction.

    Args:
        slices: one or more, in any order.
        name: of the series, for messages.
        monitor: warned if the header contradicts the positions.
        resample: whether uneven, missing and tilted slices are resampled instead of refused.
    Raises InputError: slices differ in size or frame of reference.
    Raises GeometryError: slices have no place, share a place or differ in orientation; or they are
        unevenly spaced or tilted and are not resampled.
    """
    _require_same(slices, "size", lambda plane: f"{plane.columns}×{plane.rows}", name)
    referring = [plane for plane in slices if plane.frame_of_reference] or slices
    _require_same(referring, "FrameOfReferenceUID", lambda plane: plane.frame_of_reference, name)
    shared = _shared_plane(slices, name, monitor)
    heights = [float(shared.normal @ np.asarray(plane.position)) for plane in slices]
    order = sorted(range(len(slices)), key=heights.__getitem__)
    ordered, along = [slices[k] for k in order], np.array(heights)[order]
    first = ordered[0]
    if len(ordered) == 1:
        return Stack(ordered, shared.geometry(first.position, _thickness(first, name, monitor)))
    _refuse_shared_places(ordered, along, name)
    labels = [plane.label for plane in ordered]
    positions = np.array([plane.position for plane in ordered])
    cosines = np.array([plane.orientation for plane in ordered])
    axes = (shared.column, shared.row)
    spacing = measure_spacing(along, labels, last_digit(positions))
    slant = measure_slant(positions, cosines, along, axes, shared.pixel_mm)
    _refuse_unrepaired(slant, spacing, labels, name, resample=resample)
    if not spacing.fault:
        _warn_of_other_spacing(ordered, spacing.step, name, monitor)
    if not slant and not spacing.fault:
        return Stack(ordered, shared.geometry(first.position, spacing.step))
    repair = _repair(first, shared, spacing, slant)
    return Stack(ordered, repair.geometry, repair)


def _require_same(slices: Slices, what: str, value: Callable[[Slice], Any], name: str) -> None:
    """Raise InputError naming a file that differs from the first in `what`."""
    first = slices[0]
    others = [plane for plane in slices if value(plane) != value(first)]
    if others:
        raise InputError(
            f"{name}: the slices differ in {what}: {value(first)} in {first.label}, "
            f"{value(others[0])} in {others[0].label} ({len(others)} of {len(slices)} differ)",
            "Put them in folders of their own and load one.",
        )


def _shared_plane(slices: Slices, name: str, monitor: Monitor) -> _Plane:
    """Return the plane of the median orientation and pixel spacing."""
    for field, element in _PLACE.items():
        lacking = [plane.label for plane in slices if getattr(plane, field) is None]
        if lacking:
            raise GeometryError(
                f"{name}: {len(lacking)} of {counted(len(slices), 'slice')} ({lacking[0]} first) "
                f"lack {element}: their position in the patient is unknown",
                "Export the original images; screenshots and scout views have no position.",
            )
    orientations = np.array([plane.orientation for plane in slices], np.float64)
    orientation = np.median(orientations, axis=0)
    turn = float(np.ptp(orientations, axis=0).max())
    if turn > _NO_TURN:
        _, kinds, counts = np.unique(
            np.round(orientations, 5), axis=0, return_inverse=True, return_counts=True
        )
        rare = [plane.label for plane, kind in zip(slices, kinds, strict=True)
                if kind != counts.argmax()]  # fmt: skip
        differ = (
            f"the slices are not parallel, they differ by up to {turn:.2g}: "
            f"ImageOrientationPatient of {named(rare, _MOST_NAMED)} "
            f"({len(rare)} of {len(slices)}) is not that of the others"
        )
        if turn > _MOST_TURN:
            raise GeometryError(
                f"{name}: {differ}",
                f"Rounding explains at most {_MOST_TURN:g}. A scout view or a radial scan? Load "
                "its parts one by one.",
            )
        monitor.warn(f"{name}: {differ}; the median is used")
    row, column = orientation[:3], orientation[3:]
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 1e-3:
        raise GeometryError(
            f"{name}: ImageOrientationPatient {orientation.tolist()} is not two unit vectors "
            "at a right angle",
            "Correct the header.",
        )
    row = row / np.linalg.norm(row)  # headers round cosines to a few digits
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return _Plane(row, column, np.cross(row, column), _shared_pixel_spacing(slices, name))


def _shared_pixel_spacing(slices: Slices, name: str) -> tuple[float, float]:
    for plane in slices:
        if min(plane.pixel_spacing or ()) <= 0:
            raise GeometryError(
                f"{name}: {plane.label}: PixelSpacing is {list(plane.pixel_spacing or ())} mm",
                "Correct the header: it must be above 0.",
            )
    sizes = np.array([plane.pixel_spacing for plane in slices], np.float64)
    usual = np.median(sizes, axis=0)
    if (np.abs(sizes - usual) > _MOST_STRETCH * usual).any():
        _require_same(slices, "PixelSpacing", lambda plane: plane.pixel_spacing, name)
    return float(usual[0]), float(usual[1])


def _thickness(plane: Slice, name: str, monitor: Monitor) -> float:
    """Return the spacing of a single slice, which only the header can state."""
    stated = {"SpacingBetweenSlices": plane.between, "SliceThickness": plane.thickness}
    for element, mm in stated.items():
        if mm:
            monitor.warn(
                f"{name}: one slice has no neighbor; its spacing of {abs(mm):g} mm is {element}"
            )
            return abs(mm)
    monitor.warn(f"{name}: one slice of unknown thickness; 1 mm is assumed")
    return 1.0


def _warn_of_other_spacing(ordered: Slices, step: float, name: str, monitor: Monitor) -> None:
    stated = [plane.between for plane in ordered if plane.between]
    between = abs(float(np.median(stated))) if stated else step
    if abs(between - step) > _MOST_OTHER * step:
        monitor.warn(
            f"{name}: the slices lie {step:.3f} mm apart by their positions, which are used; "
            f"SpacingBetweenSlices says {between:.3f} mm: were slices left out?"
        )


def _refuse_shared_places(ordered: Slices, along: Doubles, name: str) -> None:
    steps = np.diff(along)
    apart = steps[steps > 1e-6]
    usual = float(np.median(apart)) if apart.size else 1.0
    same = np.flatnonzero(steps <= 0.01 * usual).tolist()
    if same:
        places = [f"{along[k]:.2f} mm ({ordered[k].label}, {ordered[k + 1].label})" for k in same]
        verb = "shares" if len(same) == 1 else "share"
        raise GeometryError(
            f"{name}: {counted(len(same), 'slice')} {verb} a place with another, first at "
            f"{named(places, _MOST_NAMED, between=', at ')}",
            "Copies, time points or echoes? Put each set in a folder of its own.",
        )


def _refuse_unrepaired(
    slant: Slant | None, spacing: Spacing, labels: Sequence[str], name: str, *, resample: bool
) -> None:
    """Raise GeometryError, with a remedy, for faults that may not or cannot be repaired."""
    faults = [slant.fault(labels)] if slant else []
    faults += [spacing.fault] if spacing.fault else []
    can_be_evened = not spacing.fault or spacing.can_be_evened
    can_be_repaired = can_be_evened and (slant is None or slant.is_a_tilt)
    if not faults or (resample and can_be_repaired):
        return
    if not can_be_evened:
        faults[-1] += f", too far: at most {MOST_FILLED} slices in a row are interpolated"
    hints = ["Export or copy the series again, complete."] if spacing.gaps else []
    if spacing.fault and not spacing.gaps:
        hints = ["Load a part of it: a text file with the path of a slice a line."]
    if can_be_repaired:
        hints.append("To resample it to an even, rectangular grid: --resample, resample=True.")
    raise GeometryError(
        f"{name}: {'; '.join(faults)}", " ".join(hints) or "Load its parts one by one."
    )


def _repair(first: Slice, shared: _Plane, spacing: Spacing, slant: Slant | None) -> Repair:
    step, mixes, notes = spacing.step, tuple((k, 0.0) for k in range(len(spacing.along))), []
    if spacing.fault:
        mixes, step = spacing.evened(), spacing.even_step
        notes.append(spacing.note())
    size, origin, places = (first.rows, first.columns), np.asarray(first.position), None
    if slant:
        size, places = slant.grid(size)
        down, right = (place * mm for place, mm in zip(places[0], slant.pixel_mm, strict=True))
        origin = origin - down * shared.column - right * shared.row
        notes.append(slant.note())
    geometry = shared.geometry(tuple(origin.tolist()), step)
    return Repair(geometry, *size, places, mixes, tuple(notes))


def require_alike(slices: Slices, name: str) -> None:
    """Raise InputError for slices that differ in patient, modality, grayscale or units.

    Each slice may have its own slope and intercept, but none may lack what others have. Grayscale
    is the photometric interpretation.
    """
    shared: dict[str, Callable[[Slice], Any]] = {
        "PatientID": lambda plane: repr(plane.patient),
        "Modality": lambda plane: plane.modality or "none",
        "PhotometricInterpretation": lambda plane: plane.photometric,
        "units": lambda plane: (plane.rescale_type.upper(), plane.units.upper()),
        "RescaleSlope": lambda plane: "missing" if plane.slope is None else "there",
        "RescaleIntercept": lambda plane: "missing" if plane.intercept is None else "there",
    }
    for what, value in shared.items():
        _require_same(slices, what, value, name)


def stack_frames(
    frames: Sequence[Slices], name: str, monitor: Monitor, *, resample: bool = False
) -> list[Stack]:
    """Stack each frame of a volume; raises as `stack` does.

    Args:
        frames: [T][K], the slices of each frame.
        name: of the series, for errors.
        monitor: gets the warnings of the first frame.
        resample: as in `stack`.
    Raises GeometryError, too, if a frame lies at another place than the first, or would have to be
    resampled in another way.
    """
    first = stack(frames[0], name, monitor, resample=resample)
    stacks = [first]
    for number, frame in enumerate(frames[1:], 2):
        monitor.check()
        stacks.append(stack(frame, name, Monitor(), resample=resample))
        if not _is_same_grid(stacks[-1], first):
            raise GeometryError(
                f"{name}: frame {number} ({stacks[-1].slices[0].label} first) has another "
                "position, tilt or spacing than the first",
                "Put the frames in folders of their own and load one.",
            )
    return stacks


def _is_same_grid(other: Stack, first: Stack) -> bool:
    if other.shape != first.shape or len(other.slices) != len(first.slices):
        return False
    if other.repair or first.repair:  # each slice is resampled by its own position
        positions = [np.array([plane.position for plane in each.slices]) for each in (other, first)]
        most_mm = _SAME_GRID * min(first.geometry.spacing)
        if np.abs(positions[0] - positions[1]).max() > most_mm:
            return False
    return other.geometry.is_close(first.geometry, _SAME_GRID, shape=first.shape)
