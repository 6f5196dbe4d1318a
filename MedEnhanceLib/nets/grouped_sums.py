"""What `nets.grouped` holds in the host's memory: slabs of slices, and the sums over blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.native import SIDE, Array


@dataclass(frozen=True, eq=False)
class Slab:
    """Some slices of the input, of the level of its noise, and of the pilot: [n, J, I] each."""

    noisy: Array
    level: Array
    pilot: Array

    def part(self, first: int, end: int | None) -> Slab:
        """Some slices of these."""
        return Slab(self.noisy[first:end], self.level[first:end], self.pilot[first:end])

    @classmethod
    def joined(cls, parts: Sequence[Slab]) -> Slab:
        """Slabs that follow one another."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.noisy for part in parts]),
            np.concatenate([part.level for part in parts]),
            np.concatenate([part.pilot for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class Band:
    """Sums and weights of some lines of slices, [n, lines, I] each."""

    lines: slice
    total: Array
    weight: Array


class Sums:
    """Sums of the layers so far, of slices that are not complete; slices before `first` are not."""

    def __init__(self, line: Array, part: slice, shape: tuple[int, ...]) -> None:
        self.first, self._end, self._line, self._shape = part.start, part.stop, line, shape
        self._totals: dict[int, Array] = {}
        self._weights: dict[int, Array] = {}
        self._over: dict[int, Array] = {}

    def add(self, first: int, band: Band) -> None:
        """Add a part of a layer whose slab begins at slice `first`."""
        for parts, added in ((self._totals, band.total), (self._weights, band.weight)):
            for z, values in enumerate(added, first):
                if not self.first - SIDE < z < self._end:  # nothing that is wanted depends on it
                    continue
                if z not in parts:
                    parts[z] = np.zeros(self._shape, np.float32)
                parts[z][band.lines] += values

    def means(self, end: int, noisy: Array, level: Array) -> Array:
        """The mean of the blocks over each voxel of slices `first` to `end`; the input where there
        is no noise. These slices are let go.
        """
        result = np.empty_like(noisy)
        for z in range(self.first, end):
            over = np.zeros_like(noisy[0])
            for k, share in enumerate(self._line):
                if z - k in self._weights:
                    self._over[z - k] = self._within_slice(self._weights.pop(z - k))
                if z - k in self._over:
                    over += share * self._over[z - k]
            here = z - self.first
            is_noisy = (over > 0) & (level[here] > 0)
            np.copyto(result[here], noisy[here])
            np.divide(self._totals.pop(z), over, out=result[here], where=is_noisy)
        for z in [z for z in self._over if z < end - SIDE + 1]:
            del self._over[z]
        self.first = end
        return result

    def _within_slice(self, weight: Array) -> Array:
        """Weights of blocks by starting place → of the places that they cover, in one slice."""
        for axis in (0, 1):
            spread = np.zeros_like(weight)
            for offset, share in enumerate(self._line):
                ahead = np.moveaxis(spread, axis, 0)[offset:]
                ahead += share * np.moveaxis(weight, axis, 0)[: len(ahead)]
            weight = spread
        return weight
