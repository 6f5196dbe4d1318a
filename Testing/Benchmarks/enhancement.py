"""Enhancement against its input, classical peers, on subjects nobody trained on.

    python Testing/Benchmarks/enhancement.py

Pairs are made here: the central slices of a volume are the reference, their damaged copy the input.
Arms see the input alone. Results of slow peers are kept in runs. A peer that is not installed is
left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial

from _common import QUICK, SHARED_DATA, Part, Row, run
from _enhancement_cache import run_kept
from _enhancement_catalog import Arm, find_arms
from _enhancement_data import (
    CASES,
    Case,
    Subject,
    modality_of,
    refuse_trained,
    subject,
    subject_names,
)
from _enhancement_gates import gates
from _enhancement_lesions import contrast_kept, damaged_with_lesions, plant
from _enhancement_measures import measured
from _enhancement_peers import without_shading

from MedEnhanceLib.core.arrays import robust_max

PLANTED = "planted lesions"
SLICES, SEEDS = (5, (0,)) if QUICK else (12, (0, 1, 2))


@dataclass(frozen=True)
class Task:
    """One damaged volume for all arms."""

    subject: str
    case: str
    seed: int


def parts() -> Iterator[Part]:
    names = subject_names(SHARED_DATA)
    refuse_trained(names)
    for task in tasks(names[1::3] if QUICK else names):
        yield f"{task.subject} {task.case} {task.seed}", partial(work, task)


def tasks(names: list[str]) -> Iterator[Task]:
    """What matters most first, so that an interrupted run has it."""
    damage = [
        (seed, place, Task(name, case.name, seed))
        for name in names
        for place, case in enumerate(CASES[modality_of(name)][: 1 if QUICK else None])
        for seed in SEEDS
    ]
    yield from (task for _, _, task in sorted(damage, key=lambda entry: entry[:2]))
    yield from (Task(name, PLANTED, SEEDS[0]) for name in names)


def work(task: Task) -> Iterator[Row]:
    """All arms on one damaged volume, on one thread, as BM4D."""
    arms = arms_of(modality_of(task.subject))
    known = subject(task.subject, SHARED_DATA, SLICES)
    if task.case == PLANTED:
        return on_lesions(task, known, next(arm for arm in arms if arm.name == "ours"))
    case = next(case for case in CASES[known.modality] if case.name == task.case)
    is_first = task.seed == SEEDS[0]
    return on_damage(task, known, case, [arm for arm in arms if is_first or not arm.slow])


@cache
def arms_of(modality: str) -> list[Arm]:
    return find_arms(modality)


def on_damage(task: Task, known: Subject, case: Case, arms: list[Arm]) -> Iterator[Row]:
    """All arms on one damaged volume; where there is shading, followed by N4 as well."""
    degraded = known.damaged(case, task.seed)
    for arm in arms:
        if not arm.takes(case):
            continue
        run = arm.run
        if arm.informed and case.noise is not None:
            run = partial(run, sigma=case.noise * robust_max(known.volume.voxels))
        result, seconds = run_kept(run, arm.settings, degraded, keep=arm.keep)
        yield heading(task, known, arm.name, seconds) | measured(known, case, result)
        if case.shaded and arm.corrected:
            name = f"{arm.name} + N4"
            shaded = known.volume.with_voxels(result)
            flat, more = run_kept(without_shading, "", shaded, keep=False)
            yield heading(task, known, name, seconds + more) | measured(known, case, flat)


def on_lesions(task: Task, known: Subject, arm: Arm) -> Iterator[Row]:
    """What becomes of planted lesions, in the first case that has them."""
    case = next(case for case in CASES[known.modality] if case.planted)
    degraded = known.damaged(case, task.seed)
    added, lesions = plant(known, task.seed)
    planted = damaged_with_lesions(known, case, task.seed, degraded, added)
    without, _ = run_kept(arm.run, arm.settings, degraded, keep=arm.keep)
    with_lesions, seconds = run_kept(arm.run, arm.settings, planted, keep=arm.keep)
    kept = contrast_kept(without, with_lesions, lesions)
    row = heading(task, known, arm.name, seconds)
    yield row | {"planted_kept": [round(share, 3) for share in kept]}


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


if __name__ == "__main__":
    run("enhancement", __doc__, parts, gates, seeds=SEEDS)
