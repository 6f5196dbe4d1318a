"""When slices were taken: order in time at each place, days that end meanwhile, the interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from MedEnhanceLib.io.dicom.slices import Slice, Slices

_DAY_S = 86400.0
#: A scan that seems to rest for so long ran past midnight, and the date is that of its begin.
_LONGEST_REST_S = 20 * 3600.0
#: Relative: how far intervals may differ that count as one.
_EVEN = 0.02

Moment = Callable[[Slice], float | None]
Frames = Sequence[Sequence[Slice]]


def across_midnight(slices: Slices) -> tuple[Slice, ...]:
    """Times behind midnight follow those before it, where all bear one date."""
    times = sorted({one.time_s for one in slices if one.time_s is not None})
    if len({time // _DAY_S for time in times}) != 1:
        return tuple(slices)
    rests = np.diff(times)
    if not len(rests) or rests.max() < _LONGEST_REST_S:
        return tuple(slices)
    begin = times[int(rests.argmax()) + 1]
    return tuple(
        replace(one, time_s=one.time_s + _DAY_S)
        if one.time_s is not None and one.time_s < begin
        else one
        for one in slices
    )


def ranked(at_each_place: Sequence[Sequence[Slice]]) -> tuple[tuple[Slice, ...], ...]:
    """Frames by the order in time at each place; none where that does not tell what belongs to one.

    Trigger times count from the trigger, at each place anew, so their order tells the phase. By the
    clock, a frame must have ended before the next one began.
    """
    if len({len(here) for here in at_each_place}) != 1:
        return ()
    for moment, by_clock in ((_trigger_ms, False), (_time_s, True)):
        times = [[moment(one) for one in here] for here in at_each_place]
        if any(None in row or len(set(row)) < len(row) for row in times):
            continue
        rows = [_in_order(here, moment) for here in at_each_place]
        frames = tuple(zip(*rows, strict=True))
        if by_clock and not _follow_each_other(frames, moment):
            continue
        return frames
    return ()


def _in_order(here: Sequence[Slice], moment: Moment) -> list[Slice]:
    return sorted(here, key=lambda one: moment(one) or 0.0)


def _follow_each_other(frames: Frames, moment: Moment) -> bool:
    ends = [max(moment(one) or 0.0 for one in frame) for frame in frames]
    begins = [_begin(frame, moment) for frame in frames]
    return all(end < begin for end, begin in zip(ends, begins[1:], strict=False))


def interleave(frames: Frames) -> bool:
    """Whether the clock says that one frame was taken while another was: they may be mixed up.

    Where it does not tell for every slice, or tells one moment for all, nothing speaks for that.
    """
    times = [[one.time_s for one in frame] for frame in frames]
    if any(None in row for row in times) or len({time for row in times for time in row}) == 1:
        return False
    ordered = sorted(frames, key=lambda frame: _begin(frame, _time_s))
    return not _follow_each_other(ordered, _time_s)


def interval_s(frames: Frames) -> float | None:
    """Seconds from frame to frame; None where that is not told, or they are not evenly apart.

    What each image says of its own moment comes before what it says of the interval.
    """
    for moment, unit in ((_trigger_ms, 1e-3), (_time_s, 1.0), (_reference_ms, 1e-3)):
        steps = np.diff([_begin(frame, moment) for frame in frames]) * unit
        if np.isfinite(steps).all() and (steps > 0).all():
            usual = float(np.median(steps))
            return usual if float(np.ptp(steps)) <= _EVEN * usual else None
    told = {one.interval_ms for frame in frames for one in frame}
    (only,) = told if len(told) == 1 else (None,)
    return only * 1e-3 if only is not None and only > 0 else None


def _begin(frame: Sequence[Slice], moment: Moment) -> float:
    moments = [found for one in frame if (found := moment(one)) is not None]
    return min(moments, default=np.nan)


def _trigger_ms(one: Slice) -> float | None:
    return one.trigger_ms


def _time_s(one: Slice) -> float | None:
    return one.time_s


def _reference_ms(one: Slice) -> float | None:
    return one.reference_ms
