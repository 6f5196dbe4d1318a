"""What the threads of a process share: settings that several may change for a while, and results.

A process that was forked while another thread used MedEnhance refuses to go on.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from functools import lru_cache, wraps
from traceback import walk_stack
from typing import ParamSpec, TypeVar

from MedEnhanceLib.errors import MedEnhanceError

_LIBRARY = __name__.partition(".")[0]
Restore = Callable[[], object]
Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")


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


def computed_once(function: Callable[Arguments, Outcome]) -> Callable[Arguments, Outcome]:
    """Keep a function's last results; threads that need the same one wait for it.

    With the caches of functools each of them computes it: of 16 threads, that began to decode at
    once, all made the same tables, which took as long as decoding.
    """
    kept, lock = lru_cache(maxsize=8)(function), threading.Lock()

    @wraps(function)
    def call(*args: Arguments.args, **options: Arguments.kwargs) -> Outcome:
        with lock:
            return kept(*args, **options)  # type: ignore[arg-type] # all of them can be hashed

    return call


#: Modules of MedEnhance that other threads were in: at the last fork, and at that of this process.
_in_use, _torn = set[str](), set[str]()


def _look_at_threads() -> None:
    """Note before a fork what other threads are in: they may hold locks."""
    frames = sys._current_frames()
    del frames[threading.get_ident()]
    callers = (caller for frame in frames.values() for caller, _line in walk_stack(frame))
    names = (str(caller.f_globals.get("__name__")) for caller in callers)
    _in_use.clear()
    _in_use.update(name for name in names if name.startswith(_LIBRARY))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_look_at_threads, after_in_child=lambda: _torn.update(_in_use))


def refuse_torn_process() -> None:
    """Raise MedEnhanceError in a process that was forked while another thread computed.

    It has the locks that the thread held, of imports and of other libraries too, and would wait
    for it forever.
    """
    if _torn:
        raise MedEnhanceError(
            "this process was forked while another thread was using MedEnhance",
            'Start processes with multiprocessing.get_context("spawn").',
        )
