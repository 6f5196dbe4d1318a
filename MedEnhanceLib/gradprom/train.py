"""Trains a segmentation head on clean, damaged and enhanced versions of labelled images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.degrade import draw
from MedEnhanceLib.device import choose_device
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.gradprom.config import TrainHeadConfig
from MedEnhanceLib.gradprom.head import export_head, make_head
from MedEnhanceLib.gradprom.labelled import find_labelled, read_labelled
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.precision import mixed_precision, move
from MedEnhanceLib.nets.training import averaged_weights, set_learning_rate, training_steps
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.volume import Volume

Floats = npt.NDArray[np.float32]
#: Takes a volume and enhances it; handed in, because a method does not import another.
Enhance = Callable[[Volume], Volume]
_METRIC_EVERY = 20


@dataclass(frozen=True)
class Example:
    """One subject: all versions of its image on the network's scale, and its labels."""

    versions: tuple[Floats, ...]
    labels: npt.NDArray[np.uint8]


def train(
    config: TrainHeadConfig,
    data: Path,
    out: Path,
    monitor: Monitor | None = None,
    *,
    enhance: Enhance | None = None,
) -> Path:
    """Train and export a head's bundle; returns its folder, `out/<name>`.

    Goes on from a checkpoint of the same configuration in `out`. Raises Cancelled after writing
    one, InputError for data that do not fit together, ModelError on divergence.
    """
    monitor = monitor or Monitor()
    choice = choose_device(config.device)
    monitor.log(f"training on {choice.name}: {choice.reason}")
    out.mkdir(parents=True, exist_ok=True)
    examples = prepare_examples(config, data, monitor.part(0, 0.3), enhance)
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
    criterion = segmentation_loss()
    steps = training_steps(
        start,
        config.steps,
        lambda number: save_checkpoint(checkpoint, step=number, **state),
        config.checkpoint_s,
        monitor.part(0.3, 0.98),
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
    monitor.progress(1.0, "model written")
    return bundle.folder


def prepare_examples(
    config: TrainHeadConfig, data: Path, monitor: Monitor, enhance: Enhance | None
) -> list[Example]:
    """Read, label, damage and enhance all subjects."""
    rng = np.random.default_rng(config.seed)
    examples = []
    found = find_labelled(config, data)
    for index, files in enumerate(found):
        part = monitor.part(index / len(found), (index + 1) / len(found))
        subject = read_labelled(config, data, files, part.part(0, 0.5))
        versions = [subject.image]
        for number in range(config.damaged):
            part.progress(0.5 + 0.5 * number / config.damaged, "making damaged versions")
            damaged = draw("composite", rng).apply(subject.image)
            versions += [damaged, enhance(damaged)] if enhance else [damaged]
        scaled = tuple(scaling_for(version).apply(version.voxels) for version in versions)
        examples.append(Example(scaled, subject.indices))
    return examples


def draw_batch(
    examples: list[Example], config: TrainHeadConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random patches: images [B, 2k + 1, P, P] and label indices [B, 1, P, P].

    Any of the three planes, any zoom from 0.8 to 1.3, mirrored, with another contrast.
    """
    images, labels = [], []
    for _ in range(config.batch):
        example = examples[rng.integers(len(examples))]
        version = example.versions[rng.integers(len(example.versions))]
        axes = (0, 1, 2) if rng.random() < 0.5 else tuple(rng.permutation(3))
        image, label = _patch(version.transpose(axes), example.labels.transpose(axes), config, rng)
        # Wide: scalp fat halves the scaled brain, and tissue must be told by contrast, not value.
        gamma, gain = np.exp(rng.uniform(-0.6, 0.6)), rng.uniform(0.6, 1.3)
        image = image.sign() * image.abs() ** float(gamma) * float(gain)
        images.append(image)
        labels.append(label)
    return torch.stack(images), torch.stack(labels)


def _patch(
    voxels: Floats,
    labels: npt.NDArray[np.uint8],
    config: TrainHeadConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    context, side = config.network.context, config.patch
    zoom = rng.uniform(0.8, 1.3)
    taken = round(side / zoom)
    middle = int(rng.integers(voxels.shape[0]))
    slices = np.clip(np.arange(middle - context, middle + context + 1), 0, voxels.shape[0] - 1)
    rows, columns = (
        slice(start, start + taken)
        for start in (int(rng.integers(max(n - taken, 0) + 1)) for n in voxels.shape[1:])
    )
    image = torch.from_numpy(np.ascontiguousarray(voxels[slices, rows, columns]))
    label = torch.from_numpy(labels[middle, rows, columns].astype(np.float32))
    short = (0, taken - image.shape[2], 0, taken - image.shape[1])
    image, label = F.pad(image, short), F.pad(label[None], short)
    image = F.interpolate(image[None], (side, side), mode="bilinear", align_corners=False)[0]
    label = F.interpolate(label[None], (side, side), mode="nearest")[0]
    flips = [axis for axis in (1, 2) if rng.random() < 0.5]
    return image.flip(flips), label.flip(flips)


def segmentation_loss() -> nn.Module:
    """CE + Dice over logits [B, C, H, W] and label indices [B, 1, H, W], without background."""
    from monai.losses.dice import DiceCELoss

    loss: nn.Module = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    return loss
