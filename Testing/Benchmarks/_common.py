"""What benchmarks share: where results go, what they ran on, goals and the file of each."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
#: What every benchmark measured, a JSON file each; results_page.py makes docs/results.md of them.
RESULTS = REPOSITORY / "Testing" / "Benchmarks" / "results"
#: The open volumes kept beside the project.
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def commit() -> str:
    """The commit that is checked out, with "+" where tracked files have changed since."""
    return _git("rev-parse", "--short=12", "HEAD") + (
        "+" if _git("status", "--porcelain", "--untracked-files=no") else ""
    )


def machine() -> str:
    """Processor, cores and Python, without names."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return (
        f"{model or platform.machine()}, {os.cpu_count()} cores ({threads} used by each library), "
        f"{platform.system()}, Python {platform.python_version()}"
    )


def gate(name: str, value: float | None, bound: str, passed: bool) -> dict[str, Any]:
    """One goal and whether it was reached; None for both where nothing was measured."""
    return {
        "name": name,
        "value": value,
        "bound": bound,
        "pass": None if value is None else bool(passed),
    }


def write(
    name: str,
    *,
    gates: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    folder: Path = RESULTS,
) -> None:
    """Write NAME.json: what was measured, where, and which goals were reached."""
    folder.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", f"Testing/Benchmarks/{name}.py", *sys.argv[1:]])
    record = {
        "commit": commit(),
        "machine": machine(),
        "command": command,
        "seeds": list(seeds),
        "gates": list(gates),
        "rows": list(rows),
    }
    body = json.dumps(record, indent=1, allow_nan=False) + "\n"
    (folder / f"{name}.json").write_text(body, encoding="utf-8")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
