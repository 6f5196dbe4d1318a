"""What slices at one place may differ in: attributes of the image, and the time."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from MedEnhanceLib.io.dicom.slices import Slice, Slices

#: Relative: echo and inversion times, and flip angles, that differ by less are the same.
_SAME_VALUE = 0.01
#: From this number of places on, an attribute with another value at each place only counts them.
_FEWEST_COUNTED = 4
_DAY_S = 86400.0
#: A longer pause means that the scan ran past midnight under the date of its beginning.
_LONGEST_PAUSE_S = 20 * 3600.0
#: Relative: intervals that differ by less are equal.
_EVEN = 0.02
#: Words of ImageType for what is shown; the others are for how the image was made.
_SHOWN = frozenset((
    "M", "P", "R", "I", "MAGNITUDE", "PHASE", "REAL", "IMAGINARY", "MIXED", "PHASE MAP",
    "M_FFE", "P_FFE", "R_FFE", "I_FFE", "M_SE", "P_SE", "R_SE", "I_SE", "M_IR", "P_IR", "R_IR",
    "I_IR", "WATER", "FAT", "W", "F", "IN_PHASE", "OUT_PHASE", "OPP_PHASE", "IP", "OP",
    "ADC", "FA", "TRACEW", "T1", "T2", "T2_STAR", "R1", "R2", "R2_STAR", "T1 MAP", "T2 MAP",
    "T2 STAR MAP", "R2 MAP", "R2 STAR MAP", "ADC MAP", "T1_MAP", "T2_MAP", "ADC_MAP", "MIP",
    "MINIP",
))  # fmt: skip
#: The setting of diffusion gradients, see multiframe.py.
_DIRECTION = "direction"
#: Settings that a measurement varies on purpose.
_MEASURED = ("inversion time", "flip angle")
_SERIES_OF = (*_MEASURED, _DIRECTION)
#: The name of the axis of frames that follow each other in time.
TIME = "time"

Moment = Callable[[Slice], float | None]
Frames = Sequence[Sequence[Slice]]
_trigger_ms: Moment = attrgetter("trigger_ms")
_time_s: Moment = attrgetter("time_s")
_reference_ms: Moment = attrgetter("reference_ms")


@dataclass(frozen=True)
class Attribute:
    """Something that frames or parts of a series may differ in.

    axis: its name. value: of a slice, "" where it is missing. called: the name of a value.
    makes_frames: whether slices that differ only in it are frames of one volume.
    is_contrast: whether it makes another kind of image, so that a frame holds one value of it.
    is_moment: whether it is a phase of a cycle, or a time, so that a frame holds one value of it.
    is_strict: whether it counts as a difference even where each slice has a value of its own.
    may_vary: whether frames along another axis may differ in it: a diffusion scan is one sequence
        of directions and b-values.
    """

    axis: str
    value: Callable[[Slice], str]
    called: Callable[[str], str]
    makes_frames: bool = True
    is_contrast: bool = False
    is_moment: bool = False
    is_strict: bool = False
    may_vary: bool = False

    def mixes(self, slices: Slices, groups: Mapping[str, Slices]) -> bool:
        """Whether slices of one stack are of several kinds."""
        if self.is_strict:
            return len(groups) > 1
        return len(groups.keys() - {""}) > 1 and len(groups) < len(slices)


def _shown(one: Slice) -> str:
    return "\\".join(word for word in one.image_type[2:] if word in _SHOWN)


def _number(field: str) -> Callable[[Slice], str]:
    def value(one: Slice) -> str:
        found = getattr(one, field)
        return "" if found is None else f"{found:g}"

    return value


IMAGE_TYPE = Attribute(
    "image type", lambda one: "\\".join(one.image_type), lambda value: value, makes_frames=False
)
SHOWN = Attribute(
    "image type", _shown, lambda value: value or "no such word",
    makes_frames=False, is_contrast=True, is_strict=True,
)  # fmt: skip
_STACK = Attribute(
    "stack", lambda one: one.stack, lambda v: f"stack {v}".strip(),
    makes_frames=False, is_contrast=True,
)  # fmt: skip
B_VALUE = Attribute(
    "b-value", lambda one: one.b_value, lambda v: f"b={v}" if v else "no b-value",
    is_contrast=True, is_strict=True, may_vary=True,
)  # fmt: skip
_ECHO = Attribute("echo", lambda one: one.echo, lambda v: f"echo {v}".strip(), is_contrast=True)
_MOMENTS = (
    Attribute(TIME, _number("temporal_index"), lambda v: f"phase {v}".strip(), is_moment=True),
    Attribute(TIME, _number("trigger_ms"), lambda v: f"phase {v} ms"),
    Attribute("cardiac phase", _number("heart_percent"), lambda v: f"phase {v} %", is_moment=True),
    Attribute(
        "breathing phase", _number("breath_percent"), lambda v: f"breathing {v} %", is_moment=True
    ),
)
ACQUISITION = Attribute(
    "acquisition", lambda one: one.acquisition, lambda v: f"acquisition {v}".strip()
)


def attributes_of(slices: Slices) -> tuple[Attribute, ...]:
    """The attributes that these slices differ in, in the order in which they are tried."""
    names = dict.fromkeys(name for one in slices for name, _ in one.settings)
    settings = [_setting(name) for name in names]
    apart = [one for one in settings if not one.makes_frames]
    series = [one for one in settings if one.makes_frames]
    everything = (
        IMAGE_TYPE, SHOWN, _STACK, *apart, B_VALUE, _ECHO, *series, *_MOMENTS, ACQUISITION
    )  # fmt: skip
    return tuple(one for one in everything if len({one.value(each) for each in slices}) > 1)


def _setting(name: str) -> Attribute:
    return Attribute(
        name,
        lambda one: dict(one.settings).get(name, ""),
        lambda value: f"{name} {value or 'missing'}",
        makes_frames=name in _SERIES_OF,
        is_contrast=True,
        may_vary=name == _DIRECTION,
    )


def with_kinds(slices: Slices) -> tuple[Slice, ...]:
    """The slices with nearly equal times made equal; `echo` is EchoTime where it is not set."""
    by_time = len({one.echo for one in slices}) == 1
    echoes = _merged({one.echo_ms for one in slices}) if by_time else {}
    series = [pair for one in slices for pair in one.settings if pair[0] in _MEASURED]
    merged = {name: _merged({v for n, v in series if n == name}) for name in _MEASURED}
    several = len(set(echoes.values())) > 1
    if not several and all(new == old for each in merged.values() for old, new in each.items()):
        return tuple(slices)
    return tuple(
        replace(
            one,
            echo=f"{echoes[one.echo_ms]} ms" if several and one.echo_ms else one.echo,
            settings=tuple((n, merged[n][v] if n in merged else v) for n, v in one.settings),
        )
        for one in slices
    )


def _merged(values: Iterable[str]) -> dict[str, str]:
    """Each value → the lowest of those that are nearly equal."""
    merged = {value: value for value in values if not _is_number(value)}
    first = np.inf
    for number, value in sorted((float(value), value) for value in values if _is_number(value)):
        if not 0 <= number - first <= _SAME_VALUE * abs(first):
            first = number
        merged[value] = f"{first:g}"
    return merged


def _is_number(value: str) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except ValueError:
        return False


def groups_by(slices: Slices, attribute: Attribute) -> dict[str, tuple[Slice, ...]]:
    """The slices by value: those without one first, then numbers in order, then the rest."""
    groups: dict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        groups[attribute.value(one)].append(one)
    return {value: tuple(groups[value]) for value in sorted(groups, key=_natural)}


def _natural(value: str) -> tuple[float, str]:
    found = re.match(r"-?\d+(\.\d+)?", value)
    return (float(found[0]) if found else np.inf if value else -np.inf, value)


def named_groups(
    groups: Mapping[str, tuple[Slice, ...]], attribute: Attribute
) -> list[tuple[str, tuple[Slice, ...]]]:
    """The groups, each with its name."""
    if attribute is not IMAGE_TYPE:
        return [(attribute.called(value), group) for value, group in groups.items()]
    shared = set.intersection(*(set(value.split("\\")) for value in groups))
    return [
        ("\\".join(word for word in value.split("\\") if word not in shared) or value, group)
        for value, group in groups.items()
    ]


def are_of_one_kind(
    frames: Sequence[Slices], axis: Attribute | None, attributes: Sequence[Attribute]
) -> bool:
    """Whether no frame mixes kinds of images, and frames differ in kind only along `axis`.

    frames: of slices in the order of their places. The first words of ImageType, original or
    derived, primary or secondary, are ignored.
    """
    if any(len({one.image_type[2:] for one in here}) > 1 for here in zip(*frames, strict=True)):
        return False
    for attribute in attributes:
        values = [{attribute.value(one) for one in frame} for frame in frames]
        if attribute is axis or not (attribute.is_contrast or attribute.is_moment):
            continue
        if _counts(attribute, frames):
            continue
        if any(len(value) > 1 for value in values):
            return False
        if attribute.is_contrast and not attribute.may_vary and len(set.union(*values)) > 1:
            return False
    return True


def _counts(attribute: Attribute, frames: Sequence[Slices]) -> bool:
    """Whether an attribute only counts: the slices of each frame, or all images of the series."""
    rows = [[attribute.value(one) for one in frame] for frame in frames]
    if attribute.is_strict or len(rows[0]) < _FEWEST_COUNTED:
        return False
    everything = [value for row in rows for value in row]
    counts_slices = len(set(rows[0])) == len(rows[0]) and all(row == rows[0] for row in rows)
    return counts_slices or len(set(everything)) == len(everything)


def across_midnight(slices: Slices) -> tuple[Slice, ...]:
    """Slices with times past midnight moved to the next day, where all have one date."""
    times = sorted({one.time_s for one in slices if one.time_s is not None})
    if len({time // _DAY_S for time in times}) != 1:
        return tuple(slices)
    pauses = np.diff(times)
    if not len(pauses) or pauses.max() < _LONGEST_PAUSE_S:
        return tuple(slices)
    begin = times[int(pauses.argmax()) + 1]
    return tuple(
        replace(one, time_s=one.time_s + _DAY_S)
        if one.time_s is not None and one.time_s < begin
        else one
        for one in slices
    )


def ranked(at_each_place: Sequence[Sequence[Slice]]) -> tuple[tuple[Slice, ...], ...]:
    """Frames by the order in time at each place; () where that order is not unique.

    Trigger times start anew at each place, so their order is the phase. With acquisition times, a
    frame must have ended before the next one began.
    """
    if len({len(here) for here in at_each_place}) != 1:
        return ()
    for moment, by_clock in ((_trigger_ms, False), (_time_s, True)):
        times = [[moment(one) for one in here] for here in at_each_place]
        if any(None in row or len(set(row)) < len(row) for row in times):
            continue
        rows = [sorted(here, key=lambda one: moment(one) or 0.0) for here in at_each_place]
        frames = tuple(zip(*rows, strict=True))
        if by_clock and not _follow_each_other(frames, moment):
            continue
        return frames
    return ()


def _follow_each_other(frames: Frames, moment: Moment) -> bool:
    ends = [max(moment(one) or 0.0 for one in frame) for frame in frames]
    begins = [_begin(frame, moment) for frame in frames]
    return all(end < begin for end, begin in zip(ends, begins[1:], strict=False))


def interleave(frames: Frames) -> bool:
    """Whether acquisition times of frames overlap, so that the frames may be mixed up.

    False where times are missing, or all equal.
    """
    times = [[one.time_s for one in frame] for frame in frames]
    if any(None in row for row in times) or len({time for row in times for time in row}) == 1:
        return False
    ordered = sorted(frames, key=lambda frame: _begin(frame, _time_s))
    return not _follow_each_other(ordered, _time_s)


def interval_s(frames: Frames) -> float | None:
    """Seconds from frame to frame; None where it is unknown or uneven.

    The times of the images come before the interval that headers state.
    """
    for moment, unit in ((_trigger_ms, 1e-3), (_time_s, 1.0), (_reference_ms, 1e-3)):
        steps = np.diff([_begin(frame, moment) for frame in frames]) * unit
        if np.isfinite(steps).all() and (steps > 0).all():
            usual = float(np.median(steps))
            return usual if float(np.ptp(steps)) <= _EVEN * usual else None
    stated = {one.interval_ms for frame in frames for one in frame}
    (only,) = stated if len(stated) == 1 else (None,)
    return only * 1e-3 if only is not None and only > 0 else None


def _begin(frame: Sequence[Slice], moment: Moment) -> float:
    moments = [found for one in frame if (found := moment(one)) is not None]
    return min(moments, default=np.nan)
