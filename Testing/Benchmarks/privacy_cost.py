"""What differential privacy costs a distilled set, in dB on patients who were held out.

    python Testing/Benchmarks/privacy_cost.py     writes docs/benchmarks/privacy_cost.*

MR of soft-tissue sarcomas (STS), noise removed. A short loop: few matches need less noise.
Rows are kept in runs/privacy_cost: what was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _common import REPOSITORY, SHARED_DATA, table, write

from MedEnhanceLib import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig, DPConfig, ImageConfig, LoopConfig
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.matching import Raw
from MedEnhanceLib.spg.patient import distill_patient
from MedEnhanceLib.spg.prepare import Prepared, prepare
from MedEnhanceLib.spg.privacy import noisy_steps
from MedEnhanceLib.spg.restorer import RestorerConfig, restored_psnr, train_restorer
from MedEnhanceLib.spg.tasks import make_task

EPSILONS = (100.0, 8.0)
DELTA = 1e-3
CONFIG = DistillConfig(
    task="denoise",
    images_per_patient=2,
    held_out=0.3,
    images=ImageConfig(size=64, spacing_mm=1.5),
    loop=LoopConfig(outer=4, inner=10, teaching=1, patch=32, batch=8),
    device="cpu",
)
RESTORER = RestorerConfig(network="srcnn", steps=400, patch=32)
_WEIGHTS = 10_900  # of the network that is matched
KEPT = REPOSITORY / "runs" / "privacy_cost"
FULL, DISTILLED, PRIOR = "all slices", "distilled", "the prior alone"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--patients", type=int, default=4, help="that are learned from")
    options = parser.parse_args()
    cohort = Cohort.open(SHARED_DATA / "mr" / "sts", pattern="MR_T1.nii.gz", modality="MR")
    found = {
        intensities: prepare(cohort, replace(CONFIG, intensities=intensities), Monitor())
        for intensities in ("cohort", "own")
    }
    found = {name: _fewer(prepared, options.patients) for name, prepared in found.items()}
    rows = [row for seed in options.seeds for row in rows_of(found, seed)]
    some = found["own"]
    text = page(rows, len(some.training), len(some.held_out), len(options.seeds))
    write("privacy_cost", text, gates=[], rows=rows, seeds=options.seeds)


def _fewer(prepared: Prepared, count: int) -> Prepared:
    kept = list(prepared.training)[:count]
    return replace(prepared, training={name: prepared.training[name] for name in kept})


def rows_of(found: dict[str, Prepared], seed: int) -> list[Row]:
    """Every arm with one seed of distillation and training; what was measured is kept."""
    own = found["own"]
    config = replace(CONFIG, seed=seed, intensities="own")
    held_out = np.concatenate(list(own.held_out.values()))
    arms: list[tuple[str, str, float | None, Callable[[], Floats]]] = [
        (FULL, "–", None, lambda: np.concatenate(list(own.training.values())))
    ]
    for name, prepared in found.items():
        arms.append((PRIOR, name, None, partial(getattr, prepared.prior, "images")))
        arms.append((DISTILLED, name, None, partial(distilled, prepared, config, seed)))
    for epsilon in EPSILONS:
        noised = replace(config, dp=DPConfig(epsilon=epsilon, delta=DELTA))
        arms.append((DISTILLED, "own", epsilon, partial(distilled, own, noised, seed)))
    rows = []
    for arm, intensities, epsilon, images in arms:
        name = f"{arm}-{intensities}-{epsilon}-{seed}-{len(own.training)}.json".replace(" ", "-")
        kept = KEPT / name
        if not kept.is_file():
            KEPT.mkdir(parents=True, exist_ok=True)
            row = measured(images(), held_out, seed)
            row |= {"arm": arm, "intensities": intensities, "epsilon": epsilon, "seed": seed}
            row["noise_multiplier"] = None if epsilon is None else multiplier(epsilon)
            kept.write_text(json.dumps(row), encoding="utf-8")
            print(row, flush=True)
        rows.append(json.loads(kept.read_text(encoding="utf-8")))
    return rows


def measured(images: Floats, held_out: Floats, seed: int) -> Row:
    """What a network that learns from the images makes of held-out ones."""
    task = make_task(CONFIG, "MR")
    chosen = replace(RESTORER, seed=seed)
    network = train_restorer(images, task, "MR", chosen, scaling=CONFIG.images)
    damaged, restored = restored_psnr(network, held_out, task, "MR", seed=1, scaling=CONFIG.images)
    return {"images": len(images), "damaged_db": damaged, "restored_db": restored}


def distilled(prepared: Prepared, config: DistillConfig, seed: int) -> Floats:
    """All patients' images. The noise has the seed as its secret: nobody gets this set."""
    parts = [
        distill_patient(
            Raw(images, prepared.prior.images, "MR", number), config, "cpu", secret=seed
        ).images
        for number, images in enumerate(prepared.training.values())
    ]
    return np.concatenate(parts)


