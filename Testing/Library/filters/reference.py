"""The block-matching filter as its description says it: block by block, in double precision."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from MedEnhanceLib.filters.block_matching import _THRESHOLD, Round, window_for
from MedEnhanceLib.filters.layers import TAPER, places

SIDE = 4
Doubles = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Place = tuple[int, int, int]
#: Rows: cosines of a frequency over a side of a block, orthonormal; of a block, [64, 64].
_LINE = np.cos(np.pi / SIDE * np.outer(np.arange(SIDE), np.arange(SIDE) + 0.5))
_LINE *= np.sqrt(np.where(np.arange(SIDE) == 0, 1, 2) / SIDE)[:, None]
COSINES: Doubles = np.einsum("ai,bj,ck->abcijk", _LINE, _LINE, _LINE).reshape(64, 64)


def denoised(
    noisy: Doubles,
    level: Doubles,
    spectrum: Doubles,
    rounds: Sequence[Round],
    spacing: Sequence[float],
) -> Doubles:
    """Filter a volume of at least a block along each axis; arguments of `BlockMatchingFilter`."""
    sides = [side - SIDE + 1 for side in noisy.shape]
    window = [min(*pair) for pair in zip(window_for(spacing), sides, strict=True)]
    sums = _Sums(noisy.shape)
    for at in _references(noisy.shape, _THRESHOLD, by=1, is_grouped=False):
        noise = (_sigma(level, at) * _THRESHOLD.damp) ** 2 * spectrum
        values = COSINES @ _block(noisy, at)
        steep = np.minimum(values**2 / noise, 1e4) ** 4
        values[1:] *= (steep / (steep + 1))[1:]
        sums.add(at, COSINES.T @ values, 1.0)
    pilot = sums.mean(noisy)
    for each in rounds:
        sums = _Sums(noisy.shape)
        for at in _references(noisy.shape, each, by=each.step, is_grouped=True):
            sigma = _sigma(level, at)
            group = _group(pilot, at, window, each)
            blocks = _estimates(noisy, pilot, group, sigma, spectrum, each.damp)
            for place, block in zip(group, blocks, strict=True):
                sums.add(place, block, 1 / sigma**2)
        pilot = sums.mean(noisy)
    return pilot


def _references(
    shape: Sequence[int], settings: Round, *, by: int, is_grouped: bool
) -> Iterator[Place]:
    """Yield reference blocks: every second layer is shifted, and in groups every second row."""
    for number, z in enumerate(places(shape[0], by, is_shifted=False)):
        is_odd = number % 2 == 1
        for row, y in enumerate(places(shape[1], settings.step, is_shifted=is_odd)):
            shifted = (row + number // 2) % 2 == 1 if is_grouped else is_odd
            for x in places(shape[2], settings.step, is_shifted=shifted):
                yield z, y, x


def _group(pilot: Doubles, at: Place, window: Sequence[int], settings: Round) -> list[Place]:
    """List the most similar blocks, the reference first, of equal ones the first in order."""
    firsts = [
        min(max(place - middle, 0), side - SIDE + 1 - width)
        for place, middle, side, width in zip(
            at, (window[0] // 2, (window[1] - 1) // 2, (window[2] - 1) // 2), pilot.shape, window,
            strict=True,
        )
    ]  # fmt: skip
    ranges = (range(first, first + width) for first, width in zip(firsts, window, strict=True))
    others = [
        (float(np.square(_block(pilot, place) - _block(pilot, at)).sum()), place)
        for place in itertools.product(*ranges)
        if place != at and max(abs(a - b) for a, b in zip(place, at, strict=True)) >= settings.apart
    ]
    return [at, *(place for _, place in sorted(others))][: settings.keep]


def _estimates(
    noisy: Doubles, pilot: Doubles, group: Sequence[Place], sigma: float, spectrum: Doubles,
    damp: float,
) -> Doubles:  # fmt: skip
    """Estimate the blocks of a group, [n, 64]."""
    root, count = sigma * np.sqrt(spectrum), len(group)
    y, p = (np.stack([COSINES @ _block(v, at) for at in group]) for v in (noisy, pilot))
    mean_y, mean_p = y.mean(0), p.mean(0)
    y, p = (y - mean_y) / root, (p - mean_p) / root
    mean = mean_y * mean_p**2 / (mean_p**2 + root**2 / count)
    solved = np.linalg.solve(p @ p.T + count * damp * np.eye(count), p @ y.T)
    return ((p.T @ solved).T * root + mean) @ COSINES


def _block(values: Doubles, at: Place) -> Doubles:
    return values[tuple(slice(start, start + SIDE) for start in at)].reshape(-1).astype(float)


def _sigma(level: Doubles, at: Place) -> float:
    """Return σ near the middle of a block."""
    return float(level[at[0] + 1, at[1] + 1, at[2] + 1])


class _Sums:
    """Sums of overlapping blocks, and of their weights."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.total, self.weight = np.zeros(shape), np.zeros(shape)

    def add(self, at: Place, block: Doubles, weight: float) -> None:
        """Add a block, whose middle weighs most."""
        where = tuple(slice(start, start + SIDE) for start in at)
        taper = weight * TAPER.reshape((SIDE,) * 3).astype(float)
        self.total[where] += taper * block.reshape((SIDE,) * 3)
        self.weight[where] += taper

    def mean(self, before: Doubles) -> Doubles:
        """Return the weighted mean; where there is no block, what was before."""
        seen = self.weight > 0
        return np.where(seen, self.total / np.where(seen, self.weight, 1), before)
