"""All benchmarks in one go, on two cores; tables of the present state (_common.py) are left out.

    python -m pip install -r Testing/Benchmarks/requirements.txt
    python Testing/Benchmarks/all.py                  hours; what was interrupted goes on
    python Testing/Benchmarks/all.py --plan           what is measured, takes how long, needs what
    python Testing/Benchmarks/all.py --only blur real
    python Testing/Benchmarks/all.py --quick          does every script run? small synthetic volumes
    python Testing/Benchmarks/all.py --gates-only     judge the rows of all JSON files anew

Two scripts run at a time, each on one core; those that measure time run alone, on both.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
import traceback
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from _common import (
    FURTHER,
    KEPT,
    QUICK,
    RESULTS,
    SHARED_DATA,
    commit,
    is_present,
    machine,
    parser_of,
)

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Script:
    """A benchmark.

    hours: of one core, or, where it runs alone, of the machine: an estimate.
    needs: names of `NEEDS`, without which rows are missing.
    alone: whether it measures time that others would lengthen.
    """

    hours: float
    needs: tuple[str, ...] = ("data",)
    alone: bool = False


#: What a script may need: what it is, and whether it is there.
NEEDS = {
    "data": ("open volumes in ../shared/data", SHARED_DATA.is_dir),
    "bm4d": ("the peer BM4D (not for commercial use)", lambda: find_spec("bm4d")),
    "dipy": ("the peer MP-PCA", lambda: find_spec("dipy")),
    "video": ("PyAV with x265 and SVT-AV1", lambda: _has_codecs()),
    "listed": ("--data FOLDER …: further listed volumes", lambda: FURTHER in sys.argv),
    "cuda": ("an NVIDIA device", lambda: _has_cuda()),
}
SCRIPTS = {
    "enhancement": Script(0.8, ("data", "bm4d")),
    "sequences": Script(1.2, ("data", "dipy", "listed")),
    "real": Script(0.6, ("data", "bm4d", "dipy", "listed")),
    "real_ct": Script(0.1, ("data", "bm4d", "listed")),
    "denoising": Script(0.4, ("data", "bm4d", "listed")),
    "guidance": Script(0.1),
    "harm": Script(0.1),
    "faint_lesions": Script(0.4, ("data", "bm4d")),
    "noise": Script(0.1),
    "uncertainty": Script(0.1),
    "slices": Script(0.5),
    "segmentation": Script(0.4, ("data", "listed")),
    "gradprom": Script(1.1),
    "distillation": Script(8.0),
    "downstream": Script(0.1),
    "fuzz": Script(0.4, ()),
    "kills": Script(0.3, ()),
    "compression": Script(0.5, ("data", "video"), alone=True),
    "speed": Script(0.2, ("data", "bm4d"), alone=True),
    "dicom": Script(0.1, ("data",), alone=True),
    "cuda": Script(0.1, ("cuda",), alone=True),
}


def main() -> int:
    """Run the scripts. Returns the number of those that failed."""
    parser = parser_of(__doc__)
    parser.add_argument("--plan", action="store_true", help="only say what takes how long")
    options = parser.parse_args()
    unknown = sorted(set(options.only or ()) - SCRIPTS.keys())
    if unknown:
        parser.error(f"no script {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    names = options.only or list(SCRIPTS)
    words = [f"--{word}" for word in ("quick", "anew") if getattr(options, word)]
    words += ["--out", str(options.out)] if options.out else []
    words += [FURTHER, *map(str, options.data)] if options.data else []
    folder = options.out or RESULTS
    if options.gates_only:
        names = [name for name in names if (folder / f"{name}.json").is_file()]
        return sum(_in_this_process(name, [*words, "--gates-only"]) for name in names)
    if QUICK:
        return sum(_in_this_process(name, words) for name in names)
    present = {name for name in names if not options.anew and is_present(name, folder, words)}
    print("\n".join(plan(names, present)), flush=True)
    if options.plan:
        return 0
    names = [name for name in names if name not in present and _is_possible(name)]
    names.sort(key=lambda name: -SCRIPTS[name].hours)  # so that no long one is left for one core
    together = [name for name in names if not SCRIPTS[name].alone]

    def run(name: str) -> bool:
        return _in_a_process(name, words, threads=1 + SCRIPTS[name].alone)

    with ThreadPoolExecutor(2) as pool:
        failed = sum(pool.map(run, together))
    return failed + sum(run(name) for name in names if SCRIPTS[name].alone)


def plan(names: Iterable[str], present: Container[str]) -> Iterable[str]:
    """Lines: where it runs, each script with its hours and what is missing, and the sum.

    present: names of tables that are of the present state.
    """
    yield f"{commit()}, {machine()}"
    total = 0.0
    for name in names:
        script = SCRIPTS[name]
        if name in present:
            yield f"{name:16} of the present state"
            continue
        if not _is_possible(name):
            yield f"{name:16} not measured without {NEEDS['cuda'][0]}"
            continue
        missing = [NEEDS[need][0] for need in script.needs if not NEEDS[need][1]()]
        total += script.hours if script.alone else script.hours / 2
        how = "alone" if script.alone else "one core"
        yield f"{name:16} to be measured: {script.hours:.1f} h, {how}" + (
            f"; rows are missing without {', '.join(missing)}" if missing else ""
        )
    yield f"about {total:.1f} hours in all on two cores, less the parts of them that are measured"


def _in_a_process(name: str, words: Sequence[str], *, threads: int) -> bool:
    """Run a script with its output in runs; True where it failed."""
    log = KEPT / "logs" / f"{name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        status = subprocess.run(
            [sys.executable, str(HERE / f"{name}.py"), *words],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=stream, stderr=subprocess.STDOUT, check=False,
        ).returncode  # fmt: skip
    minutes = (time.monotonic() - began) / 60
    print(f"{name}: {'failed' if status else 'done'} after {minutes:.0f} min, {log}", flush=True)
    return bool(status)


def _in_this_process(name: str, words: Sequence[str]) -> bool:
    """The same here, as imports take most of the time; True where it failed."""
    began, given = time.process_time(), sys.argv
    sys.argv = [str(HERE / f"{name}.py"), *words]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        failed = bool(end.code)
    except Exception:  # noqa: BLE001 - the other scripts run, too
        traceback.print_exc()
        failed = True
    else:
        failed = False
    finally:
        sys.argv = given
    seconds = time.process_time() - began
    print(f"{name}: {'FAILED' if failed else 'ran'}, {seconds:.1f} CPU s", flush=True)
    return failed


def _has_codecs() -> bool:
    if not find_spec("av"):
        return False
    import av

    return {"libx265", "libsvtav1"} <= set(av.codecs_available)


def _is_possible(name: str) -> bool:
    """Whether anything of a script can be measured here."""
    return SCRIPTS[name].needs != ("cuda",) or _has_cuda()


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


if __name__ == "__main__":
    sys.exit(main())
