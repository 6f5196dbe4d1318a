"""Slices of a series → volumes, the frames of one volume, or parts that are listed separately.

A series is divided only where it must be: where slices are of several kinds (magnitude and phase,
kernels), or share a place. (Many attributes differ from slice to slice in ordinary series:
AcquisitionNumber, TriggerTime, AcquisitionTime.)
A frame never mixes kinds of images: b-values, echoes, breathing phases. What is ambiguous is
listed separately, or refused by name (docs/decisions/0012-dicom-geometry.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.io.dicom.contrast import (
    ACQUISITION,
    IN_TIME,
    TIME,
    Attribute,
    are_of_one_kind,
    attributes_of,
    groups_by,
    interleave,
    interval_s,
    ranked,
    with_kinds,
)
from MedEnhanceLib.io.dicom.slices import Slice, Slices
from MedEnhanceLib.io.dicom.sources import named
from MedEnhanceLib.runtime.progress import Monitor

#: Of direction cosines: more than rounding, less than another orientation.
_SAME_DIRECTION = 0.01
_PLANES = ("sagittal", "coronal", "axial")
#: mm: slices closer than this, or than 1 % of the usual distance, share a place.
_SAME_PLACE_MM = 0.01
#: Share of the slices: a 4D series that lacks more is not recognized as one.
_MOST_LACKING = 0.1
#: A series is divided by at most this number of attributes, one within the other.
_MOST_DIVISIONS = 3


@dataclass(frozen=True)
class Part:
    """Slices that make one volume.

    frames: [T][K], not yet sorted by place. name: distinguishes it from other parts of the series.
    axis: what its frames differ in: "time", "echo", "b-value", "acquisition"…; "" for one frame.
    reason: why it makes no volume, where that is known already.
    """

    frames: tuple[tuple[Slice, ...], ...]
    name: str = ""
    axis: str = ""
    reason: str = ""

    @property
    def slices(self) -> list[Slice]:
        """The slices of all frames."""
        return [one for frame in self.frames for one in frame]

    @property
    def interval_s(self) -> float | None:
        """Seconds from frame to frame; None where the axis is not time, or is uneven."""
        several_b = len({one.b_value for one in self.slices}) > 1
        return interval_s(self.frames) if self.axis in IN_TIME and not several_b else None


def parts_of(slices: Slices, name: str, monitor: Monitor) -> list[Part]:
    """Divide a series into volumes.

    Parts of equal geometry that differ in one attribute become the frames of one part. Slices that
    cannot be divided stay in one part, so that `stack` reports what is wrong with them.

    Args:
        slices: of one series, in any order.
        name: of the series, for messages.
        monitor: is warned of localizers among other slices, which are left out.
    Returns:
        The volumes, in a fixed order.
    """
    groups = _by_geometry([one for one in slices if "LOCALIZER" not in one.image_type] or slices)
    largest = max(groups.values(), key=len)
    groups = {title: group for title, group in groups.items() if not _is_lone_scout(group, largest)}
    used = {id(one) for group in groups.values() for one in group}
    scouts = [one.file.name for one in slices if id(one) not in used]
    if scouts:
        monitor.warn(f"{name}: left out, as they are localizers (scout views): {named(scouts)}")
    return [
        _with_name(part, title if len(groups) > 1 else "")
        for title, group in groups.items()
        for part in divided(group)
    ]


def _by_geometry(slices: Slices) -> dict[str, list[Slice]]:
    """Slices of one size, frame of reference and orientation, by the name of these.

    A slice without a place stays with the largest group, so that `stack` reports it.
    """
    placed = [one for one in slices if one.position and one.orientation]
    if not placed:
        return {"": list(slices)}
    directions: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []
    references = list(dict.fromkeys(one.frame_of_reference for one in placed))
    # A slice may lack the frame of reference that the others have.
    several_references = len({*references} - {""}) > 1
    groups: dict[tuple[str, str, str], list[Slice]] = defaultdict(list)
    for one in placed:
        cosines = np.asarray(one.orientation, dtype=np.float64)
        near = (np.abs(cosines - other).max() <= _SAME_DIRECTION for other in directions)
        direction = next((index for index, is_near in enumerate(near) if is_near), len(directions))
        if direction == len(directions):
            directions.append(cosines)
        plane = _PLANES[int(np.abs(np.cross(cosines[:3], cosines[3:])).argmax())]
        number = references.index(one.frame_of_reference) + 1 if several_references else 1
        key = (f"{one.columns}×{one.rows}", f"{plane} {direction + 1}", f"reference {number}")
        groups[key].append(one)
    largest = max(groups.values(), key=len)
    largest += [one for one in slices if not (one.position and one.orientation)]
    differs = [len(set(parts)) > 1 for parts in zip(*groups, strict=True)]
    return {
        ", ".join(part for part, is_needed in zip(key, differs, strict=True) if is_needed): group
        for key, group in groups.items()
    }


def _is_lone_scout(group: Slices, largest: Slices) -> bool:
    """Whether it is a single slice across a stack of at least three."""
    if len(group) > 1 or len(largest) < 3 or not (group[0].orientation and largest[0].orientation):
        return False
    across, along = (
        np.cross(cosines[:3], cosines[3:])
        for cosines in (group[0].orientation, largest[0].orientation)
    )
    is_direction = abs(across @ across - 1) < 0.1  # not a damaged one
    return bool(is_direction and abs(across @ along) < 0.1)


def divided(slices: Slices) -> list[Part]:
    """The volumes that slices of one size and orientation make, in a fixed order."""
    if any(not (one.position and one.orientation) for one in slices):
        return [Part((tuple(slices),))]
    slices = with_kinds(slices)
    places = _Places(slices)
    attributes = attributes_of(slices)
    return _divided(slices, places, attributes, _MOST_DIVISIONS) or [Part((tuple(slices),))]


class _Places:
    """Places of slices along their common normal, numbered from 0."""

    def __init__(self, slices: Slices) -> None:
        orientation = np.asarray(slices[0].orientation, dtype=np.float64)
        normal = np.cross(orientation[:3], orientation[3:])
        along = np.array([normal @ np.asarray(one.position) for one in slices])
        order = np.argsort(along, kind="stable")
        gaps = np.diff(along[order])
        apart = gaps[gaps > _SAME_PLACE_MM]
        self.step = float(np.median(apart)) if apart.size else 0.0
        ranks = np.concatenate([[0], np.cumsum(gaps > max(_SAME_PLACE_MM, 0.01 * self.step))])
        places = np.empty(len(slices), int)
        places[order] = ranks
        self.of = dict(zip(map(id, slices), places.tolist(), strict=True))
        self.mm = dict(zip(places.tolist(), along.tolist(), strict=True))

    def set_of(self, slices: Slices) -> frozenset[int]:
        return frozenset(self.of[id(one)] for one in slices)

    def collide(self, slices: Slices) -> bool:
        return len(self.set_of(slices)) < len(slices)

    def is_stack(self, slices: Slices) -> bool:
        """Whether their distances are about those of the whole series, so none are left out."""
        along = [self.mm[place] for place in sorted(self.set_of(slices))]
        if len(along) == 1:
            return self.step == 0
        return bool(np.median(np.diff(along)) <= 1.5 * self.step)

    def in_order(self, slices: Slices) -> list[Slice]:
        return sorted(slices, key=lambda one: self.of[id(one)])

    def by_place(self, slices: Slices) -> list[list[Slice]]:
        at: dict[int, list[Slice]] = defaultdict(list)
        for one in self.in_order(slices):
            at[self.of[id(one)]].append(one)
        return list(at.values())


def _divided(
    slices: Slices, places: _Places, attributes: Sequence[Attribute], divisions: int
) -> list[Part]:
    """Parts in which no slices share a place; [] where no attributes give such parts."""
    if not places.collide(slices):
        if not any(one.is_contrast and one.mixes(slices) for one in attributes):
            return [Part((tuple(slices),))]
    else:
        framed = _framed(slices, places, attributes)
        if framed:
            return [framed]
    for index, attribute in enumerate(attributes if divisions else ()):
        groups = groups_by(slices, attribute)
        collide = places.collide(slices)
        is_needed = collide or (attribute.is_contrast and attribute.mixes(slices))
        if len(groups) == 1 or not is_needed:
            continue
        if collide and not all(map(places.is_stack, groups.values())):
            continue  # it only counts slices
        made: list[Part] = []
        for value, group in groups.items():
            parts = _divided(group, places, attributes[index + 1 :], divisions - 1)
            if not parts:
                break
            made += [_with_name(part, attribute.called(value)) for part in parts]
        else:
            return made
    return []


def _framed(slices: Slices, places: _Places, attributes: Sequence[Attribute]) -> Part | None:
    """All slices as the frames of one volume; None where they are not."""
    nearly: Part | None = None
    for attribute in attributes:
        frames = [places.in_order(group) for group in groups_by(slices, attribute).values()]
        if not attribute.makes_frames or len(frames) < 2 or any(map(places.collide, frames)):
            continue
        everywhere = places.set_of(slices)
        lacking = {
            attribute.called(attribute.value(frame[0])): everywhere - places.set_of(frame)
            for frame in frames
        }
        count = sum(map(len, lacking.values()))
        if count and count <= _MOST_LACKING * len(everywhere) * len(frames):
            missing = [
                f"{title} at {places.mm[place]:.2f} mm"
                for title, at in lacking.items()
                for place in sorted(at)
            ]
            reason = f"slices are missing: {named(missing)}"
            nearly = nearly or Part(tuple(map(tuple, frames)), axis=attribute.axis, reason=reason)
        is_mixed = attribute is ACQUISITION and interleave(frames)
        if not count and not is_mixed and are_of_one_kind(frames, attribute, attributes):
            return Part(tuple(map(tuple, frames)), axis=attribute.axis)
    by_time = ranked(places.by_place(slices))
    if by_time and are_of_one_kind(by_time, None, attributes):
        return Part(by_time, axis=TIME)
    return nearly


def _with_name(part: Part, name: str) -> Part:
    return replace(part, name=", ".join(filter(None, (name, part.name))))
