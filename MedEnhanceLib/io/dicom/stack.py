"""Slices in the order of their positions, and the geometry that they make.

Positions decide. SliceThickness, SpacingBetweenSlices and InstanceNumber are compared with them;
a contradiction is a warning.
Tolerances: docs/decisions/0012-dicom-geometry.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io.dicom.repair import (
    Repair,
    Slant,
    Spacing,
    last_digit,
    measure_slant,
    measure_spacing,
)
from MedEnhanceLib.io.dicom.slices import Slice, Slices
from MedEnhanceLib.io.dicom.sources import counted, named
from MedEnhanceLib.runtime.progress import Monitor

#: Between slices: of direction cosines, and (relative) of pixel sizes; 0.05 pixels in 512.
_MOST_TURN = _MOST_STRETCH = 1e-4
#: Relative: a SpacingBetweenSlices that differs more from the positions is a warning.
_MOST_OTHER = 0.1
_PLACE = {
    "position": "ImagePositionPatient",
    "orientation": "ImageOrientationPatient",
    "pixel_spacing": "PixelSpacing",
}
_MOST_NAMED = 3
#: Voxels: largest distance between the corners of frames of one 4D volume.
_SAME_GRID = 0.05

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Repairs:
    """What is resampled instead of refused: a tilted gantry, uneven or missing slices."""

    tilt: bool = False
    spacing: bool = False


@dataclass(frozen=True)
class Stack:
    """Slices in ascending order along their normal, and the geometry of the volume.

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

    row: Vector
    column: Vector
    normal: Vector
    pixel_mm: tuple[float, float]


def stack(
    slices: Sequence[Slice], name: str, monitor: Monitor, repairs: Repairs | None = None
) -> Stack:
    """Sort slices by position along their normal and derive spacing, origin and direction.

    Args:
        slices: one or more, in any order.
        name: of the series, for messages.
        monitor: is warned where the header contradicts the positions.
        repairs: what may be resampled.
    Raises:
        InputError: slices differ in size or frame of reference.
        GeometryError: slices have no place, share a place or differ in orientation; or they are
            unevenly spaced or tilted and `repairs` does not allow to resample them.
    """
    repairs = repairs or Repairs()
    require_same(slices, "size", lambda one: f"{one.columns}×{one.rows}", name)
    _require_one_frame_of_reference(slices, name)
    plane = _plane(slices, name)
    ordered = sorted(slices, key=lambda one: _distance(one, plane))
    if len(ordered) == 1:
        step = _thickness(ordered[0], name, monitor)
        return Stack(ordered, _geometry(ordered[0].position, plane, step))
    along = np.array([_distance(one, plane) for one in ordered])
    _refuse_shared_places(ordered, along, name)
    labels = [one.label for one in ordered]
    positions = np.array([one.position for one in ordered])
    cosines = np.array([one.orientation for one in ordered])
    spacing = measure_spacing(along, labels, last_digit(positions))
    slant = measure_slant(positions, cosines, along, (plane.column, plane.row), plane.pixel_mm)
    _refuse_unrepaired(slant, spacing, ordered, name, repairs)
    if not spacing.fault:
        _warn_of_other_spacing(ordered, spacing.step, name, monitor)
    if not slant and not spacing.fault:
        return Stack(ordered, _geometry(ordered[0].position, plane, spacing.step))
    repair = _repair(ordered[0], plane, spacing, slant, name)
    return Stack(ordered, repair.geometry, repair)


def require_same(
    slices: Sequence[Slice], what: str, value: Callable[[Slice], Any], name: str
) -> None:
    """Raise InputError naming a file that differs from the first in `what`."""
    odd = [one for one in slices if value(one) != value(slices[0])]
    if odd:
        raise InputError(
            f"{name}: the slices differ in {what}: {value(slices[0])} in {slices[0].label}, "
            f"{value(odd[0])} in {odd[0].label} ({len(odd)} of {len(slices)} differ)",
            "Put them in folders of their own and load one.",
        )


def _require_one_frame_of_reference(slices: Sequence[Slice], name: str) -> None:
    named_ones = [one for one in slices if one.frame_of_reference]
    if named_ones:
        require_same(named_ones, "FrameOfReferenceUID", lambda one: one.frame_of_reference, name)


def _distance(one: Slice, plane: _Plane) -> float:
    return float(plane.normal @ np.asarray(one.position))


