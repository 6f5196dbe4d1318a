"""Enhancement against its input, classical peers, on subjects nobody trained on.

    python Testing/Benchmarks/enhancement.py --jobs 2      central slabs, writes results
    python Testing/Benchmarks/enhancement.py --quick       thin slabs, writes runs/benchmarks
    python Testing/Benchmarks/enhancement.py --slices 0    whole volumes

Pairs are made here: a volume is the reference, its damaged copy the input. Arms see the input
alone. What was measured before, by the same code on the same voxels, is read from
runs/enhancement-rows. A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from _common import REPOSITORY, RESULTS, SHARED_DATA, write
from _enhancement_cache import RowStore, key_of, measures_code, run_kept
from _enhancement_catalog import Arm, find_arms
from _enhancement_data import (
    CASES,
    REAL_SCANS,
    UNDAMAGED,
    Case,
    Subject,
    fingerprint,
    modality_of,
    real_scan,
    refuse_trained,
    subject,
    subject_names,
)
from _enhancement_gates import gates
from _enhancement_lesions import contrast_kept, damaged_with_lesions, plant
from _enhancement_measures import measure, measure_real
from _enhancement_peers import without_shading
from _enhancement_visibility import detectability

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import robust_max

Row = dict[str, Any]
REAL, PLANTED = "real scan", "planted lesions"
VISIBLE = "visibility of planted lesions"


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
    if options.measure_only:
        return
    if options.keep_rows:
        now = {_identity(row) for row in rows}
        former = json.loads(options.keep_rows.read_text())["rows"]
        rows += [row for row in former if _identity(row) not in now]
    reached = gates(rows)
    write("enhancement", gates=reached, rows=rows, seeds=options.seeds, folder=options.out)


def _identity(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in ("subject", "case", "seed", "arm"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="6 slices, seed 0")
    parser.add_argument("--slices", type=int, default=16, help="central ones; 0 takes all")
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of open volumes")
    parser.add_argument("--modality", choices=("MR", "CT"), help="only this one")
    parser.add_argument("--arms", nargs="+", help="only these, e.g. NLM ours")
    parser.add_argument("--cases", nargs="+", help="only these, e.g. composite")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--slow-seeds", nargs="*", type=int, default=[0], help="of BM4D")
    parser.add_argument("--thorough", action="store_true", help="BM4D on all kinds of damage")
    parser.add_argument("--mr-model", default="mr", help="bundle name or folder")
    parser.add_argument("--ct-model", default="ct", help="bundle name or folder")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument(
        "--keep-rows",
        type=Path,
        help="results of an earlier run: its rows that are not measured now",
    )
    parser.add_argument("--measure-only", action="store_true", help="rows alone, no results")
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
    if options.modality != "CT":
        found += [Task(n, REAL, 0) for n in REAL_SCANS if (options.data / n).is_file()]
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
    store = RowStore(task.subject)
    if task.case == REAL:
        return list(on_real_scan(task, arms, store, options))
    known = subject(task.subject, options.data, options.slices)
    if task.case == PLANTED:
        return list(on_lesions(task, known, arms, store, options))
    every = (*CASES[known.modality], UNDAMAGED)
    case = next(case for case in every if case.name == task.case)
    return list(on_damage(task, known, case, arms, store, options))


_FOUND: dict[str, list[Arm]] = {}


def arms_here(modality: str, options: argparse.Namespace) -> list[Arm]:
    """Found once in each process."""
    if modality not in _FOUND:
        _FOUND[modality] = find_arms(modality, options)[0]
    return _FOUND[modality]


def too_slow(task: Task, beside: bool, options: argparse.Namespace) -> bool:
    """Whether minutes of BM4D are not spent here: on other seeds, or beside what gates need."""
    return task.seed not in options.slow_seeds or (beside and not options.thorough)


def on_damage(
    task: Task,
    known: Subject,
    case: Case,
    arms: list[Arm],
    store: RowStore,
    options: argparse.Namespace,
) -> Iterator[Row]:
    degraded = known.damaged(case, task.seed)
    given = fingerprint(degraded)
    for arm in arms:
        if not arm.takes(case) or (arm.slow and too_slow(task, case.once, options)):
            continue
        if case is UNDAMAGED and arm.name == "input":
            continue
        key = key_of(arm.settings, given, case.name, task.seed, measures_code())
        row = store.find(key)
        if row is None:
            row = store.add(key, row_of(task, known, case, degraded, arm))
        yield row
        if case.shaded and arm.corrected:
            key = key_of(key, "N4")
            row = store.find(key)
            if row is None:
                row = store.add(key, corrected_row(task, known, case, degraded, arm))
            yield row


def row_of(task: Task, known: Subject, case: Case, degraded: Volume, arm: Arm) -> Row:
    run, settings = arm.run, arm.settings
    if arm.informed and case.noise is not None:
        run = partial(run, sigma=case.noise * robust_max(known.volume.voxels))
    result, seconds = run_kept(run, settings, degraded, keep=arm.keep)
    row = heading(task, known, arm.name, seconds) | measure(known, case, degraded, result)
    if case.key and known.modality == "MR" and task.seed == 0:
        from _enhancement_labels import measure_labels

        row |= measure_labels(known, result)
    return printed(row)


def corrected_row(task: Task, known: Subject, case: Case, degraded: Volume, arm: Arm) -> Row:
    """The arm's result with N4 after it."""
    run, settings = arm.run, arm.settings
    result, seconds = run_kept(run, settings, degraded, keep=arm.keep)
    flat, more = run_kept(without_shading, "", known.volume.with_voxels(result), keep=False)
    name = "N4" if arm.name == "input" else f"{arm.name} + N4"
    return printed(
        heading(task, known, name, seconds + more) | measure(known, case, degraded, flat)
    )


