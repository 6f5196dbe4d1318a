"""Enhancement against its input, classical peers, on subjects nobody trained on.

    python Testing/Benchmarks/enhancement.py --jobs 2      central slabs, writes results
    python Testing/Benchmarks/enhancement.py --quick       thin slabs, writes runs/benchmarks
    python Testing/Benchmarks/enhancement.py --slices 0    whole volumes

Pairs are made here: a volume is the reference, its damaged copy the input. Arms see the input
alone. Results of slow peers are kept in runs. A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from _common import REPOSITORY, RESULTS, SHARED_DATA, write
from _enhancement_cache import run_kept
from _enhancement_catalog import Arm, find_arms
from _enhancement_data import (
    CASES,
    UNDAMAGED,
    Case,
    Subject,
    modality_of,
    refuse_trained,
    subject,
    subject_names,
)
from _enhancement_gates import gates
from _enhancement_lesions import contrast_kept, damaged_with_lesions, plant
from _enhancement_measures import measure
from _enhancement_peers import without_shading
from _enhancement_visibility import detectability

from MedEnhanceLib.core.imaging import robust_max

Row = dict[str, Any]
PLANTED, VISIBLE = "planted lesions", "visibility of planted lesions"


@dataclass(frozen=True)
class Task:
    """One damaged volume for all arms; the unit that processes share."""

    subject: str
    case: str
    seed: int


def main() -> None:
    options = parse()
    names = subject_names(options.data, options.modality)
    refuse_trained(names)
    rows: list[Row] = []
    for found in measured(list(tasks(names, options)), options):
        rows += found
    reached = gates(rows)
    write("enhancement", gates=reached, rows=rows, seeds=options.seeds, folder=options.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="6 slices, seed 0")
    parser.add_argument("--slices", type=int, default=16, help="central ones; 0 takes all")
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of open volumes")
    parser.add_argument("--modality", choices=("MR", "CT"), help="only this one")
    parser.add_argument("--arms", nargs="+", help="only these, e.g. NLM ours")
    parser.add_argument("--cases", nargs="+", help="only these, e.g. composite")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--mr-model", default="mr", help="bundle name or folder")
    parser.add_argument("--ct-model", default="ct", help="bundle name or folder")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.slices, options.seeds = 6, [0]
    options.out = options.out or (REPOSITORY / "runs" / "benchmarks" if options.quick else RESULTS)
    return options


def tasks(names: list[str], options: argparse.Namespace) -> Iterator[Task]:
    """What matters most first, so that an interrupted run has it."""
    damage = [
        (seed, place, Task(name, case.name, seed))
        for name in names
        for place, case in enumerate((*CASES[modality_of(name)], UNDAMAGED))
        for seed in options.seeds
        if not (case.once and seed != options.seeds[0])
    ]
    found = [task for _, _, task in sorted(damage, key=lambda entry: entry[:2])]
    found += [Task(name, PLANTED, options.seeds[0]) for name in names]
    return (task for task in found if not options.cases or task.case in options.cases)


def measured(todo: list[Task], options: argparse.Namespace) -> Iterator[list[Row]]:
    if options.jobs == 1:
        for task in todo:
            yield work(task, options)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        futures = {pool.submit(work, task, options): place for place, task in enumerate(todo)}
        done = {futures[future]: future.result() for future in as_completed(futures)}
    yield from (done[place] for place in sorted(done))


def work(task: Task, options: argparse.Namespace) -> list[Row]:
    """All arms on one damaged volume, in this process, on one thread, as BM4D."""
    import torch

    torch.set_num_threads(1)
    arms = arms_here(modality_of(task.subject), options)
    known = subject(task.subject, options.data, options.slices)
    if task.case == PLANTED:
        return list(on_lesions(task, known, arms))
    every = (*CASES[known.modality], UNDAMAGED)
    case = next(case for case in every if case.name == task.case)
    is_quick = case.once or task.seed != options.seeds[0]
    return list(on_damage(task, known, case, [arm for arm in arms if not (arm.slow and is_quick)]))


_FOUND: dict[str, list[Arm]] = {}


def arms_here(modality: str, options: argparse.Namespace) -> list[Arm]:
    """Found once in each process."""
    if modality not in _FOUND:
        _FOUND[modality] = find_arms(modality, options)[0]
    return _FOUND[modality]


def on_damage(task: Task, known: Subject, case: Case, arms: list[Arm]) -> Iterator[Row]:
    """All arms on one damaged volume; where there is shading, followed by N4 as well."""
    degraded = known.damaged(case, task.seed)
    for arm in arms:
        if not arm.takes(case) or (case is UNDAMAGED and arm.name == "input"):
            continue
        run = arm.run
        if arm.informed and case.noise is not None:
            run = partial(run, sigma=case.noise * robust_max(known.volume.voxels))
        result, seconds = run_kept(run, arm.settings, degraded, keep=arm.keep)
        yield printed(heading(task, known, arm.name, seconds) | measure(known, case, result))
        if case.shaded and arm.corrected:
            name = "N4" if arm.name == "input" else f"{arm.name} + N4"
            shaded = known.volume.with_voxels(result)
            flat, more = run_kept(without_shading, "", shaded, keep=False)
            yield printed(heading(task, known, name, seconds + more) | measure(known, case, flat))


def on_lesions(task: Task, known: Subject, arms: list[Arm]) -> Iterator[Row]:
    """What becomes of planted lesions, in the first case that has them."""
    case = next(case for case in CASES[known.modality] if case.planted)
    degraded = known.damaged(case, task.seed)
    added, lesions = plant(known, task.seed)
    planted = damaged_with_lesions(known, case, task.seed, degraded, added)
    head_row = heading(task, known, "matched filter", 0.0) | {"case": VISIBLE}
    yield head_row | {"d_prime": detectability(known, degraded, lesions)}
    for arm in arms:
        if arm.special or arm.slow:
            continue
        without, _ = run_kept(arm.run, arm.settings, degraded, keep=arm.keep)
        with_lesions, seconds = run_kept(arm.run, arm.settings, planted, keep=arm.keep)
        kept = contrast_kept(without, with_lesions, lesions)
        row = heading(task, known, arm.name, seconds)
        yield printed(row | {"planted_kept": [round(share, 3) for share in kept]})


def heading(task: Task, known: Subject, arm: str, seconds: float) -> Row:
    size = known.volume.voxels.size
    return {
        "subject": task.subject,
        "modality": known.modality,
        "case": task.case,
        "seed": task.seed,
        "arm": arm,
        "cpu_s": round(seconds, 2),
        "cpu_s_per_mvoxel": round(seconds / size * 1e6, 2),
    }


def printed(row: Row) -> Row:
    figures = {
        key: f"{row[key]:.3g}"
        for key in ("psnr_foreground", "ssim_foreground", "cpu_s")
        if key in row
    }
    print(
        " · ".join((row["subject"], row["case"], str(row["seed"]), row["arm"])), figures, flush=True
    )
    return row


if __name__ == "__main__":
    main()
