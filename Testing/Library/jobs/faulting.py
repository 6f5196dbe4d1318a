"""Faults into a job at its steps: what is left of the user's files.

    python faulting.py FOLDER KIND PARAMS POINTS

A job runs in forked children. Its steps are what it asks of the file system in FOLDER/out (Python's
audit events); each fault, a kill and a full disk, strikes at POINTS of them, spread evenly. Prints,
as JSON, what does not hold: an empty list. A program of its own, because it forks.
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
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.jobs import JobSpec, run_job

_PRECIOUS = "notes of the user.txt"
#: Status of a child whose job ended with an error of ours.
_REFUSED = 9
#: What a child may end with.
_ENDS = {"kill": (-signal.SIGKILL,), "full disk": (_REFUSED, 0)}


def _child(spec: JobSpec, folder: Path, fault: str = "", at: int = 0) -> tuple[int, int]:
    """Run the job in a child, with a fault at a step, if any; its status, and how many steps."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        steps = 0

        def look(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal steps
            place = arguments[0] if arguments else None
            if not isinstance(place, str | os.PathLike) or not str(place).startswith(str(folder)):
                return
            steps += event == "open" or event.startswith("os.")
            if steps == at and fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if steps == at and fault:
                steps += 1  # it strikes once
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out")

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


def _wrong(out: Path, whole: dict[str, int], fault: str, status: int) -> Iterator[str]:
    """What does not hold after a child ended with this status; whole: files and their sizes."""
    if status not in _ENDS[fault]:
        yield f"it ended with {status}"
    if (out / _PRECIOUS).read_bytes() != b"mine":
        yield "a file of the user was changed"
    if fault != "kill" and list(out.rglob(".medenhance-*")):
        yield "temporary files are left"
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        if not path.is_file() or ".medenhance-" in name or name.endswith((".json", ".txt")):
            continue
        spread = 64 if name.endswith(".dcm") else 0  # UIDs are drawn anew, and differ in length
        if abs(path.stat().st_size - whole.get(name, -1)) > spread:
            yield f"{name} has {path.stat().st_size} bytes, not {whole.get(name)}"


def main() -> None:
    """Strike, and print what does not hold."""
    folder, kind, params = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    points = int(sys.argv[4])
    out, spec = folder / "out", JobSpec(kind, params)

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        (out / _PRECIOUS).write_bytes(b"mine")

    (folder / "first").mkdir()
    elsewhere = params["output"].replace(str(out), str(folder / "first"))
    run_job(JobSpec(kind, params | {"output": elsewhere}))  # what it imports, children need not
    begin()
    status, steps = _child(spec, out)
    assert (status, steps > 0) == (0, True), (status, steps)
    whole = {path.relative_to(out).as_posix(): path.stat().st_size for path in out.rglob("*.*")}
    sources = _hashes(folder / "in")
    wrong: list[str] = []
    for fault, at in product(_ENDS, [1 + point * steps // points for point in range(points)]):
        begin()
        status, _ = _child(spec, out, fault, at)
        place = f"{fault} at step {at} of {steps}"
        wrong += [f"{place}: {what}" for what in _wrong(out, whole, fault, status)]
        for path in out.glob(".medenhance-*"):  # a minute later
            os.utime(path, times=(time.time() - 120,) * 2)
        if _child(JobSpec(kind, params | {"overwrite": True}), out)[0] != 0:
            wrong.append(f"{place}: it cannot be run again")
        if list(out.rglob(".medenhance-*")):
            wrong.append(f"{place}: files are left after the next run")
    if _hashes(folder / "in") != sources:
        wrong.append("the sources were changed")
    print(json.dumps(wrong))


if __name__ == "__main__":
    main()
