"""Shares the bytes of a file among its blocks: every block gains the same from its last byte.

Each block offers its sizes and what is lost at each (its curve). For a price per byte, each
takes the size with the smallest loss + price · size; the price is then found by bisection.
Source: Shoham and Gersho, Efficient bit allocation for an arbitrary set of quantizers, 1988.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_SAMPLES = 96
_STEPS = 80


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
    """What a block got: its exact code, or so many bytes of the one that can be cut."""

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
