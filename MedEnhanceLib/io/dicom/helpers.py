"""Headers read by other processes: Python reads one at a time, and a hospital sends thousands.

The helpers are plain children of this process that take files on stdin and give headers on stdout.
Nothing of the program they help is run again in them, as `multiprocessing` would: a user's script
has no guard against that, and Slicer's main module cannot be imported.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from MedEnhanceLib.io.dicom.headers import Header, read_header
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.machine import cpu_threads

_LIBRARY = Path(__file__).resolve().parents[3]
_SERVE = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from MedEnhanceLib.io.dicom.helpers import serve; serve()"
)
#: Files at a time: enough that passing them costs nothing, few enough to show progress.
_CHUNK = 64
#: Below, starting the helpers takes longer than they save.
_FEWEST = 400
_MOST_HELPERS = 8
_LOOK_SECONDS = 0.1
Headers = list[Header | None]


def pays(count: int) -> bool:
    """Whether that many files are worth starting helpers for."""
    return count >= _FEWEST and cpu_threads() > 1


def read_in_helpers(
    files: Sequence[FileRef], check: Callable[[], None]
) -> Iterator[tuple[int, Headers]]:
    """Read headers in other processes; gives (index of the first file, headers) as they come.

    check: called at least every 0.1 s; may raise. All helpers are gone when this ends, however it
    ends. Raises OSError where they cannot be started, or where one dies.
    """
    tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
    starts = range(0, len(files), _CHUNK)
    for start in starts:
        tasks.put(start)
    results: queue.SimpleQueue[tuple[int, Headers] | OSError] = queue.SimpleQueue()
    helpers: list[subprocess.Popen[bytes]] = []
    threads: list[threading.Thread] = []
    try:
        for _ in range(min(cpu_threads(), _MOST_HELPERS, len(starts))):
            helpers.append(_start())
            work = (helpers[-1], files, tasks, results)
            threads.append(threading.Thread(target=_converse, args=work, daemon=True))
            threads[-1].start()
        for _ in starts:
            yield _next(results, check)
    finally:
        for helper in helpers:
            helper.kill()
        for thread in threads:
            thread.join()
        for helper in helpers:
            _close(helper)


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _SERVE, str(_LIBRARY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _next(
    results: queue.SimpleQueue[tuple[int, Headers] | OSError], check: Callable[[], None]
) -> tuple[int, Headers]:
    while True:
        check()
        with contextlib.suppress(queue.Empty):
            result = results.get(timeout=_LOOK_SECONDS)
            if isinstance(result, OSError):
                raise result
            return result


def _converse(
    helper: subprocess.Popen[bytes],
    files: Sequence[FileRef],
    tasks: queue.SimpleQueue[int],
    results: queue.SimpleQueue[tuple[int, Headers] | OSError],
) -> None:
    """Give one helper chunk after chunk, until none is left."""
    try:
        while True:
            start = tasks.get_nowait()
            _send(helper.stdin, list(files[start : start + _CHUNK]))
            results.put((start, _receive(helper.stdout)))
    except queue.Empty:
        return
    except (OSError, EOFError, ValueError, pickle.UnpicklingError) as cause:
        results.put(OSError(f"a helper ended early: {cause or type(cause).__name__}"))


def _close(helper: subprocess.Popen[bytes]) -> None:
    for pipe in helper.stdin, helper.stdout:
        if pipe is not None:
            with contextlib.suppress(OSError):  # what a dead helper never took
                pipe.close()
    helper.wait()


def _send(pipe: IO[bytes] | None, what: object) -> None:
    if pipe is None:
        raise ValueError("no pipe")
    pickle.dump(what, pipe)
    pipe.flush()


def _receive(pipe: IO[bytes] | None) -> Headers:
    if pipe is None:
        raise ValueError("no pipe")
    received: Headers = pickle.load(pipe)  # noqa: S301 - from a child of this very process
    return received


def serve() -> None:
    """What a helper does: read headers until nobody asks any more."""
    tasks, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a package prints must not come between
    while True:
        try:
            files: list[FileRef] = pickle.load(tasks)  # noqa: S301 - from our own parent
        except EOFError:
            return
        _send(answers, [read_header(file) for file in files])
