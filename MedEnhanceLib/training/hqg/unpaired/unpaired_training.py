"""Trains the network that corrects what the inversion of a scanner leaves, without pairs.

The scanner is measured from two folders. High-quality volumes are put behind it and inverted as in
use; the network learns the difference. Some volumes are held out: by them the best weights are
kept, and it is decided whether the network is used at all.
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
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.export import NOT_STATED, export_bundle, load_tensors, training_record
from MedEnhanceLib.bundles.store import Bundle, open_bundle
from MedEnhanceLib.bundles.suitability import is_certain, training_length_limits
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.hqg.bundle import UNPAIRED_PREFIX
from MedEnhanceLib.hqg.groups import on_device
from MedEnhanceLib.hqg.scanner_network import in_torch, slices_of
from MedEnhanceLib.hqg.view_inputs import NEIGHBORS
from MedEnhanceLib.hqg.view_network import ViewNet
from MedEnhanceLib.io.atomic import make_folder, write_json
from MedEnhanceLib.jobs.kinds.scanner import volumes_in
from MedEnhanceLib.learning.precision import mixed_precision, move
from MedEnhanceLib.learning.training import CHECKPOINT, EMA, Learner
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.measure import measure_scanner
from MedEnhanceLib.scanner.scanner import Pool, Scanner
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.crops import FIRST_VALIDATED, CropPool
from MedEnhanceLib.training.hqg.targets import matching_volumes
from MedEnhanceLib.training.hqg.unpaired.pairs import Pair, PairMaker
from MedEnhanceLib.training.hqg.view_slabs import PatchBatch, TrainingSlab, batch_of

# Chosen by hand (decision 0109).
#: Patches of a step, and validations of a training.
_BATCH, _VALIDATIONS = 8, 20
#: Share of the volumes that is held out if none are named.
_HELD_OUT = 1 / 6
#: Error from which the loss is linear; added to that of the inversion, which it is relative to.
_LINEAR, _FLOOR = 0.02, 2e-4
#: Spread of the logarithm of the intensity of patches.
_JITTER = 0.1
#: Most that the network may lose of the contrast of lesions beyond the inversion.
_LOST_CONTRAST = 0.01
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
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
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
        config: of the training, with `unpaired`.
        data: folder that the configuration's patterns are relative to.
        out: for scanner.json, checkpoint, metrics and bundle.
        device: as PyTorch names it.
        monitor: as in `hqg.run.train`, with its errors.
    Returns the bundle's folder.
    """
    assert config.unpaired is not None
    start = _start(config)
    volumes, held_out = _volumes(config, data, monitor.part(0.0, 0.02))
    scanner = _scanner(config, [*volumes, *held_out], out, monitor.part(0.02, 0.06))
    torch.manual_seed(config.seed)
    network = ViewNet(config.unpaired.network)
    best = _Best(network)
    for each in (network, best):
        move(each, device)
    learner = Learner(network.train(), config.learning_rate, EMA)
    maker = PairMaker(volumes, scanner, config.start or start.name, config.seed)
    judged = replace(maker, volumes=held_out, seed=config.seed + 1)
    numbers = range(FIRST_VALIDATED, FIRST_VALIDATED + config.validated)
    shown = _pairs(judged, numbers, monitor.part(0.06, 0.1))
    pool: CropPool[TrainingSlab] = CropPool(maker.slabs, config.crops, config.renewed_every)
    in_steps, every = monitor.part(0.1, 0.95), max(1, config.steps // _VALIDATIONS)

    def validate(number: int) -> None:
        averaged = learner.averaged()
        gain = float(np.mean([_gain(pair, averaged, device) for pair in shown]))
        best.consider(averaged, gain)
        monitor.metric("gain_db", gain, number)

    def loss_of(number: int) -> tuple[Tensor, dict[str, Tensor]]:
        if number and number % every == 0:
            validate(number)
        rng = np.random.default_rng([config.seed, 8, number])
        place = in_steps.part(number / config.steps, number / config.steps)

        def draw() -> TrainingSlab:
            return pool.draw(number, rng, place)

        batch = on_device(batch_of(draw, _BATCH, rng, half_turns=True), device)
        batch = _jittered(batch, float(np.exp(rng.uniform(-_JITTER, _JITTER))))
        with mixed_precision(device):
            image = network(batch.noisy, batch.filtered, batch.sigma)
        loss = relative_error(image, batch)
        return loss, {"relative error": loss}

    # Folders are those of this computer, and the scanner is kept beside the checkpoint.
    settings = config.to_json() | {"unpaired": {"network": config.unpaired.network.to_json()}}
    try:
        modules = {"best": best}
        seconds = learner.run(loss_of, config.steps, out, settings, in_steps, modules=modules)
    finally:
        pool.close()
    validate(config.steps)
    move(best, "cpu")
    fresh = range(numbers.stop, numbers.stop + config.validated)
    verdict = _verdict(best.network, _pairs(judged, fresh, monitor.part(0.95, 1.0)))
    folder = out / config.name
    _export(folder, config, settings, scanner, best.network, start, seconds, verdict)
    monitor.progress(1.0, "model written")
    return folder


def relative_error(image: Tensor, batch: PatchBatch) -> Tensor:
    """Average the error of patches over that of the inversion, so that each patch counts alike.

    image: [B, J, I], as `ViewNet.forward` returns it.
    """

    def error(values: Tensor) -> Tensor:
        each = F.smooth_l1_loss(values, batch.clean, reduction="none", beta=_LINEAR)
        return (batch.weight * each).mean((1, 2))

    return (error(image) / (error(batch.filtered[:, NEIGHBORS]) + _FLOOR)).mean()


def _jittered(batch: PatchBatch, factor: float) -> PatchBatch:
    """Multiply all intensities."""
    images = (batch.noisy, batch.filtered, batch.sigma, batch.clean)
    noisy, inverted, sigma, clean = (factor * each for each in images)
    return PatchBatch(noisy, inverted, sigma, clean, batch.weight)


def _start(config: TrainConfig) -> Bundle:
    """Open the enhancer that removes the noise; raises ConfigError for what cannot be learned."""
    if config.task or config.examinations:
        raise ConfigError(
            "unpaired: a training without pairs takes no guide and no task",
            "Leave out examinations and task, or unpaired.",
        )
    start = open_bundle(config.start or "auto", kind="enhancer", modality=config.modality)
    if start.inverts:
        raise ConfigError(
            f"start: {start.name} inverts a scanner", "Name an enhancer that removes noise alone."
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
        held_out = [volumes[n] for n in sorted(order[:count])]
        volumes = [volumes[n] for n in sorted(order[count:])]
    if not volumes or not held_out:
        raise InputError(
            f"{data}: fewer than two high-quality volumes of {_LEAST_SIDE} slices, rows and "
            "columns or more",
            "Give volumes of more patients: one at least is held out.",
        )
    return volumes, held_out


def _scanner(config: TrainConfig, good: Sequence[Volume], out: Path, monitor: Monitor) -> Scanner:
    """Read the scanner, or measure it; a resumed training has that of its first steps."""
    kept, options = out / "scanner.json", config.unpaired
    assert options is not None
    if (out / CHECKPOINT).exists() and kept.exists():
        return Scanner.read(kept)
    if options.scanner:
        scanner = Scanner.read(options.scanner)
    else:
        low = volumes_in(options.low_quality, config.modality, monitor.part(0, 0))
        scanner = measure_scanner(low, good, monitor)
    if scanner.modality != config.modality:
        raise InputError(
            f"the scanner was measured in {scanner.modality}, and the training is of "
            f"{config.modality}",
            "State the modality of both: --modality.",
        )
    make_folder(out)
    write_json(kept, scanner.to_json(), overwrite=True)
    return scanner


def _pairs(maker: PairMaker, numbers: range, monitor: Monitor) -> list[Pair]:
    pairs = []
    for place, number in enumerate(numbers):
        monitor.progress(place / len(numbers), "preparing volumes held out")
        pairs.append(maker.make(number))
    return pairs


def _corrected(pair: Pair, network: ViewNet, device: str) -> Any:
    """Correct a pair as in use, on the network's scale."""
    correct = in_torch(network, device)
    slices = slices_of(correct, pair.inversion, pair.sigma, Monitor())
    return np.stack([*slices]) / pair.top


def _gain(pair: Pair, network: ViewNet, device: str = "cpu") -> float:
    """Measure the gain of a network over the inversion in tissue, in dB."""
    images = pair.inversion.voxels / pair.top, _corrected(pair, network, device)
    before, after = (float(np.mean(np.square(i - pair.clean)[pair.tissue])) for i in images)
    return 10 * math.log10(before / max(after, 1e-12))


def _lesion_error(images: Sequence[Any], pairs: Sequence[Pair]) -> float:
    """Return how far the contrast of all planted lesions is from what it was, as a share."""
    changed = power = 0.0
    for image, pair in zip(images, pairs, strict=True):
        changed += float(np.sum((image - pair.clean) * pair.planted, dtype=float))
        power += float(np.sum(np.square(pair.planted), dtype=float))
    return abs(changed) / max(power, 1e-12)


@torch.inference_mode()
def _verdict(network: ViewNet, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Measure a network on pairs that chose no weights, and decide whether it is used."""
    gains = np.array([_gain(pair, network) for pair in pairs])
    before = _lesion_error([pair.inversion.voxels / pair.top for pair in pairs], pairs)
    after = _lesion_error([_corrected(pair, network, "cpu") for pair in pairs], pairs)
    gain, error = float(gains.mean()), float(gains.std()) / math.sqrt(max(1, len(gains) - 1))
    is_used = is_certain(gain, error) and after <= before + _LOST_CONTRAST
    return {
        "over_inversion_db": round(gain, 3),
        "over_inversion_error_db": round(error, 3),
        "worst_db": round(float(gains.min()), 3),
        "lesion_error_of_inversion": round(before, 3),
        "lesion_error": round(after, 3),
        "used": is_used,
    }


def _anonymous(pool: Pool) -> Pool:
    """Replace names of files, which may be those of patients."""
    return replace(pool, files=tuple(str(n + 1) for n in range(len(pool.files))))


def _export(
    folder: Path,
    config: TrainConfig,
    settings: dict[str, Any],
    scanner: Scanner,
    network: ViewNet,
    start: Bundle,
    seconds: float,
    verdict: dict[str, Any],
) -> None:
    """Write the bundle: the networks of `start`, the scanner, and what follows its inversion."""
    tensors = load_tensors(start)
    tensors |= {f"{UNPAIRED_PREFIX}{name}": value for name, value in network.state_dict().items()}
    low, good = _anonymous(scanner.low_quality), _anonymous(scanner.high_quality)
    kept = ("network", "view", "guided", "intensity")
    metadata: dict[str, Any] = {
        **{name: start.metadata[name] for name in kept if name in start.metadata},
        "name": config.name,
        "kind": "enhancer",
        "modality": config.modality,
        "anatomy": config.anatomy,
        "description": f"HQG-Net without pairs: noise is removed, a scanner measured in "
        f"{len(low.files)} volumes is inverted, and a U-Net that learned from {len(good.files)} "
        "high-quality volumes behind it corrects what is left.",
        "license": config.license or NOT_STATED,
        "unpaired": {
            "scanner": replace(scanner, low_quality=low, high_quality=good).to_json(),
            "network": network.config.to_json(),
            "used": verdict["used"],
        },
        "training": {
            **training_record(settings, start),
            "seconds": round(seconds),
            "validation": verdict,
            "summary": f"From {start.name}: {config.steps} steps without pairs, seed "
            f"{config.seed}, {seconds / 60:.0f} minutes",
        },
        "data": list(config.data),
        "limits": [*training_length_limits(config.steps), *_LIMITS],
    }
    export_bundle(folder, tensors, metadata)
