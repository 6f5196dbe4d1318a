"""Distillations killed at random points that go on: whether the result is that of one in peace.

python Testing/Benchmarks/distillation_kills.py               20 points, writes results
python Testing/Benchmarks/distillation_kills.py --points 4    fewer, into runs/benchmarks
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from _common import REPOSITORY, RESULTS, gate, write

PROGRAM = REPOSITORY / "Testing" / "Library" / "spg" / "killing.py"
POINTS, SEED = 20, 1
Row = dict[str, Any]


def main() -> None:
    """Run all points, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=POINTS)
    points = parser.parse_args().points
    rows = _run(points)
    killed = sum(row["killed"] for row in rows)
    lost = sum(not row["went_on"] for row in rows)
    changed = sum(bool(row["changed"]) for row in rows)
    other = sum(bool(row["other_files"]) for row in rows)
    gates = [
        gate("points of SIGKILL", killed, f"≥ {POINTS}", killed >= POINTS),
        gate("killed runs that did not go on", lost, "0", lost == 0),
        gate("results with a file that differs in a byte", changed, "0", changed == 0),
        gate("results with a file too many or too few", other, "0", other == 0),
    ]
    folder = RESULTS if points >= POINTS else REPOSITORY / "runs" / "benchmarks"
    write(
        "distillation_kills",
        gates=gates,
        rows=rows,
        seeds=[SEED],
        folder=folder,
    )


def _run(points: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "Testing")])
        done = subprocess.run(
            [sys.executable, str(PROGRAM), folder, str(points), str(SEED)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    main()
