"""A cancel amid a job, at a moment that the job itself fixes: no timer races its end."""

from __future__ import annotations

import time

from MedEnhanceLib.runtime.progress import Event

#: The check for a cancel from which on the answer is yes.
_CHECK = 3


class LateCancel:
    """A cancel that the third check notices after the job has come to the fraction `begin`.

    Given as `cancel`, and its `listen` as the listener of the job.
    """

    def __init__(self, begin: float = 0.0) -> None:
        self._begin, self._checks = begin, 0
        self._last = None if begin else _now()
        self._longest = 0.0

    def listen(self, event: Event) -> None:
        """Begin to count at the fraction `begin`."""
        is_begin = event.kind == "progress" and event.fields["fraction"] >= self._begin
        if self._last is None and is_begin:
            self._last = _now()

    def __call__(self) -> bool:
        """Whether to stop, as a check asks."""
        if self._last is None:
            return False
        self._longest, self._last = self.seconds(), _now()
        self._checks += 1
        return self._checks >= _CHECK

    def seconds(self) -> float:
        """The longest that a cancel could have waited so far: between two checks, or for the end.

        In wall time, or in the processor's where that is less: other work must not count.
        """
        assert self._last is not None
        wait = min(now - last for now, last in zip(_now(), self._last, strict=True))
        return max(self._longest, wait)


def _now() -> tuple[float, float]:
    return time.monotonic(), time.process_time()
