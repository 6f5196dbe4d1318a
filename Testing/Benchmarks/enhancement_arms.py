"""Trains the peers and ablations of the enhancement benchmark, all within the same CPU seconds.

    python Testing/Benchmarks/enhancement_arms.py                    MR, seeds 0 1 2
    python Testing/Benchmarks/enhancement_arms.py --networks cut     only this one

Adversarial peers are first tried at two learning rates, without the recipe's last subject, which
shows the better one. Leaves weights (safetensors) and a record (JSON) of each network and seed in
runs/enhancement-arms/<modality>. What is there for the same configuration is not trained again,
so that an interrupted run goes on where it was. enhancement.py measures what it finds there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _common import SHARED_DATA, commit, machine
from _trained_arms import ARMS, ARMS_FOLDER, answers, enhance, rebuilt, still_answers
from _trained_common import Data, Make, bench_config
from _trained_hqg import (
    PublishedHqg,
    deterministic_cue,
    no_guidance,
    no_normalization,
    no_shrinkage,
    no_unpaired,
    recipe,
    toggled,
    trained_with,
)
from _trained_peers import Cut, CycleGan, Noise2Void, PairedUNet

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.manifest import file_sha256
from MedEnhanceLib.core.options import config_to_json
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import LowDose, robust_max, standard_composite
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.io import load

_TRIAL_STEPS = 1000
_WARM_UP, _TIMED = 3, 12
_TRIAL_SLICES = 24
_RATES = (8e-4, 2e-4)


@dataclass(frozen=True)
class Network:
    """What is trained; batch: None takes the benchmark's.

    rates: learning rates to try; none takes the recipe's.
    """

    make: Make
    batch: int | None = None
    rates: tuple[float, ...] = ()


NETWORKS = {
    "hqg": Network(trained_with(recipe)),
    "paired": Network(PairedUNet),
    "cyclegan": Network(CycleGan, batch=1, rates=_RATES),
    "cut": Network(Cut, batch=1, rates=_RATES),
    "noise2void": Network(Noise2Void),
    "published": Network(PublishedHqg, rates=_RATES),
    "no-guidance": Network(trained_with(no_guidance)),
    "no-unpaired": Network(trained_with(no_unpaired)),
    "wavelet": Network(trained_with(toggled("wavelet"))),
    "feature": Network(trained_with(toggled("feature"))),
    "identity": Network(trained_with(toggled("identity"))),
    "deterministic-cue": Network(trained_with(deterministic_cue)),
    "no-normalisation": Network(trained_with(no_normalization)),
    "no-shrinkage": Network(trained_with(no_shrinkage)),
}


def main() -> None:
    options = parse()
    folder = options.folder / options.modality
    folder.mkdir(parents=True, exist_ok=True)
    config = bench_config(options.modality)
    data = Data.load(config)
    steps = steps_within(options.budget, options.networks, config, data, folder / "steps")
    jobs = [(seed, name) for seed in options.seeds for name in options.networks]
    for number, (seed, name) in enumerate(jobs, 1):
        rate = best_rate(name, config, data, steps[name], folder)
        chosen = configured(config, NETWORKS[name], seed, steps[name], rate)
        stem = folder / f"{name}-{seed}"
        known = record_of(stem)
        if known and known["config"] == as_json(chosen):
            say(number, jobs, f"{name}, seed {seed}: is there")
            continue
        record = train(name, chosen, data, stem) | {"budget_s": options.budget}
        write_json(stem.with_suffix(".json"), record)
        say(
            number,
            jobs,
            f"{name}, seed {seed}: {record['steps']} steps in {record['cpu_s']} CPU s, "
            f"{record['wall_s']} s; "
            + ", ".join(f"{term} {value:.4f}" for term, value in record["losses"].items()),
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modality", choices=("MR", "CT"), default="MR")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=75.0, help="CPU seconds of each training")
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--folder", type=Path, default=ARMS_FOLDER)
    return parser.parse_args()


def configured(
    config: TrainConfig, network: Network, seed: int, steps: int, rate: float | None = None
) -> TrainConfig:
    """The weights that are kept average over the last tenth of the steps, however many."""
    return replace(
        config,
        seed=seed,
        steps=steps,
        batch=network.batch or config.batch,
        learning_rate=rate or config.learning_rate,
        ema=max(0.0, 1 - 10 / steps),
    )


def steps_within(
    budget_s: float, names: Sequence[str], config: TrainConfig, data: Data, known: Path
) -> dict[str, int]:
    """How many steps of each network fit in `budget_s` CPU seconds.

    All are timed in turn, a step each, so that what else runs on the machine slows all of them
    alike; the middle of 12 steps over the whole schedule counts. Kept in `known`, for
    resuming: what is added later is timed beside the paired network and scaled to it.
    """
    path = known.with_suffix(f".{budget_s:g}s.txt")
    steps: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    missing = [name for name in names if name not in steps]
    if not missing:
        return steps
    seconds = step_seconds(sorted({*missing, "paired"}), config, data)
    of_paired = steps.get("paired") or budget_s / seconds["paired"]
    for name in {*missing, "paired"}:
        steps[name] = steps.get(name) or max(
            20, round(of_paired * seconds["paired"] / seconds[name])
        )
    write_json(path, steps)
    return steps


def step_seconds(names: Sequence[str], config: TrainConfig, data: Data) -> dict[str, float]:
    learners = {
        name: NETWORKS[name].make(configured(config, NETWORKS[name], 0, _TRIAL_STEPS), data)
        for name in names
    }
    taken: dict[str, list[float]] = {name: [] for name in names}
    # Not a multiple of any schedule's period: each part of a step comes up as often as it will.
    numbers = np.linspace(0, _TRIAL_STEPS - 1, _WARM_UP + _TIMED).astype(int)
    for number in np.random.default_rng(0).permutation(numbers):
        for name, learner in learners.items():
            began = time.process_time()
            learner.step(int(number))
            taken[name].append(time.process_time() - began)
    return {
        name: statistics.fmean(sorted(values[_WARM_UP:])[1:-1]) for name, values in taken.items()
    }


def best_rate(name: str, config: TrainConfig, data: Data, steps: int, folder: Path) -> float | None:
    """The learning rate that is best on the recipe's last subject, trained on the others."""
    network = NETWORKS[name]
    if not network.rates:
        return None
    *others, last = data.high
    fewer = Data({subject: data.high[subject] for subject in others}, data.low)
    (folder / "trials").mkdir(exist_ok=True)
    scores = {}
    for rate in network.rates:
        chosen = configured(config, network, 0, steps, rate)
        stem = folder / "trials" / f"{name}-{round(rate * 1e6)}e-6"
        record = record_of(stem)
        if not record or record["config"] != as_json(chosen) or "psnr_db" not in record:
            record = train(name, chosen, fewer, stem)
            write_json(stem.with_suffix(".json"), record)
            record["psnr_db"] = trial_psnr(name, stem, last, config.modality)
            write_json(stem.with_suffix(".json"), record)
            print(f"trial of {name} at {rate:g}: {record['psnr_db']:.2f} dB", flush=True)
        scores[record["psnr_db"]] = rate
    return scores[max(scores)]


