"""An enhancer made for a frozen segmenter: what it finds more, over what that costs in fidelity.

    python Testing/Benchmarks/budget.py --jobs 2     writes results/budget.json
    python Testing/Benchmarks/budget.py --tasks MR   measures this task again; the other one's rows
                                                     stay as they are
    python Testing/Benchmarks/budget.py --quick      a few steps, into runs/budget/quick

All arms go on from the same first half of the training, on the same batches; patients that are
tested are seen by neither segmenter nor enhancer. Every run is kept in runs/budget. Needs TorchJD
for PCGrad: pip install torchjd.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Before PyTorch comes in: several processes run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from _budget_tasks import FOLDER, TASKS, Case, Task, load_cases, volume_of, with_view
from _common import RESULTS, commit, gate, write
from _enhancement_cache import code_hash, key_of
from _enhancement_statistics import Row, difference, difference_gate, mean_of
from _gradprom_data import split
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.gradprom import AdaptConfig, GateReport, GradientGate
from MedEnhanceLib.gradprom.adapt import (
    MULTIPLE,
    Learner,
    Sampler,
    Tuned,
    between,
    chosen_share,
    compared,
)
from MedEnhanceLib.gradprom.gradients import Gradient, Parameters, named
from MedEnhanceLib.gradprom.segmenters import Segmenter
from MedEnhanceLib.jobs.kinds.train_adapted import AfterFilter, make_network

CODE = (
    "_budget_tasks.py",
    "MedEnhanceLib/gradprom/adapt.py",
    "MedEnhanceLib/gradprom/budget.py",
    "MedEnhanceLib/gradprom/gate.py",
    "MedEnhanceLib/hqg/network.py",
)
NOISY, FILTERED, TWIN, UNDAMAGED = "noisy", "filtered", "enhancement alone", "undamaged"
#: The product's default, dB.
OURS = "budget 0.1"
BUDGETS = (0.03, 0.1, 0.3)
_WEIGHTS = (0.3, 1.0, 3.0)
#: How far above the budget a test may end, dB.
_TOLERANCE = 0.02
_STEPS = 300


@dataclass(frozen=True)
class Arm:
    """A way to join both gradients. weight: relative λ where it is not steered; None: budget."""

    name: str
    mode: str
    weight: float | None = None
    budget: float = 1.0
    ema: float = 0.0


ARMS = (
    *(Arm(f"joint, λ {weight:g}", "joint", weight) for weight in _WEIGHTS),
    Arm("PCGrad, λ 1", "pcgrad", 1.0),
    Arm("gate as published, λ 1", "binary", 1.0),
    Arm("gate on averages, λ 1", "binary", 1.0, ema=0.99),
    *(Arm(f"budget {budget:g}", "project", budget=budget) for budget in BUDGETS),
    Arm("budget 0.1, without a gate", "joint", budget=0.1),
)


class PcGrad(GradientGate):
    """TorchJD's PCGrad in the place of a gate; λ multiplies the task's gradient."""

    def admit(
        self, main: Sequence[Gradient], aux: Sequence[Gradient], parameters: Parameters
    ) -> tuple[list[Gradient], GateReport]:
        from torchjd.aggregation import PCGrad

        _, wanted = named(parameters)
        known = [g is not None and a is not None for g, a in zip(main, aux, strict=True)]
        rows = [
            torch.cat([g.flatten() for g, is_known in zip(side, known, strict=True) if is_known])
            for side in (main, [None if a is None else self.weight * a for a in aux])
        ]
        joined = PCGrad()(torch.stack(rows))
        parts = iter(joined.split([p.numel() for p, k in zip(wanted, known, strict=True) if k]))
        gradients = [
            next(parts).view_as(p) if is_known else own
            for p, own, is_known in zip(wanted, main, known, strict=True)
        ]
        cosine = float(F.cosine_similarity(rows[0], rows[1], dim=0))
        return gradients, GateReport(True, cosine, cosine, cosine, 1.0)


class Fixed(Tuned):
    """As the product's, with what an arm says otherwise."""

    def __init__(
        self, config: AdaptConfig, network: nn.Module, segmenter: Segmenter, arm: Arm
    ) -> None:
        mode = "joint" if arm.mode == "pcgrad" else arm.mode
        chosen = replace(config, gate=mode, gate_ema=arm.ema, budget=arm.budget)
        super().__init__(chosen, network, segmenter, "cpu")
        if arm.mode == "pcgrad":
            self.gate = PcGrad("joint", ema=0.0)
        if arm.weight is not None:
            self.budget.fix(arm.weight)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [task.name for task in TASKS]
    parser.add_argument("--tasks", nargs="+", default=names, choices=names)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=_STEPS)
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--quick", action="store_true", help="4 patients, 6 steps, 1 seed")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.seeds = 6, [0]
    folder = FOLDER / "quick" if options.quick else RESULTS
    tasks = [task for task in TASKS if task.name in options.tasks]
    others = [task.name for task in TASKS if task not in tasks]
    kept = kept_rows(folder / "budget.json", others, options.seeds, options.steps)
    facts = {"steps": options.steps, "commit": commit()}
    for task in tasks:
        load_cases(task, 4 if options.quick else 0)
    runs = [(task, seed, options.steps, options.quick) for task in tasks for seed in options.seeds]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        found = [row for rows in pool.map(performed, *zip(*runs, strict=True)) for row in rows]
    rows = kept + [row | facts for row in found]
    shown = [task for task in TASKS if any(row["case"] == task.name for row in rows)]
    rows = [row for task in shown for row in rows if row["case"] == task.name]
    gates = [one for task in shown for one in gates_of(rows, task)]
    write("budget", gates=gates, rows=rows, seeds=options.seeds, folder=folder)


