"""Trains the network that corrects what the inversion of a scanner leaves, without pairs.

The scanner is measured from two folders; high-quality volumes are put behind it and inverted, and
the network learns the difference. By volumes held out the best weights are kept, and it is decided
whether the bundle has the network, or the inversion alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from MedEnhanceLib.bundles.export import NOT_STATED, export_bundle
from MedEnhanceLib.bundles.suitability import is_certain, training_length_limits
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io import load
from MedEnhanceLib.learning.checkpoint import Stateful
from MedEnhanceLib.learning.precision import move, without_tf32
from MedEnhanceLib.learning.training import EMA, Learner, begin_training
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.corrector.config import NEIGHBORS, UNPAIRED
from MedEnhanceLib.scanner.corrector.view_network import ViewNet
from MedEnhanceLib.scanner.scanner import Scanner
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.losses import Losses
from MedEnhanceLib.training.hqg.patches import FIRST_VALIDATED, TrainingSlab, batch_of
from MedEnhanceLib.training.hqg.scanned_slabs import (
    LowQualitySlabMaker,
    ScannedSlabMaker,
    high_quality_slab,
)
from MedEnhanceLib.training.hqg.style_code import CodedNetwork
from MedEnhanceLib.training.hqg.teaching import MakeTask, Teaching
from MedEnhanceLib.training.hqg.training_data import high_quality_volumes, scanner_of, scans_of

# Chosen by hand (decision 0109).
#: Validations of a training.
_VALIDATIONS = 20
#: Patches whose mean code is that of the result.
_GUIDES = 64
#: Patches of a slab that are compared; weight from which a pixel is of a lesion; least error.
_COMPARED, _LESION, _LEAST_ERROR = 4, 2.0, 1e-12
_LIMITS = (
    "Contrast, sharpness and field become those of the high-quality volumes: do not measure "
    "intensities in the result.",
    "It is for scans of the measured scanner, body part and contrast only.",
    "Trained on few subjects; it can remove or add faint structure: compare with the input.",
)


class _Best(nn.Module):
    """The weights with the highest gain so far; at first the inversion alone, whose gain is 0."""

    gain: Tensor

    def __init__(self, network: ViewNet) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.register_buffer("gain", torch.zeros(()))

    def consider(self, network: ViewNet, gain: float) -> None:
        """Keep the weights if they gain more."""
        if gain > float(self.gain):
            self.network.load_state_dict(network.state_dict())
            self.gain.fill_(gain)


@without_tf32
def train(
    config: TrainConfig,
    data: Path,
    out: Path,
    monitor: Monitor | None = None,
    *,
    make_task: MakeTask | None = None,
) -> Path:
    """Measure the scanner, train, and export the bundle.

    Args:
        config: of the training, with `low_quality` or `scanner`.
        data: folder that the configuration's patterns are relative to.
        out: for checkpoint, metrics and bundle. Where it holds a checkpoint of the same
            configuration, the training continues from it.
        monitor: progress, metrics, warnings and cancelling.
        make_task: makes the configuration's task and its gate for a device; passed in, as methods
            do not import one another.
    Returns:
        The bundle's folder, `out/<name>`.
    Raises:
        Cancelled: after the first step, a checkpoint is written before.
        ConfigError: parts that do not go together.
        InputError: data are missing or do not fit.
        ModelError: a loss is not finite; the last checkpoint stays.
    """
    monitor = monitor or Monitor()
    device = begin_training(config.device, out, monitor)
    _check(config)
    volumes, held_out = high_quality_volumes(config, data, monitor.part(0.0, 0.02))
    scanner = scanner_of(config, [*volumes, *held_out], monitor.part(0.02, 0.06))
    scans = scans_of(config, monitor.part(0.06, 0.06))
    torch.manual_seed(config.seed)
    network = CodedNetwork(ViewNet(config.network))
    best = _Best(network.network)
    move(network, device)
    learner = Learner(network.train(), config.learning_rate, EMA)
    maker = ScannedSlabMaker(volumes, scanner, config.seed)
    guides = _guides(config, volumes, monitor.part(0.06, 0.06))
    judging = replace(maker, volumes=held_out, seed=config.seed + 1, slow_changes=True)
    slabs = list[TrainingSlab]()
    for number in range(2 * config.validated):
        monitor.progress(0.06, f"preparing scan {number + 1} of volumes held out")
        slabs.append(judging.make(FIRST_VALIDATED + number))
    shown, judged = slabs[: config.validated], slabs[config.validated :]
    every, in_steps = max(1, config.steps // _VALIDATIONS), monitor.part(0.1, 0.95)
    settings, optimizers = config.to_json(), dict[str, Optimizer]()
    states, teaching = dict[str, Stateful](best=best), None
    if config.task is not None and make_task is not None:
        teaching = Teaching(make_task(device), volumes, scanner, config, device, in_steps)
        states["gate"] = teaching.gate
    scanned = LowQualitySlabMaker(scans, scanner, config.seed)
    losses = Losses(network, maker, scanned, config, device, in_steps)
    if losses.adversary:
        states["discriminator"] = losses.adversary
        optimizers["discriminator adam"] = losses.adversary.optimizer

    def validate(number: int) -> None:
        averaged = learner.averaged()
        move(averaged, "cpu")
        plain = averaged.folded(guides)
        gain = float(_gains(plain, shown, config.seed)[:, 0].mean())
        best.consider(plain, gain)
        monitor.metric("gain_db", gain, number)

    def loss_of(number: int) -> tuple[Tensor, dict[str, Tensor]]:
        if number and number % every == 0:
            validate(number)
        loss, terms = losses(number)
        return teaching.added(loss, terms, network.network, number) if teaching else (loss, terms)

    try:
        seconds = learner.run(
            loss_of, config.steps, out, settings, in_steps, modules=states, optimizers=optimizers
        )
    finally:
        losses.close()
        if teaching:
            teaching.close()
    validate(config.steps)
    gains = _gains(best.network, judged, config.seed)
    folder = out / config.name
    record = teaching.record() if teaching else {}
    _export(folder, config, scanner, best.network, record, seconds=seconds, gains=gains)
    monitor.progress(1.0, "model written")
    return folder


def _guides(config: TrainConfig, good: Sequence[Volume], monitor: Monitor) -> Tensor | None:
    """Draw the patches whose mean code is that of the result, [B, J, I]; None without codes."""
    parts, rng = config.unpaired, np.random.default_rng([config.seed, 14])
    if not parts.code:
        return None
    if parts.guide:
        guide = load(parts.guide, modality=config.modality, monitor=monitor).single()
        good = [guide.canonical().compact()]
    return batch_of(lambda: high_quality_slab(good, rng), _GUIDES, rng).clean


def _gains(network: ViewNet, slabs: Sequence[TrainingSlab], seed: int) -> Any:
    """Measure the gains of a network over the inversion, dB [slabs, 2]: of all, and in lesions."""
    return np.array([gain_on(slab, network, [seed, 6, n]) for n, slab in enumerate(slabs)])


@torch.inference_mode()
def gain_on(slab: TrainingSlab, network: ViewNet, seed: Sequence[int]) -> tuple[float, float]:
    """Measure the gain of a network over the inversion.

    Args:
        slab: that no step saw.
        network: on the CPU.
        seed: of the patches that are compared.
    Returns dB: of all, and in planted lesions.
    """
    batch = batch_of(lambda: slab, _COMPARED, np.random.default_rng(seed))
    image = network(batch.noisy, batch.filtered, batch.sigma)
    errors = [(each - batch.clean).square() for each in (batch.filtered[:, NEIGHBORS], image)]
    is_lesion = batch.weight > _LESION
    overall, inside = (
        [float(error[place].mean()) + _LEAST_ERROR for error in errors] if place.any() else [1, 1]
        for place in (torch.ones_like(is_lesion), is_lesion)
    )
    return 10 * math.log10(overall[0] / overall[1]), 10 * math.log10(inside[0] / inside[1])


def _check(config: TrainConfig) -> None:
    """Raise ConfigError for what cannot be learned."""
    parts = config.unpaired
    if not (config.low_quality or config.scanner):
        raise ConfigError(
            "no scanner to learn from: low_quality and scanner are empty",
            "Name scans of the worse scanner (--low-quality DIR), or the file of a measured one "
            "(--scanner FILE).",
        )
    if (parts.takes_scans and not config.low_quality) or (parts.style and not parts.code):
        raise ConfigError(
            "unpaired: adversary, content and style see scans of low_quality, style needs code",
            "Give low_quality and code, or set these to 0.",
        )
    if config.low_quality and config.scanner and not parts.takes_scans:
        raise ConfigError("both low_quality and scanner are given", "Leave out one of both.")
    if config.task and parts.code:
        raise ConfigError("a task takes no code", "Set code to 0, or leave out the task.")


def _is_better(gain: float, error: float, in_lesions: float) -> bool:
    """Return whether a network is used: it gains beyond chance, and lesions lose nothing, dB."""
    return is_certain(gain, error) and in_lesions >= 0


def _export(
    folder: Path,
    config: TrainConfig,
    scanner: Scanner,
    network: ViewNet,
    record: Mapping[str, Any],
    *,
    seconds: float,
    gains: Any,
) -> None:
    """Write the bundle; without the network if that does not gain on volumes held out.

    record: of a task and its gate, fields of metadata.json. gains: dB [slabs, 2], as of `_gains`.
    """
    (gain, in_lesions), error = gains.mean(0), gains[:, 0].std() / math.sqrt(max(1, len(gains) - 1))
    is_used = _is_better(gain, error, in_lesions)
    text = "" if is_used else "; the network did not gain, and the inversion alone is used"
    row = {
        "volumes": f"held out, behind the scanner{text}",
        "network over inversion (dB)": f"{gain:.2f} ± {error:.2f}",
        "worst (dB)": f"{gains[:, 0].min():.2f}",
        "in planted lesions (dB)": f"{in_lesions:.2f}",
    }
    low, good = (len(pool.files) for pool in (scanner.low_quality, scanner.high_quality))
    # Folders and files are those of this computer.
    unpaired = replace(config.unpaired, guide="named" if config.unpaired.guide else "")
    stated = replace(config, low_quality="", scanner="measured", unpaired=unpaired)
    settings = stated.to_json()
    if config.task and record:
        settings["task"]["segmenter"] = record["gradprom"]["segmenter"]["name"]
    tensors = network.state_dict() if is_used else {}
    metadata: dict[str, Any] = {
        "name": config.name,
        "kind": "enhancer",
        "modality": config.modality,
        "anatomy": config.anatomy,
        "description": f"HQG-Net without pairs: noise is removed, a scanner measured in {low} "
        f"volumes is inverted{', and a U-Net corrects what is left' if is_used else ''}; "
        f"{good} volumes of high quality are what results resemble.",
        "license": config.license or NOT_STATED,
        "scanner": scanner.to_json(),
        **({UNPAIRED: network.config.to_json()} if is_used else {}),
        "training": {
            "config": settings,
            "seconds": round(seconds),
            "validation": {"gain_db": round(float(gain), 3)},
            "summary": f"{config.steps} steps, seed {config.seed}, {seconds / 60:.0f} minutes",
        },
        "data": list(config.data),
        "measured": [row],
        "limits": [*training_length_limits(config.steps), *_LIMITS],
        **record,
    }
    export_bundle(folder, {f"{UNPAIRED}.{k}": v for k, v in tensors.items()}, metadata)
