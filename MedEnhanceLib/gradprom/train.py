"""Trains a segmentation head on clean, degraded and enhanced versions of labeled images.

Patients that are held out are measured on afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.export import record_fields
from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import draw
from MedEnhanceLib.gradprom import segment
from MedEnhanceLib.gradprom.config import SegmentConfig, TrainHeadConfig
from MedEnhanceLib.gradprom.head import export_head, make_head
from MedEnhanceLib.gradprom.labeled import Files, check_structures, find_split, read_labeled
from MedEnhanceLib.gradprom.likeness import record_likeness
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.precision import mixed_precision, move, without_tf32
from MedEnhanceLib.nets.training import Learner, begin_training, run_steps
from MedEnhanceLib.runtime.progress import Monitor

#: Enhances a volume; passed in, as a method does not import another.
Enhance = Callable[[Volume], Volume]
#: Degradation of the simulated low-quality versions.
_DEGRADATION = {"MR": "composite", "CT": "low-dose"}
Floats = npt.NDArray[np.float32]


@without_tf32()
def train(
    config: TrainHeadConfig,
    data: Path,
    out: Path,
    monitor: Monitor | None = None,
    *,
    enhance: Enhance | None = None,
) -> Path:
    """Train and export a head's bundle, and measure it on the patients held out.

    Args:
        config: of the training.
        data: folder that the configuration's patterns are relative to.
        out: for checkpoint and bundle. A training of the same configuration continues from the
            checkpoint there.
        monitor: progress, metrics and cancelling.
        enhance: enhances a volume, so that the head learns on enhanced images too; None for none.
    Returns:
        The bundle's folder, `out/<name>`. Figures on patients held out are in its model card.
    Raises:
        Cancelled: after writing a checkpoint.
        InputError: data do not fit together.
        ModelError: the training diverged.
    """
    monitor = monitor or Monitor()
    device = begin_training(config.device, out, monitor)
    learned, held_out = find_split(config, data)
    if held_out:
        monitor.log(f"{len(held_out)} of {len(learned) + len(held_out)} images are held out")
    examples = prepare_examples(config, data, learned, monitor.part(0, 0.3), enhance)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed + 1)
    network = move(make_head(config.network, len(config.structures)), device)
    learner = Learner(network, config.learning_rate, config.ema)
    criterion = segmentation_loss(over_batch=config.labeled_share > 0)

    def step(number: int) -> dict[str, float]:
        images, labels = draw_batch(examples, config, rng)
        with mixed_precision(device):
            logits = network(images.to(device, memory_format=torch.channels_last))
        loss = criterion(logits.float(), labels.to(device))
        learner.step(loss, number, config.steps)
        return {"loss": float(loss.detach())}

    parts = {
        "config": replace(config, device="").to_json(),
        "modules": {"network": network, "average": learner.average},
        "optimizers": {"adam": learner.optimizer},
        "generator": rng,
    }
    seconds = run_steps(step, config.steps, out, parts, monitor.part(0.3, 0.9))
    bundle = export_head(out / config.name, config, learner.averaged(), seconds)
    images = (load(path, modality=config.modality).single() for path, _ in learned)
    record_likeness(bundle.folder, images)
    if held_out:
        measure_held_out(bundle.folder, config, data, held_out, monitor.part(0.9, 1.0))
    monitor.progress(1.0, "model written")
    return bundle.folder


def prepare_examples(
    config: TrainHeadConfig,
    data: Path,
    files: Sequence[Files],
    monitor: Monitor,
    enhance: Enhance | None,
) -> list[Example]:
    """Read, label, degrade and enhance all subjects of the training."""
    rng = np.random.default_rng(config.seed)
    examples = []
    for index, one in enumerate(files):
        part = monitor.part(index / len(files), (index + 1) / len(files))
        subject = read_labeled(config, data, one, part.part(0, 0.5))
        versions = [subject.image]
        for number in range(config.damaged):
            part.progress(0.5 + 0.5 * number / config.damaged, "making degraded versions")
            degraded = draw(_DEGRADATION[config.modality], rng).apply(subject.image)
            versions += [degraded, enhance(degraded)] if enhance else [degraded]
        scaled = tuple(scaling_for(version).apply(version.voxels) for version in versions)
        isotropic = subject.image.geometry.is_nearly_isotropic
        examples.append(Example(scaled, subject.indices, isotropic))
    check_structures(config, [example.labels for example in examples])
    return examples


def segmentation_loss(*, over_batch: bool = False) -> nn.Module:
    """Make CE + Dice over logits [B, C, H, W] and label indices [B, 1, H, W], without background.

    over_batch: Dice of the batch as a whole. Dice of each patch would only push a rare structure
    back, as most patches do not show it.
    """
    from monai.losses.dice import DiceCELoss

    loss: nn.Module = DiceCELoss(
        to_onehot_y=True, softmax=True, include_background=False, batch=over_batch
    )
    return loss


@dataclass(frozen=True)
class Example:
    """Subject: all versions of its image on the network's scale, and its labels, [K, J, I].

    isotropic: whether patches may be taken in other planes than the slices.
    """

    versions: tuple[Floats, ...]
    labels: npt.NDArray[np.uint8]
    isotropic: bool = True

    @cached_property
    def labeled(self) -> npt.NDArray[np.int16]:
        """Indices of labeled voxels, [N, 3]."""
        return np.argwhere(self.labels).astype(np.int16)


def draw_batch(
    examples: list[Example], config: TrainHeadConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw random patches: images [B, 2k + 1, P, P] and label indices [B, 1, P, P].

    In any of the three planes where voxels are nearly isotropic, with a zoom from 0.8 to 1.3,
    mirrored, MR with random contrast; the share `labeled_share` of them around a labeled voxel.
    """
    images, labels = [], []
    for _ in range(config.batch):
        example = examples[rng.integers(len(examples))]
        version = example.versions[rng.integers(len(example.versions))]
        is_upright = rng.random() < 0.5 or not example.isotropic
        axes = (0, 1, 2) if is_upright else tuple(rng.permutation(3))
        around = None
        if config.labeled_share and rng.random() < config.labeled_share:
            around = example.labeled[rng.integers(len(example.labeled))][list(axes)]
        patch = _patch(version.transpose(axes), example.labels.transpose(axes), config, rng, around)
        images.append(_varied(patch[0], config.modality, rng))
        labels.append(patch[1])
    return torch.stack(images), torch.stack(labels)