def trial_psnr(name: str, stem: Path, subject: str, modality: str) -> float:
    """PSNR, dB, of the middle slices of a subject after the damage that the test is about."""
    whole = load(SHARED_DATA / subject, modality=modality)
    first = max(0, whole.shape[0] // 2 - _TRIAL_SLICES // 2)
    clean = Volume(whole.voxels[first : first + _TRIAL_SLICES], whole.geometry, modality)
    damage = standard_composite(0) if modality == "MR" else LowDose(5e3, 5.0, 0)
    use = next(use for use in ARMS.values() if use.network == name)
    result = enhance(stem, use, damage.apply(clean))
    span = robust_max(clean.voxels) if modality == "MR" else 2000.0
    return float(metrics.psnr(clean.voxels, result.voxels, span))


def train(name: str, config: TrainConfig, data: Data, stem: Path) -> dict[str, Any]:
    """Train one network to its last step and write its weights; returns its record."""
    from safetensors.torch import save_file

    learner = NETWORKS[name].make(config, data)
    began, wall = time.process_time(), time.monotonic()
    terms: dict[str, list[float]] = {}
    for number in range(config.steps):
        for term, value in learner.step(number).items():
            terms.setdefault(term, []).append(value)
    seconds, waited = time.process_time() - began, time.monotonic() - wall
    tensors = {key: value.contiguous() for key, value in learner.tensors().items()}
    weights = stem.with_suffix(".safetensors")
    save_file(tensors, weights)
    enhancer = [value.numel() for key, value in tensors.items() if key.startswith("enhancer.")]
    return {
        "network": name,
        "seed": config.seed,
        "steps": config.steps,
        "cpu_s": round(seconds, 1),
        "wall_s": round(waited, 1),
        "parameters": sum(enhancer),
        "losses": {term: statistics.fmean(values[-50:]) for term, values in terms.items()},
        "config": as_json(config),
        "trained_with": as_json(learner.config),
        "answers": answers(rebuilt(learner.config.network, tensors)),
        "sha256": file_sha256(weights),
        "commit": commit(),
        "machine": machine(),
    }


def record_of(stem: Path) -> dict[str, Any] | None:
    """The record of weights that are there, whole, and of the network as it is now."""
    path, weights = stem.with_suffix(".json"), stem.with_suffix(".safetensors")
    if not path.exists() or not weights.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    whole = record["sha256"] == file_sha256(weights)
    return record if whole and still_answers(stem, record) else None


def as_json(config: TrainConfig) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(json.dumps(config_to_json(config)))
    return fields


def write_json(path: Path, value: object) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def say(number: int, jobs: Sequence[object], text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {number}/{len(jobs)} {text}", flush=True)


if __name__ == "__main__":
    main()
