"""Trains the network that corrects what the inversion of a scanner leaves, without pairs.

The scanner is measured from two folders; high-quality volumes are put behind it and inverted, and
the network learns the difference. By volumes held out the best weights are kept, and it is decided
whether the bundle has the network, or the inversion alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from MedEnhanceLib.bundles.store import Bundle, open_bundle
from MedEnhanceLib.bundles.suitability import is_certain, training_length_limits
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.bundle import UNPAIRED
from MedEnhanceLib.denoise.config import ViewConfig
from MedEnhanceLib.denoise.view_network import ViewNet
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io import load
from MedEnhanceLib.jobs.kinds.measure_scanner import volumes_in, without_noise
from MedEnhanceLib.learning.precision import move
from MedEnhanceLib.learning.training import EMA, Learner
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.check import measure_scanner
from MedEnhanceLib.scanner.scanner import Scanner
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.crops import FIRST_VALIDATED
from MedEnhanceLib.training.hqg.enhancer_export import export_with_view
from MedEnhanceLib.training.hqg.targets import matching_volumes
from MedEnhanceLib.training.hqg.unpaired.scanned_slabs import (
    LowQualitySlabMaker,
    ScannedSlabMaker,
    high_quality_slab,
)
from MedEnhanceLib.training.hqg.unpaired.style_code import CodedNetwork
from MedEnhanceLib.training.hqg.unpaired.unpaired_losses import UnpairedLosses
from MedEnhanceLib.training.hqg.view_slabs import TrainingSlab, batch_of
from MedEnhanceLib.training.hqg.view_training import gain_on

# Chosen by hand (decision 0109).
#: Validations of a training; share of the volumes that is held out if none are named.
_VALIDATIONS, _HELD_OUT = 20, 1 / 6
#: Patches whose mean code is that of the result.
_GUIDES = 64
_LEAST_SIDE = 8
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


def train_unpaired(
    config: TrainConfig, data: Path, out: Path, device: str, monitor: Monitor
) -> Path:
    """Measure the scanner, train, and export the bundle.

    Args:
        config: of the training, with `low_quality` or `scanner`.
        data: folder that the configuration's patterns are relative to.
        out: for checkpoint, metrics and bundle.
        device: as PyTorch names it.
        monitor: as in `hqg.run.train`, with its errors.
    Returns the bundle's folder.
    """
    start = _start(config)
    volumes, held_out = _volumes(config, data, monitor.part(0.0, 0.02))
    scanner = _scanner(config, [*volumes, *held_out], monitor.part(0.02, 0.06))
    scans = _scans(config, monitor.part(0.06, 0.06))
    torch.manual_seed(config.seed)
    network = CodedNetwork(ViewNet(config.view or ViewConfig()))
    best = _Best(network.network)
    move(network, device)
    learner = Learner(network.train(), config.learning_rate, EMA)
    model = config.start or start.name
    maker = ScannedSlabMaker(volumes, scanner, model, config.seed)
    guides = _guides(config, volumes, monitor.part(0.06, 0.06))
    judging = replace(maker, volumes=held_out, seed=config.seed + 1, slow_changes=True)
    slabs = []
    for number in range(2 * config.validated):
        monitor.progress(0.06, f"preparing scan {number + 1} of volumes held out")
        slabs += judging.make(FIRST_VALIDATED + number)
    shown, judged = slabs[: config.validated], slabs[config.validated :]
    every, in_steps = max(1, config.steps // _VALIDATIONS), monitor.part(0.1, 0.95)
    scanned = LowQualitySlabMaker(scans, scanner, model, config.seed)
    losses = UnpairedLosses(network, maker, scanned, config, device, in_steps)

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
        return losses(number)

    settings, modules = config.to_json(), dict[str, nn.Module](best=best)
    optimizers = dict[str, Optimizer]()
    if losses.adversary:
        modules["discriminator"] = losses.adversary
        optimizers["discriminator adam"] = losses.adversary.optimizer
    try:
        seconds = learner.run(
            loss_of, config.steps, out, settings, in_steps, modules=modules, optimizers=optimizers
        )
    finally:
        losses.close()
    validate(config.steps)
    gains = _gains(best.network, judged, config.seed)
    folder = out / config.name
    _export(folder, config, scanner, best.network, start=start, seconds=seconds, gains=gains)
    monitor.progress(1.0, "model written")
    return folder


def _scans(config: TrainConfig, monitor: Monitor) -> list[Volume]:
    """Read the scans of low quality, where a part of the paper takes them."""
    if not config.unpaired.takes_scans:
        return []
    volumes = volumes_in(config.low_quality, config.modality, monitor)
    return [volume.single().canonical().compact() for volume in volumes]


def _guides(config: TrainConfig, good: Sequence[Volume], monitor: Monitor) -> Tensor | None:
    """Draw the patches whose mean code is that of the result, [B, J, I]; None without codes."""
    parts, rng = config.unpaired, np.random.default_rng([config.seed, 14])
    if not parts.code:
        return None
    if parts.guide:
        guide = load(parts.guide, modality=config.modality, monitor=monitor).single()
        good = [guide.canonical().compact()]
    return batch_of(lambda: high_quality_slab(good, rng), _GUIDES, rng, turn=2).clean


def _gains(network: ViewNet, slabs: Sequence[TrainingSlab], seed: int) -> Any:
    """Measure the gains of a network over the inversion, dB [slabs, 2]: of all, and in lesions."""
    return np.array([gain_on(slab, network, [seed, 6, n], turn=2) for n, slab in enumerate(slabs)])


def _start(config: TrainConfig) -> Bundle:
    """Open the enhancer that removes the noise; raises ConfigError for what cannot be learned."""
    start = open_bundle(config.start or "auto", kind="enhancer", modality=config.modality)
    parts = config.unpaired
    has_both = config.low_quality and config.scanner and not parts.takes_scans
    if (parts.takes_scans and not config.low_quality) or (parts.style and not parts.code):
        raise ConfigError(
            "unpaired: adversary, content and style see scans of low_quality, style needs code",
            "Give low_quality and code, or set these to 0.",
        )
    if has_both or config.task or config.examinations or start.inverts:
        raise ConfigError(
            "a training without pairs takes low_quality or scanner, no guide and no task, and "
            "starts from an enhancer that removes noise alone",
            "Leave out one of both, examinations, task and start.",
        )
    return start


def _volumes(
    config: TrainConfig, data: Path, monitor: Monitor
) -> tuple[list[Volume], list[Volume]]:
    """Read the high-quality volumes: to learn from, and held out; InputError for too few."""
    patterns = (*config.high_quality, *config.noiseless)
    volumes = [*matching_volumes(config, data, patterns, monitor)]
    volumes = [volume for volume in volumes if min(volume.shape) >= _LEAST_SIDE]
    held_out = [*matching_volumes(config, data, config.held_out, monitor, is_held_out=True)]
    if not held_out and len(volumes) > 1:
        order = np.random.default_rng([config.seed, 9]).permutation(len(volumes))
        count = max(1, round(_HELD_OUT * len(volumes)))
        held_out = [volumes[n] for n in order[:count]]
        volumes = [volumes[n] for n in order[count:]]
    if not volumes or not held_out:
        raise InputError(
            f"{data}: fewer than two high-quality volumes of {_LEAST_SIDE} slices, rows and "
            "columns or more",
            "Give volumes of more patients: one at least is held out.",
        )
    return volumes, held_out


def _scanner(config: TrainConfig, good: Sequence[Volume], monitor: Monitor) -> Scanner:
    """Read the scanner, or measure it; raises InputError for one of another modality."""
    if config.scanner:
        scanner = Scanner.read(config.scanner)
    else:
        low = volumes_in(config.low_quality, config.modality, monitor)
        scanner = measure_scanner(low, good, without_noise, monitor)
    if scanner.modality != config.modality:
        raise InputError(
            f"the scanner was measured in {scanner.modality}, and the training is of "
            f"{config.modality}",
            "State the modality of both: --modality.",
        )
    # Names of files may be those of patients.
    low_pool, good_pool = (
        replace(pool, files=tuple(str(n + 1) for n in range(len(pool.files))))
        for pool in (scanner.low_quality, scanner.high_quality)
    )
    return replace(scanner, low_quality=low_pool, high_quality=good_pool)


def _is_better(gain: float, error: float, in_lesions: float) -> bool:
    """Return whether a network is used: it gains beyond chance, and lesions lose nothing, dB."""
    return is_certain(gain, error) and in_lesions >= 0


def _export(
    folder: Path,
    config: TrainConfig,
    scanner: Scanner,
    network: ViewNet,
    *,
    start: Bundle,
    seconds: float,
    gains: Any,
) -> None:
    """Write the bundle; without the network if that does not gain on volumes held out.

    gains: dB [slabs, 2], as of `_gains`.
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
    fields: dict[str, Any] = {
        "description": f"HQG-Net without pairs: noise is removed, a scanner measured in {low} "
        f"volumes is inverted{', and a U-Net corrects what is left' if is_used else ''}; "
        f"{good} volumes of high quality are what results resemble.",
        "scanner": scanner.to_json(),
        "measured": [row],
        "limits": [*training_length_limits(config.steps), *_LIMITS],
    }
    # Folders and files are those of this computer.
    guide = "named" if config.unpaired.guide else ""
    unpaired = replace(config.unpaired, guide=guide)
    stated = replace(config, low_quality="", scanner="measured", unpaired=unpaired)
    export_with_view(
        folder, stated, network if is_used else None,
        start=start, seconds=seconds, gain_db=float(gain), part=UNPAIRED, fields=fields,
    )  # fmt: skip
