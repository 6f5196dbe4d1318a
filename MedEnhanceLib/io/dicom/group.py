"""Inside a series: which slices make a volume, which make the frames of one, which stand apart.

A series is taken apart only where it must be: where slices lie at one place, or where they make no
even stack and an attribute divides them into stacks that are even. For many attributes differ from
slice to slice in ordinary series: AcquisitionNumber, TriggerTime, AcquisitionTime.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.progress import Monitor

#: Of a direction cosine, within one orientation: far more than rounding, far less than a new scan.
_SAME_DIRECTION = 0.01
_ORTHOGONAL = 0.1
#: Slices closer than that, or than a hundredth of the usual distance, lie at one place.
_SAME_PLACE_MM = 0.01
#: Of the distance: how far a slice may lie off an even stack that is not taken apart.
_EVEN = 0.1
#: Of the frames' slices: a 4D series that lacks more is not taken for one.
_MOST_LACKING = 0.1
_PLANES = ("sagittal", "coronal", "axial")
_MOST_NAMED = 6

Slices = Sequence[Slice]


@dataclass(frozen=True)
class Part:
    """Slices that make one volume: [T][K], not yet in order of place within a frame.

    name: what sets it apart from the rest of its series, "" where it is all of it.
    axis: what its frames differ in: "time", "echo", "b-value", "acquisition"; "" for one frame.
    reason: why it makes no volume, where that is known already.
    """

    frames: tuple[tuple[Slice, ...], ...]
    name: str = ""
    axis: str = ""
    reason: str = ""

    @property
    def slices(self) -> list[Slice]:
        """Of all frames."""
        return [one for frame in self.frames for one in frame]


@dataclass(frozen=True)
class _Attribute:
    """Something that frames or parts may differ in, and what a value of it is called."""

    axis: str
    value: Callable[[Slice], str]
    called: Callable[[str], str]
    makes_frames: bool = True


_IMAGE_TYPE = _Attribute(
    "image type", lambda one: "\\".join(one.image_type), lambda value: value, makes_frames=False
)
_ATTRIBUTES = (
    _Attribute("b-value", lambda one: one.b_value, lambda value: f"b={value}"),
    _Attribute("echo", lambda one: one.echo, lambda value: f"echo {value}"),
    _Attribute("time", lambda one: one.phase, lambda value: f"phase {value}"),
    _Attribute("acquisition", lambda one: one.acquisition, lambda value: f"acquisition {value}"),
)


def parts_of(slices: Slices, name: str, monitor: Monitor) -> list[Part]:
    """The volumes that a series makes, in a fixed order; one part where it is plain.

    Parts of equal geometry that differ in one attribute become the frames of one part. What makes
    no sense in any way stays together in one part, for `stack` to say what is wrong with it.
    Localiser frames among other slices are left out, with a warning that names them.
    """
    slices = _without_localisers(slices, name, monitor)
    groups = _by_geometry(slices)
    lone = [group for group in groups if _is_lone_scout(group, groups)]
    if lone:
        groups = [group for group in groups if group not in lone]
        _tell_left_out([one for group in lone for one in group.slices], name, monitor)
    return [
        replace(part, name=", ".join(filter(None, (group.name, part.name))))
        for group in groups
        for part in _divided(group.slices)
    ]


# ------------------------------------------------------------ geometry


@dataclass(frozen=True)
class _Group:
    name: str
    slices: tuple[Slice, ...]


def _without_localisers(slices: Slices, name: str, monitor: Monitor) -> Slices:
    scouts = [one for one in slices if "LOCALIZER" in one.image_type]
    if not scouts or len(scouts) == len(slices):
        return slices
    _tell_left_out(scouts, name, monitor)
    return [one for one in slices if "LOCALIZER" not in one.image_type]


def _tell_left_out(scouts: Slices, name: str, monitor: Monitor) -> None:
    names = [one.file.name for one in scouts]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    monitor.warn(
        f"{name}: left out, as they are localisers (scout views): "
        f"{', '.join(names[:_MOST_NAMED])}{more}"
    )


def _by_geometry(slices: Slices) -> list[_Group]:
    """Slices that could be one stack: of one size, orientation and frame of reference.

    A slice that does not say where it lies stays with the others, for `stack` to name it.
    """
    placed = [one for one in slices if one.position and one.orientation]
    directions: list[tuple[float, ...]] = []
    told = {one.frame_of_reference for one in placed} - {""}
    groups: dict[tuple[str, str, int], list[Slice]] = defaultdict(list)
    for one in placed:
        reference = one.frame_of_reference if len(told) > 1 else ""
        key = (f"{one.columns}×{one.rows}", reference, _direction(one, directions))
        groups[key].append(one)
    if not groups:
        return [_Group("", tuple(slices))]
    largest = max(groups.values(), key=len)
    largest += [one for one in slices if not (one.position and one.orientation)]
    keys = list(groups)
    several = [len({key[index] for key in keys}) > 1 for index in range(3)]
    references = list(dict.fromkeys(key[1] for key in keys))
    planes = [_plane_name(direction) for direction in directions]
    made = []
    for (size, reference, direction), group in groups.items():
        words = (
            (size, several[0]),
            (_numbered(planes, direction), several[2]),
            (f"frame of reference {references.index(reference) + 1}", several[1]),
        )
        made.append(_Group(", ".join(word for word, told in words if told), tuple(group)))
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
    """The name, with a number where several share it."""
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


# ------------------------------------------------------------ frames and parts


class _Places:
    """Where slices of one orientation lie along their normal, as whole numbers: equal is equal."""

    def __init__(self, slices: Slices) -> None:
        normal = _normal(slices[0])
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


def _divided(slices: tuple[Slice, ...]) -> list[Part]:
    if any(not (one.position and one.orientation) for one in slices):
        return [Part((slices,))]
    places = _Places(slices)
    if not places.collide(slices):
        return [Part((slices,))] if places.is_even(slices) else _even_parts(slices, places)
    parts = _resolved(slices, places, (_IMAGE_TYPE, *_ATTRIBUTES))
    if parts and len(parts) <= 2:
        return parts
    # Many parts may be one 4D series that lacks a few slices.
    return _incomplete(slices, places) or parts or [Part((slices,))]


def _even_parts(slices: tuple[Slice, ...], places: _Places) -> list[Part]:
    """Stacks that are even each, where one attribute divides the series into such."""
    for attribute in (_IMAGE_TYPE, *_ATTRIBUTES):
        groups = _groups(slices, attribute)
        if len(groups) > 1 and all(len(g) > 1 and places.is_even(g) for g in groups.values()):
            return [Part((g,), name) for name, g in _named(groups, attribute)]
    return [Part((slices,))]


def _resolved(
    slices: tuple[Slice, ...], places: _Places, attributes: tuple[_Attribute, ...]
) -> list[Part] | None:
    """Parts without two slices at one place; None where the attributes give no such parts."""
    if not places.collide(slices):
        return [Part((slices,))] if places.is_stack(slices) else None
    for attribute in attributes:
        groups = _groups(slices, attribute)
        frames = list(groups.values())
        if attribute.makes_frames and _are_frames(frames, places) and _are_of_one_kind(frames):
            return [Part(tuple(frames), axis=attribute.axis)]
    ranked = _by_time(slices, places)
    if ranked and _are_of_one_kind(ranked):
        return [Part(ranked, axis="time")]
    for attribute in attributes:
        groups = _groups(slices, attribute)
        rest = tuple(other for other in attributes if other is not attribute)
        if len(groups) < 2:
            continue
        within = [
            (name, _resolved(group, places, rest)) for name, group in _named(groups, attribute)
        ]
        if all(parts is not None for _, parts in within):
            return [
                replace(part, name=", ".join(filter(None, (name, part.name))))
                for name, parts in within
                for part in parts or ()
            ]
    return None


def _groups(slices: Slices, attribute: _Attribute) -> dict[str, tuple[Slice, ...]]:
    groups: dict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        groups[attribute.value(one)].append(one)
    return {value: tuple(groups[value]) for value in sorted(groups, key=_natural)}


def _natural(value: str) -> tuple[float, str]:
    """Numbers in their order, before all that is none."""
    found = re.match(r"-?\d+(\.\d+)?", value)
    return (float(found[0]) if found else np.inf, value)


def _named(
    groups: Mapping[str, tuple[Slice, ...]], attribute: _Attribute
) -> list[tuple[str, tuple[Slice, ...]]]:
    if attribute is not _IMAGE_TYPE:
        return [(attribute.called(value), group) for value, group in groups.items()]
    shared = set.intersection(*(set(value.split("\\")) for value in groups))
    return [
        ("\\".join(word for word in value.split("\\") if word not in shared) or value, group)
        for value, group in groups.items()
    ]


def _are_frames(groups: Sequence[Slices], places: _Places) -> bool:
    """Whether two or more groups lie at the same places, each with one slice a place."""
    first = places.set_of(groups[0])
    return len(groups) > 1 and all(
        len(group) == len(first) and places.set_of(group) == first for group in groups
    )


def _are_of_one_kind(frames: Sequence[Slices]) -> bool:
    """Whether all show the same thing: magnitude and phase are no frames of one volume.

    What ImageType says first, original or derived, primary or secondary, makes no difference.
    """
    kinds = [{one.image_type[2:] for one in frame} for frame in frames]
    return all(kind == kinds[0] for kind in kinds)


def _by_time(slices: Slices, places: _Places) -> tuple[tuple[Slice, ...], ...]:
    """Frames by the order in time at each place, where each was taken at moments of its own."""
    at: dict[int, list[Slice]] = defaultdict(list)
    for one in slices:
        at[places.of[id(one)]].append(one)
    counts = {len(here) for here in at.values()}
    if len(counts) != 1:
        return ()
    for moment in _trigger_ms, _time_s:
        if all(len({moment(one) for one in here} - {None}) == len(here) for here in at.values()):
            ordered = [sorted(here, key=lambda one: moment(one) or 0.0) for here in at.values()]
            return tuple(zip(*ordered, strict=True))
    return ()


def _trigger_ms(one: Slice) -> float | None:
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?) ms", one.phase)
    return float(found[1]) if found else None


def _time_s(one: Slice) -> float | None:
    return one.time_s


def _incomplete(slices: tuple[Slice, ...], places: _Places) -> list[Part]:
    """One part that names what is missing, where a few slices more would make a 4D series."""
    everywhere = places.set_of(slices)
    for attribute in _ATTRIBUTES:
        groups = _groups(slices, attribute)
        whole = len(groups) * len(everywhere)
        if len(groups) < 2 or any(places.collide(group) for group in groups.values()):
            continue
        if whole - len(slices) <= _MOST_LACKING * whole:
            lacking = [
                f"{attribute.called(value)} at {places.mm[place]:.2f} mm"
                for value, group in groups.items()
                for place in sorted(everywhere - places.set_of(group))
            ]
            more = f" and {len(lacking) - _MOST_NAMED} more" if len(lacking) > _MOST_NAMED else ""
            reason = f"slices are missing: {', '.join(lacking[:_MOST_NAMED])}{more}"
            return [Part(tuple(groups.values()), axis=attribute.axis, reason=reason)]
    return []


# ------------------------------------------------------------ time


def interval_s(part: Part) -> float | None:
    """Seconds from frame to frame; None where frames are no times, or not evenly apart."""
    if part.axis not in ("time", "acquisition"):
        return None
    for moment, unit in ((_trigger_ms, 1e-3), (_time_s, 1.0)):
        starts = [min(moment(one) or np.nan for one in frame) for frame in part.frames]
        steps = np.diff(starts) * unit
        if np.isfinite(steps).all() and (steps > 0).all():
            usual = float(np.median(steps))
            return usual if float(np.ptp(steps)) <= 0.02 * usual else None
    return None
