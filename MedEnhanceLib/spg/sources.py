"""What a restorer learns from: the images of a distilled set, or those of a cohort itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedEnhanceLib.bundles.export import NOT_STATED
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import MODALITIES, DamageConfig, DistillConfig, ImageConfig
from MedEnhanceLib.spg.dataset import is_distilled, load_distilled
from MedEnhanceLib.spg.denoiser_config import TrainDenoiserConfig
from MedEnhanceLib.spg.slices import Floats, axial_slices, data_sha256

#: Options that a distilled set answers itself.
_OF_COHORTS = ("task", "modality", "pattern", "images", "damage", "held_out")


@dataclass(frozen=True)
class Source:
    """images, held_out: [N, H, W] in [0, 1], to learn from and to measure on, which may be empty.

    damaging: its task, images and damage are what the network is to undo. entry: what a card says
    of where the images came from; limits: what it warns of besides. tested: how many patients
    were held out.
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
        """Of all images."""
        return data_sha256([self.images, self.held_out])


def open_source(data: Path, config: TrainDenoiserConfig, monitor: Monitor) -> Source:
    """A distilled set's folder, or whatever `Cohort.open` takes.

    Raises ConfigError for options that the data answer themselves or that they need, InputError
    for data that cannot be used.
    """
    read = _distilled if is_distilled(data) else _cohort
    return read(data, config, monitor)


def _distilled(data: Path, config: TrainDenoiserConfig, monitor: Monitor) -> Source:
    found = load_distilled(data)
    default = TrainDenoiserConfig()
    said = [name for name in _OF_COHORTS if getattr(config, name) != getattr(default, name)]
    own = {"task": found.config.task, "modality": found.manifest["modality"]}
    wrong = [name for name in said if own.get(name) != getattr(config, name)]
    if wrong:
        told = "; ".join(f"its {name} is {own.get(name, 'in its manifest')}" for name in wrong)
        raise ConfigError(
            f"{data} is a distilled set, which says {' and '.join(wrong)} itself ({told})",
            f"Leave out {', '.join(wrong)}.",
        )
    if found.alarm:
        monitor.warn(found.alarm)
    empty = np.zeros((0, *found.images.shape[1:]), np.float32)
    modality = str(found.manifest["modality"])
    return Source(found.images, empty, modality, found.config, found.entry(), found.limits)


def _cohort(data: Path, config: TrainDenoiserConfig, monitor: Monitor) -> Source:
    if not data.exists():
        raise InputError(f"{data} is not there", "Name a distilled set, or a cohort.")
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
        np.concatenate(parts[which]) if parts[which] else _none(scaling.size)
        for which in (False, True)
    )
    if not len(images):
        raise InputError(f"{data}: no slice shows anything", "Name other images (--pattern).")
    damaging = DistillConfig(
        task=config.task,
        images=scaling,
        damage=config.damage or DamageConfig(),
        loop=DistillConfig.preset("smoke").loop,  # no part of it: patches fit any size of images
    )
    learned = len(cohort) - len(held)
    entry = {
        "name": "a cohort of its user's own",
        "subjects": f"{len(images)} slices of {learned} patients",
        "licence": NOT_STATED,
        "source": NOT_STATED,
    }
    return Source(images, held_out, modality, damaging, entry, tested=len(held))


def _none(size: int) -> Floats:
    return np.zeros((0, size, size), np.float32)