def _geometry(origin: Sequence[float] | None, plane: _Plane, step: float) -> Geometry:
    rows_mm, columns_mm = plane.pixel_mm
    step = float(f"{step:.12g}")  # without the rounding noise of large positions
    return Geometry(
        (columns_mm, rows_mm, step),
        tuple(origin or ()),  # type: ignore[arg-type]
        np.column_stack([plane.row, plane.column, plane.normal]).tolist(),
    )


def _plane(slices: Sequence[Slice], name: str) -> _Plane:
    for field, element in _PLACE.items():
        lacking = [one.label for one in slices if getattr(one, field) is None]
        if lacking:
            raise GeometryError(
                f"{name}: {_where(lacking, slices)} no {element}: the place in the "
                "patient is unknown",
                "Export the original images; screenshots and scout views have no place.",
            )
    orientation = _shared_orientation(slices, name)
    row, column = orientation[:3], orientation[3:]
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 1e-3:
        raise GeometryError(
            f"{name}: ImageOrientationPatient {orientation.tolist()} is not two unit vectors "
            "at a right angle",
            "Correct the header.",
        )
    row = row / np.linalg.norm(row)  # the header rounds them to a few digits
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return _Plane(row, column, np.cross(row, column), _shared_pixel_spacing(slices, name))


def _where(lacking: Sequence[str], slices: Sequence[Slice]) -> str:
    count = len(slices)
    if count == 1:
        return f"the file {lacking[0]} has"
    what = "files" if all(one.frame is None for one in slices) else "frames"
    verb = "has" if len(lacking) == 1 else "have"
    return f"{len(lacking)} of {count} {what} ({lacking[0]} first) {verb}"


def _shared_orientation(slices: Sequence[Slice], name: str) -> Vector:
    """The median, which does not depend on the order of the files."""
    orientations = np.array([one.orientation for one in slices], np.float64)
    if np.ptp(orientations, axis=0).max() <= _MOST_TURN:
        usual: Vector = np.median(orientations, axis=0)
        return usual
    kinds, counts = np.unique(np.round(orientations, 3), axis=0, return_counts=True)
    off = np.abs(orientations - kinds[counts.argmax()]).max(axis=1)
    odd = slices[int(off.argmax())]
    raise GeometryError(
        f"{name}: the slices lie in {len(kinds)} different orientations (ImageOrientationPatient "
        f"of {odd.label}; {len(slices) - counts.max()} of {len(slices)} differ from the others)",
        "A scout view or a radial scan? Load its parts one by one.",
    )


def _shared_pixel_spacing(slices: Sequence[Slice], name: str) -> tuple[float, float]:
    sizes = np.array([one.pixel_spacing for one in slices], np.float64)
    usual = np.median(sizes, axis=0)
    if not (np.isfinite(sizes).all() and sizes.min() > 0):
        odd = next(
            one for one in slices if not all(0 < mm < np.inf for mm in one.pixel_spacing or ())
        )
        raise GeometryError(
            f"{name}: {odd.label}: PixelSpacing is {list(odd.pixel_spacing or ())} mm",
            "Correct the header: it must be above 0.",
        )
    if (np.abs(sizes - usual) > _MOST_STRETCH * usual).any():
        require_same(slices, "PixelSpacing", lambda one: one.pixel_spacing, name)
    return float(usual[0]), float(usual[1])


def _thickness(one: Slice, name: str, monitor: Monitor) -> float:
    """The spacing of a single slice, which only the header can state."""
    for mm, element in ((one.between, "SpacingBetweenSlices"), (one.thickness, "SliceThickness")):
        if mm and 0 < abs(mm) < np.inf:
            monitor.warn(
                f"{name}: one slice has no neighbor; its spacing of {abs(mm):g} mm is {element}"
            )
            return abs(mm)
    monitor.warn(f"{name}: one slice of unknown thickness; 1 mm is assumed")
    return 1.0


def _warn_of_other_spacing(
    ordered: Sequence[Slice], step: float, name: str, monitor: Monitor
) -> None:
    stated = [one.between for one in ordered if one.between]
    between = abs(float(np.median(stated))) if stated else step
    if abs(between - step) > _MOST_OTHER * step:
        monitor.warn(
            f"{name}: the slices lie {step:.3f} mm apart by their positions, which are used; "
            f"SpacingBetweenSlices says {between:.3f} mm: were slices left out?"
        )


