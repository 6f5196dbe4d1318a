"""Slices of one orientation → the frames of one volume, or parts that stand apart.

A frame never mixes kinds: magnitude with phase, b-values, echoes, kernels, phases of the breath.
What could be read in two ways is listed apart, or refused by name. The rules, in the order in
which they are asked: docs/decisions/0015-dicom-grouping.md.
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
    are_of_one_kind,
    attributes_of,
    groups_by,
    named_groups,
    with_kinds,
)
from MedEnhanceLib.io.dicom.slices import Slice, Slices
from MedEnhanceLib.io.dicom.timing import across_midnight, interleave, interval_s, ranked
from MedEnhanceLib.io.dicom.words import named

#: Slices closer than that, or than a hundredth of the usual distance, lie at one place.
_SAME_PLACE_MM = 0.01
#: Of the distance: how far a slice may lie off an even stack that is not taken apart.
_EVEN = 0.1
#: Of the frames' slices: a 4D series that lacks more is not taken for one.
_MOST_LACKING = 0.1
#: A series is divided by so many attributes, one within the other.
_MOST_DIVISIONS = 3
#: Axes whose frames follow each other by the clock.
_IN_TIME = (TIME, ACQUISITION.axis)
_COMPLETE = "Export or copy the series again, complete."


@dataclass(frozen=True)
class Part:
    """Slices that make one volume: [T][K], not yet in order of place within a frame.

    name: what sets it apart from the rest of its series, "" where it is all of it.
    axis: what its frames differ in: "time", "echo", "b-value", "acquisition"…; "" for one frame.
    reason, hint: why it makes no volume, where that is known already, and what to do then.
    """

    frames: tuple[tuple[Slice, ...], ...]
    name: str = ""
    axis: str = ""
    reason: str = ""
    hint: str = ""

    @property
    def slices(self) -> list[Slice]:
        """Of all frames."""
        return [one for frame in self.frames for one in frame]

    @property
    def interval_s(self) -> float | None:
        """Seconds from frame to frame; None where they are no times, or not evenly apart."""
        return interval_s(self.frames) if self.axis in _IN_TIME else None


def divided(slices: Slices) -> list[Part]:
    """The volumes that slices of one size and orientation make, in a fixed order.

    What makes no sense in any way stays together in one part, for `stack` to say what is wrong.
    """
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
    """Where slices of one orientation lie along their normal, as whole numbers: equal is equal."""

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
        """Whether they lie about as close as the whole series does: no mere pick from it."""
        along = np.sort([self.mm[self.of[id(one)]] for one in slices])
        if len(along) == 1:
            return self.step == 0
        return bool(np.median(np.diff(along)) <= 1.5 * self.step)

    def by_place(self, slices: Slices) -> list[list[Slice]]:
        at: dict[int, list[Slice]] = defaultdict(list)
        for one in slices:
            at[self.of[id(one)]].append(one)
        return [at[place] for place in sorted(at)]


# ------------------------------------------------------------ one slice a place


def _parts_of_a_stack(
    slices: Slices, places: _Places, attributes: Sequence[Attribute]
) -> list[Part]:
    """One volume, unless it mixes kinds or only parts of it are even."""
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
    """Stacks that are even each, where one attribute divides the series into such."""
    for attribute in attributes:
        groups = groups_by(slices, attribute)
        if len(groups) > 1 and all(len(g) > 1 and places.is_even(g) for g in groups.values()):
            return [Part((g,), name) for name, g in named_groups(groups, attribute)]
    return [Part((tuple(slices),))]


# ------------------------------------------------------------ several slices a place


def _resolved(
    slices: Slices, places: _Places, attributes: Sequence[Attribute], divisions: int
) -> list[Part] | None:
    """Parts without two slices at one place; None where the attributes give no such parts."""
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
    """All of them as frames of one volume, where they are that."""
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
    """Whether two or more groups lie at the same places, each with one slice a place."""
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
    """The parts of each group; None where one of them gives none."""
    made: list[Part] = []
    for name, group in named_groups(groups, attribute):
        parts = _resolved(group, places, attributes, divisions)
        if parts is None:
            return None
        made += [_with_name(part, name) for part in parts]
    counts = attribute.makes_frames and attribute is not ACQUISITION  # those end where they may
    return [_with_what_it_lacks(part, made, places) for part in made] if counts else made


def _with_name(part: Part, name: str) -> Part:
    return replace(part, name=", ".join(filter(None, (name, part.name))))


def _with_what_it_lacks(part: Part, parts: Sequence[Part], places: _Places) -> Part:
    """A part that would have been a frame, had it all slices that the others have."""
    own = places.set_of(part.slices)
    others = frozenset[int]().union(*(places.set_of(one.slices) for one in parts))
    lacking = sorted(others - own)
    if not lacking or part.reason:
        return part
    where = named([f"{places.mm[place]:.2f} mm" for place in lacking])
    reason = f"{part.name} lacks slices that other parts of the series have: at {where}"
    return replace(part, reason=reason, hint=_COMPLETE)


def _incomplete(slices: Slices, places: _Places, attributes: Sequence[Attribute]) -> list[Part]:
    """One part that names what is missing, where a few slices more would make a 4D series."""
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
