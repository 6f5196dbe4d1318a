"""The search for a setting of a coder, and how much there is to code."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from MedEnhanceLib.core.slabs import slabs
from MedEnhanceLib.core.volume import Voxels

#: Of a search, in octaves of its setting.
LONGEST_STEP = 2.5
#: Further tries where none so far is below the limit, or only far below it.
_RESCUES = 5
_FAR = 3
_INSIDE = 0.08
Tried = list[tuple[float, float]]
#: Every eighth row of every fourth slice is looked at for the differences of neighbors.
_ROW_STEP = 8
_SLICE_STEP = 4


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
        step = (aim - value) / slope_of(tried, slope)
        return setting + max(-LONGEST_STEP, min(step, LONGEST_STEP))
    share = (aim - below[1]) / (above[1] - below[1])
    share = max(_INSIDE, min(share, 1 - _INSIDE))
    return below[0] + share * (above[0] - below[0])


def slope_of(tried: Tried, usual: float) -> float:
    """Of value over setting, between the last two, unless it is far from what is usual."""
    if len(tried) < 2 or tried[-1][0] == tried[-2][0]:
        return usual
    (x0, y0), (x1, y1) = tried[-2:]
    found = (y1 - y0) / (x1 - x0)
    return found if 0.3 < found / usual < 3 else usual


def activity_of(voxels: Voxels, unit: float | None = None) -> float:
    """About how much there is to code: neighbors' differences on a logarithmic scale, summed.

    unit: below it a difference counts little; None for the smallest step.
    """
    if voxels.shape[-1] < 2:
        return 0.0
    bits, seen = 0.0, 0
    for part in slabs(voxels):
        rows = part[::_SLICE_STEP, ::_ROW_STEP]
        steps = np.abs(np.diff(rows.astype(np.float32), axis=-1))
        seen += rows.size
        if unit is None and voxels.dtype.kind == "f":
            # Of floats kept exactly most bits are noise: what counts is where they differ at all.
            bits += float(np.count_nonzero(steps))
        else:
            steps /= np.float32(unit or 1)
            bits += float(np.log2(steps + 1, dtype=np.float32).sum(dtype=np.float64))
    return bits * voxels.size / seen