def _refuse_shared_places(ordered: Sequence[Slice], along: Vector, name: str) -> None:
    steps = np.diff(along)
    apart = steps[steps > 1e-6]
    usual = float(np.median(apart)) if apart.size else 1.0
    same = np.flatnonzero(steps <= 0.01 * usual).tolist()
    if same:
        places = [
            f"{along[index]:.2f} mm ({ordered[index].label}, {ordered[index + 1].label})"
            for index in same
        ]
        verb = "shares" if len(same) == 1 else "share"
        raise GeometryError(
            f"{name}: {counted(len(same), 'slice')} {verb} a place with another, first at "
            f"{named(places, _MOST_NAMED, between=', at ')}",
            "Copies, time points or echoes? Put each set in a folder of its own.",
        )


def _refuse_unrepaired(
    slant: Slant | None, spacing: Spacing, ordered: Sequence[Slice], name: str, repairs: Repairs
) -> None:
    """Raise GeometryError for faults that may not be repaired, with the repairs that would work."""
    faults, ways = [], []
    if slant and not repairs.tilt:
        faults.append(slant.fault([one.label for one in ordered]))
        if slant.is_a_tilt:
            ways.append("To have it resampled to a rectangular grid: --fix-tilt, fix_tilt=True.")
    if spacing.fault and not repairs.spacing:
        faults.append(spacing.fault)
        if spacing.gaps:
            ways.append("Export or copy the series again, complete.")
        if spacing.can_be_evened:
            ways.append("To have it resampled to an even spacing: --fix-spacing, fix_spacing=True.")
    if faults:
        raise GeometryError(
            f"{name}: {'; '.join(faults)}", " ".join(ways) or "Load its parts one by one."
        )


def _repair(
    first: Slice, plane: _Plane, spacing: Spacing, slant: Slant | None, name: str
) -> Repair:
    """Raises GeometryError where too much would have to be interpolated."""
    step, mixes, notes = spacing.step, tuple((k, 0.0) for k in range(len(spacing.along))), []
    if spacing.fault:
        mixes, step = spacing.evened(name), spacing.even_step
        notes.append(spacing.note())
    size, origin, places = (first.rows, first.columns), np.asarray(first.position), None
    if slant:
        size, places = slant.grid(size, name)
        down, right = (place * mm for place, mm in zip(places[0], slant.pixel_mm, strict=True))
        origin = origin - down * plane.column - right * plane.row
        notes.append(slant.note())
    geometry = _geometry(tuple(origin.tolist()), plane, step)
    return Repair(geometry, *size, places, mixes, tuple(notes))


def require_alike(slices: Slices, name: str) -> None:
    """Raise InputError for slices that differ in patient, modality, units or kind of scaling.

    Each slice may have its own slope and intercept, but none may lack what others have.
    """
    shared: tuple[tuple[str, Callable[[Slice], Any]], ...] = (
        ("PatientID", lambda one: repr(one.patient)),
        ("Modality", lambda one: one.modality or "none"),
        ("PhotometricInterpretation", lambda one: one.photometric),
        ("units", lambda one: (one.rescale_type, one.units)),
        ("RescaleSlope", lambda one: "missing" if one.slope is None else "there"),
        ("RescaleIntercept", lambda one: "missing" if one.intercept is None else "there"),
    )
    for what, value in shared:
        require_same(slices, what, value, name)


def stack_frames(
    frames: Sequence[Slices], name: str, monitor: Monitor, repairs: Repairs | None = None
) -> list[Stack]:
    """Stack each frame of a volume; all of them must lie on one grid.

    Args:
        frames: [T][K], the slices of each frame in any order.
        name: of the series, for messages.
        monitor: gets the warnings of the first frame.
        repairs: what may be resampled.
    Raises:
        InputError: as `stack`.
        GeometryError: as `stack`; or a frame lies elsewhere than the first, or would have to be
            resampled in another way.
    """
    first = stack(frames[0], name, monitor, repairs)
    stacks = [first]
    for number, frame in enumerate(frames[1:], 2):
        monitor.check()
        stacks.append(stack(frame, name, Monitor(), repairs))
        _require_one_grid(stacks[-1], first, number, name)
    return stacks


def _require_one_grid(one: Stack, first: Stack, number: int, name: str) -> None:
    is_alike = (one.repair is None) == (first.repair is None) and one.shape == first.shape
    if is_alike and one.repair and first.repair:
        is_alike = one.repair.is_close(first.repair)
    if not is_alike or not one.geometry.is_close(first.geometry, _SAME_GRID, shape=first.shape):
        raise GeometryError(
            f"{name}: frame {number} ({one.slices[0].label} first) has another position, tilt or "
            "spacing than the first",
            "Put the frames in folders of their own and load one.",
        )
