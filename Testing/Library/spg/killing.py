"""Distillations that are killed at random points, and go on: the same bytes, and nothing besides?

    python killing.py FOLDER POINTS SEED [PEOPLE HELD_OUT]

One line of JSON for each point. A run is a forked child; it kills itself (SIGKILL) after a drawn
number of calls and returns of functions, so that every line of a part of the run is as likely,
whatever the load of the machine. Of four points three lie before the last patient is done, the
others in what comes after: writing and audit. A second child goes on with what was left. A program
of its own, because it forks.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from Library.spg.conftest import phantom

from MedEnhanceLib import io
from MedEnhanceLib.io.atomic import PREFIX
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.distill import distill_cohort
from MedEnhanceLib.spg.folder import RunFolder

#: Two of them are held out, so that there is an audit to be killed in.
PEOPLE, HELD_OUT = 4, 2
Work = Callable[[Monitor], object]


def main() -> None:
    """Run all points; a line for each."""
    warnings.simplefilter("ignore")
    place, points, dice = Path(sys.argv[1]), int(sys.argv[2]), random.Random(sys.argv[3])
    people, held_out = map(int, sys.argv[4:6]) if len(sys.argv) > 4 else (PEOPLE, HELD_OUT)
    for number in range(people):
        (place / "cohort" / f"P{number}").mkdir(parents=True)
        io.save(phantom(number), place / "cohort" / f"P{number}" / "T1.nii.gz")
    base = replace(DistillConfig.preset("smoke"), method="matching", device="cpu", checkpoint_s=0.0)
    config = replace(base, held_out=held_out / people)

    def distilling(out: Path) -> Work:
        return lambda monitor: distill_cohort(
            Cohort.from_folder(place / "cohort"), out, config, monitor
        )

    torch.set_num_threads(1)  # a forked child has no other threads
    distilling(place / "whole")(Monitor())  # the first time, much is imported
    wanted = _files(place / "whole")
    patients, events = _count(distilling(place / "counted"))
    for event in _points(points, patients, events, dice):
        out = place / "killed"
        status = _in_child(distilling(out), after=event)
        left = _left(out)
        ended = _in_child(distilling(out))
        found = _files(out)
        row = {
            "event": event,
            "of": events,
            "killed": status == -signal.SIGKILL,
            **left,
            "went_on": ended == 0,
            "same": found == wanted,
            "other_files": sorted(found.keys() ^ wanted.keys()),
            "changed": sorted(n for n in found.keys() & wanted.keys() if found[n] != wanted[n]),
        }
        print(json.dumps(row), flush=True)
        shutil.rmtree(out)
        shutil.rmtree(out.with_name("killed-confidential"), ignore_errors=True)


def _points(count: int, patients: int, events: int, dice: random.Random) -> list[int]:
    """Spread over both parts of a run, each in a stretch of its own."""
    after = count // 4
    chosen = []
    for first, last, many in ((1, patients, count - after), (patients, events, after)):
        step = (last - first) / max(1, many)
        chosen += [int(first + (place + dice.random()) * step) for place in range(many)]
    return chosen


def _files(out: Path) -> dict[str, str]:
    """All files of a finished result, hidden ones too, with their hashes; else nothing."""
    if not RunFolder(out).is_finished:
        return {}
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file()
    }


def _left(out: Path) -> dict[str, Any]:
    """What a kill leaves: how far the run is by its files, and temporary ones among them."""
    folder = RunFolder(out)
    temporary = len([*out.rglob(f"{PREFIX}*")])
    if not (folder.work / "run.json").is_file() and not folder.is_finished:
        return {"stage": "before the first patient", "fraction": 0.0, "temporary": temporary}
    status = folder.status()
    stage = "finished"
    if status["state"] != "finished":
        stage = "patients" if status["done"] < status["patients"] else "audit and result"
    return {"stage": stage, "fraction": status["fraction"], "temporary": temporary}


def _count(work: Work) -> tuple[int, int]:
    """Calls and returns of functions until the last patient is done, and until the end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        counted = patients = 0

        def hook(*_: object) -> None:
            nonlocal counted
            counted += 1

        def listen(event: Event) -> None:
            nonlocal patients
            if event.fields.get("stage") == "writing images":
                patients = counted

        _run(work, Monitor(listen), hook)
        os.write(writing, f"{patients} {counted}".encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as stream:
        patients, events = map(int, stream.read().split())
    return patients, events


def _in_child(work: Work, *, after: int | None = None) -> int:
    """The exit status of a child that does the work; it kills itself after `after` events."""
    child = os.fork()
    if child == 0:
        counted = 0

        def hook(*_: object) -> None:
            nonlocal counted
            counted += 1
            if counted == after:
                os.kill(os.getpid(), signal.SIGKILL)

        _run(work, Monitor(), hook if after else None)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run(work: Work, monitor: Monitor, hook: Callable[..., None] | None) -> None:
    """In a child: nothing of what the parent had open may be ended twice."""
    sys.setprofile(hook)
    try:
        work(monitor)
    except BaseException as error:  # noqa: BLE001 - reported, whatever it is
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    finally:
        sys.setprofile(None)


if __name__ == "__main__":
    main()
