"""Slices of a series → volumes, the frames of one volume, or parts that are listed separately.

A series is divided only where it must be: where slices share a place, or where they make no even
stack and an attribute divides them into even stacks. (Many attributes differ from slice to slice
in ordinary series: AcquisitionNumber, TriggerTime, AcquisitionTime.)
A frame never mixes kinds of images: magnitude and phase, b-values, echoes, kernels, breathing
phases. What is ambiguous is listed separately, or refused by name
(docs/decisions/0012-dicom-geometry.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.io.dicom.contrast import (
    ACQUISITION,
    B_VALUE,
    TIME,
    Attribute,
    across_midnight,
    are_of_one_kind,
    attributes_of,
    groups_by,
    interleave,
    interval_s,
    named_groups,
    ranked,
    with_kinds,
)
from MedEnhanceLib.io.dicom.slices import Slice, Slices
from MedEnhanceLib.io.dicom.sources import named
from MedEnhanceLib.runtime.progress import Monitor

#: Of direction cosines: more than rounding, less than another orientation.
_SAME_DIRECTION = 0.01
_ORTHOGONAL = 0.1
_PLANES = ("sagittal", "coronal", "axial")

#: mm: slices closer than this, or than 1 % of the usual distance, share a place.
_SAME_PLACE_MM = 0.01
#: Of the slice distance: a stack with less variation is not divided.
_EVEN = 0.1
#: Share of the slices: a 4D series that lacks more is not recognized as one.
_MOST_LACKING = 0.1
#: A series is divided by at most this number of attributes, one within the other.
_MOST_DIVISIONS = 3
#: Axes whose frames follow each other in time.
_IN_TIME = (TIME, ACQUISITION.axis)
_COMPLETE = "Export or copy the series again, complete."


@dataclass(frozen=True)
class Part:
    """Slices that make one volume.

    frames: [T][K], not yet sorted by place. name: distinguishes it from other parts of the series.
    axis: what its frames differ in: "time", "echo", "b-value", "acquisition"…; "" for one frame.
    reason, hint: why it makes no volume, where that is known already, and the remedy.
    """

    frames: tuple[tuple[Slice, ...], ...]
    name: str = ""
    axis: str = ""
    reason: str = ""
    hint: str = ""

    @property
    def slices(self) -> list[Slice]:
        """The slices of all frames."""
        return [one for frame in self.frames for one in frame]

    @property
    def interval_s(self) -> float | None:
        """Seconds from frame to frame; None where the axis is not time, or is uneven."""
        return interval_s(self.frames) if self.axis in _IN_TIME else None


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
    slices = _without_localizers(slices, name, monitor)
    groups = _by_geometry(slices)
    lone = [group for group in groups if _is_lone_scout(group, groups)]
    if lone:
        groups = [group for group in groups if group not in lone]
        _warn_of_scouts([one for group in lone for one in group.slices], name, monitor)
    return [
        replace(part, name=", ".join(filter(None, (group.name, part.name))))
        for group in groups
        for part in divided(group.slices)
    ]


@dataclass(frozen=True)
class _Group:
    name: str
    slices: tuple[Slice, ...]


def _without_localizers(slices: Slices, name: str, monitor: Monitor) -> Slices:
    scouts = [one for one in slices if "LOCALIZER" in one.image_type]
    if not scouts or len(scouts) == len(slices):
        return slices
    _warn_of_scouts(scouts, name, monitor)
    return [one for one in slices if "LOCALIZER" not in one.image_type]


def _warn_of_scouts(scouts: Slices, name: str, monitor: Monitor) -> None:
    names = named([one.file.name for one in scouts])
    monitor.warn(f"{name}: left out, as they are localizers (scout views): {names}")


def _by_geometry(slices: Slices) -> list[_Group]:
    """Slices of one size, orientation and frame of reference.

    A slice without a place stays with the largest group, so that `stack` reports it.
    """
    placed = [one for one in slices if one.position and one.orientation]
    directions: list[tuple[float, ...]] = []
    references = {one.frame_of_reference for one in placed} - {""}
    groups: dict[tuple[str, str, int], list[Slice]] = defaultdict(list)
    for one in placed:
        reference = one.frame_of_reference if len(references) > 1 else ""
        key = (f"{one.columns}×{one.rows}", reference, _direction(one, directions))
        groups[key].append(one)
    if not groups:
        return [_Group("", tuple(slices))]
    largest = max(groups.values(), key=len)
    largest += [one for one in slices if not (one.position and one.orientation)]
    keys = list(groups)
    several = [len({key[index] for key in keys}) > 1 for index in range(3)]
    numbered = list(dict.fromkeys(key[1] for key in keys))
    planes = [_plane_name(direction) for direction in directions]
    made = []
    for (size, reference, direction), group in groups.items():
        names = (
            (size, several[0]),
            (_numbered(planes, direction), several[2]),
            (f"frame of reference {numbered.index(reference) + 1}", several[1]),
        )
        made.append(_Group(", ".join(part for part, is_needed in names if is_needed), tuple(group)))
    return made


def _direction(one: Slice, known: list[tuple[float, ...]]) -> int:
    orientation = one.orientation or ()
    for index, other in enumerate(known):
        if max(abs(a - b) for a, b in zip(orientation, other, strict=True)) <= _SAME_DIRECTION:
            return index
    known.append(orientation)
    return len(known) - 1


def _plane_name(orientation: tuple[float, ...]) -> str:
    along = np.abs(np.cross(orientation[:3], orientation[3:]))
    return _PLANES[int(along.argmax())]


def _numbered(names: Sequence[str], index: int) -> str:
    """The name, with a number if several share it."""
    same = [place for place, name in enumerate(names) if name == names[index]]
    return names[index] if len(same) == 1 else f"{names[index]} {same.index(index) + 1}"


def _is_lone_scout(group: _Group, groups: Sequence[_Group]) -> bool:
    """Whether it is a single slice across a stack of at least three."""
    one = group.slices[0]
    if len(group.slices) > 1 or not one.orientation:
        return False
    return any(
        len(other.slices) >= 3
        and other.slices[0].orientation
        and abs(_normal(one) @ _normal(other.slices[0])) < _ORTHOGONAL
        and abs(_normal(one) @ _normal(one) - 1) < _ORTHOGONAL  # not one with a damaged direction
        for other in groups
    )


def _normal(one: Slice) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    orientation = np.asarray(one.orientation, dtype=np.float64)
    return np.cross(orientation[:3], orientation[3:])


def divided(slices: Slices) -> list[Part]:
    """The volumes that slices of one size and orientation make, in a fixed order."""
    if any(not (one.position and one.orientation) for one in slices):
        return [Part((tuple(slices),))]
    slices = with_kinds(across_midnight(slices))
    places = _Places(slices)
    attributes = attributes_of(slices)
    if not places.collide(slices):
        return _parts_of_a_stack(slices, places, attributes)
    parts = _resolved(slices, places, attributes, _MOST_DIVISIONS)
    if parts and len(parts) <= 2:
        return parts
    # Many parts may be one 4D series that lacks a few slices.
    return _incomplete(slices, places, attributes) or parts or [Part((tuple(slices),))]


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
        self.mm = {int(place): float(mm) for place, mm in zip(places, along, strict=True)}

    def collide(self, slices: Slices) -> bool:
        return len({self.of[id(one)] for one in slices}) < len(slices)

    def set_of(self, slices: Slices) -> frozenset[int]:
        return frozenset(self.of[id(one)] for one in slices)

    def is_even(self, slices: Slices) -> bool:
        along = np.sort([self.mm[self.of[id(one)]] for one in slices])
        steps = np.diff(along)
        return len(steps) == 0 or float(np.ptp(steps)) <= _EVEN * float(np.median(steps))

    def is_stack(self, slices: Slices) -> bool:
        """Whether their distances are about those of the whole series, so none are left out."""
        along = np.sort([self.mm[self.of[id(one)]] for one in slices])
        if len(along) == 1:
            return self.step == 0
        return bool(np.median(np.diff(along)) <= 1.5 * self.step)

    def by_place(self, slices: Slices) -> list[list[Slice]]:
        at: dict[int, list[Slice]] = defaultdict(list)
        for one in slices:
            at[self.of[id(one)]].append(one)
        return [at[place] for place in sorted(at)]


def _parts_of_a_stack(
    slices: Slices, places: _Places, attributes: Sequence[Attribute]
) -> list[Part]:
    """One volume, unless kinds are mixed or only parts of it are even."""
    for attribute in attributes:
        groups = groups_by(slices, attribute)
        if not (attribute.is_contrast and attribute.mixes(slices, groups)):
            continue
        if all(len(group) > 1 for group in groups.values()):
            return [
                _with_name(part, name)
                for name, group in named_groups(groups, attribute)
                for part in _parts_of_a_stack(group, places, attributes)
            ]
        return [_mixture(slices, groups, attribute)]
    return (
        [Part((tuple(slices),))]
        if places.is_even(slices)
        else _even_parts(slices, places, attributes)
    )


def _mixture(slices: Slices, groups: Mapping[str, Slices], attribute: Attribute) -> Part:
    few = min(groups.values(), key=len)
    value = attribute.called(attribute.value(few[0]))
    return Part(
        (tuple(slices),),
        reason=f"the slices are of different kinds: {value} in {few[0].label} "
        f"({len(few)} of {len(slices)} differ from the others)",
        hint="Put each kind in a folder of its own, and load one.",
    )


def _even_parts(slices: Slices, places: _Places, attributes: Sequence[Attribute]) -> list[Part]:
    """Even stacks, if one attribute divides the series into such."""
    for attribute in attributes:
        groups = groups_by(slices, attribute)
        if len(groups) > 1 and all(len(g) > 1 and places.is_even(g) for g in groups.values()):
            return [Part((g,), name) for name, g in named_groups(groups, attribute)]
    return [Part((tuple(slices),))]


def _resolved(
    slices: Slices, places: _Places, attributes: Sequence[Attribute], divisions: int
) -> list[Part] | None:
    """Parts in which no slices share a place; None where no attributes give such parts."""
    if not places.collide(slices):
        mixed = any(
            one.is_contrast and one.mixes(slices, groups_by(slices, one)) for one in attributes
        )
        return [Part((tuple(slices),))] if places.is_stack(slices) and not mixed else None
    framed = _framed(slices, places, attributes)
    if framed:
        return [framed]
    for index, attribute in enumerate(attributes if divisions else ()):
        groups = groups_by(slices, attribute)
        if len(groups) > 1:
            parts = _within(groups, attribute, places, attributes[index + 1 :], divisions - 1)
            if parts:
                return parts
    return None


def _framed(slices: Slices, places: _Places, attributes: Sequence[Attribute]) -> Part | None:
    """All slices as the frames of one volume; None where they are not."""
    for attribute in attributes:
        if not attribute.makes_frames:
            continue
        frames = list(groups_by(slices, attribute).values())
        if _are_frames(frames, places) and not (attribute is ACQUISITION and interleave(frames)):
            part = _as_frames([_in_place(frame, places) for frame in frames], attribute, attributes)
            if part:
                return part
    by_time = ranked(places.by_place(slices))
    return _as_frames(by_time, None, attributes) if by_time else None


def _in_place(frame: Slices, places: _Places) -> list[Slice]:
    return sorted(frame, key=lambda one: places.of[id(one)])


def _as_frames(
    frames: Sequence[Slices], attribute: Attribute | None, attributes: Sequence[Attribute]
) -> Part | None:
    if not are_of_one_kind(frames, attribute, attributes):
        return None
    several_b = len({one.b_value for frame in frames for one in frame}) > 1
    axis = B_VALUE.axis if several_b else attribute.axis if attribute else TIME
    return Part(tuple(tuple(frame) for frame in frames), axis=axis)


def _are_frames(groups: Sequence[Slices], places: _Places) -> bool:
    """Whether there are several groups at the same places, with one slice at each place."""
    first = places.set_of(groups[0])
    return len(groups) > 1 and all(
        len(group) == len(first) and places.set_of(group) == first for group in groups
    )


def _within(
    groups: Mapping[str, tuple[Slice, ...]],
    attribute: Attribute,
    places: _Places,
    attributes: Sequence[Attribute],
    divisions: int,
) -> list[Part] | None:
    """The parts of each group; None where a group cannot be divided."""
    made: list[Part] = []
    for name, group in named_groups(groups, attribute):
        parts = _resolved(group, places, attributes, divisions)
        if parts is None:
            return None
        made += [_with_name(part, name) for part in parts]
    counts = (
        attribute.makes_frames and attribute is not ACQUISITION
    )  # acquisitions may end anywhere
    return [_with_what_it_lacks(part, made, places) for part in made] if counts else made


def _with_name(part: Part, name: str) -> Part:
    return replace(part, name=", ".join(filter(None, (name, part.name))))


def _with_what_it_lacks(part: Part, parts: Sequence[Part], places: _Places) -> Part:
    """The part, with the reason if it lacks slices that other parts have."""
    own = places.set_of(part.slices)
    others = frozenset[int]().union(*(places.set_of(one.slices) for one in parts))
    lacking = sorted(others - own)
    if not lacking or part.reason:
        return part
    where = named([f"{places.mm[place]:.2f} mm" for place in lacking])
    reason = f"{part.name} lacks slices that other parts of the series have: at {where}"
    return replace(part, reason=reason, hint=_COMPLETE)


def _incomplete(slices: Slices, places: _Places, attributes: Sequence[Attribute]) -> list[Part]:
    """One part that names the missing slices, if a few more would make a 4D series."""
    everywhere = places.set_of(slices)
    for attribute in attributes:
        groups = groups_by(slices, attribute)
        whole = len(groups) * len(everywhere)
        if not attribute.makes_frames or any(places.collide(group) for group in groups.values()):
            continue
        if whole - len(slices) <= _MOST_LACKING * whole:
            lacking = [
                f"{attribute.called(value)} at {places.mm[place]:.2f} mm"
                for value, group in groups.items()
                for place in sorted(everywhere - places.set_of(group))
            ]
            if not lacking:
                continue
            reason = f"slices are missing: {named(lacking)}"
            return [
                Part(tuple(groups.values()), axis=attribute.axis, reason=reason, hint=_COMPLETE)
            ]
    return []
