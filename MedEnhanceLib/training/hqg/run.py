"""Trains the enhancer in a folder, from data or a checkpoint to the bundle."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from MedEnhanceLib.bundles.store import shipped_bundle
from MedEnhanceLib.denoise.bundle import set_weights
from MedEnhanceLib.denoise.groups import GuidedNetwork, network_of
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.learning.precision import without_tf32
from MedEnhanceLib.learning.training import begin_training, run_steps
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.hqg import losses
from MedEnhanceLib.training.hqg.config import TrainConfig, UnpairedConfig
from MedEnhanceLib.training.hqg.crops import FIRST_VALIDATED, Crop, CropMaker, Kind
from MedEnhanceLib.training.hqg.enhancer_export import export_enhancer
from MedEnhanceLib.training.hqg.losses import CropWindow, Turn
from MedEnhanceLib.training.hqg.targets import Target, load_data
from MedEnhanceLib.training.hqg.trainer import MakeTask, Trainer
from MedEnhanceLib.training.hqg.unpaired.unpaired_training import train_unpaired
from MedEnhanceLib.training.hqg.verdict import TAUGHT, UNTAUGHT, judge
from MedEnhanceLib.training.hqg.view_training import train_view

#: Seconds between two validations.
_VALIDATION_S = 120.0


@without_tf32
def train(
    config: TrainConfig,
    data: Path,
    out: Path,
    monitor: Monitor | None = None,
    *,
    make_task: MakeTask | None = None,
) -> Path:
    """Train and export a bundle.

    Args:
        config: of the training.
        data: folder that the configuration's patterns are relative to.
        out: for checkpoint, metrics and bundle. Where it holds a checkpoint of the same
            configuration, the training continues from it.
        monitor: progress, metrics, warnings and cancelling.
        make_task: makes the configuration's task and its gate for a device; passed in, as methods
            do not import one another.
    Returns:
        The bundle's folder, `out/<name>`, with the weights that a task taught if they were
        accepted.
    Raises:
        Cancelled: after the first step, a checkpoint is written before.
        InputError: data are missing or do not fit.
        ModelError: a loss is not finite; the last checkpoint stays.
    """
    monitor = monitor or Monitor()
    device = begin_training(config.device, out, monitor)
    if config.low_quality or config.scanner:
        return train_unpaired(config, data, out, device, monitor)
    if config.unpaired != UnpairedConfig():
        raise ConfigError(
            "unpaired requires low_quality or scanner", "Name one of them, or leave it out."
        )
    if config.view is not None:
        return train_view(config, data, out, device, monitor)
    teaching = None
    if config.task is not None:
        if make_task is None:
            raise ConfigError("task: nothing makes it", "Train through api.train or a job.")
        teaching = make_task(device)
    subjects = teaching[0].subjects(monitor) if teaching else ()
    held_out = (*config.held_out, *(teaching[0].held_out() if teaching else ()))
    stated = replace(config, held_out=held_out)  # not in records: they may be names of patients
    targets = load_data(stated, data, monitor.part(0.0, 0.03), subjects=subjects)
    in_steps = monitor.part(0.03, 0.9)
    trainer = Trainer(config, targets, device, in_steps, teaching)
    validation = _Validation(validated_crops(config, targets), monitor)

    def step(number: int) -> dict[str, float]:
        values = trainer.step(number)
        if validation.is_due():
            validation.report(validation.gains(trainer.learner.averaged())[0], number)
        return values

    steps = sum(trainer.counts)
    try:
        seconds = run_steps(step, steps, out, trainer.parts(), in_steps)
    finally:
        trainer.close()
    network, verdict = trainer.learner.averaged(), None
    if trainer.taught is not None and teaching is not None:
        networks = {UNTAUGHT: network, TAUGHT: trainer.taught.averaged()}
        verdict = judge(teaching, networks, config, out, monitor.part(0.9, 0.98))
        network = networks[TAUGHT if verdict["gradprom"]["accepted"] else UNTAUGHT]
    gains, alone = validation.gains(network)
    gains |= _beside_shipped(config, targets, alone, validation.crops)
    validation.report(gains, steps)
    folder = out / config.name
    export_enhancer(
        folder,
        config,
        network,
        seconds=seconds,
        is_guided=trainer.is_guided,
        gains=gains,
        verdict=verdict,
        start=trainer.start,
    )
    monitor.progress(1.0, "model written")
    return folder


class _Validation:
    """Crops on which a training is validated every two minutes."""

    def __init__(self, crops: Sequence[Crop], monitor: Monitor) -> None:
        self.crops, self._monitor = crops, monitor
        self._due = time.monotonic() + _VALIDATION_S

    def is_due(self) -> bool:
        """Test whether two minutes have passed since the last report."""
        return time.monotonic() > self._due

    def gains(self, network: GuidedNetwork) -> tuple[dict[str, float], list[float]]:
        """Measure the mean gains of a network, and its gain on each crop without a guide, in dB."""
        gains = [gain_of(network, crop) for crop in self.crops]
        pairs = zip(gains, self.crops, strict=True)
        unguided = [gain for (gain, _), crop in pairs if crop.guide is None]
        return _means(gains, self.crops), unguided

    def report(self, gains: dict[str, float], number: int) -> None:
        """Report gains after a step."""
        for name, gain in gains.items():
            self._monitor.metric(name, gain, number)
        self._due = time.monotonic() + _VALIDATION_S


def validated_crops(config: TrainConfig, targets: dict[str, list[Target]]) -> list[Crop]:
    """Make fixed crops without guides, and with them where there are examinations."""
    sources: dict[Kind, list[Target]] = {
        "plain": targets["validated"] or targets["plain"],
        "guided": targets["guided"],
    }
    return [
        CropMaker(source, config.modality, config.network.blocks, config.seed + 1, kind).make(n)[0]
        for kind, source in sources.items()
        if source
        for n in range(FIRST_VALIDATED, FIRST_VALIDATED + config.validated)
    ]


def _means(gains: Sequence[tuple[float, float]], crops: Sequence[Crop]) -> dict[str, float]:
    """Average the gains on crops without a guide, and the gains by right and by wrong guides.

    gains: of each crop, from `gain_of`.
    """
    named: dict[str, list[float]] = {"gain_db": [], "right_guide_db": [], "wrong_guide_db": []}
    for (unguided, added), crop in zip(gains, crops, strict=True):
        if crop.guide is None:
            named["gain_db"].append(unguided)
        else:
            named["right_guide_db" if crop.guide.is_right else "wrong_guide_db"].append(added)
    return {name: float(np.mean(values)) for name, values in named.items() if values}


def _beside_shipped(
    config: TrainConfig,
    targets: dict[str, list[Target]],
    after: Sequence[float],
    crops: Sequence[Crop],
) -> dict[str, float]:
    """Measure the shipped model on the crops without a guide, and the network's gain over it.

    after: gain of the network on each crop without a guide, dB.
    Returns dB: `shipped_gain_db`, `over_shipped_db` and its standard error.
    """
    shipped = network_of(set_weights(shipped_bundle(config.modality.lower())))
    shipped_crops = crops
    if shipped.config.blocks != config.network.blocks:
        shipped_config = replace(config, network=shipped.config)
        shipped_crops = validated_crops(shipped_config, {**targets, "guided": []})
    before = [gain_of(shipped, crop)[0] for crop in shipped_crops if crop.guide is None]
    difference = np.subtract(after, before)
    return {
        "shipped_gain_db": float(np.mean(before)),
        "over_shipped_db": float(difference.mean()),
        "over_shipped_error_db": float(difference.std() / math.sqrt(max(1, len(difference) - 1))),
    }


def gain_of(network: GuidedNetwork, crop: Crop) -> tuple[float, float]:
    """Measure the gain of a network over the filter on a whole crop, in dB of the tissue.

    Returns the gain without a guide, and the further gain by the crop's guide, 0 without one.
    """
    plain, guide = crop.plain, crop.guide
    window = CropWindow.of(plain)
    with torch.inference_mode():
        images = losses.run_networks(
            network.cpu(), plain, window, Turn(), guide.voxels if guide else None
        )
    tissue = crop.tissue[window.where]
    errors = [
        float((image - plain.target)[window.where][tissue].square().mean())
        for image in (plain.estimate, images.unguided, images.guided)
    ]
    return 10 * math.log10(errors[0] / errors[1]), 10 * math.log10(errors[1] / errors[2])