def _varied(image: Tensor, modality: str, rng: np.random.Generator) -> Tensor:
    """Give MR a random contrast; shift CT, whose scale is fixed, by up to 15 HU."""
    if modality == "CT":
        return image + float(rng.uniform(-0.015, 0.015))
    # A wide range: bright scalp fat halves the scaled brain, so tissue has to be recognized by
    # contrast, not by value.
    gamma, gain = np.exp(rng.uniform(-0.6, 0.6)), rng.uniform(0.6, 1.3)
    return image.sign() * image.abs() ** float(gamma) * float(gain)


def _patch(
    voxels: Floats,
    labels: npt.NDArray[np.uint8],
    config: TrainHeadConfig,
    rng: np.random.Generator,
    around: npt.NDArray[np.int16] | None,
) -> tuple[Tensor, Tensor]:
    context, side = config.network.context, config.patch
    zoom = rng.uniform(0.8, 1.3)
    taken = round(side / zoom)
    middle = int(rng.integers(voxels.shape[0]) if around is None else around[0])
    slices = np.clip(np.arange(middle - context, middle + context + 1), 0, voxels.shape[0] - 1)
    starts = [int(rng.integers(max(n - taken, 0) + 1)) for n in voxels.shape[1:]]
    if around is not None:
        offsets = rng.integers(taken, size=2)
        starts = [
            int(np.clip(int(at) - offset, 0, max(n - taken, 0)))
            for at, offset, n in zip(around[1:], offsets, voxels.shape[1:], strict=True)
        ]
    rows, columns = (slice(start, start + taken) for start in starts)
    image = torch.from_numpy(np.ascontiguousarray(voxels[slices, rows, columns]))
    label = torch.from_numpy(labels[middle, rows, columns].astype(np.float32))
    short = (0, taken - image.shape[2], 0, taken - image.shape[1])
    # Beyond the image there is air, which is 0 in MR and -1 (−1000 HU) in CT.
    image = F.pad(image, short, value=-1.0 if config.modality == "CT" else 0.0)
    label = F.pad(label[None], short)
    image = F.interpolate(image[None], (side, side), mode="bilinear", align_corners=False)[0]
    label = F.interpolate(label[None], (side, side), mode="nearest")[0]
    flips = [axis for axis in (1, 2) if rng.random() < 0.5]
    return image.flip(flips), label.flip(flips)


def measure_held_out(
    folder: Path, config: TrainHeadConfig, data: Path, files: Sequence[Files], monitor: Monitor
) -> None:
    """Measure Dice in each patient and the means, for the bundle's metadata and model card.

    Patients have numbers there, as names of files may be names of people; the monitor's log maps
    numbers to files.
    """
    options = SegmentConfig(model=str(folder), device=config.device, force_segmenter=True)
    rows: list[dict[str, Any]] = []
    for number, pair in enumerate(files):
        part = monitor.part(number / len(files), (number + 1) / len(files))
        subject = f"held-out patient {number + 1}"
        labeled = read_labeled(config, data, pair, part.part(0, 0.1))
        found = segment(labeled.image, options, monitor=part.part(0.1, 1)).volume.voxels
        reference = labeled.values(config)
        figures = {
            f"{label.name} (Dice)": round(dice(reference, found, label.value), 3)
            for label in config.label_set
        }
        monitor.log(f"{subject}: {pair[0].relative_to(data)}: {figures}")
        rows.append({"subject": subject, **figures})
    names = [name for name in rows[0] if name != "subject"]
    means = {name: round(float(np.mean([row[name] for row in rows])), 3) for name in names}
    record_fields(folder, {"measured": [*rows, {"subject": "mean", **means}]})
