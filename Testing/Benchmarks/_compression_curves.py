"""Curves of PSNR over bytes: read between points, and compared by Bjøntegaard's differences.

A point is (bits or bytes, PSNR in dB). Between points PCHIP over the logarithm of the rate, as the
usual scripts do: monotone, and exact at the points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

Point = tuple[float, float]
_FEWEST = 3


def frontier(points: Iterable[Point]) -> list[Point]:
    """Points from few bytes to many, without those that another beats with fewer bytes."""
    best: list[Point] = []
    for rate, psnr in sorted(points):
        if rate > 0 and math.isfinite(psnr) and (not best or psnr > best[-1][1]):
            if best and best[-1][0] == rate:
                best.pop()
            best.append((rate, psnr))
    return best


def psnr_at(points: Iterable[Point], rate: float) -> float | None:
    """The PSNR of a codec at `rate`; None outside of what was measured."""
    known = frontier(points)
    if not known or not known[0][0] * (1 - 1e-9) <= rate <= known[-1][0] * (1 + 1e-9):
        return None
    if len(known) == 1:
        return known[0][1]
    rates, psnr = np.array(known).T
    inside = min(max(math.log(rate), math.log(rates[0])), math.log(rates[-1]))
    return float(PchipInterpolator(np.log(rates), psnr)(inside))


def bd_rate(
    ours: Sequence[Point],
    theirs: Sequence[Point],
    rates: tuple[float, float] | None = None,
) -> float | None:
    """Share of bytes that ours needs more for equal PSNR: −0.2 saves a fifth of the bytes.

    Source: Bjøntegaard, VCEG-M33, with PCHIP in place of one cubic (JCTVC-L1100).

    rates: the least and the largest, between which ours is compared; None for all that it has.
    """
    if rates is not None:
        ours = _within(frontier(ours), rates)
    swapped = (
        [(psnr, log_rate) for log_rate, psnr in _log_rates(frontier(curve))]
        for curve in (ours, theirs)
    )
    difference = _mean_difference(*swapped)
    return None if difference is None else math.expm1(difference)


def _within(points: Sequence[Point], rates: tuple[float, float]) -> list[Point]:
    """A curve cut at two rates; it has no point beyond those that it had."""
    inner = [point for point in points if rates[0] <= point[0] <= rates[1]]
    ends = ((rate, psnr_at(points, rate)) for rate in rates)
    return frontier([*inner, *((rate, psnr) for rate, psnr in ends if psnr is not None)])


def _log_rates(points: Sequence[Point]) -> list[Point]:
    return [(math.log(rate), psnr) for rate, psnr in points]


def _mean_difference(ours: Sequence[Point], theirs: Sequence[Point]) -> float | None:
    """Of two curves y(x), over the x that both span; None where they share too little."""
    if min(len(ours), len(theirs)) < _FEWEST:
        return None
    low = max(ours[0][0], theirs[0][0])
    high = min(ours[-1][0], theirs[-1][0])
    if high <= low:
        return None
    means = []
    for curve in (ours, theirs):
        x, y = np.array(curve).T
        means.append(float(PchipInterpolator(x, y).integrate(low, high)) / (high - low))
    return means[0] - means[1]
