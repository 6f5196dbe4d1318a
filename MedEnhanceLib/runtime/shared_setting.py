"""Settings of the whole process that several threads may change for a while at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ContextDecorator

from MedEnhanceLib.runtime.processes import refuse_torn_process

Restore = Callable[[], object]


class SharedSetting(ContextDecorator):
    """Changed setting of the process, as a context or a decorator, counted by its users.

    The first user changes it, the last one restores it. If users that overlap restored what each
    of them met, the last one would restore the change of the first.
    """

    def __init__(self, change: Callable[[], Restore]) -> None:
        """Take the function that makes the change and returns what restores the setting."""
        self._change, self._lock, self._users = change, threading.Lock(), 0
        self._restore: Restore

    def __enter__(self) -> None:
        refuse_torn_process()
        with self._lock:
            if self._users == 0:
                self._restore = self._change()
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._restore()