def kept_rows(path: Path, tasks: Sequence[str], seeds: list[int], steps: int) -> list[Row]:
    """Rows of tasks that are not measured now, as they are, with the commit of each.

    Args:
        path: of the page's JSON; none is nothing to keep.
        tasks: names.
        seeds, steps: of what is measured now.

    Raises SystemExit where rows are of other seeds or steps: one page states both for all tasks.
    """
    if not path.is_file():
        return []
    record = json.loads(path.read_text(encoding="utf-8"))
    # Pages that were written in one go have neither commit nor steps in their rows.
    older = {"steps": _STEPS, "commit": record["commit"]}
    rows = [older | row for row in record["rows"] if row["case"] in tasks]
    if rows and (record["seeds"] != list(seeds) or any(row["steps"] != steps for row in rows)):
        raise SystemExit(f"{path.name} has {', '.join(tasks)} of other seeds or steps: run all")
    return rows


def performed(task: Task, seed: int, steps: int, quick: bool) -> list[Row]:
    """Train all arms of a seed and measure them, or read what was measured."""
    torch.set_num_threads(1)
    path = FOLDER / "rows" / f"{_key(task, seed, steps, quick)}.json"
    if path.is_file():
        found: list[Row] = json.loads(path.read_text(encoding="utf-8"))
        return found
    began = time.process_time()
    cases = load_cases(task, 4 if quick else 0)
    learned, tested = split(cases, seed)
    segmenter = task.segmenter(learned, seed)
    learned, tested = ([with_view(task, c, segmenter) for c in part] for part in (learned, tested))
    rows = list(_trained(task, seed, steps, segmenter, learned, tested))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    print(f"{task.name}, seed {seed}: {time.process_time() - began:.0f} CPU s", flush=True)
    return rows


def _key(task: Task, seed: int, steps: int, quick: bool) -> str:
    return key_of(task.name, seed, steps, quick, task.weights, code_hash(*CODE))


