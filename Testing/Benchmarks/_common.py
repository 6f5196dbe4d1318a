"""What benchmarks share: options, volumes, resuming, goals and the file of each.

A script is its parts, which measure rows, and a function of the rows for its goals:

    if __name__ == "__main__":
        run("harm", __doc__, parts, gates_of, seeds=[0])

A table is of a state: a hash of what it depends on. Rows of a part are kept in runs/benchmarks, in
a folder of the state, as soon as they are measured: what was interrupted goes on where it was. A
NAME.json of the present state is not measured again, on whatever machine. After a change that is
meant to leave results as they are, `--confirm` measures some parts again instead of all.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from _quick import small_data
from _states import REPOSITORY, git, state_of

Row = dict[str, Any]
Gate = dict[str, Any]
#: Name of a part, and what measures its rows.
Part = tuple[str, Callable[[], Iterable[Row]]]

#: What every benchmark measured, a JSON file each; results_page.py makes docs/results.md of them.
RESULTS = REPOSITORY / "Testing" / "Benchmarks" / "results"
KEPT = REPOSITORY / "runs" / "benchmarks"
#: Whether scripts are only to show that they run, on small synthetic volumes.
QUICK = "--quick" in sys.argv
_SCRATCH = tempfile.TemporaryDirectory(prefix="benchmarks-") if QUICK else None
#: How names of fields end that differ from run to run: times and memory.
_PASSING = re.compile(r"(_s|seconds|_mib|_gib|peak_bytes|cpu_s_per_mvoxel)$")
#: Share by which a value may differ and the table still be the same: pages print three digits at
#: most, and another thread or library moves the seventh. Chosen by hand; no table isolates it.
_TOLERANCE = 2e-3
#: Value of which smaller ones may differ by the same share: gains near 0 are differences. Chosen by
#: hand; no table isolates it.
_LEAST = 0.1
#: The option that names folders of further volumes.
FURTHER = "--data"
#: The open volumes kept beside the project; of a quick run small ones of the same names.
SHARED_DATA = small_data(KEPT / "quick-data") if QUICK else REPOSITORY.parent / "shared" / "data"


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """Options of every script. text: the docstring of the script."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="small synthetic volumes: does the script run?"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the JSON file (default: results; quick: runs)"
    )
    parser.add_argument(
        FURTHER, type=Path, nargs="+", default=[], help="folders of further listed volumes"
    )
    parser.add_argument("--device", default="cpu", help="of trainings and distillations")
    parser.add_argument(
        "--anew", action="store_true", help="measure again what is of the present state already"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="TEXT", help="parts whose name holds a text; writes no JSON"
    )
    parser.add_argument(
        "--confirm",
        nargs="+",
        metavar="TEXT",
        help="measure parts whose name holds a text again; if all that they give stands in the "
        "JSON file to two parts in a thousand, except times and memory, the whole table counts as "
        "of the present state",
    )
    parser.add_argument(
        "--gates-only", action="store_true", help="judge the rows of the JSON file, measure nothing"
    )
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    return parser


def run(
    name: str,
    text: str | None,
    parts: Callable[..., Iterable[Part]],
    gates_of: Callable[[list[Row]], Iterable[Gate]] = lambda _rows: (),
    *,
    seeds: Sequence[int] = (),
    child: Callable[..., Any] | None = None,
) -> None:
    """Measure what the command line asks for.

    Args:
        name: of the script.
        text: its docstring.
        parts: yields them, the most important first; takes the options if it takes anything.
        gates_of: judges the rows of all parts.
        seeds: of what is drawn.
        child: what a process of its own measures, of the words that `in_child` gives it.
    """
    options = parser_of(text).parse_args()
    if "torch" in sys.modules and not options.child:
        sys.modules["torch"].set_num_threads(1)
    if options.child and child:
        print(json.dumps(child(*options.child)))
        return
    takes_options = bool(inspect.signature(parts).parameters)
    made = partial(parts, options) if takes_options else parts
    measure(name, options, made, gates_of, seeds=seeds)


