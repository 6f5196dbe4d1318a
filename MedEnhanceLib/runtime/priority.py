"""How much a long job stands back for everything else on a shared machine."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def low_priority(*, wanted: bool = True) -> Iterator[None]:
    """Let everybody else's processes go first meanwhile; wanted=False changes nothing.

    Unix lets no ordinary user raise a priority again: there this process stays as it is then. To be
    called where the process is ours, not its caller's.
    """
    before = _priority()
    lowered = wanted and _is_above(before)
    if lowered:
        _set_priority(_LOW)
    try:
        yield
    finally:
        if lowered:
            with contextlib.suppress(PermissionError):
                _set_priority(before)


if sys.platform == "win32":
    import ctypes

    #: BELOW_NORMAL_PRIORITY_CLASS; less is IDLE_PRIORITY_CLASS.
    _LOW, _IDLE = 0x4000, 0x40

    def _priority() -> int:
        kernel = ctypes.WinDLL("kernel32")
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.GetPriorityClass.argtypes = (ctypes.c_void_p,)
        return int(kernel.GetPriorityClass(kernel.GetCurrentProcess()))

    def _set_priority(value: int) -> None:
        kernel = ctypes.WinDLL("kernel32")
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.SetPriorityClass.argtypes = (ctypes.c_void_p, ctypes.c_ulong)
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), value)

    def _is_above(priority: int) -> bool:
        return priority not in (0, _IDLE, _LOW)

else:
    _LOW = 10
    _THREADS = Path("/proc/self/task")

    def _priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, 0)

    def _set_priority(value: int) -> None:
        """Of all threads: Linux has one for each, and torch's may be there already."""
        threads = [int(one.name) for one in _THREADS.iterdir()] if _THREADS.is_dir() else [0]
        for thread in threads:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.setpriority(os.PRIO_PROCESS, thread, value)

    def _is_above(priority: int) -> bool:
        return priority < _LOW
