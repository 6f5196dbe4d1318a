"""Distillations that are killed at random points, and go on: the same bytes, and nothing besides?

    python killing.py FOLDER POINTS SEED [PEOPLE HELD_OUT]

One line of JSON for each point. A run is a forked child; it kills itself (SIGKILL) after a drawn
number of calls and returns of functions, so that every line of the run is as likely, whatever the
load of the machine. A second child goes on with what was left. A program of its own, because it
forks.
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

import torch
from Library.spg.conftest import phantom

from MedEnhanceLib import io
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.distill import distill_cohort
from MedEnhanceLib.spg.folder import RunFolder

#: Two of them are held out, so that there is an audit to be killed in.
PEOPLE, HELD_OUT = 4, 2
Work = Callable[[], object]


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
        return lambda: distill_cohort(Cohort.from_folder(place / "cohort"), out, config)

    torch.set_num_threads(1)  # a forked child has no other threads
    distilling(place / "whole")()  # the first time, much is imported
    wanted = _files(place / "whole")
    events = 0

    def count(*_: object) -> None:
        nonlocal events
        events += 1

    sys.setprofile(count)
    distilling(place / "counted")()
    sys.setprofile(None)
    for number in range(points):
        event = int((number + dice.random()) * events / points)
        out = place / "killed"
        killed = _in_child(distilling(out), after=event) == -signal.SIGKILL
        ended = _in_child(distilling(out))
        found = _files(out)
        row = {
            "event": event,
            "of": events,
            "killed": killed,
            "went_on": ended == 0,
            "same": found == wanted,
            "other_files": sorted(found.keys() ^ wanted.keys()),
            "changed": sorted(n for n in found.keys() & wanted.keys() if found[n] != wanted[n]),
        }
        print(json.dumps(row), flush=True)
        shutil.rmtree(out)
        shutil.rmtree(out.with_name("killed-confidential"), ignore_errors=True)


def _files(out: Path) -> dict[str, str]:
    """All files of a finished result, hidden ones too, with their hashes; else nothing."""
    if not RunFolder(out).is_finished:
        return {}
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file()
    }


def _in_child(work: Work, *, after: int | None = None) -> int:
    """The exit status of a child that does the work; it kills itself after `after` events."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    counted = 0

    def hook(*_: object) -> None:
        nonlocal counted
        counted += 1
        if counted == after:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(hook if after else None)
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - reported, whatever it is
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    # Nothing of what the parent had open may be ended twice.
    os._exit(0)


if __name__ == "__main__":
    main()
