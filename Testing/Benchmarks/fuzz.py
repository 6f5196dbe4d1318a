"""A million damaged and forged containers: each must end in an error of ours or in right voxels.

    python Testing/Benchmarks/fuzz.py     1,000,000 cases; what was interrupted goes on

Cases run in a child process that is watched: a crash, a case that takes more than 20 seconds of
the processor and memory beyond 2 GiB of address space are findings, named by their number, with
the file kept beside the state, in runs/benchmarks. What a case is: fuzzing.py beside the tests of
compression.
"""

from __future__ import annotations

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

from _common import QUICK, REPOSITORY, Gate, Part, Row, folder_of, gate, run

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


def parts() -> list[Part]:
    return [("cases", _rows)]


def _run() -> dict[str, Any]:
    """All cases that are left; the state."""
    state = _load()
    with tempfile.TemporaryDirectory(dir=_SCRATCH, prefix="ucv-fuzz-") as place:
        while state["done"] < TARGET:
            _watch(Path(place), state)
    return state


# ---------------------------------------------------------------- the child


def child(folder: str, number: str) -> None:
    """Run batches from a case on; a line of JSON for each, until killed."""
    place, first = Path(folder), int(number)
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


# ---------------------------------------------------------------- the watcher


def _watch(place: Path, state: dict[str, Any]) -> None:
    """One child, until all is done, or it crashed or hung."""
    (place / "now").write_bytes((state["done"]).to_bytes(8, "little"))
    command = [sys.executable, __file__, "--child", str(place), str(state["done"])]
    command += ["--quick"] if QUICK else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    reader = threading.Thread(target=_take_batches, args=(process, state), daemon=True)
    reader.start()
    last, spent = -1, 0.0
    while process.poll() is None:
        time.sleep(_LOOK_SECONDS)
        case, used = _case_now(place), _cpu_seconds(process.pid)
        if case != last:
            last, spent = case, used
        hangs = used - spent > _CPU_SECONDS
        if hangs or state["done"] >= TARGET:
            process.kill()
            process.wait()
            if hangs:
                _keep(place, state, case, f"more than {_CPU_SECONDS:g} s of the processor")
            break
    else:
        _keep(place, state, _case_now(place), f"the process ended with {process.returncode}")
    reader.join()
    _save(state)


def _take_batches(process: subprocess.Popen[str], state: dict[str, Any]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
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


def _cpu_seconds(number: int) -> float:
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
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
    run("fuzz", __doc__, parts, gates_of, seeds=[SEED], child=child)
