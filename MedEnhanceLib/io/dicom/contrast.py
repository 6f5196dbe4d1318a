"""What slices at one place may differ in: attributes of the image, and the time."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from MedEnhanceLib.io.dicom.slices import Slice, Slices

#: Relative: echo and inversion times, and flip angles, that differ by less are the same.
_SAME_VALUE = 0.01
#: From this number of places on, an attribute with another value at each place only counts them.
_FEWEST_COUNTED = 4
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
#: Settings that a measurement varies on purpose, so that it makes frames.
_MEASURED = ("inversion time", "flip angle", "direction")
#: A longer one ran past midnight under the date of its beginning, and its clock orders nothing.
_LONGEST_SCAN_S = 12 * 3600.0
#: The name of the axis of frames that follow each other in time.
TIME = "time"

Frames = Sequence[Sequence[Slice]]
Moment = Callable[[Slice], float | None]
_trigger_ms: Moment = attrgetter("trigger_ms")
_time_s: Moment = attrgetter("time_s")
_reference_ms: Moment = attrgetter("reference_ms")


@dataclass(frozen=True)
class Attribute:
    """Something that frames or parts of a series may differ in.

    axis: its name. value: of a slice, "" where it is missing.
    makes_frames: whether slices that differ only in it are frames of one volume.
    is_contrast: whether it makes another kind of image, so that a frame holds one value of it.
    is_moment: whether it is a phase of a cycle, or a time, so that a frame holds one value of it.
    is_strict: whether it counts as a difference even where each slice has a value of its own.
    may_vary: whether frames along another axis may differ in it: a diffusion scan is one sequence
        of directions and b-values.
    """

    axis: str
    value: Callable[[Slice], str]
    makes_frames: bool = True
    is_contrast: bool = False
    is_moment: bool = False
    is_strict: bool = False
    may_vary: bool = False

    def called(self, value: str) -> str:
        """The name of the slices with this value."""
        if self.axis == "image type" and value:
            return value
        return f"{self.axis} {value or 'missing'}"

    def mixes(self, slices: Slices) -> bool:
        """Whether slices are of several kinds."""
        values = {self.value(one) for one in slices}
        if self.is_strict:
            return len(values) > 1
        return len(values - {""}) > 1 and len(values) < len(slices)


def _shown(one: Slice) -> str:
    return "\\".join(word for word in one.image_type[2:] if word in _SHOWN)


def _number(field: str) -> Callable[[Slice], str]:
    def value(one: Slice) -> str:
        number = getattr(one, field)
        return "" if number is None else f"{number:g}"

    return value


ACQUISITION = Attribute("acquisition", attrgetter("acquisition"))
_IMAGES = (
    Attribute("image type", _shown, makes_frames=False, is_contrast=True, is_strict=True),
    Attribute("image type", lambda one: "\\".join(one.image_type), makes_frames=False),
    Attribute("stack", attrgetter("stack"), makes_frames=False, is_contrast=True),
)
_CONTRASTS = (
    Attribute("b-value", attrgetter("b_value"), is_contrast=True, is_strict=True, may_vary=True),
    Attribute("echo", attrgetter("echo"), is_contrast=True),
)
_MOMENTS = (
    Attribute(TIME, _number("temporal_index"), is_moment=True),
    Attribute("trigger time", _number("trigger_ms")),
    Attribute("cardiac phase", _number("heart_percent"), is_moment=True),
    Attribute("breathing phase", _number("breath_percent"), is_moment=True),
    ACQUISITION,
)
#: Axes whose frames follow each other in time.
IN_TIME = (TIME, "trigger time", ACQUISITION.axis)


def attributes_of(slices: Slices) -> tuple[Attribute, ...]:
    """The attributes that these slices differ in, in the order in which they are tried."""
    names = dict.fromkeys(name for one in slices for name, _ in one.settings)
    settings = [_setting(name) for name in names]
    apart = [one for one in settings if not one.makes_frames]
    measured = [one for one in settings if one.makes_frames]
    return tuple(
        attribute
        for attribute in (*_IMAGES, *apart, *_CONTRASTS, *measured, *_MOMENTS)
        if len({attribute.value(one) for one in slices}) > 1
    )


def _setting(name: str) -> Attribute:
    def value(one: Slice) -> str:
        stated = dict(one.settings).get(name, "")
        # The same direction is measured with several b-values.
        return f"{one.b_value} s/mm² {stated}" if stated and name == "direction" else stated

    return Attribute(
        name,
        value,
        makes_frames=name in _MEASURED,
        is_contrast=True,
        may_vary=name == "direction",
    )


def with_kinds(slices: Slices) -> tuple[Slice, ...]:
    """The slices with nearly equal times made equal; `echo` is EchoTime where it is not set."""
    by_time = len({one.echo for one in slices}) == 1
    echoes = _merged(one.echo_ms for one in slices)
    settings = {
        name: _merged(dict(one.settings).get(name, "") for one in slices)
        for name in ("inversion time", "flip angle")
    }
    several_echoes = by_time and len(set(echoes.values())) > 1
    return tuple(
        replace(
            one,
            echo=f"{echoes[one.echo_ms]} ms" if several_echoes and one.echo_ms else one.echo,
            settings=tuple(
                (name, settings[name][value] if name in settings else value)
                for name, value in one.settings
            ),
        )
        for one in slices
    )


def _merged(values: Iterable[str]) -> dict[str, str]:
    """Each value → the lowest of those that are nearly equal."""
    merged, first = {}, np.inf
    for value in sorted(set(values), key=_natural):
        number = _natural(value)[0]
        if not (np.isfinite(number) and 0 <= number - first <= _SAME_VALUE * abs(first)):
            first = number
        merged[value] = f"{first:g}" if np.isfinite(first) else value
    return merged


def groups_by(slices: Slices, attribute: Attribute) -> dict[str, tuple[Slice, ...]]:
    """The slices by value: those without one first, then numbers in order, then the rest."""
    groups: dict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        groups[attribute.value(one)].append(one)
    return {value: tuple(groups[value]) for value in sorted(groups, key=_natural)}


def _natural(value: str) -> tuple[float, str]:
    number = re.match(r"-?\d+(\.\d+)?", value)
    return (float(number[0]) if number else np.inf if value else -np.inf, value)


def are_of_one_kind(
    frames: Frames, axis: Attribute | None, attributes: Sequence[Attribute]
) -> bool:
    """Whether no frame mixes kinds of images, and frames differ in kind only along `axis`.

    frames: of slices in the order of their places. The first words of ImageType, original or
    derived, primary or secondary, are ignored.
    """
    if any(len({one.image_type[2:] for one in here}) > 1 for here in zip(*frames, strict=True)):
        return False
    for attribute in attributes:
        if attribute is axis or not (attribute.is_contrast or attribute.is_moment):
            continue
        rows = [[attribute.value(one) for one in frame] for frame in frames]
        if not attribute.is_strict and _counts(rows):
            continue
        if any(len(set(row)) > 1 for row in rows):
            return False
        if attribute.is_contrast and not attribute.may_vary and len({row[0] for row in rows}) > 1:
            return False
    return True


def _counts(rows: Sequence[Sequence[str]]) -> bool:
    """Whether values [T][K] only count: the slices of each frame, or all images of the series."""
    if len(rows[0]) < _FEWEST_COUNTED:
        return False
    everything = [value for row in rows for value in row]
    counts_slices = len(set(rows[0])) == len(rows[0]) and all(row == rows[0] for row in rows)
    return counts_slices or len(set(everything)) == len(everything)


def ranked(at_each_place: Sequence[Sequence[Slice]]) -> tuple[tuple[Slice, ...], ...]:
    """Frames by the order in time at each place; () where that order is not unique.

    Trigger times start anew at each place, so their order is the phase. With acquisition times, a
    frame must have ended before the next one began, and none may have run past midnight.
    """
    if len({len(here) for here in at_each_place}) != 1:
        return ()
    for moment in (_trigger_ms, _time_s):
        times = [[moment(one) for one in here] for here in at_each_place]
        if any(None in row or len(set(row)) < len(row) for row in times):
            continue
        rows = [sorted(here, key=lambda one: moment(one) or 0.0) for here in at_each_place]
        frames = tuple(zip(*rows, strict=True))
        if moment is _trigger_ms or _follow_each_other(frames):
            return frames
    return ()


def _follow_each_other(frames: Frames) -> bool:
    """Whether the acquisition of each frame had ended when that of the next began."""
    times = [one.time_s or 0.0 for frame in frames for one in frame]
    if max(times) - min(times) > _LONGEST_SCAN_S:
        return False
    ends = [max(one.time_s or 0.0 for one in frame) for frame in frames]
    begins = [_begin(frame, _time_s) for frame in frames]
    return all(end < begin for end, begin in zip(ends, begins[1:], strict=False))


def interleave(frames: Frames) -> bool:
    """Whether acquisition times of frames overlap, so that the frames may be mixed up.

    False where times are missing, or all equal.
    """
    times = {one.time_s for frame in frames for one in frame}
    if None in times or len(times) == 1:
        return False
    return not _follow_each_other(sorted(frames, key=lambda frame: _begin(frame, _time_s)))


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
    moments = [time for one in frame if (time := moment(one)) is not None]
    return min(moments, default=np.nan)
