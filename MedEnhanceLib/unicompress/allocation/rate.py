"""Bytes of a file: how blocks share them, and which setting of a coder takes how many.

`allocate`: every block gains the same from its last byte.

Each block offers its sizes and what is lost at each (its curve). For a price per byte, each
takes the size with the smallest loss + price · size; the price is then found by bisection.
Source: Shoham and Gersho, Efficient bit allocation for an arbitrary set of quantizers, 1988.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.slabs import slabs
from MedEnhanceLib.core.volume import Voxels

_SAMPLES = 96
_STEPS = 80
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


@dataclass(frozen=True)
class Curve:
    """What a block loses at a size.

    sizes, losses: bytes (rising) and sum of squared errors, of a code that can be cut anywhere;
        empty where the block has none. exact: bytes of its lossless code, None for none.
    """

    sizes: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]
    exact: int | None

    @property
    def smallest(self) -> int:
        """The fewest bytes that the block can do with."""
        cut = int(self.sizes[0]) if self.sizes.size else None
        return min(size for size in (cut, self.exact) if size is not None)


@dataclass(frozen=True)
class Share:
    """What a block got: its exact code, or `size` bytes of the one that can be cut."""

    exact: bool
    size: int


def allocate(curves: Sequence[Curve], budget: int) -> list[Share]:
    """The sizes with the smallest sum of losses within `budget` bytes.

    The smallest sizes of all curves must fit.
    """
    sizes, losses = _sampled(curves)
    rows = np.arange(len(curves))
    scale = float(losses[np.isfinite(losses)].max()) or 1.0
    cheap, dear = 1e-18 * scale, 1e6 * scale
    for _ in range(_STEPS):
        price = float(np.sqrt(cheap * dear))
        if sizes[rows, _choice(sizes, losses, price)].sum() <= budget:
            dear = price
        else:
            cheap = price
    chosen, next_up = _choice(sizes, losses, dear), _choice(sizes, losses, cheap)
    return _spend_rest(sizes, chosen, next_up, budget)


def _sampled(curves: Sequence[Curve]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Curves on a common number of sizes, [block, size]; the last column is the exact code."""
    sizes = np.full((len(curves), _SAMPLES + 1), 1e18)
    losses = np.full_like(sizes, np.inf)
    for row, curve in enumerate(curves):
        if curve.sizes.size:
            fine = np.floor(np.geomspace(curve.sizes[0], curve.sizes[-1], _SAMPLES))
            tiny = 1e-12 * float(curve.losses.max()) + np.finfo(np.float64).tiny
            logs = np.interp(fine, curve.sizes, np.log(curve.losses + tiny))
            sizes[row, :_SAMPLES], losses[row, :_SAMPLES] = fine, np.exp(logs)
        if curve.exact is not None:
            sizes[row, _SAMPLES], losses[row, _SAMPLES] = curve.exact, 0.0
    return sizes, losses


def _choice(
    sizes: npt.NDArray[np.float64], losses: npt.NDArray[np.float64], price: float
) -> npt.NDArray[np.intp]:
    columns: npt.NDArray[np.intp] = np.argmin(losses + price * sizes, axis=1)
    return columns


def _spend_rest(
    sizes: npt.NDArray[np.float64],
    chosen: npt.NDArray[np.intp],
    next_up: npt.NDArray[np.intp],
    budget: int,
) -> list[Share]:
    taken = [int(sizes[row, column]) for row, column in enumerate(chosen)]
    rest = budget - sum(taken)
    shares = []
    for row, size in enumerate(taken):
        exact = chosen[row] == _SAMPLES
        if not exact and next_up[row] != _SAMPLES:
            more = min(int(sizes[row, next_up[row]]) - size, rest)
            size += max(more, 0)
            rest -= max(more, 0)
        shares.append(Share(bool(exact), size))
    return shares


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
