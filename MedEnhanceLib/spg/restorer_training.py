"""Trains a small restorer and writes it as a bundle; resumable, reproducible by its seed.

open_source → Learner → numbered steps, with checkpoints → measured on held-out patients → bundle
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.bundles.export import NOT_STATED, export_bundle
from MedEnhanceLib.bundles.schema import RESTORER
from MedEnhanceLib.bundles.suitability import training_length_limits
from MedEnhanceLib.core.options import config_to_json
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.nets.training import (
    CHECKPOINT,
    cancelled_before,
    run_steps,
)
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import (
    MODALITIES,
    DamageConfig,
    DistillConfig,
    ImageConfig,
    TrainDenoiserConfig,
)
from MedEnhanceLib.spg.dataset import is_distilled, load_distilled
from MedEnhanceLib.spg.images import Floats, axial_slices, data_sha256
from MedEnhanceLib.spg.restorer import Learner, RestorerConfig, restored_psnr
from MedEnhanceLib.spg.tasks import make_task

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


@without_tf32()
def train_denoiser(
    config: TrainDenoiserConfig, data: Path, out: Path, monitor: Monitor | None = None
) -> Path:
    """Train a restorer, or resume a training.

    Args:
        config: of the training.
        data: a distilled set, or a cohort if the configuration has a task.
        out: folder for checkpoint, metrics and bundle.
        monitor: gets progress and metrics, and may cancel.
    Returns:
        The folder of the bundle, `out/<name>`.
    Raises:
        Cancelled: after a checkpoint was written.
        ConfigError: options do not fit the data, or the checkpoint is of another training.
        InputError: the data cannot be used.
        DivergenceError: the loss is not finite.
    """
    monitor = monitor or Monitor()
    choice = choose_device(config.device)
    monitor.log(f"training on {choice.name}: {choice.reason}")
    try:
        source = open_source(data, config, monitor.part(0.0, 0.05))
    except Cancelled as cause:
        raise cancelled_before(resumed=(out / CHECKPOINT).exists()) from cause
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
    """Run the remaining steps; the seconds of all steps."""
    parts: dict[str, Any] = {
        "config": config.learned_with() | {"data_sha256": source.sha256},
        "modules": {"network": learner.network, "drawn": learner.drawn},
        "optimizers": {"adam": learner.adam},
        "generator": learner.rng,
    }
    _, seconds = run_steps(
        lambda number: {"loss": float(learner.step(number))},
        config.steps,
        out,
        parts,
        monitor,
        every_s=config.checkpoint_s,
        reported_every=_METRIC_EVERY,
    )
    return seconds


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
            *training_length_limits(config.steps),
            *source.limits,
            f"It learned on axial slices with pixels of {spacing:g} mm, for the task "
            f"{damaging.task!r}; a scan's own pixels are taken as they are.",
            f"Intensities of {window} are restored; others are kept as they were.",
            *_LIMITS,
        ],
    }


#: Options that a distilled set determines itself.
_OF_COHORTS = ("task", "modality", "pattern", "images", "damage", "held_out")


@dataclass(frozen=True)
class Source:
    """What a restorer learns from: the images of a distilled set, or of a cohort.

    Args:
        images: [N, H, W] in [0, 1], to learn from.
        held_out: [N, H, W] in [0, 1], to measure on; may be empty.
        modality: "CT" or "MR".
        damaging: its task, images and damage define the degradation to undo.
        entry: of the training data, for the model card.
        limits: for the model card.
        tested: number of patients held out.
    """

    images: Floats
    held_out: Floats
    modality: str
    damaging: DistillConfig
    entry: dict[str, str]
    limits: tuple[str, ...] = ()
    tested: int = 0

    @property
    def sha256(self) -> str:
        """The hash of all images."""
        return data_sha256([self.images, self.held_out])


def open_source(data: Path, config: TrainDenoiserConfig, monitor: Monitor) -> Source:
    """Read a distilled set, or whatever `Cohort.open` takes; raises as `train_denoiser`."""
    read = _distilled if is_distilled(data) else _cohort
    return read(data, config, monitor)


def _distilled(data: Path, config: TrainDenoiserConfig, monitor: Monitor) -> Source:
    found = load_distilled(data)
    default = TrainDenoiserConfig()
    given = [name for name in _OF_COHORTS if getattr(config, name) != getattr(default, name)]
    own = {"task": found.config.task, "modality": found.manifest["modality"]}
    wrong = [name for name in given if own.get(name) != getattr(config, name)]
    if wrong:
        fixed = "; ".join(f"its {name} is {own.get(name, 'in its manifest')}" for name in wrong)
        raise ConfigError(
            f"{data} is a distilled set, which determines {' and '.join(wrong)} itself ({fixed})",
            f"Leave out {', '.join(wrong)}.",
        )
    if found.alarm:
        monitor.warn(found.alarm)
    empty = np.zeros((0, *found.images.shape[1:]), np.float32)
    modality = str(found.manifest["modality"])
    return Source(found.images, empty, modality, found.config, found.entry(), found.limits)


def _cohort(data: Path, config: TrainDenoiserConfig, monitor: Monitor) -> Source:
    if not data.exists():
        raise InputError(f"{data} does not exist", "Name a distilled set, or a cohort.")
    if config.task is None:
        raise ConfigError(
            f"{data} is no distilled set: the task is not stated",
            "Add --task denoise (task=), or name the folder of a distilled set.",
        )
    scaling = config.images or ImageConfig()
    cohort = Cohort.open(
        data, pattern=config.pattern, modality=config.modality, monitor=monitor.part(0.0, 0.1)
    )
    held = {patient.id for patient in cohort.split(config.held_out, config.seed)[1]}
    parts: dict[bool, list[Floats]] = {True: [], False: []}
    modality = ""
    for patient, volumes in cohort.volumes(monitor=monitor.part(0.1, 1.0)):
        modality = volumes[0].modality
        if modality not in MODALITIES:
            raise ConfigError(
                f"the cohort is {modality}; restorers know {' and '.join(MODALITIES)}",
                "State the modality (--modality) where the files do not, or do wrongly.",
            )
        parts[patient.id in held] += [axial_slices(volume, scaling) for volume in volumes]
    images, held_out = (
        np.concatenate(parts[which])
        if parts[which]
        else np.zeros((0, scaling.size, scaling.size), np.float32)
        for which in (False, True)
    )
    if not len(images):
        raise InputError(f"{data}: no slice shows anything", "Name other images (--pattern).")
    damaging = DistillConfig(
        task=config.task,
        images=scaling,
        damage=config.damage or DamageConfig(),
        loop=DistillConfig.preset("smoke").loop,  # not used; its patches fit any size of images
    )
    learned = len(cohort) - len(held)
    entry = {
        "name": "a cohort of its user's own",
        "subjects": f"{len(images)} slices of {learned} patients",
        "licence": NOT_STATED,
        "source": NOT_STATED,
    }
    return Source(images, held_out, modality, damaging, entry, tested=len(held))
