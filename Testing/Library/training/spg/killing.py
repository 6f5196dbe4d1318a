"""Distillations that are killed at random points, and go on: the same bytes, and nothing besides?

    python killing.py FOLDER POINTS SEED [PEOPLE HELD_OUT]

One line of JSON for each point. A run is a forked child that kills itself (see `forked`); a second
child goes on with what was left. A program of its own, because it forks.
"""

from __future__ import annotations

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
from Library.training.spg.conftest import SMOKE, distill, hashes, write_cohort

from MedEnhanceLib.training.spg.cohort import Cohort
from MedEnhanceLib.training.spg.folder import RunFolder

#: Two of them are held out, so that there is an audit to be killed in.
PEOPLE, HELD_OUT = 4, 2


def main() -> None:
    """Run all points; a line for each."""
    warnings.simplefilter("ignore")
    place, points, dice = Path(sys.argv[1]), int(sys.argv[2]), random.Random(sys.argv[3])
    people, held_out = map(int, sys.argv[4:6]) if len(sys.argv) > 4 else (PEOPLE, HELD_OUT)
    write_cohort(place / "cohort", people=tuple(f"P{number}" for number in range(people)))
    config = replace(SMOKE, held_out=held_out / people, volumes=people, checkpoint_s=0.0)

    def distilling(out: Path) -> Work:
        return lambda: distill(Cohort.from_folder(place / "cohort"), out, config)

    torch.set_num_threads(1)  # a forked child has no other threads
    distilling(place / "whole")()  # the first time, much is imported
    wanted = hashes(place / "whole")
    events = count_events(distilling(place / "counted"))
    for number in range(points):
        event = int((number + dice.random()) * events / points)
        out = place / "killed"
        killed = exit_status(distilling(out), after=event) == -signal.SIGKILL
        ended = exit_status(distilling(out))
        found = hashes(out) if RunFolder(out).is_finished else {}
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


if __name__ == "__main__":
    main()
