"""Trains the enhancer in a folder: from data or a checkpoint to the bundle."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.hqg.bundle import export_enhancer
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.groups import GuidedNetwork
from MedEnhanceLib.hqg.train import losses
from MedEnhanceLib.hqg.train.crops import Crop, CropMaker
from MedEnhanceLib.hqg.train.losses import Turn, Window
from MedEnhanceLib.hqg.train.targets import (
    Target,
    files_of,
    load_examinations,
    load_labeled,
    load_targets,
    resolutions,
)
from MedEnhanceLib.hqg.train.teaching import MakeTask, Teaching
from MedEnhanceLib.hqg.train.trainer import Trainer
from MedEnhanceLib.hqg.train.unpaired import RealVolume, load_real
from MedEnhanceLib.nets.precision import mixed_precision, without_tf32
from MedEnhanceLib.nets.training import run_steps
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor

_METRIC_EVERY = 50
#: Number of the first crop that is validated on, which no training comes to.
_FIRST_VALIDATED = 500_000_000


@without_tf32()
def train(
    config: TrainConfig,
    data: Path,
    out: Path,
    monitor: Monitor | None = None,
    *,
    volumes: Sequence[Volume] | None = None,
    make_task: MakeTask | None = None,
) -> Path:
    """Train and export a bundle.

    Args:
        config: of the training.
        data: folder that the configuration's patterns are relative to.
        out: for checkpoint, metrics and bundle. Where it holds a checkpoint of the same
            configuration, the training continues from it.
        monitor: progress, metrics, warnings and cancelling.
        volumes: clean ones, instead of the files that `high_quality` names. How clean they are is
            not measured: the texture of a distilled image can pass for noise.
        make_task: the task of the configuration and its gate, for a device; passed in, as a
            method does not import another.
    Returns:
        The bundle's folder, `out/<name>`. A head that learned along lies beside it.
    Raises:
        Cancelled: from the first step on after writing a checkpoint.
        InputError: data are missing or do not fit.
        ModelError: a loss is not finite; the last checkpoint stays.
    """
    monitor = monitor or Monitor()
    choice = choose_device(config.device)
    monitor.log(f"training on {choice.name}: {choice.reason}")
    out.mkdir(parents=True, exist_ok=True)
    pools = Pools.load(config, data, volumes, monitor.part(0.0, 0.03))
    teaching, labeled = None, []
    if config.task is not None:
        if make_task is None:
            raise ConfigError("task: nothing makes it", "Train through api.train or a job.")
        teaching = Teaching(config.task, *make_task(choice.name))
        left_out = (*config.leave_out, *config.validation)
        labeled = load_labeled(teaching.task.subjects(monitor), data, left_out)
    trainer = Trainer(
        config,
        pools.targets,
        pools.examinations,
        choice.name,
        monitor,
        (teaching, labeled) if teaching else None,
        pools.noisy,
    )
    validation = Validation(config, pools, choice.name)
    began = last = time.monotonic()

    def step(number: int) -> dict[str, float]:
        nonlocal last
        losses_ = trainer.step(number)
        if time.monotonic() - last > config.validation_s:
            for name, gain in validation.gains(trainer.averaged()).items():
                monitor.metric(name, gain, number)
            last = time.monotonic()
        return losses_

    try:
        run_steps(
            step,
            trainer.steps,
            out,
            trainer.parts(),
            monitor.part(0.03, 0.98),
            every_s=config.checkpoint_s,
            reported_every=_METRIC_EVERY,
        )
    finally:
        trainer.close()
    network = trainer.averaged()
    gains = validation.gains(network) | (teaching.figures() if teaching else {})
    for name, gain in gains.items():
        monitor.metric(name, gain, trainer.steps)
    folder = out / config.name
    export_enhancer(
        folder,
        config,
        network,
        seconds=time.monotonic() - began,
        is_guided=trainer.counts[1] > 0,
        gains=gains,
    )
    if teaching is not None and teaching.head is not None:
        teaching.head.export(out, time.monotonic() - began)
    monitor.progress(1.0, "model written")
    return folder


@dataclass(frozen=True)
class Pools:
    """What a training learns from and is validated on."""

    targets: list[Target]
    examinations: list[Target]
    validation: list[Target]
    noisy: list[RealVolume]

    @classmethod
    def load(
        cls,
        config: TrainConfig,
        data: Path,
        volumes: Sequence[Volume] | None,
        monitor: Monitor,
    ) -> Pools:
        """Read all volumes; the patterns of the configuration are relative to `data`."""
        left_out = (*config.leave_out, *config.validation)
        if volumes is None:
            files = files_of(data, config.high_quality, left_out)
            targets = load_targets(files, config.modality, monitor)
        else:
            targets = [
                target
                for volume in volumes
                for target in resolutions(volume, volume.source, is_clean=True)
            ]
        if not targets:
            raise InputError(
                f"{data}: no clean volume to learn from",
                "Give volumes with little noise (high_quality).",
            )
        examinations = load_examinations(
            config.examinations, data, left_out, config.modality, monitor
        )
        validation = load_targets(
            files_of(data, config.validation) if config.validation else [],
            config.modality,
            monitor,
        )
        is_unpaired = config.loss.unpaired > 0
        noisy = files_of(data, config.low_quality, left_out) if is_unpaired else []
        return cls(targets, examinations, validation, load_real(noisy, config.modality, monitor))


class Validation:
    """What the networks gain over the filter on fixed crops, in dB of the tissue."""

    def __init__(self, config: TrainConfig, pools: Pools, device: str) -> None:
        self._config, self._device = config, device
        targets = pools.validation or pools.targets
        self._crops = self._made(targets, guided=False)
        self._guided = self._made(pools.examinations, guided=True) if pools.examinations else []

    def _made(self, targets: list[Target], *, guided: bool) -> list[Crop]:
        maker = CropMaker(
            targets,
            self._config.modality,
            self._config.network.blocks,
            self._config.seed + 1,
            guided=guided,
        )
        numbers = range(_FIRST_VALIDATED, _FIRST_VALIDATED + self._config.validated)
        return [maker.make(number)[0] for number in numbers]

    def gains(self, network: GuidedNetwork) -> dict[str, float]:
        """Mean gain without a guide, and what right and other guides add to it on their crops."""
        gains = {"gain_db": float(np.mean([gain_of(network, crop, None) for crop in self._crops]))}
        added: dict[str, list[float]] = {"right_guide_db": [], "wrong_guide_db": []}
        for crop in self._guided:
            assert crop.guide is not None
            with_guide = gain_of(network, crop, crop.guide.voxels)
            name = "right_guide_db" if crop.guide.is_right else "wrong_guide_db"
            added[name].append(with_guide - gain_of(network, crop, None))
        gains |= {name: float(np.mean(values)) for name, values in added.items() if values}
        return gains


def gain_of(network: GuidedNetwork, crop: Crop, guide: torch.Tensor | None) -> float:
    """What a network gains over the filter on a whole crop, in dB of the tissue."""
    plain = crop.plain
    window = Window.at(plain, [0, 0, 0], list(plain.noisy.shape))
    straight = Turn(torch.arange(64), torch.ones(64))
    with torch.inference_mode():
        made = losses.made(
            network.cpu(), plain, window, straight, guide, frozen=True, mixed=mixed_precision("cpu")
        )
    tissue = crop.tissue[window.where]

    def error(image: torch.Tensor) -> float:
        squares = (image[window.where] - plain.target[window.where])[tissue].square()
        return float(squares.mean())

    return 10 * math.log10(error(plain.estimate) / error(made.guided))
