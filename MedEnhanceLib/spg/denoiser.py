"""Trains a small restorer and writes it as a bundle; resumable, stoppable, repeated by its seed.

open_source → Learner → numbered steps, with checkpoints → measured on held-out patients → bundle
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from MedEnhanceLib.bundles.export import NOT_STATED, export_bundle
from MedEnhanceLib.bundles.length import limits_of_length
from MedEnhanceLib.bundles.store import RESTORER
from MedEnhanceLib.core.options import config_to_json
from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.nets.journal import Journal
from MedEnhanceLib.nets.training import DivergenceError, cancelled_before, training_steps
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.denoiser_config import TrainDenoiserConfig
from MedEnhanceLib.spg.restorer import Learner, RestorerConfig, restored_psnr
from MedEnhanceLib.spg.sources import Source, open_source
from MedEnhanceLib.spg.tasks import make_task

_CHECKPOINT = "checkpoint.safetensors"
_METRIC_EVERY = 20
_SEED_OF_TEST = 1
_DOES = {
    "denoise": "removes noise",
    "sr2": "sharpens images of half the resolution, on the grid they are given on",
    "sr4": "sharpens images of a quarter of the resolution, on the grid they are given on",
    "undersample": "completes MR of which a quarter of the lines was measured",
}
_LIMITS = (
    "A small network that treats each axial slice alone: it says nothing of how sure it is.",
    "It can remove faint structure together with noise: compare with the input.",
)


def train_denoiser(
    config: TrainDenoiserConfig, data: Path, out: Path, monitor: Monitor | None = None
) -> Path:
    """Train, or go on with a training; the folder of the bundle, `out/<name>`.

    data: a distilled set, or a cohort with the configuration's task. out: holds checkpoint, metrics
    and bundle. Raises Cancelled after writing a checkpoint, ConfigError for options that do not fit
    the data or a checkpoint made otherwise, DivergenceError where the loss is no number any more.
    """
    monitor = monitor or Monitor()
    choice = choose_device(config.device)
    monitor.log(f"training on {choice.name}: {choice.reason}")
    try:
        source = open_source(data, config, monitor.part(0.0, 0.05))
    except Cancelled as cause:
        raise cancelled_before(resumed=(out / _CHECKPOINT).exists()) from cause
    out.mkdir(parents=True, exist_ok=True)
    task = make_task(source.damaging, source.modality)
    chosen = RestorerConfig(
        network=config.network,
        steps=config.steps,
        batch=config.batch,
        patch=config.patch,
        learning_rate=config.learning_rate,
        seed=config.seed,
    )
    learner = Learner(
        source.images, task, source.modality, chosen, source.damaging.images, choice.name
    )
    seconds = _learn(learner, config, source, out, monitor.part(0.05, 0.95))
    monitor.log("measuring on held-out patients" if source.tested else "nobody was held out")
    network = learner.network.eval()
    measured = []
    if len(source.held_out):
        before, after = restored_psnr(
            network,
            source.held_out,
            task,
            source.modality,
            seed=_SEED_OF_TEST,
            scaling=source.damaging.images,
            device=choice.name,
        )
        measured = [
            {
                "patients": f"{source.tested} held out",
                "task": source.damaging.task,
                "network": config.network,
                "damaged (dB)": round(before, 2),
                "restored (dB)": round(after, 2),
            }
        ]
    tensors = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    metadata = _described(config, source, seconds) | {"measured": measured}
    folder = export_bundle(out / config.name, tensors, metadata, half=False).folder
    monitor.progress(1.0, "model written")
    return folder


def _learn(
    learner: Learner, config: TrainDenoiserConfig, source: Source, out: Path, monitor: Monitor
) -> float:
    """All steps that are left; the seconds of all."""
    path = out / _CHECKPOINT
    parts: dict[str, Any] = {
        "config": config.learned_with() | {"data_sha256": source.sha256},
        "modules": {"network": learner.network, "drawn": learner.pairs.drawn},
        "optimisers": {"adam": learner.adam},
        "generator": learner.pairs.rng,
    }
    start, notes = 0, {"seconds": 0.0}
    if path.exists():
        start = load_checkpoint(path, notes=notes, **parts)
        monitor.log(f"resumed at step {start}")
    began = time.monotonic() - notes["seconds"]
    journal = Journal(out / "metrics.jsonl", start, monitor)

    def save(step: int) -> None:
        save_checkpoint(path, step=step, notes={"seconds": time.monotonic() - began}, **parts)

    for number in training_steps(start, config.steps, save, config.checkpoint_s, monitor):
        loss = float(learner.step(number))
        if not math.isfinite(loss):
            raise DivergenceError(
                f"the training diverged at step {number}",
                "Start again in another folder with a lower learning_rate.",
            )
        journal.hear({"loss": loss})
        if number % _METRIC_EVERY == 0 or number == config.steps - 1:
            journal.tell(number)
    return time.monotonic() - began


def _described(config: TrainDenoiserConfig, source: Source, seconds: float) -> dict[str, Any]:
    damaging = source.damaging
    spacing = damaging.images.spacing_mm
    window = (
        "HU {:g} to {:g}".format(*damaging.images.ct_window)
        if source.modality == "CT"
        else f"0 to {damaging.images.mr_top:g} of the robust maximum"
    )
    entries = [source.entry, *config.data] if source.limits else list(config.data or [source.entry])
    return {
        "name": config.name,
        "kind": RESTORER,
        "modality": source.modality,
        "description": f"A small restorer ({config.network}) that {_DOES[damaging.task]}, "
        "slice by slice.",
        "licence": config.licence or NOT_STATED,
        "network": {"name": config.network},
        "task": damaging.task,
        "images": config_to_json(damaging.images),
        "damage": config_to_json(damaging.damage),
        "intensity": window,
        "training": {
            "config": config_to_json(config),
            "data_sha256": source.sha256,
            "seconds": round(seconds),
            "summary": f"{config.steps} steps of {config.batch} patches of {config.patch} pixels, "
            f"seed {config.seed}, {seconds / 60:.0f} minutes",
        },
        "data": entries,
        "limits": [
            *limits_of_length(config.steps),
            *source.limits,
            f"It learned on axial slices with pixels of {spacing:g} mm, for the task "
            f"{damaging.task!r}; a scan's own pixels are taken as they are.",
            f"Intensities of {window} are restored; others are kept as they were.",
            *_LIMITS,
        ],
    }
