"""Writers killed at random points, and on disks that are full: what is left behind.

python Testing/Benchmarks/kills.py                200 points of each, writes results
python Testing/Benchmarks/kills.py --points 20    fewer, into runs/benchmarks
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _common import REPOSITORY, RESULTS, gate, write

PROGRAM = REPOSITORY / "Testing" / "Library" / "unicompress" / "killing.py"
POINTS, SEED = 200, 1
Row = dict[str, Any]


def main() -> None:
    """Run all points, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=POINTS)
    options = parser.parse_args()
    killed = _run("kill", options.points)
    full = _run("full", options.points)
    kept = sum(row["target"] == "broken" for row in killed)
    litter = sum(row["litter"] for row in (*killed, *full))
    silent = [
        row for row in full if row["says"] != "written" and "no space left" not in row["says"]
    ]
    wrong = [row for row in full if row["target"] != _expected(row) or row["temporary"]]
    sources = sum(row["source"] != "same" for row in (*killed, *full))
    gates = [
        gate("points of SIGKILL", len(killed), f"≥ {POINTS}", len(killed) >= POINTS),
        gate("killed: neither the old file, nor a whole new one, nor none", kept, "0", kept == 0),
        gate("killed or full: files that are not named as temporary", litter, "0", litter == 0),
        gate("full disk: not reported as such", len(silent), "0", not silent),
        gate("full disk: old file lost, or a temporary left", len(wrong), "0", not wrong),
        gate("changed sources", sources, "0", sources == 0),
    ]
    folder = RESULTS if options.points >= POINTS else REPOSITORY / "runs" / "benchmarks"
    rows = [{"trial": "kill", **row} for row in killed] + [{"trial": "full", **row} for row in full]
    write("kills", gates=gates, rows=rows, seeds=[SEED], folder=folder)


def _run(what: str, points: int) -> list[Row]:
    print(what, file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(PROGRAM),
            what,
            str(Path(folder) / "p"),
            str(points),
            str(SEED),
        ]
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "Testing")])
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _expected(row: Row) -> str:
    return "new" if row["says"] == "written" else "old" if row["exists"] else "none"


if __name__ == "__main__":
    main()
