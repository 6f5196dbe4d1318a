"""The crops of a training: made ahead by threads, and replaced one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from MedEnhanceLib.hqg.train.crops import Crop
from MedEnhanceLib.runtime.progress import Monitor

#: Crops that are made before they are needed, in replacements.
_AHEAD = 2


class CropPool:
    """The crops that a step may draw from: a window of numbers that moves on with the steps.

    Which crops these are depends on the step alone, so that a resumed training draws the same.

    Args:
        make: a number → crops, in any thread.
        size: crops in the window.
        every: steps from one replacement to the next.
        threads: that make crops.
    """

    def __init__(
        self,
        make: Callable[[int], Sequence[Crop]],
        size: int,
        every: int,
        threads: int,
    ) -> None:
        self._make, self._size, self._every = make, size, every
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="crops")
        self._crops: dict[int, Future[Sequence[Crop]]] = {}

    def at(self, step: int, monitor: Monitor) -> list[Sequence[Crop]]:
        """All crops of a step; waits for those that are not made yet."""
        first = step // self._every
        for number in [number for number in self._crops if number < first]:
            self._crops.pop(number).cancel()
        for number in range(first, first + self._size + _AHEAD):
            if number not in self._crops:
                self._crops[number] = self._executor.submit(self._make, number)
        crops = []
        for number in range(first, first + self._size):
            if not self._crops[number].done():
                monitor.check()
            crops.append(self._crops[number].result())
        return crops

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)
