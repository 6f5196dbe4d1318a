"""Every fault into every way that jobs write, at several points: what is lost, and what is said.

    python Testing/Benchmarks/faults.py                   4 turns of all, then the results
    python Testing/Benchmarks/faults.py --minutes 10      as many more as fit; the next run goes on

Rows are kept in runs/faults/rows.jsonl; remove the file to begin anew. Of jobs that take seconds
even here there is one turn.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import REPOSITORY, RESULTS, gate, write

sys.path.insert(0, str(REPOSITORY / "Testing"))
from Library.jobs.fault_jobs import JOBS, LONG
from Library.jobs.fault_kinds import FAULTS, applies, place_of
from Library.jobs.faulting import Asked

ROWS = REPOSITORY / "runs" / "faults" / "rows.jsonl"
TURNS = 4
Row = dict[str, Any]


def main() -> None:
    """Go on where the last run stopped, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--minutes", type=float, default=0.0, help="0: until all are done")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    rows = _run(options.turns, end)
    wrong = [row for row in rows if row["wrong"]]
    for row in wrong:
        print(json.dumps(row, indent=1), file=sys.stderr)
    struck = [row for row in rows if row["outcome"] != "not possible here"]
    gates = [
        gate("cases", len(struck), "≥ 500", len(struck) >= 500),
        gate("cases in which something does not hold", len(wrong), "0", not wrong),
    ]
    kept = [{name: row.get(name) for name in ("job", "fault", "step", "outcome")} for row in rows]
    write("faults", gates=gates, rows=kept, seeds=[], folder=RESULTS)


def _run(turns: int, end: float) -> list[Row]:
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    rows: list[Row] = [json.loads(line) for line in lines]
    done = {(row["job"], row["fault"], row["turn"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder, ROWS.open("a", encoding="utf-8") as stream:
        asked = Asked(Path(folder))
        for job, fault, turn in _cases(turns):
            if (job, fault, turn) not in done and time.monotonic() < end:
                row = asked.run(job, fault, place_of(job, fault, turn)) | {"turn": turn}
                stream.write(json.dumps(row) + "\n")
                stream.flush()
                rows.append(row)
        asked.close()
    return rows


def _cases(turns: int) -> Iterator[tuple[str, str, int]]:
    """Job, fault and turn: the quick jobs first."""
    for turn in range(turns):
        for job in sorted(JOBS.keys() - LONG):
            yield from ((job, fault, turn) for fault in FAULTS if applies(job, fault))
    for job in sorted(LONG):
        yield from ((job, fault, 0) for fault in FAULTS if applies(job, fault))


if __name__ == "__main__":
    main()
