"""Every fault into every kind of job, at several points: what is lost, and what is said.

    python Testing/Benchmarks/faults.py                   4 turns of all, then the page
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
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from _common import DOCS, REPOSITORY, gate, gate_table, table, write

sys.path.insert(0, str(REPOSITORY / "Testing"))
from Library.jobs.fault_jobs import JOBS, LONG, LONGEST
from Library.jobs.fault_kinds import FAULTS, applies, place_of
from Library.jobs.faulting import Asked

ROWS = REPOSITORY / "runs" / "faults" / "rows.jsonl"
TURNS = 4
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
    """Go on where the last run stopped, then write the page."""
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
    write("faults", _page(rows, gates), gates=gates, rows=kept, seeds=[], folder=DOCS)


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
    slow = LONG | LONGEST
    for turn in range(turns):
        for job in sorted(JOBS.keys() - slow):
            yield from ((job, fault, turn) for fault in FAULTS if applies(job, fault))
    for job in (*sorted(LONG), *sorted(LONGEST)):
        yield from ((job, fault, 0) for fault in FAULTS if applies(job, fault))


def _page(rows: list[Row], gates: list[Row]) -> str:
    return "\n\n".join(
        [
            "# Faults into jobs",
            "Each fault strikes a small job of each kind at some of its steps: its "
            "progress events, and what it asks of the file system in the folders of the case. In "
            "each case must hold: the user's files are as before; a file under a final name is "
            "whole, and what a run without a fault gives; no temporary file stays (after a kill, "
            "or where the disk is gone: after the next run); an error has a code and a remedy, and "
            "no traceback. What a fault is: `Testing/Library/jobs/fault_kinds.py`.",
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
