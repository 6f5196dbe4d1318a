"""Writers killed at random points, and on disks that are full: what is left behind.

python Testing/Benchmarks/kills.py    200 points of each
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from _common import QUICK, REPOSITORY, Gate, Part, Row, gate, run

PROGRAM = REPOSITORY / "Testing" / "Library" / "unicompress" / "killing.py"
POINTS, SEED = 2 if QUICK else 200, 1


def parts() -> Iterator[Part]:
    for trial in ("kill", "full"):
        yield trial, partial(_run, trial)


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Nothing is lost, broken, littered or kept silent about, in as many trials as were meant."""
    wrong = sum(map(_is_wrong, rows))
    fewest = min(sum(row["trial"] == trial for row in rows) for trial in ("kill", "full"))
    name = "files lost or broken, sources changed, litter, full disks not reported"
    yield gate(name, wrong, f"0 in {POINTS} kills and full disks", not wrong and fewest >= POINTS)


def _is_wrong(row: Row) -> bool:
    """Neither the old file, nor a whole new one, nor none; or something beside it."""
    if row["litter"] or row["source"] != "same" or row["target"] == "broken":
        return True
    if row["trial"] == "kill":
        return False
    is_silent = row["says"] != "written" and "no space left" not in row["says"]
    return is_silent or row["target"] != _expected(row) or bool(row["temporary"])


def _run(trial: str) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(PROGRAM),
            trial,
            str(Path(folder) / "p"),
            str(POINTS),
            str(SEED),
        ]
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "Testing")])
        environment = {**os.environ, "PYTHONPATH": path}
        process = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    return [{"trial": trial, **json.loads(line)} for line in process.stdout.splitlines()]


def _expected(row: Row) -> str:
    return "new" if row["says"] == "written" else "old" if row["exists"] else "none"


if __name__ == "__main__":
    run("kills", __doc__, parts, gates_of, seeds=[SEED])
