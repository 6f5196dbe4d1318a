"""Faults into a job at every one of its steps: what is left of the user's files.

    python faulting.py FOLDER KIND PARAMS FAULT POINTS

A job runs in forked children. Its steps are what it asks of the file system in FOLDER/out (Python's
audit events); a fault strikes at POINTS of them, spread evenly. Prints, as JSON, what does not
hold: an empty list. A program of its own, because it forks.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.jobs import JobSpec, run_job

FOREIGN = b"another program's"
_PRECIOUS = "notes of the user.txt"
#: Status of a child whose job ended with an error of ours.
_REFUSED = 9


def _kill(_: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill_disk(_: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out")


def _take(output: Path) -> None:
    """Another program writes the output, if it is not there yet."""
    if not output.exists():
        output.write_bytes(FOREIGN)


FAULTS: dict[str, Callable[[Path], None]] = {
    "kill": _kill,
    "full disk": _fill_disk,
    "output taken": _take,
}


def _child(
    spec: JobSpec, folder: Path, output: Path, fault: str = "", at: int = 0
) -> tuple[int, int]:
    """Run the job in a child, with a fault at a step, if any; its status, and how many steps."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        steps, is_striking = 0, False

        def look(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal steps, is_striking
            place = arguments[0] if arguments else None
            if is_striking or not isinstance(place, str | os.PathLike):
                return
            if (event == "open" or event.startswith("os.")) and str(place).startswith(str(folder)):
                steps += 1
                if steps == at:
                    is_striking = True
                    FAULTS[fault](output)
                    is_striking = False

        sys.addaudithook(look)
        status = 70
        try:
            run_job(spec)
            status = 0
        except MedEnhanceError as error:
            status = _REFUSED if error.hint and error.code != "internal" else 71
        finally:
            os.write(writing, str(steps).encode())
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        steps = int(stream.read() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), steps


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _wrong(folder: Path, whole: dict[str, int], fault: str, status: int) -> Iterator[str]:
    """What does not hold after a child ended with this status; whole: files and their sizes."""
    expected = {
        "kill": (-signal.SIGKILL,),
        "full disk": (_REFUSED, 0),
        "output taken": (0, _REFUSED),
    }
    if status not in expected[fault]:
        yield f"it ended with {status}"
    out = folder / "out"
    if (out / _PRECIOUS).read_bytes() != b"mine":
        yield "a file of the user was changed"
    if fault != "kill" and list(out.rglob(".medenhance-*")):
        yield "temporary files are left"
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        is_ours = path.is_file() and path.name != _PRECIOUS and ".medenhance-" not in name
        if not is_ours or path.read_bytes() == FOREIGN or name.endswith(".json"):
            continue
        spread = 64 if name.endswith(".dcm") else 0  # UIDs are drawn anew, and differ in length
        if abs(path.stat().st_size - whole.get(name, -1)) > spread:
            yield f"{name} has {path.stat().st_size} bytes, not {whole.get(name)}"


def main() -> None:
    """Strike, and print what does not hold."""
    folder, kind, params = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    fault, points = sys.argv[4], int(sys.argv[5])
    out, output = folder / "out", Path(params["output"])
    spec = JobSpec(kind, params)

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        (out / _PRECIOUS).write_bytes(b"mine")

    begin()
    status, steps = _child(spec, out, output)
    assert (status, steps > 0) == (0, True), (status, steps)
    whole = {path.relative_to(out).as_posix(): path.stat().st_size for path in out.rglob("*.*")}
    sources = _hashes(folder / "in")
    wrong: list[str] = []
    for point in range(points):
        at = 1 + point * steps // points
        begin()
        status, _ = _child(spec, out, output, fault, at)
        wrong += [f"step {at} of {steps}: {what}" for what in _wrong(folder, whole, fault, status)]
        for path in out.glob(".medenhance-*"):  # a minute later
            os.utime(path, times=(time.time() - 120,) * 2)
        again = JobSpec(kind, params | {"overwrite": True})
        if fault != "output taken" and _child(again, out, output)[0] != 0:
            wrong.append(f"step {at} of {steps}: it cannot be run again")
        if list(out.rglob(".medenhance-*")):
            wrong.append(f"step {at} of {steps}: files are left after the next run")
    if _hashes(folder / "in") != sources:
        wrong.append("the sources were changed")
    print(json.dumps(wrong))


if __name__ == "__main__":
    main()
