"""All benchmarks in one go, on two cores; tables of the present state (_common.py) are left out.

    python -m pip install -r Testing/Benchmarks/requirements.txt
    python Testing/Benchmarks/all.py                  hours; what was interrupted goes on
    python Testing/Benchmarks/all.py --only harm real
    python Testing/Benchmarks/all.py --quick          does every script run? small synthetic volumes
    python Testing/Benchmarks/all.py --gates-only     judge the rows of all JSON files anew

Two scripts run at a time, each on one core; those that measure time run alone, on both. What is not
installed or not there (peers, volumes, a card) is left out, and said by the script.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _common import FURTHER, KEPT, QUICK, RESULTS, is_present, parser_of

HERE = Path(__file__).resolve().parent
#: The longest first, so that none is left for one core.
SCRIPTS = (
    "distillation", "sequences", "gradprom", "enhancement", "real", "slices",
    "faint_lesions", "segmentation", "fuzz", "kills", "real_ct",
    "harm", "noise", "uncertainty", "bias_field", "scanner", "unpaired", "downstream",
    "compression", "speed", "dicom", "card",
)  # fmt: skip
#: Those that measure time, which others would lengthen.
ALONE = ("compression", "speed", "dicom", "card")


def main() -> int:
    """Run the scripts. Returns the number of those that failed."""
    parser = parser_of(__doc__)
    options = parser.parse_args()
    unknown = sorted({*(options.only or ())} - {*SCRIPTS})
    if unknown:
        parser.error(f"no script {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    names = [name for name in SCRIPTS if name in (options.only or SCRIPTS)]
    words = [f"--{word}" for word in ("quick", "anew") if getattr(options, word)]
    words += ["--out", str(options.out)] if options.out else []
    words += [FURTHER, *map(str, options.data)] if options.data else []
    folder = options.out or RESULTS
    if options.gates_only:
        names = [name for name in names if (folder / f"{name}.json").is_file()]
        return sum(_in_this_process(name, [*words, "--gates-only"]) for name in names)
    if QUICK:
        return sum(_in_this_process(name, words) for name in names)
    names = [name for name in names if options.anew or not is_present(name, folder, words)]
    print(f"to be measured: {', '.join(names) or 'nothing'}", flush=True)

    def run(name: str) -> bool:
        return _in_a_process(name, words, threads=2 if name in ALONE else 1)

    with ThreadPoolExecutor(2) as pool:
        failed = sum(pool.map(run, (name for name in names if name not in ALONE)))
    return failed + sum(run(name) for name in names if name in ALONE)


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


if __name__ == "__main__":
    sys.exit(main())
