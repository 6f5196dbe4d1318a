"""What `nets.grouped` holds in the host's memory: slices, and the sums over blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.native import SIDE, Array


class Held:
    """Slices of a stream that are kept until they are let go."""

    def __init__(self, stream: Iterator[Array], first: int) -> None:
        self._stream, self._first, self._end = stream, first, first
        self._slices: deque[Array] = deque()

    def passing(self) -> Iterator[Array]:
        """The stream, for another reader; its slices stay here."""
        while (slab := self._next()) is not None:
            yield slab

    def at(self, first: int, end: int) -> Array:
        """Some slices, [n, J, I]; reads on as far as needed."""
        while self._end < end:
            if self._next() is None:
                raise RuntimeError(f"a stream ended at slice {self._end}, before {end}")
        return np.stack([self._slices[z - self._first] for z in range(first, end)])

    def let_go(self, first: int) -> None:
        """Slices before this one are not needed any more."""
        while self._first < first and self._slices:
            self._slices.popleft()
            self._first += 1

    def _next(self) -> Array | None:
        slab = next(self._stream, None)
        if slab is not None:
            self._slices.extend(slab)
            self._end += len(slab)
        return slab


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
