"""Distillations that are killed at random points, and go on: the same bytes, and nothing besides?

    python killing.py FOLDER POINTS SEED [PEOPLE HELD_OUT]

One line of JSON for each point. A run is a forked child that kills itself (see `forked`); a second
child goes on with what was left. A program of its own, because it forks.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from Library.forked import Work, count_events, exit_status
from Library.spg.conftest import phantom

from MedEnhanceLib import io
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.distill import distill_cohort
from MedEnhanceLib.spg.folder import RunFolder

#: Two of them are held out, so that there is an audit to be killed in.
PEOPLE, HELD_OUT = 4, 2


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
    events = count_events(distilling(place / "counted"))
    for number in range(points):
        event = int((number + dice.random()) * events / points)
        out = place / "killed"
        killed = exit_status(distilling(out), after=event) == -signal.SIGKILL
        ended = exit_status(distilling(out))
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


if __name__ == "__main__":
    main()
