"""Runs of the comparison: each is trained and measured once, and kept as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from _enhancement_cache import code_hash, key_of
from _gradprom_arms import ALONE, OURS, RANDOM, Learner, Settings
from _gradprom_data import FOLDER, Case, load_cases, split
from _gradprom_segmenters import (
    SEGMENTERS,
    enhanced_volume,
    make_segmenter,
    train_segmenter,
    tumour_in,
)
from torch import nn

from MedEnhanceLib.core import metrics

Row = dict[str, Any]
START, REFERENCE = "start", "reference"
#: What a result depends on. Pages and gates are not part of it.
CODE = (
    "_gradprom_data.py",
    "_gradprom_arms.py",
    "_gradprom_segmenters.py",
    "_gradprom_runs.py",
    "MedEnhanceLib/gradprom/gate.py",
    "MedEnhanceLib/gradprom/gradients.py",
    "MedEnhanceLib/gradprom/task.py",
    "MedEnhanceLib/gradprom/train.py",
    "MedEnhanceLib/gradprom/head.py",
    "MedEnhanceLib/nets/training.py",
    "MedEnhanceLib/degrade/lowdose.py",
    "MedEnhanceLib/degrade/image.py",
    "MedEnhanceLib/core/metrics.py",
)


@dataclass(frozen=True)
class Run:
    """One training: of an arm, of the start that all arms share, or of the references."""

    settings: Settings
    arm: str
    seed: int
    weight: float | None = None

    @property
    def key(self) -> str:
        return key_of(self.settings, self.arm, self.seed, self.weight, code_hash(*CODE))

    @property
    def path(self) -> Path:
        return FOLDER / "runs" / f"{self.key}.json"

    @property
    def weights(self) -> Path:
        return FOLDER / "weights" / f"{self.key}.safetensors"

    def sibling(self, arm: str, weight: float | None = None) -> Run:
        return Run(self.settings, arm, self.seed, weight)

    def __str__(self) -> str:
        weight = "" if self.weight is None else f", λ = {self.weight:g}"
        return f"{self.settings.modality}, {self.arm}{weight}, seed {self.seed}"


def kept(run: Run) -> dict[str, Any] | None:
    """The result of a run, where it is there."""
    if not run.path.is_file():
        return None
    found: dict[str, Any] = json.loads(run.path.read_text(encoding="utf-8"))
    return found


def perform(run: Run) -> dict[str, Any]:
    """Train and measure, or read what was measured; one thread, for others run beside it."""
    known = kept(run)
    if known:
        return known
    torch.set_num_threads(1)
    began, processor = time.monotonic(), time.process_time()
    if run.arm == START:
        result = _start(run)
    elif run.arm == REFERENCE:
        result = _references(run)
    else:
        result = _arm(run)
    result["wall_s"] = round(time.monotonic() - began, 1)
    result["cpu_s"] = round(time.process_time() - processor, 1)
    _write(run.path, result)
    return result


@lru_cache(maxsize=2)
def cases_of(settings: Settings) -> list[Case]:
    return load_cases(settings.modality, settings.damage, settings.versions, most=settings.patients)


def _start(run: Run) -> dict[str, Any]:
    train, _ = split(cases_of(run.settings), run.seed)
    learner = Learner(run.settings, train, run.seed)
    for number in range(run.settings.alone):
        learner.step_alone(number)
    run.weights.parent.mkdir(parents=True, exist_ok=True)
    learner.save(run.weights)
    return {"rows": [], "story": learner.story()}


def _references(run: Run) -> dict[str, Any]:
    """Segmenters without an enhancer, and the degraded images themselves."""
    from safetensors.torch import save_file

    train, test = split(cases_of(run.settings), run.seed)
    trained = {name: train_segmenter(name, run.settings, train, run.seed) for name in SEGMENTERS}
    run.weights.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}/{key}": value.contiguous()
        for name, network in trained.items()
        for key, value in network.state_dict().items()
    }
    save_file(tensors, run.weights)
    rows = []
    for case in test:
        degraded = case.noisy[0]
        rows.append(_row(run, case) | fidelity(case, degraded) | {"state": "degraded"})
        for name, network in trained.items():
            for state, image in (("clean", case.clean), ("degraded", degraded)):
                dice = metrics.dice(case.tumour, tumour_in(network, image), 1)
                rows.append(_row(run, case) | {"segmenter": name, "state": state, "dice": dice})
    return {"rows": rows}


def _arm(run: Run) -> dict[str, Any]:
    settings = run.settings
    train, test = split(cases_of(settings), run.seed)
    learner = Learner(
        settings,
        train,
        run.seed,
        run.arm,
        1.0 if run.weight is None else run.weight,
        _open_fraction(run) if run.arm == RANDOM else 0.0,
    )
    learner.load(run.sibling(START).weights)
    for number in range(settings.alone, settings.total):
        learner.step(number)
    others = _trained_references(run.sibling(REFERENCE))
    rows = [
        _row(run, case)
        | measured(case, learner.average.module, learner.task.average.module, others)
        for case in test
    ]
    return {"rows": rows, "story": learner.story()}


def _open_fraction(run: Run) -> float:
    """Of our gate at the same λ and seed, which must have run before."""
    ours = kept(run.sibling(OURS, run.weight))
    if ours is None:
        raise RuntimeError(f"{run} needs the open fraction of {OURS!r}")
    fraction: float = ours["story"]["open_fraction"]
    return fraction


def _trained_references(run: Run) -> dict[str, nn.Module]:
    from safetensors.torch import load_file

    tensors = load_file(run.weights)
    networks = {}
    for name in SEGMENTERS:
        network = make_segmenter(name, run.settings)
        head = f"{name}/"
        network.load_state_dict(
            {key.removeprefix(head): t for key, t in tensors.items() if key.startswith(head)}
        )
        networks[name] = network
    return networks


def measured(
    case: Case, enhancer: nn.Module, head: nn.Module, others: dict[str, nn.Module]
) -> dict[str, Any]:
    """What an enhancer does to one test patient, by the image and by what segmenters see in it."""
    image = enhanced_volume(enhancer, case.noisy[0])
    found = {
        "dice": metrics.dice(case.tumour, tumour_in(head, image), 1),
        "dice_on_clean": metrics.dice(case.tumour, tumour_in(head, case.clean), 1),
        "dice_on_degraded": metrics.dice(case.tumour, tumour_in(head, case.noisy[0]), 1),
    }
    for name, network in others.items():
        found[f"dice_of {name}"] = metrics.dice(case.tumour, tumour_in(network, image), 1)
    return fidelity(case, image) | found


def fidelity(case: Case, image: Any) -> dict[str, float]:
    """In the body, on the network's scale, whose span is 1."""
    return {
        "psnr": metrics.psnr(case.clean, image, 1.0, mask=case.body),
        "ssim": metrics.ssim(case.clean, image, 1.0, mask=case.body),
    }


def _row(run: Run, case: Case) -> Row:
    return {
        "modality": run.settings.modality,
        "arm": run.arm,
        "weight": run.weight,
        "seed": run.seed,
        "subject": case.subject,
    }


def _write(path: Path, value: object) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value) + "\n", encoding="utf-8")
    partial.replace(path)


def in_turn(
    settings: Settings, seeds: list[int], arms: dict[str, tuple[float, ...]]
) -> Iterator[list[Run]]:
    """Runs in three turns, each of which needs what the one before it left behind.

    arms: the λ of each; an arm without any runs once, for it has none.
    """
    yield [Run(settings, name, seed) for seed in seeds for name in (START, REFERENCE)]
    runs = [
        Run(settings, arm, seed, weight)
        for seed in seeds
        for arm, weights in {ALONE: (), **arms}.items()
        for weight in weights or (None,)
    ]
    yield [run for run in runs if run.arm != RANDOM]
    yield [run for run in runs if run.arm == RANDOM]
