"""The gradient gate against other ways to join two losses, on patients with outlined tumours.

    python Testing/Benchmarks/gradprom.py --jobs 2            writes results/gradprom.json
    python Testing/Benchmarks/gradprom.py --quick             a few steps, into runs/gradprom/quick

Every run is kept in runs/gradprom by its settings and by the code it ran: what was interrupted
goes on where it was. Each process takes one thread. Needs TorchJD for PCGrad and MGDA: pip install
torchjd.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import median

# Before PyTorch comes in: several processes run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from _common import REPOSITORY, RESULTS, write
from _gradprom_arms import MGDA_ARM, WEIGHTED, Settings
from _gradprom_costs import costs
from _gradprom_results import Results
from _gradprom_runs import REFERENCE, START, Run, cases_of, in_turn, kept, perform

WEIGHTS = (0.01, 0.1, 1.0, 10.0)
_TIMED = 25
_QUICK = {"alone": 6, "steps": 4, "batch": 2, "side": 48, "versions": 2, "patients": 4}


def main() -> None:
    options = parse()
    settings = {name: settings_for(name, options) for name in options.modality}
    # MGDA weighs both losses itself: a λ before it would be undone.
    arms = {arm: tuple(options.weights) for arm in WEIGHTED} | {MGDA_ARM: ()}
    done: list[Run] = []
    for one in settings.values():
        cases_of(one)
        for runs in in_turn(one, options.seeds, arms):
            perform_all(runs, options.jobs)
            done += runs
    results = gathered(done, settings, options)
    write(
        "gradprom",
        gates=results.gates(),
        rows=[*results.rows, *results.stories, *cost_rows(results)],
        seeds=options.seeds,
        folder=options.out,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modality", nargs="+", choices=("CT", "MR"), default=["CT", "MR"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--weights", nargs="+", type=float, default=list(WEIGHTS), help="λ")
    parser.add_argument("--budget", type=int, help="steps of the stage in which arms differ")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--quick", action="store_true", help="4 patients, 4 steps, 2 λ")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.out = REPOSITORY / "runs" / "gradprom" / "quick"
        options.weights = options.weights[::3]
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def settings_for(modality: str, options: argparse.Namespace) -> Settings:
    changes = dict(_QUICK) if options.quick else {}
    if options.budget:
        changes["steps"] = options.budget
    return Settings(modality=modality, **changes)


def perform_all(runs: list[Run], jobs: int) -> None:
    """What is not there yet; says what was done."""
    missing = [run for run in runs if kept(run) is None]
    began = time.monotonic()
    for number, run in enumerate(_performed(missing, jobs), 1):
        result = kept(run) or {}
        left = (time.monotonic() - began) / number * (len(missing) - number)
        print(
            f"{time.strftime('%H:%M:%S')} {number}/{len(missing)} {run}: {result.get('cpu_s')} "
            f"CPU s; {left / 60:.0f} min left of this part",
            flush=True,
        )


def _performed(runs: list[Run], jobs: int) -> Iterator[Run]:
    if jobs == 1:
        for run in runs:
            perform(run)
            yield run
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(perform, run): run for run in runs}
        for future in as_completed(futures):
            future.result()
            yield futures[future]


def gathered(
    runs: list[Run], settings: dict[str, Settings], options: argparse.Namespace
) -> Results:
    found = {run: kept(run) or {} for run in runs}
    stories = [
        {
            "modality": run.settings.modality,
            "arm": run.arm,
            "weight": run.weight,
            "seed": run.seed,
            "cpu_s": result["cpu_s"],
            **result.get("story", {}),
        }
        for run, result in found.items()
    ]
    seconds = {
        name: median(
            story["cpu_s"]
            for story in stories
            if story["modality"] == name and story["arm"] not in (START, REFERENCE)
        )
        for name in settings
    }
    timed = 2 if options.quick else _TIMED
    return Results(
        settings,
        tuple(options.weights),
        tuple(options.seeds),
        [row for result in found.values() for row in result["rows"]],
        stories,
        {name: costs(one, timed) for name, one in settings.items()},
        seconds,
    )


def cost_rows(results: Results) -> list[dict[str, object]]:
    return [
        {"modality": modality, "arm": arm, **entry}
        for modality, entries in results.costs.items()
        for arm, entry in entries.items()
    ]


if __name__ == "__main__":
    main()
