"""Processes that MedEnhance starts.

Downloaded data may bring a `numpy.py` along. Python imports it from the current folder as
`python -c` and `python -m`, which multiprocessing uses, and if PYTHONPATH has an empty entry.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
