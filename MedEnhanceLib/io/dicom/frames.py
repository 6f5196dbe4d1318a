"""Slices of a series → volumes, the frames of one volume, or parts that are listed separately.

A series is divided only if slices are of several kinds (magnitude and phase, kernels), or share a
place. Many attributes differ from slice to slice in ordinary series: AcquisitionNumber,
TriggerTime, AcquisitionTime.
A frame never mixes kinds of images: b-values, echoes, breathing phases. Ambiguous parts are listed
separately, or refused with the reason (docs/decisions/0012-dicom-geometry.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.io.dicom import frame_attributes
from MedEnhanceLib.io.dicom.slices import Slice, Slices
from MedEnhanceLib.io.dicom.sources import named

#: Difference of direction cosines: more than rounding, less than another orientation.
_SAME_DIRECTION = 0.01
_PLANES = ("sagittal", "coronal", "axial")
#: mm: slices closer than this, or than 1 % of the usual distance, share a place.
_SAME_PLACE_MM = 0.01
#: Share of the slices: a 4D series that lacks more is not recognized as one.
_MOST_LACKING = 0.1
_NO_ORDER = (
    "the order of its diffusion frames is unknown: neither TemporalPositionIdentifier nor "
    "acquisition times nor InstanceNumber give the same order at all places"
)
#: A series is divided by at most this number of attributes, one within the other.
_MOST_DIVISIONS = 3


@dataclass(frozen=True)
class ScanPart:
    """Slices that make one volume.

    Attributes:
        frames: [T][K], not yet sorted by place.
        name: distinguishes it from other parts of the series.
        axis: what its frames differ in: "time", "echo", "b-value", "acquisition"…; "" for one
            frame.
        reason: why it makes no volume, where that is known already.
        is_interrupted: whether the reason is that the last frame lacks slices.
        lacking: number of slices at other places that lie in the same stack, but in other parts.
    """

    frames: tuple[tuple[Slice, ...], ...]
    name: str = ""
    axis: str = ""
    reason: str = ""
    is_interrupted: bool = False
    lacking: int = 0

    @property
    def slices(self) -> list[Slice]:
        """The slices of all frames."""
        return [plane for frame in self.frames for plane in frame]

    def complete(self) -> ScanPart:
        """Leave out the last frame of an interrupted scan; any other part stays."""
        if not self.is_interrupted:
            return self
        return replace(self, frames=self.frames[:-1], reason="", is_interrupted=False)

    def within(self, name: str) -> ScanPart:
        """Return the part, named as a part of `name`."""
        return replace(self, name=", ".join(filter(None, (name, self.name))))


def scan_parts(slices: Slices) -> tuple[list[ScanPart], list[str]]:
    """Divide a series, its slices in any order, into volumes.

    Parts of equal geometry that differ in one attribute become the frames of one part. Slices that
    cannot be divided stay in one part, so that `stack` reports their fault.
    Returns the volumes, in a fixed order; and the names of localizers that are left out, unless
    the series has nothing else.
    """
    scouts = [plane.file.name for plane in slices if "LOCALIZER" in plane.image_type]
    if len(scouts) == len(slices):
        scouts = []
    if scouts:
        slices = [plane for plane in slices if "LOCALIZER" not in plane.image_type]
    groups = _by_geometry(slices)
    parts = [
        part.within(title if len(groups) > 1 else "")
        for title, group in groups.items()
        for part in _divided(group)
    ]
    return parts, scouts


def _by_geometry(slices: Slices) -> dict[str, list[Slice]]:
    """Group slices by size, frame of reference and orientation; the keys name these.

    Slices without a place join the largest group, so that `stack` reports them.
    """
    placed = [plane for plane in slices if plane.position and plane.orientation]
    if not placed:
        return {"": list(slices)}
    directions: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []
    across: list[str] = []  # for each direction
    references = list(dict.fromkeys(plane.frame_of_reference for plane in placed))
    # A slice may lack the frame of reference that the others have.
    several_references = len({*references} - {""}) > 1
    groups: dict[tuple[str, str, str], list[Slice]] = defaultdict(list)
    for plane in placed:
        cosines = np.asarray(plane.orientation, dtype=np.float64)
        near = (np.abs(cosines - other).max() <= _SAME_DIRECTION for other in directions)
        direction = next((index for index, is_near in enumerate(near) if is_near), len(directions))
        if direction == len(directions):
            directions.append(cosines)
            across.append(_PLANES[int(np.abs(np.cross(cosines[:3], cosines[3:])).argmax())])
        number = references.index(plane.frame_of_reference) + 1 if several_references else 1
        size = f"{plane.columns}×{plane.rows}"
        plane_name = f"{across[direction]} {direction + 1}"
        groups[size, plane_name, f"reference {number}"].append(plane)
    largest = max(groups.values(), key=len)
    largest += [plane for plane in slices if not (plane.position and plane.orientation)]
    differs = [len(set(parts)) > 1 for parts in zip(*groups, strict=True)]
    return {
        ", ".join(part for part, is_needed in zip(key, differs, strict=True) if is_needed): group
        for key, group in groups.items()
    }


def _divided(slices: Slices) -> list[ScanPart]:
    """Return the volumes that slices of one size and orientation make, in a fixed order."""
    whole = [ScanPart((tuple(slices),))]
    if any(not (plane.position and plane.orientation) for plane in slices):
        return whole
    slices = frame_attributes.with_equal_times(slices)
    places = _Places(slices)
    parts = _divided_by(slices, places, frame_attributes.attributes_of(slices), _MOST_DIVISIONS)
    if not parts or len({plane.stack for plane in slices}) > 1:
        return parts or whole  # each stack has its own places on purpose
    return [replace(part, lacking=places.lacking(part.slices, slices)) for part in parts]


class _Places:
    """Places of slices along their common normal, numbered from 0."""

    def __init__(self, slices: Slices) -> None:
        orientation = np.asarray(slices[0].orientation, dtype=np.float64)
        normal = np.cross(orientation[:3], orientation[3:])
        along = np.array([normal @ np.asarray(plane.position) for plane in slices])
        order = np.argsort(along, kind="stable")
        gaps = np.diff(along[order])
        apart = gaps[gaps > _SAME_PLACE_MM]
        self.step = float(np.median(apart)) if apart.size else 0.0
        ranks = np.concatenate([[0], np.cumsum(gaps > max(_SAME_PLACE_MM, 0.01 * self.step))])
        places = np.empty(len(slices), int)
        places[order] = ranks
        self._of = dict(zip(map(id, slices), places.tolist(), strict=True))
        self.mm = dict(zip(places.tolist(), along.tolist(), strict=True))

    def at(self, slices: Slices) -> dict[int, list[Slice]]:
        """Return the slices at each place, in the order of the places."""
        at: dict[int, list[Slice]] = defaultdict(list)
        for plane in sorted(slices, key=lambda plane: self._of[id(plane)]):
            at[self._of[id(plane)]].append(plane)
        return at

    def collide(self, slices: Slices) -> bool:
        """Return whether some of them share a place."""
        return len(self.at(slices)) < len(slices)

    def lacking(self, part: Slices, slices: Slices) -> int:
        """Return the number of slices at places where the part has none."""
        covered = self.at(part)
        return sum(len(planes) for place, planes in self.at(slices).items() if place not in covered)

    def is_stack(self, slices: Slices) -> bool:
        """Return whether their distances are those of the whole series: no slice is missing."""
        along = [self.mm[place] for place in self.at(slices)]
        if len(along) == 1:
            return self.step == 0
        return bool(np.median(np.diff(along)) <= 1.5 * self.step)


def _divided_by(
    slices: Slices,
    places: _Places,
    attributes: Sequence[frame_attributes.Attribute],
    divisions: int,
) -> list[ScanPart]:
    """Make parts in which no slices share a place; [] where no attributes give such parts."""
    collide = places.collide(slices)
    mixed = [kind for kind in attributes if kind.is_contrast and kind.mixes(slices)]
    if not collide and not mixed:
        return [ScanPart((tuple(slices),))]
    framed = _framed(slices, places, attributes) if collide else None
    if collide and (framed is None or framed.reason):
        framed = _interrupted(slices, places, attributes) or framed
    if framed:
        return [framed]
    for index, attribute in enumerate(attributes if divisions else ()):
        groups = attribute.groups(slices)
        if len(groups) == 1 or not (collide or attribute in mixed):
            continue
        if collide and not all(map(places.is_stack, groups.values())):
            continue  # the attribute only numbers slices
        divided: list[ScanPart] = []
        for value, group in groups.items():
            parts = _divided_by(group, places, attributes[index + 1 :], divisions - 1)
            if not parts:
                break
            divided += [part.within(attribute.called(value)) for part in parts]
        else:
            return divided
    return []


def _interrupted(
    slices: Slices, places: _Places, attributes: Sequence[frame_attributes.Attribute]
) -> ScanPart | None:
    """Make the frames of a scan that ended within a frame, after two or more complete ones."""
    at = places.at(slices)
    most = max(map(len, at.values()))
    if most < 3 or {*map(len, at.values())} != {most, most - 1}:
        return None
    for way in frame_attributes.SCAN_NUMBERS:
        if any(way(plane) is None for plane in slices):
            continue
        last = [max(planes, key=way) for planes in at.values() if len(planes) == most]
        rest = [plane for plane in slices if all(plane is not other for other in last)]
        if min(map(way, last)) <= max(map(way, rest)):
            continue
        whole = _framed(rest, places, attributes)
        if whole and not whole.reason:
            lacking = len(at) - len(last)
            reason = f"slices are missing: the last frame lacks {lacking} of {len(at)}"
            frames = (*whole.frames, tuple(last))
            return replace(whole, frames=frames, reason=reason, is_interrupted=True)
    return None


def _framed(
    slices: Slices, places: _Places, attributes: Sequence[frame_attributes.Attribute]
) -> ScanPart | None:
    """Make all slices the frames of one volume; None if they are not."""
    everywhere = places.at(slices)
    nearly: ScanPart | None = None
    for attribute in attributes:
        groups = attribute.groups(slices)
        if (
            not attribute.makes_frames
            or len(groups) < 2
            or any(map(places.collide, groups.values()))
        ):
            continue
        stacks = {attribute.called(value): places.at(group) for value, group in groups.items()}
        frames = tuple(tuple(plane for (plane,) in at.values()) for at in stacks.values())
        missing = [
            f"{title} at {places.mm[place]:.2f} mm"
            for title, at in stacks.items()
            for place in everywhere
            if place not in at
        ]
        if not missing:
            if whole := _complete(frames, attribute, attributes):
                return whole
        elif len(missing) <= _MOST_LACKING * len(everywhere) * len(frames):
            reason = f"slices are missing: {named(missing)}"
            nearly = nearly or ScanPart(frames, axis=attribute.axis, reason=reason)
    by_time = frame_attributes.ranked(list(everywhere.values()))
    if by_time and frame_attributes.are_of_one_kind(by_time, None, attributes):
        return ScanPart(by_time, axis=frame_attributes.TIME)
    return nearly


def _complete(
    frames: tuple[tuple[Slice, ...], ...],
    attribute: frame_attributes.Attribute,
    attributes: Sequence[frame_attributes.Attribute],
) -> ScanPart | None:
    """Make a volume of frames that lack no slice; None if they mix kinds of images."""
    is_mixed = attribute is frame_attributes.ACQUISITION and frame_attributes.interleave(frames)
    if is_mixed or not frame_attributes.are_of_one_kind(frames, attribute, attributes):
        return None
    scanned = frame_attributes.in_scan_order(frames) if attribute.is_scanned else frames
    unknown = "" if scanned or attribute is not frame_attributes.DIRECTION else _NO_ORDER
    return ScanPart(scanned or frames, axis=attribute.axis, reason=unknown)
