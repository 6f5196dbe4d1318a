"""Slices in the order of their positions, and the geometry that they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.geometry import Geometry
from MedEnhanceLib.io.dicom.scan import Slice
from MedEnhanceLib.progress import Monitor

_MOST_TILT = 0.05  # of a pixel: how far a slice may lie beside the normal through the first
_MOST_UNEVEN = 0.05  # of the spacing: how far a slice may lie off the regular grid
_MOST_TURN = 1e-4  # of a direction cosine, between slices
_MOST_NAMED = 6

Vector = npt.NDArray[np.float64]


def stack(slices: Sequence[Slice], name: str, monitor: Monitor) -> tuple[list[Slice], Geometry]:
    """Sort by position along the normal and derive spacing, origin and direction.

    Raises InputError for slices of different size; GeometryError for slices without a place, of
    different orientation, at one place, unevenly spaced (missing ones), or tilted.
    """
    require_same(slices, "size", lambda one: f"{one.columns}×{one.rows}", name)
    row, column, spacing = _plane(slices, name)
    normal = np.cross(row, column)
    distance = {one.path: float(normal @ np.asarray(one.position)) for one in slices}
    ordered = sorted(slices, key=lambda one: distance[one.path])
    along = np.array([distance[one.path] for one in ordered])
    step = _step(along, ordered, name, monitor)
    _refuse_tilt(ordered, normal, min(spacing), name)
    origin = np.asarray(ordered[0].position)
    direction = np.column_stack([row, column, normal])
    return ordered, Geometry(
        (spacing[1], spacing[0], step),
        tuple(origin.tolist()),
        direction.tolist(),
    )


def _where(lacking: Sequence[str], count: int) -> str:
    if count == 1:
        return f"the file {lacking[0]} has"
    verb = "has" if len(lacking) == 1 else "have"
    return f"{len(lacking)} of {count} files ({lacking[0]} first) {verb}"


def _plane(slices: Sequence[Slice], name: str) -> tuple[Vector, Vector, tuple[float, float]]:
    """Unit vectors along a row and down a column, and mm between rows and between columns."""
    for field in ("position", "orientation", "pixel_spacing"):
        lacking = [one.path.name for one in slices if getattr(one, field) is None]
        if lacking:
            raise GeometryError(
                f"{name}: {_where(lacking, len(slices))} no {_ELEMENT[field]}: the place in the "
                "patient is unknown",
                "Export the original images; screenshots and scout views have no place.",
            )
    require_same(slices, "PixelSpacing", lambda one: one.pixel_spacing, name)
    orientations = np.array([one.orientation for one in slices])
    if np.abs(orientations - orientations[0]).max() > _MOST_TURN:
        raise GeometryError(
            f"{name}: the slices lie in different orientations (ImageOrientationPatient)",
            "A scout view or a radial scan? Load its parts one by one.",
        )
    row, column = orientations[0, :3], orientations[0, 3:]
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 1e-3:
        raise GeometryError(
            f"{name}: ImageOrientationPatient {orientations[0].tolist()} is not two unit vectors "
            "at a right angle",
            "Correct the header.",
        )
    row = row / np.linalg.norm(row)  # the header rounds them to a few digits
    column = column - (column @ row) * row
    rows_mm, columns_mm = slices[0].pixel_spacing or (0.0, 0.0)
    return row, column / np.linalg.norm(column), (rows_mm, columns_mm)


_ELEMENT = {
    "position": "ImagePositionPatient",
    "orientation": "ImageOrientationPatient",
    "pixel_spacing": "PixelSpacing",
}


def require_same(
    slices: Sequence[Slice], what: str, value: Callable[[Slice], Any], name: str
) -> None:
    """Raise InputError naming a file that differs from the first in `what`."""
    odd = [one for one in slices if value(one) != value(slices[0])]
    if odd:
        raise InputError(
            f"{name}: the slices differ in {what}: {value(slices[0])} in {slices[0].path.name}, "
            f"{value(odd[0])} in {odd[0].path.name} ({len(odd)} of {len(slices)} differ)",
            "Put them in folders of their own and load one.",
        )


def _step(along: Vector, ordered: Sequence[Slice], name: str, monitor: Monitor) -> float:
    """Give the mm from slice to slice; GeometryError where it is not one number."""
    if len(ordered) == 1:
        thickness = ordered[0].thickness
        if not thickness or thickness < 0:
            monitor.warn(f"{name}: one slice of unknown thickness; 1 mm is assumed")
            return 1.0
        return thickness
    steps = np.diff(along)
    usual = float(np.median(steps))
    same = [index for index, step in enumerate(steps) if step <= 0.01 * max(usual, 1e-6)]
    if same:
        first = same[0]
        raise GeometryError(
            f"{name}: {len(same)} slices share a place with another, first at "
            f"{along[first]:.2f} mm ({ordered[first].path.name}, {ordered[first + 1].path.name})",
            "Copies, time points or echoes? Put each set in a folder of its own.",
        )
    gaps = [index for index, step in enumerate(steps) if step > 1.5 * usual]
    if gaps:
        places = [
            f"{along[index]:.2f} and {along[index + 1]:.2f} mm "
            f"({round(steps[index] / usual) - 1} missing)"
            for index in gaps[:_MOST_NAMED]
        ]
        more = f" and {len(gaps) - _MOST_NAMED} more" if len(gaps) > _MOST_NAMED else ""
        raise GeometryError(
            f"{name}: slices are missing between {', between '.join(places)}{more}; "
            f"the others are {usual:.3f} mm apart",
            "Export or copy the series again, complete.",
        )
    step = float(along[-1] - along[0]) / (len(ordered) - 1)
    off = np.abs(along - along[0] - step * np.arange(len(ordered)))
    if off.max() > _MOST_UNEVEN * step:
        worst = int(off.argmax())
        raise GeometryError(
            f"{name}: uneven spacing: slices are {steps.min():.3f} to {steps.max():.3f} mm apart; "
            f"the one at {along[worst]:.2f} mm ({ordered[worst].path.name}) is {off[worst]:.3f} mm "
            "off a regular grid",
            "Resample the series to an even spacing, or load its parts one by one.",
        )
    return step


def _refuse_tilt(ordered: Sequence[Slice], normal: Vector, pixel_mm: float, name: str) -> None:
    offsets = np.array([one.position for one in ordered]) - np.asarray(ordered[0].position)
    beside = np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1)
    if beside.max() > _MOST_TILT * pixel_mm:
        worst = int(beside.argmax())
        angle = np.degrees(np.arctan2(beside[worst], offsets[worst] @ normal))
        raise GeometryError(
            f"{name}: the slices are stacked at a slant of {angle:.1f}° (a tilted gantry): "
            f"{ordered[worst].path.name} lies {beside[worst]:.2f} mm beside the first",
            "Resample it to a rectangular grid first.",
        )
