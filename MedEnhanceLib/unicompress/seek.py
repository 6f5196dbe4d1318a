"""Finds the setting of a coder that just keeps a limit, in as few codings as it can."""

from __future__ import annotations

from collections.abc import Callable

_LONGEST_STEP = 2.5
#: Where nothing tried so far keeps the limit, or only what is far below it, so many more are.
_RESCUES = 5
_FAR = 3
_INSIDE = 0.08
Tried = list[tuple[float, float]]


def seek(
    measure: Callable[[float], float],
    start: float,
    limit: float,
    *,
    slope: float,
    tolerance: float,
    most: int,
) -> float | None:
    """The setting whose value comes nearest to `limit` from below, of about `most` tried.

    measure: setting → value; both on logarithmic scales, so that it is nearly a straight line of
        about `slope`. tolerance: below the limit, at which the search ends.
    Returns None where no value was below the limit.
    """
    tried: Tried = []
    setting = start
    for turn in range(most + _RESCUES):
        value = measure(setting)
        tried.append((setting, value))
        if limit - tolerance <= value <= limit:
            break
        if turn >= most - 1 and any(limit - _FAR * tolerance <= one <= limit for _, one in tried):
            break
        reserve = tolerance / 2 * (1 + max(0, turn - most + 2))
        setting = _next(tried, limit - reserve, slope)
    kept = [(value, setting) for setting, value in tried if value <= limit]
    return max(kept)[1] if kept else None


def _next(tried: Tried, aim: float, slope: float) -> float:
    below = max((one for one in tried if one[1] <= aim), key=lambda one: one[1], default=None)
    above = min((one for one in tried if one[1] > aim), key=lambda one: one[1], default=None)
    if below is None or above is None:
        setting, value = tried[-1]
        step = (aim - value) / _slope_of(tried, slope)
        return setting + max(-_LONGEST_STEP, min(step, _LONGEST_STEP))
    share = (aim - below[1]) / (above[1] - below[1])
    share = max(_INSIDE, min(share, 1 - _INSIDE))
    return below[0] + share * (above[0] - below[0])


def _slope_of(tried: Tried, usual: float) -> float:
    """Between the last two, unless it is far from what is usual."""
    if len(tried) < 2 or tried[-1][0] == tried[-2][0]:
        return usual
    (x0, y0), (x1, y1) = tried[-2:]
    found = (y1 - y0) / (x1 - x0)
    return found if 0.3 < found / usual < 3 else usual
