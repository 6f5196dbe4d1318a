"""Other processes: those that MedEnhance starts, and those that a user's program forks.

Downloaded data may bring a `numpy.py` along. Python imports it from the current folder as
`python -c` and `python -m`, which multiprocessing uses, and if PYTHONPATH has an empty entry.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_stack

from MedEnhanceLib.errors import MedEnhanceError

_LIBRARY = __name__.partition(".")[0]


def safe_environment(*folders: str) -> dict[str, str]:
    """Return variables for processes that take no code from the current folder.

    folders: that Python is to search first.
    """
    return {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [*folders, *_python_path()])),
        "NoDefaultCurrentDirectoryInExePath": "1",  # Windows runs programs in it, too
    }


def _python_path() -> list[str]:
    return os.environ.get("PYTHONPATH", "").split(os.pathsep)


@contextmanager
def starting_processes(**variables: str) -> Iterator[None]:
    """Let processes that start meanwhile have the safe environment, and further variables."""
    variables = safe_environment() | variables
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def leave_current_folder() -> None:
    """Take no code from the current folder from now on, here and in processes started later.

    For processes of MedEnhance's own. The folder stays in the search path where PYTHONPATH names
    it, or MedEnhance is in it.
    """
    stated = _python_path()
    with suppress(OSError):  # the folder was removed
        current, library = Path.cwd(), Path(__file__).resolve().parents[2]
        if current not in (library, *(current / path for path in stated if path)):
            if sys.path[0] == str(current):  # of python -m
                del sys.path[0]
            if len(stated) > 1 and "" in stated:
                sys.path[:] = [path for path in sys.path if path != str(current)]
    os.environ.update(safe_environment())


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