def in_child(
    child: Callable[..., Any], *words: str, threads: int | None = None, **variables: str
) -> Any:
    """What `child` gives for some words, in a process of its own; of a quick run in this one.

    child: of a script, which hands it to `run`. threads: of each library. variables: of its
    environment.
    """
    if QUICK:
        return child(*words)
    environment = os.environ | variables | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    command = [sys.executable, inspect.getfile(child), "--child", *words]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"{' '.join(words)}: {process.stderr}")
    return json.loads(process.stdout.splitlines()[-1])


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What work returns, and its seconds: wall and processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def measure(
    name: str,
    options: argparse.Namespace,
    parts: Callable[[], Iterable[Part]],
    gates_of: Callable[[list[Row]], Iterable[Gate]],
    *,
    seeds: Sequence[int] = (),
) -> None:
    """Measure what is not of the present state yet, then write NAME.json; arguments as of `run`."""
    folder = options.out or (KEPT / "quick" if QUICK else RESULTS)
    if options.gates_only:
        path = folder / f"{name}.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        _save(path, record | {"gates": list(gates_of(record["rows"]))})
        return
    if options.confirm:
        _confirm(name, folder / f"{name}.json", parts(), options.confirm)
        return
    if not (QUICK or options.anew or options.only) and is_present(name, folder, sys.argv):
        print(f"{name}: is of the present state already", flush=True)
        return
    rows: list[Row] = []
    for part, make in parts():
        if not options.only or any(text in part for text in options.only):
            rows += kept(name, part, make, anew=options.anew)
    if options.only:
        print(*rows, sep="\n")
        return
    if not rows:
        print(f"{name}: nothing could be measured", flush=True)
        return
    gates = list(gates_of(rows))
    for entry in gates:
        print(entry, flush=True)
    command = shlex.join(["python", f"Testing/Benchmarks/{name}.py", *sys.argv[1:]])
    record = {"commit": commit(), "state": state_of(name), "machine": machine()}
    record |= {"command": command, "seeds": list(seeds)}
    _save(folder / f"{name}.json", record | {"gates": gates, "rows": rows})


def _confirm(name: str, path: Path, parts: Iterable[Part], texts: Iterable[str]) -> None:
    """Take a table for one of the present state, if some of its parts give the same rows again.

    For changes that are meant to leave results as they are. Values may differ by `_TOLERANCE`; the
    largest difference stands in the JSON file. Rows that differ more stand in it as `again`, so
    that pages can say what they are now, until all of the table is measured.
    """
    record = json.loads(path.read_bytes())
    again = {
        part: kept(name, part, make) for part, make in parts if any(text in part for text in texts)
    }
    rows = [row for part_rows in again.values() for row in part_rows]
    before = record["rows"]
    apart = [min((_difference(row, other) for other in before), default=1) for row in rows]
    different = [row for row, share in zip(rows, apart, strict=True) if share > _TOLERANCE]
    if different or not rows:
        if rows:
            _save(path, record | {"again": {"commit": commit(), "rows": rows}})
        print(*different, sep="\n")
        sys.exit(f"{name}: {len(different)} of {len(rows)} rows differ: not confirmed")
    record.pop("again", None)
    confirmed = {"commit": commit(), "parts": list(again), "largest_difference": max(apart)}
    _save(path, record | {"state": state_of(name), "confirmed": confirmed})
    print(f"{name}: confirmed by {len(rows)} rows of {len(again)} parts", flush=True)


