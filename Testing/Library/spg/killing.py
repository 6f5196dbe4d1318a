"""Distillations that are killed at random points, and go on: the same bytes, and nothing besides?

    python killing.py FOLDER POINTS SEED

One line of JSON for each point. A run is a forked child; it kills itself (SIGKILL) after so many
calls and returns of functions, so that every line from the first checkpoint to the manifest is as
likely, whatever the load of the machine. Each point has a part of the run of its own: the points
are spread over all of it. A second child goes on with what was left. A program of its own, because
it forks.
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

from Library.spg.conftest import phantom

from MedEnhanceLib import io
from MedEnhanceLib.cohort import Cohort
from MedEnhanceLib.io.leftovers import PREFIX
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.folder import RunFolder
from MedEnhanceLib.spg.run import distil_cohort

#: Two are distilled and two held out, so that there is an audit to be killed in.
PEOPLE = ("A", "B", "C", "D")


def main() -> None:
    """Run all points; a line for each."""
    warnings.simplefilter("ignore")
    place, points, dice = Path(sys.argv[1]), int(sys.argv[2]), random.Random(sys.argv[3])
    for number, name in enumerate(PEOPLE):
        (place / "cohort" / name).mkdir(parents=True)
        io.save(phantom(number), place / "cohort" / name / "T1.nii.gz")
    config = replace(DistillConfig.preset("smoke"), device="cpu", held_out=0.5, checkpoint_s=0.0)

    def distilling(out: Path) -> Callable[[], object]:
        return lambda: distil_cohort(Cohort.from_folder(place / "cohort"), out, config)

    whole = place / "whole"
    events = _in_child(distilling(whole), count=True)
    wanted = _files(whole)
    for point in range(points):
        out = place / "killed"
        event = int((point + dice.random()) / points * events)
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


def _files(out: Path) -> dict[str, str]:
    """All files of a result, hidden ones too, with their hashes; nothing where it is not finished."""
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


def _in_child(work: Callable[[], object], *, after: int | None = None, count: bool = False) -> int:
    """The child's exit status, or with `count` the calls and returns that it made."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing) if not count else os.close(reading)
        _as_child(work, after, writing if count else None)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    return int(said) if count else os.waitstatus_to_exitcode(status)


def _as_child(work: Callable[[], object], after: int | None, writing: int | None) -> None:
    counted = 0

    def hook(*_: object) -> None:
        nonlocal counted
        counted += 1
        if counted == after:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        if after is not None or writing is not None:
            sys.setprofile(hook)
        work()
        sys.setprofile(None)
    except BaseException as error:  # noqa: BLE001 - told, whatever it is
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    if writing is not None:
        os.write(writing, str(counted).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
