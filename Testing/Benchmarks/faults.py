"""Every fault into every kind of job, at many points: what is lost, and what is said.

python Testing/Benchmarks/faults.py                 4 points of each, writes docs/benchmarks
python Testing/Benchmarks/faults.py --points 2      fewer, into runs/benchmarks

Of jobs that take seconds even here, a quarter of the points.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from _common import DOCS, REPOSITORY, gate, gate_table, table, write

sys.path.insert(0, str(REPOSITORY / "Testing"))
from Library.jobs.fault_jobs import JOBS, LONGEST

PROGRAM = REPOSITORY / "Testing" / "Library" / "jobs" / "faulting.py"
POINTS = 4
Row = dict[str, Any]
#: What a user sees of a case.
_ENDS = {
    "done": "result",
    "error": "error",
    "cancelled": "canceled",
    "killed": "killed",
    "not possible here": "not possible here",
}


def main() -> None:
    """Run all cases, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="all where none is named")
    options = parser.parse_args()
    jobs = options.jobs or list(JOBS)
    rows = _run(options.points, [job for job in jobs if job not in LONGEST])
    rows += _run(max(1, options.points // 4), [job for job in jobs if job in LONGEST])
    wrong = [row for row in rows if row["wrong"]]
    for row in wrong:
        print(json.dumps(row, indent=1), file=sys.stderr)
    struck = [row for row in rows if row["outcome"] != "not possible here"]
    gates = [
        gate("cases", len(struck), "≥ 1000", len(struck) >= 1000),
        gate("cases in which something does not hold", len(wrong), "0", not wrong),
    ]
    whole = options.points >= POINTS and not options.jobs
    folder = DOCS if whole else REPOSITORY / "runs" / "benchmarks"
    kept = [{name: row.get(name) for name in ("job", "fault", "step", "outcome")} for row in rows]
    write("faults", _page(rows, gates), gates=gates, rows=kept, seeds=[], folder=folder)


def _run(points: int, jobs: list[str]) -> list[Row]:
    if not jobs:
        return []
    search = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "Testing")))
    environment = {**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(PROGRAM), folder, str(points), *jobs]
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _page(rows: list[Row], gates: list[Row]) -> str:
    return "\n\n".join(
        [
            "# Faults into jobs",
            "Each fault strikes a small job of each kind at evenly spread ones of its steps: its "
            "progress events, and what it asks of the file system in the folders of the case. In "
            "each case must hold: the user's files are as before; a file under a final name is "
            "whole, and what a run without a fault gives; no temporary file stays (after a kill, "
            "or where the disk is gone: after the next run); an error has a code and a remedy, and "
            "no traceback. What a fault is: `Testing/Library/jobs/faulting.py`.",
            "## Gates\n\n" + gate_table(gates).rstrip(),
            "## By fault\n\n" + _counts("fault", rows),
            "## By job\n\n" + _counts("job", rows),
        ]
    )


def _counts(by: str, rows: Iterable[Row]) -> str:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        end = _ENDS.get(row["outcome"], "other")
        found[row[by]][end] += 1
        found[row[by]]["wrong"] += bool(row["wrong"])
    known = (*_ENDS.values(), "other")
    ends = [end for end in known if any(counts[end] for counts in found.values())]
    lines = [
        [name, *(counts[end] for end in ends), counts["wrong"]] for name, counts in found.items()
    ]
    return table((by, *ends, "does not hold"), lines).rstrip()


if __name__ == "__main__":
    main()
