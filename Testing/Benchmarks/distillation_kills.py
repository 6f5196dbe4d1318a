"""Distillations killed at random points that go on: whether the result is that of one in peace.

python Testing/Benchmarks/distillation_kills.py               20 points, writes docs/benchmarks
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

from _common import DOCS, REPOSITORY, gate, gate_table, table, write

PROGRAM = REPOSITORY / "Testing" / "Library" / "spg" / "killing.py"
POINTS, SEED = 20, 1
Row = dict[str, Any]


def main() -> None:
    """Run all points, then write the page."""
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
    folder = DOCS if points >= POINTS else REPOSITORY / "runs" / "benchmarks"
    write(
        "distillation_kills",
        _page(rows, gates),
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


def _page(rows: list[Row], gates: list[Row]) -> str:
    lines = (
        (
            f"{row['event']:,} of {row['of']:,}",
            row["stage"],
            f"{row['fraction']:.0%}",
            row["temporary"],
            "the same" if row["same"] else "**another**",
        )
        for row in rows
    )
    return "\n\n".join(
        [
            "# Killed distillations",
            "A child that distills four synthetic patients (preset `smoke`, two held out, a "
            "checkpoint at every step) kills itself (SIGKILL) after a random number of calls and "
            "returns of functions. Three of four points lie before the last patient is done, the "
            "others in the audit and the writing of the result. A second child goes on with what "
            "is left. All files of the result, its hidden ones too, are compared byte by byte with "
            "those of a run that nobody killed.",
            "## Gates\n\n" + gate_table(gates).rstrip(),
            "## Points\n\n"
            + table(
                ("killed at call", "during", "of all steps", "temporary files", "result"), lines
            ).rstrip(),
        ]
    )


if __name__ == "__main__":
    main()
