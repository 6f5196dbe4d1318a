"""What differential privacy costs a distilled set, in dB on patients who were held out.

    python Testing/Benchmarks/privacy_cost.py               writes docs/benchmarks/privacy_cost.*
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
from _common import DOCS, REPOSITORY, SHARED_DATA, commit, table, write

from MedEnhanceLib import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig, DPConfig, ImageConfig, LoopConfig
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.matching import Raw
from MedEnhanceLib.spg.patient import distill_patient
from MedEnhanceLib.spg.prepare import Prepared, prepare
from MedEnhanceLib.spg.privacy import noisy_steps
from MedEnhanceLib.spg.restorer import RestorerConfig, restored_psnr, train_restorer
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
RESTORER = RestorerConfig(network="srcnn", steps=400, patch=32)
_WEIGHTS = 10_900  # of the network that is matched
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
    text = page(rows) + "\n" + matching_section(matching)
    write("privacy_cost", text, gates=[], rows=[*rows, *matching], seeds=SEEDS)


def published() -> list[Row]:
    """The rows of matching that the page has, with the commit that they were measured at."""
    record = json.loads((DOCS / "privacy_cost.json").read_text(encoding="utf-8"))
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


def page(rows: list[Row]) -> str:
    """The first part of the page, on statistics."""
    floor = np.mean([row["damaged_db"] for row in rows])
    most = max(row["patients"] for row in rows if row["arm"] == ALL)
    seen: dict[tuple[str, float | None, int], list[float]] = {}
    for row in rows:
        which = row["arm"], row["epsilon"], row["patients"]
        seen.setdefault(which, []).append(row["restored_db"])
    public = np.mean(seen[PUBLIC, None, 0])
    lines = []
    for (arm, epsilon, patients), found in seen.items():
        noise = 0.0 if epsilon is None else noisy_steps(private(epsilon)).noise_multiplier
        lines.append(
            (
                arm,
                patients or "–",
                "–" if arm in (ALL, PUBLIC) else "∞" if epsilon is None else f"{epsilon:g}",
                f"{noise / patients:.2f}" if noise else "–",
                f"{np.mean(found):.2f}",
                f"{np.min(found):.2f} to {np.max(found):.2f}",
                "–" if arm == PUBLIC else f"{np.mean(found) - public:+.2f}",
            )
        )
    head = ("learned from", "patients", "ε", "noise", "dB", "range", "beyond the prior")
    useful = [
        f"ε = {epsilon:g} with {count} patients"
        for epsilon in PRIVATE
        for count in COUNTS
        if min(seen[FEW, epsilon, count]) > max(seen[PUBLIC, None, 0])
    ]
    useless = [
        f"ε = {epsilon:g} with {count}"
        for epsilon in PRIVATE
        for count in COUNTS
        if np.mean(seen[FEW, epsilon, count]) <= public
    ]
    return f"""# What differential privacy costs

MR of soft-tissue sarcomas (STS, CC BY 3.0), the task denoise: SRCNN learns for {RESTORER.steps}
steps and restores all slices of patients who were held out. PSNR over what shows tissue.

## Statistics of a cohort

`medenhance distill --method statistics --epsilon`: one noised sum of {PROJECTED} numbers over the
patients, δ = {DPConfig(epsilon=8.0).delta:g}, for a patient who is replaced by any other. {most}
patients to learn from, 8 held out; damaged: {floor:.2f} dB. Means and ranges over {len(SEEDS)}
seeds of training, with noise also {len(DRAWS)} draws of it. {IMAGES} images of the public template
in all. For more than {most} patients the noise for that many lies on the means of the {most} that
there are. Noise: its standard deviation on each mean, in clips.

{table(head, lines)}
- Better than the prior in every draw and seed: {"; ".join(useful) or "none"}.
- On average no better than the prior, which costs nothing: {"; ".join(useless) or "none"}.
- The units of the numbers were chosen on these patients, those held out too, and on CT of the same
  cohort: on others the default clip may fit less well.
"""


def matching_section(rows: list[Row]) -> str:
    """The second part of the page, on matching."""
    patients, held_out = 4, 3  # as `_fewer` and the split of CONFIG leave them
    seeds = len({row["seed"] for row in rows})
    at = ", ".join(sorted({row["commit"] for row in rows}))
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
    used = {row["epsilon"]: row["noise_multiplier"] for row in first if row["epsilon"]}
    shown = ", ".join(
        f"{noise * _WEIGHTS**0.5:.0f} times (ε = {epsilon:g})" for epsilon, noise in used.items()
    )
    now = ", ".join(f"{multiplier(epsilon):.2f} (ε = {epsilon:g})" for epsilon in used)
    gains = ", ".join(
        f"{gain(rows, epsilon):+.2f} dB "
        + ("without noise" if epsilon is None else f"at ε = {epsilon:g}")
        for epsilon in (None, *EPSILONS)
    )
    return f"""## Matching

Measured at {at}. {patients} patients are distilled into {CONFIG.images_per_patient} images each by
a short loop of {matches} matches, δ = {DELTA:g}; {held_out} patients were held out; damaged:
{floor:.2f} dB. Means over {seeds} seeds. The prior is the public template; with differential
privacy it keeps its own intensities, as those of the cohort are not covered by noise.

{table(head, lines)}
Every match is about one patient alone, so nobody hides among others: the noise on the {_WEIGHTS}
numbers of a gradient is as long as {shown} the clip. The present accountant asks for {now} clips.
Rows with ε are to be held against the prior alone with its own intensities, which reveals nothing
of anybody and costs nothing. What patients add to it: {gains}. A gain smaller than the range over
seeds is none.
"""


def gain(rows: list[Row], epsilon: float | None) -> float:
    """What distilling adds to the prior alone, both with the prior's own intensities, in dB."""
    own = [row for row in rows if row["intensities"] == "own"]
    after = [r["restored_db"] for r in own if (r["arm"], r["epsilon"]) == (DISTILLED, epsilon)]
    before = [r["restored_db"] for r in own if r["arm"] == PRIOR]
    return float(np.mean(after) - np.mean(before))


if __name__ == "__main__":
    main()
