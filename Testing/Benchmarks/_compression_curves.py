"""Curves of PSNR over bytes, read between points.

A point is (bits or bytes, PSNR in dB). Between points PCHIP over the logarithm of the rate, as the
usual scripts do: monotone, and exact at the points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from _common import Row
from scipy.interpolate import PchipInterpolator

Point = tuple[float, float]


def curve(rows: Iterable[Row], volume: str, codec: str) -> list[Point]:
    """(bytes, PSNR) of a codec's lossy points on a volume."""
    return [
        (row["bytes"], row["psnr_db"])
        for row in rows
        if (row["volume"], row["mode"], row["codec"]) == (volume, "ratio", codec)
        and row.get("psnr_db") is not None
    ]


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