def _trained(
    task: Task,
    seed: int,
    steps: int,
    segmenter: Segmenter,
    learned: list[Case],
    tested: list[Case],
) -> Iterator[Row]:
    config = AdaptConfig(modality=task.modality, steps=steps, seed=seed)
    sampler = Sampler([case.example for case in learned], config)
    twin = Learner(config, AfterFilter(make_network(config)), "cpu")
    arms = {arm: Fixed(config, AfterFilter(make_network(config)), segmenter, arm) for arm in ARMS}
    begins = round(config.start * steps)
    for number in range(steps):
        slabs = sampler.batch(number)
        images, _ = twin.step(slabs, number)
        for tuned in arms.values():
            if number >= begins:
                tuned.tune(slabs, images, number)
            if number + 1 == begins:
                tuned.follow(twin)

    def measured(arm: str, images: list[np.ndarray], **facts: Any) -> Iterator[Row]:
        for case, image in zip(tested, images, strict=True):
            found = segmenter.find(volume_of(task, image))
            yield {
                "case": task.name,
                "subject": case.subject,
                "seed": seed,
                "arm": arm,
                **({"segmenter": task.weights} if task.weights else {}),
                **_figures(case, image, found, len(segmenter.labels)),
                **facts,
            }

    yield from measured(UNDAMAGED, [case.example.clean for case in tested])
    yield from measured(NOISY, [case.noisy for case in tested])
    yield from measured(FILTERED, [case.filtered for case in tested])
    yield from measured(TWIN, _images(twin.average.module.eval(), tested))
    for arm, tuned in arms.items():
        share = 1.0
        if arm.weight is None:
            share = chosen_share(compared(twin, tuned, sampler, "cpu"), arm.budget)
        network = between(twin, tuned, share)
        summary = tuned.gate.diagnostics()
        facts = {"share": share, "weight": tuned.budget.relative_weight, "cosine": summary.cosine}
        yield from measured(arm.name, _images(network, tested), **facts)


@torch.inference_mode()
def _images(network: nn.Module, cases: list[Case]) -> list[np.ndarray]:
    found = []
    for case in cases:
        rows, columns = case.noisy.shape[1:]
        short = (0, -columns % MULTIPLE, 0, -rows % MULTIPLE)
        pair = (
            F.pad(torch.from_numpy(image)[None], short, mode="replicate")
            for image in (case.noisy, case.filtered)
        )
        found.append(network(*pair)[0, :, :rows, :columns].numpy())
    return found


def _figures(case: Case, image: np.ndarray, found: np.ndarray, labels: int) -> dict[str, Any]:
    example = case.example
    error = float(np.square((image - example.clean)[example.inside]).mean())
    scores = [
        dice(example.target, found, index)
        for index in range(1, labels + 1)
        if (example.target == index).any()
    ]
    psnr = -10 * math.log10(error) if error > 0 else None
    return {"psnr": psnr, "dice": float(np.mean(scores))}


def gates_of(rows: list[Row], task: Task) -> Iterator[dict[str, Any]]:
    own = [row for row in rows if row["case"] == task.name]
    seeds = sorted({row["seed"] for row in own})
    for budget in BUDGETS:
        costs = [cost_of(own, f"budget {budget:g}", seed) for seed in seeds]
        yield gate(
            f"{task.name}: cost at a budget of {budget:g} dB, worst seed, dB",
            max(costs),
            f"≤ {budget + _TOLERANCE:g}",
            max(costs) <= budget + _TOLERANCE,
        )
    gained = difference(own, "dice", [(task.name, OURS, TWIN)])
    yield difference_gate(
        f"{task.name}: Dice at a budget of 0.1 dB less enhancement alone",
        gained,
        "> 0, interval too",
        gained is not None and gained.low > 0,
    )
    for budget in BUDGETS:
        above = above_joint(own, f"budget {budget:g}")
        yield gate(
            f"{task.name}: Dice at a budget of {budget:g} dB less joint training at that PSNR",
            above,
            "≥ 0",
            above >= 0,
        )


def cost_of(rows: list[Row], arm: str, seed: int) -> float:
    """Mean PSNR of the twin less the arm's."""
    figures = [mean_of(rows, "psnr", arm=name, seed=seed) for name in (TWIN, arm)]
    assert figures[0] is not None
    assert figures[1] is not None
    return figures[0] - figures[1]


def above_joint(rows: list[Row], arm: str) -> float:
    """Dice less that of the line through joint training's points at the same PSNR, all seeds."""
    names = (TWIN, *(one.name for one in ARMS if one.mode == "joint" and one.weight is not None))
    line = sorted((_mean(rows, "psnr", name), _mean(rows, "dice", name)) for name in names)
    psnr, found = _mean(rows, "psnr", arm), _mean(rows, "dice", arm)
    return found - float(np.interp(psnr, *zip(*line, strict=True)))


def _mean(rows: list[Row], figure: str, arm: str) -> float:
    found = mean_of(rows, figure, arm=arm)
    assert found is not None
    return found


if __name__ == "__main__":
    main()
