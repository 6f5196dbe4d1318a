"""A million damaged and forged containers: each must end in an error of ours or in right voxels.

    python Testing/Benchmarks/fuzz.py                     up to 1,000,000 cases, then the results
    python Testing/Benchmarks/fuzz.py --minutes 10        as many more as fit; the next run goes on
    python Testing/Benchmarks/fuzz.py --case 1234         one case, in this process, for a debugger

Cases run in a child process that is watched: a crash, a case that takes more than 20 seconds of
the processor and memory beyond 2 GiB of address space are findings, named by their number, with
the file kept beside the state, in runs/benchmarks. What a case is: fuzzing.py beside the tests of
compression.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import (
    QUICK,
    REPOSITORY,
    Gate,
    Row,
    folder_of,
    gate,
    measure,
    parser_of,
)

sys.path.insert(0, str(REPOSITORY / "Testing"))
from Library.unicompress.fuzzing import Fuzzer, light, make_bases

STATE = folder_of("fuzz") / "ucv.json"
SEED = 20_261_121
TARGET, BATCH = (20, 10) if QUICK else (1_000_000, 2000)
ADDRESS_SPACE = 2 << 30
_CPU_SECONDS, _LOOK_SECONDS = 20.0, 0.5
_TICKS = os.sysconf("SC_CLK_TCK")
#: Memory files: a million cases are written and read.
_SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


def main() -> None:
    """Go on where the last run stopped, then write the results once all are done."""
    parser = parser_of(__doc__)
    parser.add_argument("--minutes", type=float, help="go on so long, without results")
    parser.add_argument("--case", type=int, help="run one case here and show what it raises")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        _run_child(Path(options.place), options.child)
    elif options.case is not None:
        _run_one(options.case)
    elif options.minutes:
        state = _run(time.monotonic() + 60 * options.minutes)
        print(f"{state['done']} cases, {len(state['findings'])} findings", file=sys.stderr)
    else:
        measure("fuzz", options, lambda: [("cases", _rows)], gates_of, seeds=[SEED])


def _run(end: float = float("inf")) -> dict[str, Any]:
    """All cases, or those before a time; the state."""
    state = _load()
    with tempfile.TemporaryDirectory(dir=_SCRATCH, prefix="ucv-fuzz-") as place:
        while state["done"] < TARGET and time.monotonic() < end:
            _watch(Path(place), state, end)
    return state


# ---------------------------------------------------------------- the child


def _run_child(place: Path, first: int) -> None:
    """Run batches from case `first` on; a line of JSON for each, until killed."""
    fuzzer = Fuzzer(make_bases(place), SEED, place / "case.ucv")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    with (place / "now").open("r+b") as stream, mmap.mmap(stream.fileno(), 8) as now, light():
        for start in range(first, sys.maxsize, BATCH):
            began, outcomes, findings = time.process_time(), Counter[str](), []
            for case in range(start, start + BATCH):
                now[:] = case.to_bytes(8, "little")
                try:
                    outcomes["/".join(fuzzer.run(case))] += 1
                except Exception as problem:  # noqa: BLE001 - whatever a case raises is a finding
                    findings.append(_finding(case, "".join(traceback.format_exception(problem))))
                    if isinstance(problem, MemoryError):
                        break
            seconds = time.process_time() - began
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            state = {"next": case + 1, "outcomes": outcomes, "findings": findings}
            print(json.dumps(state | {"cpu_s": seconds, "peak_mib": peak / 1024}), flush=True)


def _finding(case: int, what: str) -> dict[str, Any]:
    return {"case": case, "what": what[-2000:]}


def _run_one(case: int) -> None:
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as place, light():
        fuzzer = Fuzzer(make_bases(Path(place)), SEED, Path(place) / "case.ucv")
        print(*fuzzer.describe(case)[:3], file=sys.stderr)
        print(*fuzzer.run(case), file=sys.stderr)


# ---------------------------------------------------------------- the watcher


def _watch(place: Path, state: dict[str, Any], end: float) -> None:
    """One child, until all is done, the time is over, or it crashed or hung."""
    (place / "now").write_bytes((state["done"]).to_bytes(8, "little"))
    command = [sys.executable, __file__, "--child", str(state["done"]), "--place", str(place)]
    command += ["--quick"] if QUICK else []
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    reader = threading.Thread(target=_take_batches, args=(child, state), daemon=True)
    reader.start()
    last, spent = -1, 0.0
    while child.poll() is None:
        time.sleep(_LOOK_SECONDS)
        case, used = _case_now(place), _cpu_seconds(child.pid)
        if case != last:
            last, spent = case, used
        hangs = used - spent > _CPU_SECONDS
        if hangs or state["done"] >= TARGET or time.monotonic() > end:
            child.kill()
            child.wait()
            if hangs:
                _keep(place, state, case, f"more than {_CPU_SECONDS:g} s of the processor")
            break
    else:
        _keep(place, state, _case_now(place), f"the process ended with {child.returncode}")
    reader.join()
    _save(state)


def _take_batches(child: subprocess.Popen[str], state: dict[str, Any]) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        batch = json.loads(line)
        state["done"] = batch["next"]
        state["cpu_s"] += batch["cpu_s"]
        state["peak_mib"] = max(state["peak_mib"], batch["peak_mib"])
        state["outcomes"] = dict(Counter(state["outcomes"]) + Counter(batch["outcomes"]))
        state["findings"] += batch["findings"]
        _save(state)


def _keep(place: Path, state: dict[str, Any], case: int, what: str) -> None:
    """Note a case that took its process with it, and begin behind it."""
    state["findings"].append(_finding(case, what))
    state["done"] = case + 1
    kept = STATE.with_name(f"case-{case}.ucv")
    kept.write_bytes((place / "case.ucv").read_bytes())


def _case_now(place: Path) -> int:
    return int.from_bytes((place / "now").read_bytes(), "little")


def _cpu_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _load() -> dict[str, Any]:
    if STATE.is_file():
        state: dict[str, Any] = json.loads(STATE.read_text())
        if state["seed"] == SEED:
            return state
    STATE.parent.mkdir(parents=True, exist_ok=True)
    return {"seed": SEED, "done": 0, "cpu_s": 0.0, "peak_mib": 0.0, "outcomes": {}, "findings": []}


def _save(state: dict[str, Any]) -> None:
    part = STATE.with_suffix(".part")
    part.write_text(json.dumps(state, indent=1))
    part.replace(STATE)


# ---------------------------------------------------------------- results


def _rows() -> Iterator[Row]:
    state = _run()
    yield {"damaged": state["done"], "findings": len(state["findings"]),
           "peak_mib": state["peak_mib"]}  # fmt: skip
    for key, count in sorted(state["outcomes"].items()):
        base, mutation, outcome = key.split("/")
        yield {"base": base, "mutation": mutation, "outcome": outcome, "cases": count}


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    total, findings = rows[0]["damaged"], rows[0]["findings"]
    name = "crashes, hangs, foreign errors, wrong voxels called right"
    yield gate(name, findings, f"0 in {TARGET:,} files", not findings and total >= TARGET)


if __name__ == "__main__":
    main()
