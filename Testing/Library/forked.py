"""Work that forked children do, and that they may be killed in.

An event is a call or a return of a function, in any thread: so every line of the work is as likely
a place to be killed at, whatever the load of the machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[], object]


def rows_of(program: str | Path, *words: str) -> list[dict[str, Any]]:
    """The lines of JSON of a program that forks: it has no threads of a test's process."""
    path = os.pathsep.join(map(str, Path(__file__).resolve().parents[1:3]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(program), *words]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def count_events(work: Work) -> int:
    """The events of `work`, which is done here."""
    counted = 0

    def count(*_: object) -> None:
        nonlocal counted
        counted += 1

    _profiled(work, count)
    return counted


def exit_status(work: Work, *, after: int | None = None) -> int:
    """That of a child that does the work; after that many events it kills itself (SIGKILL)."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = after or 0

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        work() if after is None else _profiled(work, count)
    except BaseException as error:  # noqa: BLE001 - reported, whatever it is
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    # Nothing of what the parent had open may be ended twice.
    os._exit(0)


def _profiled(work: Work, hook: Callable[..., None]) -> None:
    threading.setprofile(hook)
    sys.setprofile(hook)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
