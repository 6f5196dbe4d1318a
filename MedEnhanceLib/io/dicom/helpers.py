"""Files worked through by other processes: Python reads one at a time, a hospital sends thousands.

The helpers are plain children of this process that take files on stdin and answer on stdout.
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
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from MedEnhanceLib.io.dicom.headers import Header, read_header
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.progress import Monitor

_LIBRARY = Path(__file__).resolve().parents[3]
_SERVE = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from MedEnhanceLib.io.dicom.helpers import serve; serve()"
)
#: Files at a time: enough that passing them costs nothing, few enough to show progress.
_CHUNK = 64
_MOST_HELPERS = 8
#: Work that helpers are started for.
_LEAST_SECONDS = 1.5
_LOOK_SECONDS = 0.1
Headers = list[Header | None]
Out = TypeVar("Out")


def pays(seconds: float) -> bool:
    """Whether so much reading is worth starting helpers, which takes each about half a second.

    Where Python is part of another program, there may be no Python to start.
    """
    is_python = "python" in Path(sys.executable or "").name.lower()
    return seconds > _LEAST_SECONDS and cpu_threads() > 1 and is_python


def read_one_by_one(
    files: Sequence[FileRef], monitor: Monitor
) -> Generator[Header | None, None, None]:
    """Read headers in this process, in their order.

    A disk may not answer, and a header take long: after a cancel a file is not waited for.
    """
    if not monitor.can_be_cancelled:
        yield from map(read_header, files)
        return
    answers: queue.SimpleQueue[Header | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def read() -> None:
        try:
            for file in files:
                if stopped.is_set():
                    return
                answers.put(read_header(file))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            answers.put(error)

    threading.Thread(target=read, name="dicom-headers", daemon=True).start()
    try:
        for _ in files:
            answer = _next(answers, monitor.check)
            if isinstance(answer, BaseException):
                raise answer
            yield answer
    finally:
        stopped.set()


def read_in_helpers(
    files: Sequence[FileRef], check: Callable[[], None]
) -> Iterator[tuple[int, Headers]]:
    """Read headers in other processes; the rest is as of `work_in_helpers`."""
    return work_in_helpers(read_header, files, check)


def work_in_helpers(
    work: Callable[[FileRef], Out],
    files: Sequence[FileRef],
    check: Callable[[], None],
    chunk: int = _CHUNK,
) -> Iterator[tuple[int, list[Out]]]:
    """Do `work` on files in other processes; gives (index of the first file, answers) as they come.

    work: of a module, so that it can be pickled; what it raises ends the helper.
    check: called at least every 0.1 s; may raise. All helpers are gone when this ends, however it
    ends. Raises OSError where they cannot be started, or where one dies.
    """
    tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
    starts = range(0, len(files), chunk)
    for start in starts:
        tasks.put(start)
    results: queue.SimpleQueue[tuple[int, list[Out]] | OSError] = queue.SimpleQueue()
    helpers: list[subprocess.Popen[bytes]] = []
    threads: list[threading.Thread] = []
    try:
        for _ in range(min(cpu_threads(), _MOST_HELPERS, len(starts))):
            helpers.append(_start())
            talk = (helpers[-1], work, files, chunk, tasks, results)
            threads.append(threading.Thread(target=_converse, args=talk, daemon=True))
            threads[-1].start()
        for _ in starts:
            result = _next(results, check)
            if isinstance(result, OSError):
                raise result
            yield result
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


def _next(answers: queue.SimpleQueue[Out], check: Callable[[], None]) -> Out:
    while True:
        check()
        with contextlib.suppress(queue.Empty):
            return answers.get(timeout=_LOOK_SECONDS)


def _converse(
    helper: subprocess.Popen[bytes],
    work: Callable[[FileRef], Out],
    files: Sequence[FileRef],
    chunk: int,
    tasks: queue.SimpleQueue[int],
    results: queue.SimpleQueue[tuple[int, list[Out]] | OSError],
) -> None:
    """Give one helper chunk after chunk, until none is left."""
    try:
        while True:
            start = tasks.get_nowait()
            _send(helper.stdin, (work, list(files[start : start + chunk])))
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


def _receive(pipe: IO[bytes] | None) -> Any:
    if pipe is None:
        raise ValueError("no pipe")
    return pickle.load(pipe)  # noqa: S301 - from a child of this very process


def serve() -> None:
    """What a helper does: work on files until nobody asks any more."""
    tasks, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a package prints must not come between
    while True:
        try:
            work, files = pickle.load(tasks)  # noqa: S301 - from our own parent
        except EOFError:
            return
        _send(answers, [work(file) for file in files])
