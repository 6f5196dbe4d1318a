"""Enhancement against its input, classical peers, on subjects nobody trained on.

    python Testing/Benchmarks/enhancement.py

Pairs are made here: the central slices of a volume are the reference, their damaged copy the input.
Arms see the input alone. Results of slow peers are kept in runs. A peer that is not installed is
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import QUICK, SHARED_DATA, Gate, Part, Row, at_least, gate, least, run
from _enhancement_data import (
    CASES,
    CLEANED,
    STARVED,
    Case,
    Floats,
    Mask,
    Subject,
    modality_of,
    refuse_trained,
    run_kept,
    subject,
    subject_names,
)
from _enhancement_lesions import contrast_kept, damaged_with_lesions, plant
from _enhancement_peers import bm4d_ct, bm4d_mr, nlm_ct, nlm_mr, without_shading
from _enhancement_statistics import Difference, difference, difference_gate, mean_of
from scipy.ndimage import binary_dilation

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance

PLANTED = "planted lesions"
SLICES, SEEDS = (5, (0,)) if QUICK else (12, (0, 1, 2))
#: BM4D with the σ that was added: what it could reach with a perfect estimate.
INFORMED = "BM4D, true σ"
#: What is left alone to the last bit would count as infinite in a mean.
_MOST_DB = 99.0


def parts() -> Iterator[Part]:
    names = subject_names(SHARED_DATA)
    refuse_trained(names)
    for task in tasks(names[1::3] if QUICK else names):
        yield f"{task.subject} {task.case} {task.seed}", partial(work, task)


# --- arms


@dataclass(frozen=True)
class Arm:
    """One way to enhance.

    settings: names the way and its settings; results are kept by it. slow: measured with the first
    seed only, and its results are kept. shaded: only where there is shading. corrected: N4 after it
    makes a further arm there. informed: takes the true σ as well, where the damage is white noise
    alone.
    """

    name: str
    run: Callable[..., Volume]
    settings: str
    slow: bool = False
    shaded: bool = False
    corrected: bool = False
    informed: bool = False

    def takes(self, case: Case) -> bool:
        return (case.shaded or not self.shaded) and (case.noise is not None or not self.informed)


@cache
def arms_of(modality: str) -> list[Arm]:
    """The arms for a modality that are installed."""
    is_mr = modality == "MR"
    arms = [
        Arm("input", lambda volume: volume, "input"),
        Arm("NLM", nlm_mr if is_mr else nlm_ct, f"NLM {modality} 1", slow=True),
        # All of the noise, as the peers; what the default keeps: faint_lesions.py.
        Arm("ours", _enhanced if is_mr else partial(_enhanced, for_viewing=True), "ours"),
    ]
    if is_mr:
        on_request = partial(_enhanced, correct_bias_field=True)
        arms.append(Arm("ours + N4", on_request, "ours + N4", shaded=True))
    if find_spec("bm4d"):
        bm4d = bm4d_mr if is_mr else bm4d_ct
        arms.append(Arm("BM4D", bm4d, f"BM4D {modality} 1", slow=True, corrected=True))
        if is_mr:
            arms.append(Arm(INFORMED, bm4d_mr, "BM4D MR true 1", slow=True, informed=True))
    return arms


def _enhanced(volume: Volume, **fields: Any) -> Volume:
    return enhance(volume, EnhanceConfig(device="cpu", **fields)).volume


# --- rows


@dataclass(frozen=True)
class Task:
    """One damaged volume for all arms."""

    subject: str
    case: str
    seed: int


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


def on_damage(task: Task, known: Subject, case: Case, arms: list[Arm]) -> Iterator[Row]:
    """All arms on one damaged volume; where there is shading, followed by N4 as well."""
    degraded = known.damaged(case, task.seed)
    for arm in arms:
        if not arm.takes(case):
            continue
        run_arm = arm.run
        if arm.informed and case.noise is not None:
            run_arm = partial(run_arm, sigma=case.noise * robust_max(known.volume.voxels))
        result, _ = run_kept(run_arm, arm.settings, degraded, keep=arm.slow)
        yield heading(task, known, arm.name) | measured(known, result)
        if case.shaded and arm.corrected:
            flat = without_shading(known.volume.with_voxels(result)).voxels.astype(np.float32)
            yield heading(task, known, f"{arm.name} + N4") | measured(known, flat)


def on_lesions(task: Task, known: Subject, arm: Arm) -> Iterator[Row]:
    """What becomes of planted lesions, in the first case that has them."""
    case = next(case for case in CASES[known.modality] if case.planted)
    degraded = known.damaged(case, task.seed)
    added, lesions = plant(known, task.seed)
    planted = damaged_with_lesions(known, case, task.seed, degraded, added)
    without, present = (arm.run(volume).voxels for volume in (degraded, planted))
    kept = contrast_kept(without, present, lesions)
    yield heading(task, known, arm.name) | {"planted_kept": [round(share, 3) for share in kept]}


def heading(task: Task, known: Subject, arm: str) -> Row:
    return vars(task) | {"modality": known.modality, "arm": arm}


def measured(known: Subject, result: Floats) -> Row:
    """PSNR, and contrast of real lesions."""
    row: Row = {
        f"psnr_{region}": min(
            metrics.psnr(known.volume.voxels, result, known.span, mask=mask), _MOST_DB
        )
        for region, mask in (("image", None), ("foreground", known.inside))
    }
    if known.lesion is not None and known.lesion.any():
        shown, true = (_contrast(v, known.lesion, known.inside) for v in
                       (result, known.volume.voxels))  # fmt: skip
        row["lesion_contrast_kept"] = shown / true
    return row


def _contrast(voxels: npt.NDArray[Any], lesion: Mask, inside: Mask) -> float:
    """Mean of the lesions less that of the tissue 2 to 3 voxels around them."""
    near = binary_dilation(lesion, iterations=1)
    ring = binary_dilation(near, iterations=2) & ~near & inside
    return float(voxels[lesion].mean()) - float(voxels[ring].mean())


# --- goals

#: dB over BM4D that are wanted, and why they are missed.
OVER_BM4D = {
    "MR": (0.5, "at weak noise in finely resolved brains BM4D, which is given the true σ, is "
                "better"),
    "CT": (0.8, "from 20,000 photons a ray on BM4D, which is given the spectrum, is nearly as "
                "good"),
}  # fmt: skip
OVER_BM4D_STARVED = {"low dose 5e3": 0.3, "low dose 2e4": 7.0, "low dose 1e5": 7.0}


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Goals, each with its interval where it is a difference."""
    yield _starved([row for row in rows if row["subject"] == STARVED])
    # Through a whole abdomen photons starve: it has a goal of its own, for each dose.
    rows = [row for row in rows if row["subject"] != STARVED]
    cleaned, rows = (
        [row for row in rows if row["subject"].endswith(CLEANED) is is_cleaned]
        for is_cleaned in (True, False)
    )
    for modality, (bound, why) in OVER_BM4D.items():
        gains = [
            (gain, peer)
            for of in (rows, cleaned)
            for case in CASES[modality]
            for peer in ("BM4D", INFORMED)
            if not case.shaded and (gain := _lead(of, case.name, peer)) is not None
        ]
        gain, peer = min(gains, key=lambda entry: entry[0].mean, default=(None, "BM4D"))
        name = f"{modality}: above {peer}, PSNR, dB, least over levels of noise"
        is_met = gain is not None and gain.mean >= bound
        reason = "BM4D is not installed" if gain is None else why
        yield difference_gate(name, gain, f"≥ {bound:g}", is_met, reason)
    brains = [row for row in rows if row["arm"] == "ours" and row["modality"] == "MR"]
    planted = [share for row in brains for share in row.get("planted_kept", ())]
    real = [mean_of(brains, "lesion_contrast_kept", case=case.name) for case in CASES["MR"]]
    means = [float(np.mean(planted)) if planted else None, *real]
    kept = [value for value in means if value is not None]
    # Contrast is neither to be lost nor made up.
    yield gate(
        "MR: lesions, planted (mean) and real (C07), contrast kept, farthest kind of damage",
        max(kept, key=lambda value: abs(value - 1), default=None), "0.92 to 1.1",
        bool(kept) and 0.92 <= min(kept) <= max(kept) <= 1.1,
        "the blur of the composite damage lowers their contrast; strong noise hides the smallest",
    )  # fmt: skip


def _lead(rows: list[Row], case: str, peer: str) -> Difference | None:
    return difference(rows, "psnr_foreground", [(case, "ours", peer)])


def _starved(rows: list[Row]) -> Gate:
    """The abdomen, each dose by its goal over BM4D."""
    margins = []
    for case, goal in OVER_BM4D_STARVED.items():
        gain = difference(rows, "psnr_image", [(case, "ours", "BM4D")])
        margins.append(None if gain is None else gain.mean - goal)
    goals = ", ".join(f"{goal:g}" for goal in OVER_BM4D_STARVED.values())
    return at_least(
        f"abdomen: above BM4D, PSNR, dB, least above its goal ({goals} by dose)", least(margins), 0,
        "at 5,000 photons BM4D sees noise of low frequency better",
    )  # fmt: skip


if __name__ == "__main__":
    run("enhancement", __doc__, parts, gates_of, seeds=SEEDS)