def multiplier(epsilon: float) -> float:
    return noisy_steps(replace(CONFIG, dp=DPConfig(epsilon=epsilon, delta=DELTA))).noise_multiplier


def page(rows: list[Row], patients: int, held_out: int, seeds: int) -> str:
    matches = CONFIG.loop.outer * CONFIG.loop.inner
    floor = np.mean([row["damaged_db"] for row in rows])
    first = [row for row in rows if row["seed"] == rows[0]["seed"]]
    lines = []
    for row in first:
        same = [
            other["restored_db"]
            for other in rows
            if (other["arm"], other["intensities"], other["epsilon"])
            == (row["arm"], row["intensities"], row["epsilon"])
        ]
        noise = row["noise_multiplier"]
        is_distilled = row["arm"] == DISTILLED
        lines.append(
            (
                row["arm"],
                row["intensities"],
                ("∞" if is_distilled else "–") if noise is None else f"{row['epsilon']:g}",
                "–" if noise is None else f"{noise:.2f}",
                row["images"],
                f"{np.mean(same):.2f}",
                f"{np.max(same) - np.min(same):.2f}",
            )
        )
    head = ("learned from", "intensities", "ε", "noise, clips", "images", "dB", "range over seeds")
    shown = ", ".join(
        f"{multiplier(epsilon) * _WEIGHTS**0.5:.0f} times (ε = {epsilon:g})" for epsilon in EPSILONS
    )
    gains = ", ".join(
        f"{gain(rows, epsilon):+.2f} dB "
        + ("without noise" if epsilon is None else f"at ε = {epsilon:g}")
        for epsilon in (None, *EPSILONS)
    )
    return f"""# What differential privacy costs

MR of soft-tissue sarcomas (STS, CC BY 3.0), the task denoise: {patients} patients are distilled
into {CONFIG.images_per_patient} images each by a short loop of {matches} matches, δ = {DELTA:g};
SRCNN learns from the images for {RESTORER.steps} steps and restores all slices of {held_out}
patients who were held out. PSNR over what shows tissue; damaged: {floor:.2f} dB. Means over
{seeds} seeds. The prior is the public template; with differential privacy it keeps its own
intensities, as those of the cohort are not covered by noise.

{table(head, lines)}
Every match is about one patient alone, so nobody hides among others: the noise on the {_WEIGHTS}
numbers of a gradient is as long as {shown} the clip. Rows with ε are to be held against the prior
alone with its own intensities, which reveals nothing of anybody and costs nothing. What patients
add to it: {gains}. A gain smaller than the range over seeds is none.
"""


def gain(rows: list[Row], epsilon: float | None) -> float:
    """What distilling adds to the prior alone, both with the prior's own intensities, in dB."""
    own = [row for row in rows if row["intensities"] == "own"]
    after = [r["restored_db"] for r in own if (r["arm"], r["epsilon"]) == (DISTILLED, epsilon)]
    before = [r["restored_db"] for r in own if r["arm"] == PRIOR]
    return float(np.mean(after) - np.mean(before))


if __name__ == "__main__":
    main()
