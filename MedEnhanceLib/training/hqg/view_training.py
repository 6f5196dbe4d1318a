"""Trains the network that sees whole slices; can be resumed, and reproduced by its seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.bundles.store import Bundle, open_bundle
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.bundle import set_weights
from MedEnhanceLib.denoise.network_stage import SetNetwork
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.learning.precision import mixed_precision, move, on_device
from MedEnhanceLib.learning.training import EMA, Learner
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.corrector.slice_corrector import open_view_network
from MedEnhanceLib.scanner.corrector.view_inputs import NEIGHBORS
from MedEnhanceLib.scanner.corrector.view_network import ViewNet
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.crops import FIRST_VALIDATED, CropPool
from MedEnhanceLib.training.hqg.enhancer_export import export_with_view
from MedEnhanceLib.training.hqg.targets import matching_volumes
from MedEnhanceLib.training.hqg.view_slabs import (
    PatchBatch,
    SlabMaker,
    TrainingSlab,
    batch_of,
)

# Chosen by hand (decision 0066); no table isolates them. Measured by Benchmarks/denoising.py.
#: Patches of a step.
_BATCH = 8
#: Errors beyond this, in σ, count no more: edges of metal must not decide.
_MOST_ERROR = 4.0
#: Added to the mean square error of the filter, in σ², that the network's is relative to.
_FLOOR = 0.02
_LEAST_SLICES, _LEAST_SIDE = 8, 96
#: Patches of a slab that are compared; weight from which a pixel is of a lesion; least error.
_COMPARED, _LESION, _LEAST_ERROR = 4, 2.0, 1e-12


def train_view(config: TrainConfig, data: Path, out: Path, device: str, monitor: Monitor) -> Path:
    """Train the network that sees whole slices, and export its bundle.

    Args:
        config: of the training.
        data: folder that the configuration's patterns are relative to.
        out: for checkpoint, metrics and bundle.
        device: as PyTorch names it.
        monitor: as in `hqg.train.run.train`, with its errors.
    Returns the bundle's folder.
    """
    start = _start(config)
    volumes = _volumes(config, data, monitor.part(0.0, 0.03))
    torch.manual_seed(config.seed)
    assert config.view is not None
    network = ViewNet(config.view)
    if start.metadata.get("view") == network.config.to_json():
        network.load_state_dict(open_view_network(start).state_dict())
    move(network, device)
    first = SetNetwork(weights=set_weights(start))
    maker = SlabMaker(volumes, first, config.synthetic if volumes else 1.0, config.seed)
    learner = Learner(network.train(), config.learning_rate, EMA)
    in_steps = monitor.part(0.03, 0.97)
    batch_at, close = batches_of(maker.make, config, device, in_steps)

    def loss_of(number: int) -> tuple[Tensor, dict[str, Tensor]]:
        batch = batch_at(number)
        with mixed_precision(device):
            image = network(batch.noisy, batch.filtered, batch.sigma)
        loss = relative_error(image, batch)
        return loss, {"relative error": loss}

    try:
        seconds = learner.run(loss_of, config.steps, out, config.to_json(), in_steps)
    finally:
        close()
    averaged = learner.averaged()
    move(averaged, "cpu")
    numbers = range(FIRST_VALIDATED, FIRST_VALIDATED + config.validated)
    gains = [
        gain_on(maker.make(number)[0], averaged, [maker.seed, 6, number]) for number in numbers
    ]
    gain = float(np.mean([each[0] for each in gains]))
    folder = out / config.name
    export_with_view(folder, config, averaged, start=start, seconds=seconds, gain_db=gain)
    monitor.progress(1.0, "model written")
    return folder


def batches_of(
    make: Callable[[int], list[TrainingSlab]],
    config: TrainConfig,
    device: str,
    monitor: Monitor,
    *,
    turn: int = 1,
    key: int = 5,
) -> tuple[Callable[[int], PatchBatch], Callable[[], None]]:
    """Return a function of a step's number that returns its patches, on the device.

    Args:
        make: makes the slabs of a number, in any thread.
        config: of the training.
        device: as PyTorch names it.
        monitor: of all steps.
        turn: as of `batch_of`.
        key: of the random numbers, besides the seed.
    The second function ends the threads that make slabs.
    """
    pool: CropPool[TrainingSlab] = CropPool(make, config.crops, config.renewed_every)

    def batch_at(number: int) -> PatchBatch:
        rng = np.random.default_rng([config.seed, key, number])
        place = monitor.part(number / config.steps, number / config.steps)
        batch = batch_of(lambda: pool.draw(number, rng, place), _BATCH, rng, turn)
        return on_device(batch, device)

    return batch_at, pool.close


def relative_error(image: Tensor, batch: PatchBatch) -> Tensor:
    """Average the squared error of patches over that of the filter, so that dB count alike.

    image: [B, J, I], as `ViewNet.forward` returns it.
    """

    def error(values: Tensor) -> Tensor:
        difference = (values - batch.clean) / batch.sigma.clamp_min(1e-4)
        squares = difference.clamp(-_MOST_ERROR, _MOST_ERROR).square()
        return (batch.weight * squares).mean((1, 2))

    before = error(batch.filtered[:, NEIGHBORS])
    return (error(image) / (before + _FLOOR)).mean()


def _start(config: TrainConfig) -> Bundle:
    """Open the enhancer that gets the network; raises ConfigError for what it cannot do."""
    if not profile_of(config.modality).is_projected or config.task or config.examinations:
        raise ConfigError(
            "view: the network that sees whole slices is for CT, and takes no guide and no task",
            "Set modality CT, and leave out examinations and task, or view.",
        )
    return open_bundle(config.start or "ct", kind="enhancer", modality="CT")


def _volumes(config: TrainConfig, data: Path, monitor: Monitor) -> list[Volume]:
    """Read the real volumes; raises InputError where none is large enough."""
    volumes = [
        volume
        for volume in matching_volumes(config, data, config.high_quality, monitor)
        if len(volume.voxels) >= _LEAST_SLICES and min(volume.shape[1:]) >= _LEAST_SIDE
    ]
    if not volumes and config.synthetic < 1:
        raise InputError(
            f"{data}: no volume has {_LEAST_SLICES} slices of {_LEAST_SIDE} × {_LEAST_SIDE} pixels",
            "Give larger volumes, or set synthetic to 1.",
        )
    return volumes


@torch.inference_mode()
def gain_on(
    slab: TrainingSlab, network: ViewNet, seed: Sequence[int], *, turn: int = 1
) -> tuple[float, float]:
    """Measure the gain of a network over what precedes it.

    Args:
        slab: that no step saw.
        network: on the CPU.
        seed: of the patches that are compared.
        turn: as of `batch_of`.
    Returns dB: of all, and in planted lesions.
    """
    batch = batch_of(lambda: slab, _COMPARED, np.random.default_rng(seed), turn)
    image = network(batch.noisy, batch.filtered, batch.sigma)
    errors = [(each - batch.clean).square() for each in (batch.filtered[:, NEIGHBORS], image)]
    is_lesion = batch.weight > _LESION
    overall, inside = (
        [float(error[place].mean()) + _LEAST_ERROR for error in errors] if place.any() else [1, 1]
        for place in (torch.ones_like(is_lesion), is_lesion)
    )
    return 10 * math.log10(overall[0] / overall[1]), 10 * math.log10(inside[0] / inside[1])
