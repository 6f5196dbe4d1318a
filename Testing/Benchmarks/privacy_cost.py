"""What differential privacy costs a distilled set, in dB on patients who were held out.

    python Testing/Benchmarks/privacy_cost.py               writes results/privacy_cost.json
    python Testing/Benchmarks/privacy_cost.py --matching    measures the rows of matching anew too

MR of soft-tissue sarcomas (STS), noise removed. Statistics of a cohort, and matching with a short
loop: few matches need less noise. Rows are kept in runs/privacy_cost: what was interrupted goes on
where it was.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _common import REPOSITORY, RESULTS, SHARED_DATA, commit, write

from MedEnhanceLib import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import (
    DistillConfig,
    DPConfig,
    ImageConfig,
    KeepingConfig,
    LoopConfig,
)
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.learning import restored_psnr, train_network
from MedEnhanceLib.spg.matching import Raw
from MedEnhanceLib.spg.patient import distill_patient
from MedEnhanceLib.spg.prepare import Prepared, prepare
from MedEnhanceLib.spg.privacy import noisy_steps
from MedEnhanceLib.spg.statistics import PROJECTED, imposed, mean_over, measure, noised_mean
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
LEARNING = KeepingConfig(steps=400, batch=8, patch=32, learning_rate=1e-3)
KEPT = REPOSITORY / "runs" / "privacy_cost"
FULL, DISTILLED, PRIOR = "all slices", "distilled", "the prior alone"
Row = dict[str, Any]


#: Of statistics: patients, seeds of training, draws of the noise, images in all.
COUNTS, SEEDS, DRAWS, IMAGES = (8, 16, 24, 40), (0, 1, 2), (0, 1, 2), 20
STATISTICS = replace(
    CONFIG, method="statistics", images_per_patient=IMAGES, held_out=1 / 3, intensities="cohort"
)
PRIVATE = (8.0, 1.0)
ALL, PUBLIC = "all their images", "the prior as it is public"
NUMBERS, FEW = "statistics, 101 numbers", f"statistics, {PROJECTED} numbers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--matching", action="store_true", help="measure matching anew")
    options = parser.parse_args()
    cohort = Cohort.open(SHARED_DATA / "mr" / "sts", pattern="MR_T1.nii.gz", modality="MR")
    rows = statistics_rows(prepare(cohort, STATISTICS, Monitor()))
    matching = measured_anew(cohort) if options.matching else published()
    write("privacy_cost", gates=[], rows=[*rows, *matching], seeds=SEEDS)


def published() -> list[Row]:
    """The rows of matching that the page has, with the commit that they were measured at."""
    record = json.loads((RESULTS / "privacy_cost.json").read_text(encoding="utf-8"))
    rows = [row for row in record["rows"] if row.get("method", "matching") == "matching"]
    return [{"method": "matching", "commit": record["commit"]} | row for row in rows]


def measured_anew(cohort: Cohort, seeds: Sequence[int] = (0, 1, 2, 3, 4)) -> list[Row]:
    found = {
        intensities: prepare(cohort, replace(CONFIG, intensities=intensities), Monitor())
        for intensities in ("cohort", "own")
    }
    found = {name: _fewer(prepared, 4) for name, prepared in found.items()}
    return [row for seed in seeds for row in rows_of(found, seed)]


def kept_row(name: str, make: Callable[[], Row]) -> Row:
    """A row from the folder of what was measured; made and stored where it is not there."""
    path = KEPT / f"{name}.json".replace(" ", "-")
    if not path.is_file():
        KEPT.mkdir(parents=True, exist_ok=True)
        row = make() | {"commit": commit()}
        path.write_text(json.dumps(row), encoding="utf-8")
        print(row, flush=True)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def private(epsilon: float) -> DistillConfig:
    return replace(STATISTICS, dp=DPConfig(epsilon=epsilon))


def statistics_rows(prepared: Prepared) -> list[Row]:
    """Every arm; noise for more patients than there are lies on the means of those there are."""
    people = list(prepared.training.values())
    held_out = np.concatenate(list(prepared.held_out.values()))
    found = [measure(images, "MR", STATISTICS.images) for images in people]
    images = prepared.prior.images
    prior = measure(images, "MR", STATISTICS.images)

    def of_four(count: int, epsilon: float | None, draw: int) -> Floats:
        taken = found[:count]
        noise = 0.0 if epsilon is None else noisy_steps(private(epsilon)).noise_multiplier
        means = noised_mean(
            taken,
            prior,
            clip=1.0,
            noise_multiplier=noise * len(taken) / count,
            rng=np.random.default_rng((draw, count)),
        )
        return imposed(images, means, "MR", STATISTICS.images)

    def of_all_numbers(count: int) -> Floats:
        return imposed(images, mean_over(found[:count]), "MR", STATISTICS.images)

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
        stated = {"method": "statistics", "arm": arm, "patients": count, "epsilon": epsilon}
        for seed in SEEDS:
            row = kept_row(
                f"statistics-{arm}-{count}-{epsilon}-{draw}-{seed}",
                lambda make=make, seed=seed: measured(make(), held_out, seed),
            )
            rows.append({**row, **stated, "draw": draw, "seed": seed})
    return rows


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
        row = kept_row(
            f"{arm}-{intensities}-{epsilon}-{seed}-{len(own.training)}",
            lambda images=images: measured(images(), held_out, seed),
        )
        row |= {"arm": arm, "intensities": intensities, "epsilon": epsilon, "seed": seed}
        noise = None if epsilon is None else multiplier(epsilon)
        rows.append(row | {"method": "matching", "noise_multiplier": noise})
    return rows


def measured(images: Floats, held_out: Floats, seed: int) -> Row:
    """What a network that learns from the images makes of held-out ones."""
    task = make_task(CONFIG, "MR")
    network = train_network(images, task, "MR", LEARNING, scaling=CONFIG.images, seed=seed)
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


if __name__ == "__main__":
    main()
