"""DICOM at a path → Volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.origin import DicomOrigin, Instance
from MedEnhanceLib.core.sequence_kind import stated_kind
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError, MedEnhanceError
from MedEnhanceLib.io.describe import refuse_not_finite
from MedEnhanceLib.io.dicom import segmentation
from MedEnhanceLib.io.dicom.frame_attributes import IN_TIME, interval_s
from MedEnhanceLib.io.dicom.headers import SEGMENTATIONS
from MedEnhanceLib.io.dicom.listing import (
    Choice,
    choices,
    counted_kinds,
    require_identical,
    stated_quantity,
)
from MedEnhanceLib.io.dicom.pixels import read_intensities
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import named
from MedEnhanceLib.io.dicom.stack import Stack, stack_frames
from MedEnhanceLib.runtime.progress import Monitor

_Direction = tuple[float, float, float]
_MODALITIES = ("CT", "MR", "PT")
_UNITS = {"GML": "SUV", "BQML": "Bq/ml", "CNTS": "counts"}


def load_dicom(
    path: Path,
    *,
    modality: str | None = None,
    series: str | None = None,
    resample: bool = False,
    complete_frames: bool = False,
    monitor: Monitor,
) -> Volume:
    """Load one series of gray images, or one segmentation.

    Args:
        path: see `sources.find_files`.
        modality: instead of that in the headers; ignored for a segmentation.
        series: its number or UID; None: the only series of images, else the only segmentation.
        resample: whether uneven, missing and tilted slices are resampled instead of refused.
        complete_frames: whether the last frame is left out if it lacks slices.
        monitor: progress, warnings and cancellation.
    Returns [K, J, I], or [T, K, J, I] for a series of several frames.
    Raises InputError if not exactly one series fits, or if it gives no volume; GeometryError if its
    slices do not lie on an even grid.
    """
    listed = choices(path, monitor.part(0, 0.3), complete_frames=complete_frames)
    choice = _choose(listed, series, path, monitor)
    if choice.part is None and _is_segmentation(choice):
        return _segmentation(choice, path, monitor)
    return _volume(choice, path, modality, monitor, resample=resample)


def _choose(listed: Sequence[Choice], series: str | None, path: Path, monitor: Monitor) -> Choice:
    """Return the only volume or segmentation that fits."""
    volumes = [choice for choice in listed if choice.part is not None]
    if series is None:
        fitting = volumes or [choice for choice in listed if _is_segmentation(choice)]
        if not volumes and len(fitting) != 1:
            raise _no_volume(listed, path)
        what = f"holds {len(fitting)} series"
    else:
        exactly = [
            choice for choice in listed if series in (str(choice.row.number), choice.row.key)
        ]
        fitting = (
            [choice for choice in exactly if choice.part is not None]
            or exactly
            or [choice for choice in volumes if choice.row.uid == series]
        )
        parts = f"holds {len(fitting)} parts of {series}"
        what = parts if fitting else f"has no series {series!r} but"
    if len(fitting) != 1:
        planes = [plane for choice in fitting if choice.part for plane in choice.part.slices]
        if planes and all("LOCALIZER" in plane.image_type for plane in planes):
            what = f"is a localizer (scout views) of {len(fitting)} orientations or sizes"
        rows = [choice.row for choice in fitting or volumes]
        listing = "".join(f"\n  {row.number}: {row}" for row in rows)
        raise InputError(
            f"{path} {what}:{listing}",
            "Choose one by its number or UID (--series 1, series='1').",
        )
    (match,) = fitting
    if series is None:
        _warn_of_others([c for c in listed if c is not match], path.absolute().name, monitor)
    if match.part is None and not _is_segmentation(match):
        raise match.error
    return match


def _is_segmentation(choice: Choice) -> bool:
    return choice.about.sop_class in SEGMENTATIONS and not choice.about.damaged


def _no_volume(listed: Sequence[Choice], path: Path) -> MedEnhanceError:
    first = listed[0]
    if len(listed) == 1 and first.row.files == 1 and first.about.file == path:
        return first.error
    return InputError(
        f"{path} contains no image volume, only {counted_kinds(listed)}; {first.about.fault}",
        first.about.hint,
    )


def _warn_of_others(others: Sequence[Choice], name: str, monitor: Monitor) -> None:
    damaged = [choice.about.fault for choice in others if choice.about.damaged]
    others = [choice for choice in others if not choice.about.damaged]
    if others:
        monitor.warn(
            f"{name}: left out, because they are not image volumes: {counted_kinds(others)}"
        )
    if damaged:
        monitor.warn(f"{name}: left out, because they cannot be read: {named(damaged)}")


def _segmentation(choice: Choice, path: Path, monitor: Monitor) -> Volume:
    if choice.row.files > 1:
        raise InputError(
            f"{path} holds {choice.row.files} segmentations in one series "
            f"({choice.about.file.name} first)",
            "Give the file of the one that you want.",
        )
    source = f"{path} (series {choice.row.key or 'without UID'})"
    labels = segmentation.read_segmentation(choice.about.file, source, monitor.part(0.3, 1))
    return replace(labels, history=choice.about.history)


def _volume(
    choice: Choice, path: Path, modality: str | None, monitor: Monitor, *, resample: bool
) -> Volume:
    part, about, name = choice.part, choice.about, path.absolute().name
    if choice.fault or part is None:
        raise choice.error
    for note in choice.notes:
        monitor.warn(note)
    stacks = stack_frames(part.frames, name, monitor, resample=resample)
    require_identical(choice.copies, name, monitor.part(0.3, 0.4))
    stated = about.modality if about.modality in _MODALITIES else "OT"
    meaning = modality or stated
    ordered = [plane for stack in stacks for plane in stack.slices]
    repair, geometry, steps = stacks[0].repair, stacks[0].geometry, []
    read_till = 1.0 if repair is None else 0.85
    if any(plane.burned_in for plane in ordered):
        monitor.warn(
            f"{name}: BurnedInAnnotation is YES: its pixels may show the patient's name; results "
            "and pictures of reports then show it, too"
        )
    if ordered[0].notes:
        monitor.warn(f"{name}: {ordered[0].notes}")
    voxels = read_intensities(ordered, meaning, name, monitor.part(0.4, read_till))
    voxels = voxels.reshape(len(stacks), -1, *voxels.shape[-2:])
    padding = _padding(ordered, voxels)
    if repair is not None:
        refuse_not_finite(Volume(voxels, source=name))
        share = monitor.part(read_till, 1)
        voxels, geometry, notes = repair.apply(voxels, share, padding=padding)
        steps = [derived_note("; ".join(notes))]
        monitor.warn(f"{name}: {'; '.join(notes)}")
    return Volume(
        voxels if len(stacks) > 1 else voxels[0],
        geometry,
        modality=meaning,
        units=_units(ordered[0], stated) if meaning == stated else profile_of(meaning).units,
        source=f"{path} (series {choice.row.key or 'without UID'})",
        history=(*about.history, *steps),
        frame_interval_s=interval_s(part.frames, part.axis, name, monitor),
        dicom_origin=replace(_origin(stacks), padding=padding),
        gradients=_gradients([stack.slices[0] for stack in stacks], name, monitor),
        quantity=stated_quantity(ordered[0], about.description),
        sequence_kind=_sequence_kind(ordered[0], part.axis),
        # That of the slice with the highest ratio.
        lossy=max((plane.lossy for plane in ordered), key=lambda steps: [s.ratio for s in steps]),
    )


def _gradients(firsts: Sequence[Slice], name: str, monitor: Monitor) -> tuple[Gradient, ...]:
    """Return the diffusion weighting of each frame, by its first slice; () without any."""
    weighted = [plane for plane in firsts if plane.b_value and float(plane.b_value) > 0]
    if not weighted:
        return ()
    lacking = sum(not plane.b_value for plane in firsts)
    if lacking:  # Canon omits it for b = 0
        monitor.warn(
            f"{name}: {lacking} of {len(firsts)} frames of a diffusion scan state no b-value; it "
            "is taken for 0"
        )
    undirected = sum(plane.direction is None for plane in weighted)
    if undirected:
        monitor.warn(
            f"{name}: {undirected} of {len(weighted)} diffusion-weighted frames state no direction "
            "in known coordinates (or are trace images); it is set to 0, 0, 0"
        )
    b_values = [float(plane.b_value or 0) for plane in firsts]
    return tuple(
        Gradient(b_value, cast("_Direction", plane.direction))
        if b_value and plane.direction
        else Gradient(b_value)  # Philips states a direction, too, where b is 0
        for b_value, plane in zip(b_values, firsts, strict=True)
    )


def _sequence_kind(first: Slice, axis: str) -> str:
    """Return what frames along an axis differ in; "" where it is not certain."""
    is_followed = axis in IN_TIME and (first.modality in ("CT", "PT") or bool(first.agent))
    return stated_kind(first.image_type, axis, is_followed=is_followed)


def _padding(slices: Sequence[Slice], voxels: Voxels) -> tuple[float, float] | None:
    """Return the intensity of padding and the other end of its range; None if none is stated."""
    plane = next((plane for plane in slices if plane.padding is not None), None)
    if plane is None or plane.padding is None:
        return None
    slope, intercept = 1.0 if plane.slope is None else plane.slope, plane.intercept or 0.0
    limit = plane.padding if plane.padding_limit is None else plane.padding_limit
    is_beyond = plane.bits_allocated == 16 and min(plane.padding, limit) > np.iinfo(np.int16).max
    if is_beyond and voxels.min() < intercept:  # stored numbers have a sign, which it lost
        intercept -= slope * (1 << 16)
    return slope * plane.padding + intercept, slope * limit + intercept


def _units(first: Slice, modality: str) -> str:
    stated = first.units or first.rescale_type
    if modality == "PT" and stated:
        return _UNITS.get(stated.upper(), stated)
    if profile_of(modality).is_absolute and first.rescale_type not in ("", "HU"):
        return first.rescale_type
    return profile_of(modality).units


def _origin(stacks: Sequence[Stack]) -> DicomOrigin:
    first = stacks[0].slices[0]
    instances = tuple(
        tuple(
            Instance(str(plane.file), plane.sop_class, plane.instance, plane.frame, plane.tile)
            for plane in stack.slices
        )
        for stack in stacks
    )
    return DicomOrigin(
        first.study,
        first.series,
        instances,
        on_grid=stacks[0].repair is None,
        body_part=first.body_part,
        modality=first.modality,
    )
