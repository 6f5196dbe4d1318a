"""Attributes in which slices at one position may differ, and the order of times."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.io.dicom.slices import Slice, Slices
from MedEnhanceLib.io.dicom.sources import named
from MedEnhanceLib.runtime.progress import Monitor

#: Relative tolerance within which echo times, inversion times and flip angles are the same.
_SAME_VALUE = 0.01
#: Relative tolerance within which intervals are equal.
_EVEN = 0.02
#: Clocks of scanners round times of acquisition to parts of this.
_TICK_S = 0.0125
#: A longer scan ran past midnight, dated by its beginning: its times cannot order frames.
_LONGEST_SCAN_S = 12 * 3600.0
_DAY_S = 24 * 3600.0
#: Words of ImageType for the quantity that is shown; the others say how the image was made.
_SHOWN = re.compile(
    r"[MPRI](_FFE|_SE|_IR)?|MAGNITUDE|PHASE( MAP)?|REAL|IMAGINARY|MIXED|MIP|MINIP|TRACEW|FA|"
    r"WATER|FAT|W|F|IP|OP|(IN|OUT|OPP)_PHASE|(T1|T2|R1|R2|ADC)([ _]STAR)?([ _]MAP)?"
)
#: The name of the axis of frames that follow each other in time.
TIME = "time"

Frames = Sequence[Sequence[Slice]]
Moment = Callable[[Slice], float | None]
_trigger_ms: Moment = attrgetter("trigger_ms")
_time_s: Moment = attrgetter("time_s")
_reference_ms: Moment = attrgetter("reference_ms")
_temporal_index: Moment = attrgetter("temporal_index")
#: Values that number frames in the order of the scan, the most reliable first.
SCAN_NUMBERS: tuple[Callable[[Slice], Any], ...] = (
    _temporal_index,
    _time_s,
    attrgetter("number"),
)


@dataclass(frozen=True)
class Attribute:
    """An attribute that frames or parts of a series may differ in.

    Attributes:
        axis: its name.
        value: of a slice, "" where it is missing.
        makes_frames: whether slices that differ only in it are frames of one volume.
        is_contrast: whether it makes another kind of image, so that a frame holds one value of it.
        is_moment: whether it is a phase of a cycle, or a time, so that a frame holds one value of
            it.
        is_strict: whether it counts as a difference even where each slice has a value of its own.
        may_vary: whether frames along another axis may differ in it: a diffusion scan is one
            sequence of directions and b-values.
        is_scanned: whether its frames keep the order of the scan, instead of that of the values.
    """

    axis: str
    value: Callable[[Slice], str]
    makes_frames: bool = True
    is_contrast: bool = False
    is_moment: bool = False
    is_strict: bool = False
    may_vary: bool = False
    is_scanned: bool = False

    def called(self, value: str) -> str:
        """Return the name of the slices with this value."""
        if self.axis == "image type" and value:
            return value
        return f"{self.axis} {value or 'missing'}"

    def mixes(self, slices: Slices) -> bool:
        """Return whether slices are of several kinds."""
        values = set(map(self.value, slices))
        if self.is_strict:
            return len(values) > 1
        return len(values - {""}) > 1 and len(values) < len(slices)

    def groups(self, slices: Slices) -> dict[str, tuple[Slice, ...]]:
        """Sort slices by value: those without one first, then numbers in order, then the rest."""
        groups: dict[str, list[Slice]] = defaultdict(list)
        for plane in slices:
            groups[self.value(plane)].append(plane)
        return {value: tuple(groups[value]) for value in sorted(groups, key=_natural)}


def _shown(plane: Slice) -> str:
    return "\\".join(filter(_SHOWN.fullmatch, plane.image_type[2:]))


def _direction(plane: Slice) -> str:
    """Return b-value and direction: one direction is measured with several b-values."""
    if plane.direction is None:  # a trace image differs from one with b = 0
        return f"{plane.b_value} s/mm²" if float(plane.b_value or 0) > 0 else ""
    return f"{plane.b_value} s/mm² ({', '.join(f'{part:.3f}' for part in plane.direction)})"


def _number(field: str) -> Callable[[Slice], str]:
    def value(plane: Slice) -> str:
        number = getattr(plane, field)
        return "" if number is None else f"{number:g}"

    return value


def _contrast(axis: str, value: Callable[[Slice], str], **how: bool) -> Attribute:
    return Attribute(axis, value, is_contrast=True, **how)


DIRECTION = _contrast("direction", _direction, may_vary=True, is_scanned=True)
ACQUISITION = Attribute("acquisition", attrgetter("acquisition"))
#: In the order in which they are tried.
_ATTRIBUTES = (
    _contrast("image type", _shown, makes_frames=False, is_strict=True),
    Attribute("image type", lambda plane: "\\".join(plane.image_type), makes_frames=False),
    _contrast("stack", attrgetter("stack"), makes_frames=False),
    _contrast("kernel", attrgetter("kernel"), makes_frames=False),
    _contrast("collapse flag", attrgetter("collapse_flag"), makes_frames=False),
    _contrast("kV", attrgetter("kv"), makes_frames=False),
    _contrast("b-value", attrgetter("b_value"), is_strict=True, may_vary=True, is_scanned=True),
    _contrast("echo", attrgetter("echo")),
    _contrast("inversion time", attrgetter("inversion_ms")),
    _contrast("flip angle", attrgetter("flip_degrees"), is_scanned=True),
    DIRECTION,
    Attribute(TIME, _number("temporal_index"), is_moment=True),
    Attribute("trigger time", _number("trigger_ms")),
    Attribute("cardiac phase", _number("heart_percent"), is_moment=True),
    Attribute("breathing phase", _number("breath_percent"), is_moment=True),
    ACQUISITION,
)
#: Axes whose frames follow each other in time.
IN_TIME = (TIME, "trigger time", ACQUISITION.axis)


def attributes_of(slices: Slices) -> tuple[Attribute, ...]:
    """Return the attributes that these slices differ in, in the order in which they are tried.

    In GE's diffusion scans the collapse flag is the role of an image; there the b-value counts.
    """
    is_weighted = any(float(plane.b_value or 0) > 0 for plane in slices)
    differ = (each for each in _ATTRIBUTES if len(set(map(each.value, slices))) > 1)
    return tuple(each for each in differ if not (is_weighted and each.axis == "collapse flag"))


def with_equal_times(slices: Slices) -> tuple[Slice, ...]:
    """Make nearly equal values of slices equal; `echo` becomes EchoTime if it is not set."""
    equal = {
        name: _merged(getattr(plane, name) for plane in slices)
        for name in ("echo_ms", "inversion_ms", "flip_degrees")
    }
    is_unnumbered = len({plane.echo for plane in slices}) == 1
    has_echoes = is_unnumbered and len(set(equal["echo_ms"].values())) > 1
    changed = []
    for plane in slices:
        values: dict[str, Any] = {name: equal[name][getattr(plane, name)] for name in equal}
        if has_echoes and plane.echo_ms:
            values["echo"] = f"{values['echo_ms']} ms"
        changed.append(replace(plane, **values))
    return tuple(changed)


def _merged(values: Iterable[str]) -> dict[str, str]:
    """Map each value to the lowest one that nearly equals it."""
    merged, first = {}, np.inf
    for value in sorted(set(values), key=_natural):
        number = _natural(value)[0]
        if not (np.isfinite(first) and number - first <= _SAME_VALUE * abs(first)):
            first = number
        merged[value] = f"{first:g}" if np.isfinite(first) else value
    return merged


def _natural(value: str) -> tuple[float, str]:
    number = re.match(r"-?\d+(\.\d+)?", value)
    return (float(number[0]) if number else np.inf if value else -np.inf, value)


def are_of_one_kind(
    frames: Frames, axis: Attribute | None, attributes: Sequence[Attribute]
) -> bool:
    """Return whether no frame mixes kinds of images, and frames differ in kind only along `axis`.

    Args:
        frames: of slices in the order of their places. The first two words of ImageType (ORIGINAL
            or DERIVED, PRIMARY or SECONDARY) do not count.
        axis: the attribute that frames differ in.
        attributes: those that distinguish kinds.
    """
    if any(
        len({plane.image_type[2:] for plane in place}) > 1 for place in zip(*frames, strict=True)
    ):
        return False
    for attribute in attributes:
        if attribute is axis or not (attribute.is_contrast or attribute.is_moment):
            continue
        rows = [list(map(attribute.value, frame)) for frame in frames]
        if any(len(set(row)) > 1 for row in rows):
            return False
        if attribute.is_contrast and not attribute.may_vary and len({row[0] for row in rows}) > 1:
            return False
    return True


def in_scan_order(frames: Frames) -> tuple[tuple[Slice, ...], ...]:
    """Sort frames in the order of the scan; () if no element gives the same order at all places.

    frames: of slices in the order of their places. Tried in turn: their numbers in time, their
    times of acquisition, the dimensions of a single file, and the numbers of the images.
    """
    files = {plane.file for frame in frames for plane in frame}
    ways: list[Callable[[Slice], Any]] = [_temporal_index, _time_s, _image_number]
    if len(files) == 1:
        ways.insert(2, attrgetter("dimensions"))
    for way in ways:
        rows = [list(map(way, place)) for place in zip(*frames, strict=True)]
        if any(None in row or len(set(row)) < len(row) for row in rows):
            continue
        if way is _time_s and np.ptp(rows) > _LONGEST_SCAN_S:
            continue
        orders = {tuple(sorted(range(len(row)), key=row.__getitem__)) for row in rows}
        if len(orders) == 1:
            return tuple(tuple(frames[index]) for index in orders.pop())
    return ()


def _image_number(plane: Slice) -> tuple[float, int] | None:
    return None if plane.number is None else (plane.number, plane.frame or 0)


def ranked(at_each_place: Frames) -> tuple[tuple[Slice, ...], ...]:
    """Make frames by the order in time at each place; () if that order is not unique.

    Trigger times start anew at each place, so their order is the phase. With acquisition times, a
    frame must have ended before the next one began, and none may have run past midnight. If
    neither gives an order, the numbers of the images may, see `_numbered`.
    """
    if len(set(map(len, at_each_place))) != 1:
        return ()
    for moment in (_trigger_ms, _time_s):
        times = [list(map(moment, place)) for place in at_each_place]
        if any(None in row or len(set(row)) < len(row) for row in times):
            continue
        rows = [sorted(place, key=lambda plane: moment(plane) or 0.0) for place in at_each_place]
        frames = tuple(zip(*rows, strict=True))
        if moment is _trigger_ms or _follow_each_other(frames):
            return frames
    return _numbered(at_each_place)


def _numbered(at_each_place: Frames) -> tuple[tuple[Slice, ...], ...]:
    """Make frames by InstanceNumber, as GE and Philips number them; () if that is not certain.

    It is certain if the images state several positions in time, or are a diffusion scan; and the
    numbers run frame by frame, with the places in one order, or place by place through all frames.
    """
    planes = [plane for place in at_each_place for plane in place]
    stated = {plane.temporal_count or 0.0 for plane in planes}
    if len({plane.number for plane in planes} - {None}) < len(planes) or len(stated) > 1:
        return ()
    frames = tuple(
        zip(
            *(sorted(place, key=lambda plane: plane.number or 0) for place in at_each_place),
            strict=True,
        )
    )
    numbers = np.array([[plane.number for plane in frame] for frame in frames], float)
    orders, first = numbers.argsort(axis=1), numbers[0].argsort()
    follow = (numbers[:-1].max(axis=1) < numbers[1:].min(axis=1)).all()
    is_by_frame = follow and (orders == first).all()
    is_by_place = (numbers[-1, first[:-1]] < numbers[0, first[1:]]).all()
    positions = stated.pop()
    is_diffusion = any(float(plane.b_value or 0) > 0 for plane in planes)
    # An interrupted scan has fewer frames than it states.
    if is_by_frame and (is_diffusion or len(frames) <= positions > 1):
        return frames
    if is_by_place and (is_diffusion or len(frames) == positions > 1):
        return frames
    return ()


def _follow_each_other(frames: Frames) -> bool:
    """Return whether the acquisition of each frame had ended when that of the next began."""
    times = [[plane.time_s or 0.0 for plane in frame] for frame in frames]
    begins, ends = list(map(min, times)), list(map(max, times))
    lasts = max(ends) - min(begins)
    pairs = zip(ends, begins[1:], strict=False)
    return lasts <= _LONGEST_SCAN_S and all(end < begin for end, begin in pairs)


def interleave(frames: Frames) -> bool:
    """Return whether acquisition times of frames overlap, so that the frames may be mixed up.

    False where times are missing, or all equal; or never fall from one frame to the next, as those
    of a clock of whole seconds, or past midnight.
    """
    times = {plane.time_s for frame in frames for plane in frame}
    if None in times or len(times) == 1:
        return False
    rows = [[plane.time_s for plane in frame] for frame in frames]
    dated = _past_midnight(np.array(rows, float))
    if (dated[:-1].max(axis=1) <= dated[1:].min(axis=1)).all():
        return False
    return not _follow_each_other(sorted(frames, key=lambda frame: _begin(frame, _time_s)))


def _past_midnight(times: Doubles) -> Doubles:
    """Add a day to times after midnight that have the date of the beginning."""
    if np.ptp(times // _DAY_S) > 0:
        return times
    return np.where(times < times.max() - _LONGEST_SCAN_S, times + _DAY_S, times)


def interval_s(frames: Frames, axis: str, name: str, monitor: Monitor) -> float | None:
    """Return seconds from frame to frame; None if unknown or uneven, or if the axis is not time.

    That of 2-D EPI is the repetition time: times of acquisition are rounded. Of other scans the
    times of the images are used first, then the interval that headers state.

    Args:
        frames: in their order.
        axis: what they differ in.
        name: of the series, for warnings.
        monitor: warned of uneven times and lengths, and of a contradicting repetition time.
    """
    planes = [plane for frame in frames for plane in frame]
    repetition_s = _only_s(plane.repetition_ms for plane in planes)
    if axis == DIRECTION.axis or len({plane.b_value for plane in planes}) > 1:
        return repetition_s
    if axis not in IN_TIME:
        return None
    lasts = np.array([frame[0].duration_ms or np.nan for frame in frames]) / 1000
    lengths = named([f"{time:.4g}" for time in lasts])
    lengths = f" and last {lengths} s" if np.ptp(lasts) > _EVEN * np.median(lasts) else ""
    for moment, unit in ((_trigger_ms, 1e-3), (_time_s, 1.0), (_reference_ms, 1e-3)):
        begins = np.array([_begin(frame, moment) for frame in frames]) * unit
        if moment is _time_s:
            begins = _past_midnight(begins)
        steps = np.diff(begins)
        if not (np.isfinite(steps).all() and (steps > 0).all()):
            continue
        is_even = not lengths and np.ptp(steps) <= _EVEN * np.median(steps)
        interval = float(np.median(steps)) if is_even else None
        times, other = named([f"{time:.4g}" for time in begins - begins[0]]), lengths
        if repetition_s:
            tick_s = max(1.0 if (begins % 1 == 0).all() else _TICK_S, _EVEN * repetition_s)
            if np.abs(steps - repetition_s).max() <= tick_s:
                return repetition_s
            # Times after a trigger are of one clock, and contain delays between frames.
            interval = interval if moment is _trigger_ms else repetition_s
            other = f", although RepetitionTime is {repetition_s:g} s"
        if other or interval is None:
            used = f"{interval:.4g} s is used" if interval else "times that DICOM alone keeps"
            monitor.warn(f"{name}: frames begin after {times} s{other}: {used}")
        return interval
    return repetition_s or _only_s(plane.interval_ms for plane in planes)


def _only_s(values_ms: Iterable[float | None]) -> float | None:
    """Return the value that all have, in seconds; None if they differ or lack it."""
    values = {value or 0.0 for value in values_ms}
    only = values.pop() if len(values) == 1 else 0.0
    return only / 1000 if only > 0 else None


def _begin(frame: Sequence[Slice], moment: Moment) -> float:
    moments = [time for plane in frame if (time := moment(plane)) is not None]
    return min(moments, default=np.nan)