def on_lesions(
    task: Task, known: Subject, arms: list[Arm], store: RowStore, options: argparse.Namespace
) -> Iterator[Row]:
    """What becomes of planted lesions, in the first case that has them."""
    case = next(case for case in CASES[known.modality] if case.planted)
    degraded = known.damaged(case, task.seed)
    added, lesions = plant(known, task.seed)
    planted = damaged_with_lesions(known, case, task.seed, degraded, added)
    head_row = heading(task, known, "matched filter", 0.0) | {"case": VISIBLE}
    yield head_row | {"d_prime": detectability(known, degraded, lesions)}
    given = fingerprint(planted)
    for arm in arms:
        if arm.special or (arm.slow and too_slow(task, True, options)):
            continue
        run, settings = arm.run, arm.settings
        key = key_of(settings, given, PLANTED, task.seed, measures_code())
        row = store.find(key)
        if row is None:
            without, _ = run_kept(run, settings, degraded, keep=arm.keep)
            with_lesions, seconds = run_kept(run, settings, planted, keep=arm.keep)
            row = heading(task, known, arm.name, seconds)
            kept = contrast_kept(without, with_lesions, lesions)
            row["planted_kept"] = [round(share, 3) for share in kept]
            row = store.add(key, printed(row))
        yield row


def on_real_scan(
    task: Task, arms: list[Arm], store: RowStore, options: argparse.Namespace
) -> Iterator[Row]:
    scan = real_scan(task.subject, options.data)
    for arm in arms:
        if arm.special or (arm.slow and too_slow(task, True, options)):
            continue
        run, settings = arm.run, arm.settings
        key = key_of(settings, fingerprint(scan), REAL, measures_code())
        row = store.find(key)
        if row is None:
            result, seconds = run_kept(run, settings, scan, keep=arm.keep)
            row = {"subject": task.subject, "modality": "MR", "case": REAL, "seed": 0}
            row |= {"arm": arm.name, "cpu_s": round(seconds, 2)} | measure_real(scan, result)
            row = store.add(key, printed(row))
        yield row


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
        for key in ("psnr_foreground", "ssim_foreground", "noise_left", "high_pass_spread", "cpu_s")
        if key in row
    }
    print(
        " · ".join((row["subject"], row["case"], str(row["seed"]), row["arm"])), figures, flush=True
    )
    return row


if __name__ == "__main__":
    main()
