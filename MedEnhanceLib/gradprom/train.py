"""Trains a segmentation head on clean, damaged and enhanced versions of labelled images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import draw
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.gradprom.config import TrainHeadConfig
from MedEnhanceLib.gradprom.folds import Files, find_split
from MedEnhanceLib.gradprom.head import export_head, make_head
from MedEnhanceLib.gradprom.held_out import measure_held_out
from MedEnhanceLib.gradprom.labelled import check_structures, read_labelled
from MedEnhanceLib.gradprom.patches import Example, draw_batch
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.precision import mixed_precision, move
from MedEnhanceLib.nets.training import averaged_weights, set_learning_rate, training_steps
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor

#: Takes a volume and enhances it; handed in, because a method does not import another.
Enhance = Callable[[Volume], Volume]
_METRIC_EVERY = 20
#: What the damaged versions are damaged by.
_DAMAGE = {"MR": "composite", "CT": "low-dose"}


def train(
    config: TrainHeadConfig,
    data: Path,
    out: Path,
    monitor: Monitor | None = None,
    *,
    enhance: Enhance | None = None,
) -> Path:
    """Train and export a head's bundle; returns its folder, `out/<name>`.

    Patients that are held out are measured on afterwards; the figures are in its card.
    Goes on from a checkpoint of the same configuration in `out`. Raises Cancelled after writing
    one, InputError for data that do not fit together, ModelError on divergence.
    """
    monitor = monitor or Monitor()
    choice = choose_device(config.device)
    monitor.log(f"training on {choice.name}: {choice.reason}")
    out.mkdir(parents=True, exist_ok=True)
    learned, held_out = find_split(config, data)
    if held_out:
        monitor.log(f"{len(held_out)} of {len(learned) + len(held_out)} images are held out")
    examples = prepare_examples(config, data, learned, monitor.part(0, 0.3), enhance)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed + 1)
    network = move(make_head(config.network, len(config.structures)), choice.name)
    average = averaged_weights(network, config.ema)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=1e-4)
    state: dict[str, Any] = {
        "config": replace(config, device="", checkpoint_s=0).to_json(),
        "modules": {"network": network, "average": average},
        "optimisers": {"adam": optimiser},
        "generator": rng,
    }
    checkpoint = out / "checkpoint.safetensors"
    start = load_checkpoint(checkpoint, **state) if checkpoint.exists() else 0
    began = time.monotonic()
    criterion = segmentation_loss(over_batch=config.labelled_share > 0)
    steps = training_steps(
        start,
        config.steps,
        lambda number: save_checkpoint(checkpoint, step=number, **state),
        config.checkpoint_s,
        monitor.part(0.3, 0.9),
    )
    for number in steps:
        set_learning_rate(optimiser, config.learning_rate, number, config.steps)
        images, labels = draw_batch(examples, config, rng)
        with mixed_precision(choice.name):
            logits = network(images.to(choice.name, memory_format=torch.channels_last))
        loss = criterion(logits.float(), labels.to(choice.name))
        if not torch.isfinite(loss):
            raise ModelError(
                f"the training diverged at step {number}", "Resume with a lower learning_rate."
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        average.update_parameters(network)
        if number % _METRIC_EVERY == 0:
            monitor.metric("loss", float(loss.detach()), number)
    bundle = export_head(out / config.name, config, average.module, time.monotonic() - began)
    if held_out:
        telling = monitor.part(0.9, 1.0)
        measure_held_out(bundle.folder, config, data, held_out, telling, enhance)
    monitor.progress(1.0, "model written")
    return bundle.folder


def prepare_examples(
    config: TrainHeadConfig,
    data: Path,
    files: Sequence[Files],
    monitor: Monitor,
    enhance: Enhance | None,
) -> list[Example]:
    """Read, label, damage and enhance all subjects that are learned from."""
    rng = np.random.default_rng(config.seed)
    examples = []
    for index, one in enumerate(files):
        part = monitor.part(index / len(files), (index + 1) / len(files))
        subject = read_labelled(config, data, one, part.part(0, 0.5))
        versions = [subject.image]
        for number in range(config.damaged):
            part.progress(0.5 + 0.5 * number / config.damaged, "making damaged versions")
            damaged = draw(_DAMAGE[config.modality], rng).apply(subject.image)
            versions += [damaged, enhance(damaged)] if enhance else [damaged]
        scaled = tuple(scaling_for(version).apply(version.voxels) for version in versions)
        isotropic = subject.image.geometry.is_nearly_isotropic
        examples.append(Example(scaled, subject.indices, isotropic))
    check_structures(config, [example.labels for example in examples])
    return examples


def segmentation_loss(*, over_batch: bool = False) -> nn.Module:
    """CE + Dice over logits [B, C, H, W] and label indices [B, 1, H, W], without background.

    over_batch: Dice of the batch as a whole. Of each patch, every one without the structure asks
    for nothing but less of it, and most patches are without what is rare.
    """
    from monai.losses.dice import DiceCELoss

    loss: nn.Module = DiceCELoss(
        to_onehot_y=True, softmax=True, include_background=False, batch=over_batch
    )
    return loss
