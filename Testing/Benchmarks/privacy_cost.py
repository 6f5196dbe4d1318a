"""What differential privacy costs a distilled set, in dB on patients who were held out.

    python Testing/Benchmarks/privacy_cost.py    writes results/privacy_cost.json

MR of soft-tissue sarcomas (STS), noise removed, by statistics of a cohort. Rows are kept in
runs/privacy_cost: what was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _common import REPOSITORY, SHARED_DATA, commit, write

from MedEnhanceLib import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import (
    DistillConfig,
    DPConfig,
    ImageConfig,
    LoopConfig,
)
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.learning import Learning, restored_psnr, train_network
from MedEnhanceLib.spg.prepare import Prepared, prepare
from MedEnhanceLib.spg.privacy import noise_multiplier
from MedEnhanceLib.spg.statistics import PROJECTED, imposed, mean_over, measure, noised_mean
from MedEnhanceLib.spg.tasks import make_task

#: Patients, seeds of training, draws of the noise, images in all.
COUNTS, SEEDS, DRAWS, IMAGES = (8, 16, 24, 40), (0, 1, 2), (0, 1, 2), 20
CONFIG = DistillConfig(
    task="denoise",
    images_per_patient=IMAGES,
    held_out=1 / 3,
    images=ImageConfig(size=64, spacing_mm=1.5),
    loop=LoopConfig(patch=32),
    device="cpu",
)
LEARNING = Learning(steps=400, batch=8, patch=32, rate=1e-3)
KEPT = REPOSITORY / "runs" / "privacy_cost"
Row = dict[str, Any]
PRIVATE = (8.0, 1.0)
ALL, PUBLIC = "all their images", "the prior as it is public"
NUMBERS, FEW = "statistics, 101 numbers", f"statistics, {PROJECTED} numbers"


def main() -> None:
    cohort = Cohort.open(SHARED_DATA / "mr" / "sts", pattern="MR_T1.nii.gz", modality="MR")
    rows = statistics_rows(prepare(cohort, CONFIG, Monitor()))
    write("privacy_cost", gates=[], rows=rows, seeds=SEEDS)


def kept_row(name: str, make: Callable[[], Row]) -> Row:
    """A row from the folder of what was measured; made and stored where it is not there."""
    path = KEPT / f"{name}.json".replace(" ", "-")
    if not path.is_file():
        KEPT.mkdir(parents=True, exist_ok=True)
        row = make() | {"commit": commit()}
        path.write_text(json.dumps(row), encoding="utf-8")
        print(row, flush=True)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def statistics_rows(prepared: Prepared) -> list[Row]:
    """Every arm; noise for more patients than there are lies on the means of those there are."""
    people = list(prepared.training.values())
    held_out = np.concatenate(list(prepared.held_out.values()))
    found = [measure(images, "MR") for images in people]
    images = prepared.prior.images
    prior = measure(images, "MR")

    def of_four(count: int, epsilon: float | None, draw: int) -> Floats:
        taken = found[:count]
        noise = 0.0 if epsilon is None else noise_multiplier(DPConfig(epsilon=epsilon))
        means = noised_mean(
            taken,
            prior,
            noise_multiplier=noise * len(taken) / count,
            rng=np.random.default_rng((draw, count)),
        )
        return imposed(images, means, "MR")

    def of_all_numbers(count: int) -> Floats:
        return imposed(images, mean_over(found[:count]), "MR")

    arms: list[tuple[str, int, float | None, int, Callable[[], Floats]]] = [
        (PUBLIC, 0, None, 0, lambda: images),
        (ALL, len(people), None, 0, lambda: np.concatenate(people)),
    ]
    for count in (8, len(people)):
        arms.append((NUMBERS, count, None, 0, partial(of_all_numbers, count)))
        arms.append((FEW, count, None, 0, partial(of_four, count, None, 0)))
    for epsilon in PRIVATE:
        for count in COUNTS:
            arms += [
                (FEW, count, epsilon, draw, partial(of_four, count, epsilon, draw))
                for draw in DRAWS
            ]
    rows = []
    for arm, count, epsilon, draw, make in arms:
        stated = {"arm": arm, "patients": count, "epsilon": epsilon}
        for seed in SEEDS:
            row = kept_row(
                f"statistics-{arm}-{count}-{epsilon}-{draw}-{seed}",
                lambda make=make, seed=seed: measured(make(), held_out, seed),
            )
            rows.append({**row, **stated, "draw": draw, "seed": seed})
    return rows


def measured(images: Floats, held_out: Floats, seed: int) -> Row:
    """What a network that learns from the images makes of held-out ones."""
    task = make_task(CONFIG, "MR")
    network = train_network(images, task, "MR", LEARNING, seed=seed)
    damaged, restored = restored_psnr(network, held_out, task, "MR", seed=1)
    return {"images": len(images), "damaged_db": damaged, "restored_db": restored}


if __name__ == "__main__":
    main()