def _difference(a: Any, b: Any) -> float:
    """Give the largest difference of two values of rows, as a share of the larger; 1 if unlike.

    Times and memory do not count.
    """
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        lasting = [name for name in a if not _PASSING.search(name)]
        return max((_difference(a[name], b[name]) for name in lasting), default=0.0)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max((_difference(*pair) for pair in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) / max(abs(a), abs(b), _LEAST)
    return float(a != b)


def listed(name: str) -> list[dict[str, Any]]:
    """Entries of a list of open volumes beside the scripts."""
    path = REPOSITORY / "Testing" / "Benchmarks" / name
    entries: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return entries


def verified(path: Path, entry: Mapping[str, Any]) -> Path:
    """The path of a listed file, which is the one that is listed, or the script ends."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
        sys.exit(f"{path}: the file is not the one that is listed (sha256)")
    return path


def kept(
    name: str, part: str, make: Callable[[], Iterable[Row]], *, anew: bool = False
) -> list[Row]:
    """Rows of a part as they were measured in this state, or now; a quick run keeps none."""
    began = time.process_time()
    if QUICK:
        rows = list(make())
        print(f"{name}: {part}: {time.process_time() - began:.1f} s", flush=True)
        return rows
    path = folder_of(name) / f"{re.sub(r'[^0-9A-Za-z]+', '-', part).strip('-')}.json"
    if anew or not path.is_file():
        _save(path, {"rows": list(make())})
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    print(f"{name}: {part}: {time.process_time() - began:.1f} s", flush=True)
    return rows


def commit() -> str:
    """The commit that is checked out, with "+" where its sources have changed since."""
    return git("rev-parse", "--short=12", "HEAD") + ("+" if _changes() else "")


def is_present(name: str, folder: Path = RESULTS, words: Sequence[str] = ()) -> bool:
    """Return whether NAME.json is of the present state.

    Args:
        name: of the script.
        folder: of the file.
        words: of a command line; where it names further volumes, the file is of such.
    """
    path = folder / f"{name}.json"
    record = json.loads(path.read_bytes()) if path.is_file() else {}
    is_further = FURTHER not in words or FURTHER in record.get("command", "")
    return record.get("state") == state_of(name) and is_further


def folder_of(name: str) -> Path:
    """Name the folder for what a script measured or trained; a quick run begins anew."""
    return Path(_SCRATCH.name) / name if _SCRATCH else KEPT / state_of(name) / name


def _changes() -> str:
    """What differs from the commit, but for what the benchmarks write themselves."""
    written = (":!Testing/Benchmarks/results", ":!Resources/models/*/configs/metadata.json",
               ":!Resources/models/*/docs/*", ":!docs", ":!README.md")  # fmt: skip
    return git("diff", "HEAD", "--", ".", *written)


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


def gate(name: str, value: float | None, bound: str, passed: bool, reason: str = "") -> Gate:
    """One goal: met, missed, or not measured.

    Args:
        name: of what is measured.
        value: that was measured; None where nothing was.
        bound: of the value.
        passed: whether the bound is kept.
        reason: why the goal is missed or cannot be measured; kept where it is not met.
    """
    entry = {"name": name, "value": value, "bound": bound}
    entry["pass"] = None if value is None else bool(passed)
    return entry if entry["pass"] else entry | {"reason": reason}


def at_least(name: str, value: float | None, bound: float, reason: str = "") -> Gate:
    """A goal that is met from `bound` on."""
    return gate(name, value, f"≥ {bound:g}", value is not None and value >= bound, reason)


def at_most(name: str, value: float | None, bound: float, reason: str = "") -> Gate:
    """A goal that is met up to `bound`."""
    return gate(name, value, f"≤ {bound:g}", value is not None and value <= bound, reason)


def over_goals(values: Mapping[float, Iterable[float | None]]) -> float | None:
    """How far the least values are above their goals, at the worst; None where one is missing.

    values: by goal.
    """
    margins = [
        None if value is None else value - goal for goal, found in values.items() for value in found
    ]
    known = [margin for margin in margins if margin is not None]
    return min(known) if known and len(known) == len(margins) else None


def least(values: Iterable[float | None]) -> float | None:
    """The least; None where any of them or all are missing."""
    return over_goals({0.0: values})


def most(values: Iterable[float | None]) -> float | None:
    """The largest; None where any of them or all are missing."""
    lowest = least(None if value is None else -value for value in values)
    return None if lowest is None else -lowest


def _save(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)
