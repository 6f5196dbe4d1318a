"""Trains a segmentation head on labeled images, on degraded ones, and on these enhanced.

Afterwards the head is measured on held-out patients.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.export import record_fields
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import draw
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.gradprom.config import SLICES, HeadConfig
from MedEnhanceLib.gradprom.head import Enhancer, export_head, make_head, segmentation_loss
from MedEnhanceLib.gradprom.labeled import Files, find_split, read_labeled
from MedEnhanceLib.gradprom.likeness import record_likeness
from MedEnhanceLib.gradprom.segmenters import SEGMENTERS, segmenter_class
from MedEnhanceLib.gradprom.task import FrozenTask
from MedEnhanceLib.io import load
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.learning.precision import mixed_precision, move, without_tf32
from MedEnhanceLib.learning.training import Learner, begin_training
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig

#: Degradations of the simulated low-quality versions, in turn.
_DEGRADATIONS = {"MR": ("rician", "composite"), "CT": ("low-dose",)}
Halves = npt.NDArray[np.float16]
#: Make a network of a size for a number of structures; draw a batch, as `draw_batch`.
Maker: TypeAlias = Callable[[HeadConfig, int], nn.Module]
Drawer: TypeAlias = Callable[
    ["list[Example]", TrainHeadConfig, np.random.Generator], tuple[Tensor, Tensor]
]


@without_tf32
def train(
    config: TrainHeadConfig,
    data: Path,
    out: Path,
    monitor: Monitor | None = None,
    *,
    enhancer: Enhancer | None = None,
) -> Path:
    """Train a head, export its bundle, and measure it on held-out patients.

    Args:
        config: of the training.
        data: folder that the configuration's patterns are relative to.
        out: for checkpoint and bundle. A training of the same configuration continues from the
            checkpoint there.
        monitor: progress, metrics and cancelling.
        enhancer: for the low-quality images; None: they are not enhanced.
    Returns:
        The bundle's folder, `out/<name>`. Its model card has the results in held-out patients.
    Raises:
        Cancelled: after writing a checkpoint.
        ConfigError: no network of the kind is trained.
        InputError: data do not fit together.
        ModelError: the training diverged.
    """
    monitor = monitor or Monitor()
    make_network, draw = _training_of(config.network.kind)
    device = begin_training(config.device, out, monitor)
    training, held_out = find_split(config, data)
    if held_out:
        monitor.log(f"{len(held_out)} of {len(training) + len(held_out)} images are held out")
    examples = prepare_examples(config, data, training, monitor.part(0, 0.3), enhancer)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed + 1)
    network = move(make_network(config.network, len(config.structures)), device)
    learner = Learner(network, config.learning_rate, config.ema)
    criterion = segmentation_loss(over_batch=config.labeled_share > 0)

    def loss_of(_: int) -> tuple[Tensor, dict[str, Tensor]]:
        images, labels = draw(examples, config, rng)
        with mixed_precision(device):
            logits = network(images.to(device))
        loss = criterion(logits.float(), labels.to(device))
        return loss, {"loss": loss}

    steps = monitor.part(0.3, 0.9)
    seconds = learner.run(loss_of, config.steps, out, config.to_json(), steps, rng)
    bundle = export_head(out / config.name, config, learner.averaged(), seconds, enhancer)
    if config.network.kind == SLICES:
        images = (load(path, modality=config.modality).single() for path, _ in training)
        record_likeness(bundle.folder, images)
    if held_out:
        task = FrozenTask(bundle, config, data, device)
        _measure(task, bundle, enhancer, monitor.part(0.9, 1.0))
    monitor.progress(1.0, "model written")
    return bundle.folder


def _training_of(kind: str) -> tuple[Maker, Drawer]:
    """Return how networks of a kind are made, and their batches drawn: its segmenter says so."""
    if kind == SLICES:
        return make_head, draw_batch
    segmenter: Any = segmenter_class(kind) if kind in SEGMENTERS else None
    if not hasattr(segmenter, "make_network"):
        raise ConfigError(
            f"network.kind: no {kind!r} is trained on images", f"Use {SLICES}, or leave it out."
        )
    return segmenter.make_network, segmenter.draw_batch


def _measure(task: FrozenTask, bundle: Bundle, enhancer: Enhancer | None, monitor: Monitor) -> None:
    """Measure a head on held-out patients, and record that in its bundle."""
    enhancers = {"enhanced": enhancer.enhance} if enhancer else {}
    rows = task.measure(enhancers, monitor)
    means = [*_means(rows)]
    description = f"{bundle.metadata['description']} {dice_in_words(means)}"
    record_fields(bundle.folder, {"measured": [*rows, *means], "description": description})


def prepare_examples(
    config: TrainHeadConfig,
    data: Path,
    files: Sequence[Files],
    monitor: Monitor,
    enhancer: Enhancer | None,
) -> list[Example]:
    """Read, label, degrade and enhance all subjects of the training.

    The degraded versions of an image depend on the seed and its path, not on other images.

    Args:
        config: of the training.
        data: the folder of `files`, whose paths below it seed the degradations.
        files: image and labels of each subject, as `find_split` lists them.
        monitor: receives progress.
        enhancer: for the degraded versions; None: they are not enhanced.
    Raises InputError for a structure that no image shows.
    """
    examples = []
    for index, pair in enumerate(files):
        part = monitor.part(index / len(files), (index + 1) / len(files))
        labeled = read_labeled(config, pair, part.part(0, 0.5))
        name = pair[0].relative_to(data).as_posix()
        rng = np.random.default_rng([config.seed, zlib.crc32(name.encode())])
        versions = tuple(
            scaling_for(image).apply(image.voxels).astype(np.float16)
            for image in _versions(labeled.image, config, rng, enhancer, part.part(0.5, 1))
        )
        isotropic = labeled.image.geometry.is_nearly_isotropic
        examples.append(Example(versions, labeled.indices, isotropic))
    for index, label in enumerate(config.label_set, start=1):
        if not any((example.labels == index).any() for example in examples):
            raise InputError(
                f"no training image shows {label.name!r} (value {label.value})",
                "Check its label value, or leave the structure out.",
            )
    return examples


def _versions(
    image: Volume,
    config: TrainHeadConfig,
    rng: np.random.Generator,
    enhancer: Enhancer | None,
    monitor: Monitor,
) -> Iterator[Volume]:
    """Yield the clean image, then its degraded versions, enhanced and as they are.

    People segment noisy images as well.
    """
    yield image
    kinds = _DEGRADATIONS[config.modality]
    for number in range(config.damaged):
        monitor.progress(number / config.damaged, "making degraded versions")
        degraded = draw(kinds[number % len(kinds)], rng).apply(image)
        if enhancer:
            yield enhancer.enhance(degraded)
        yield degraded


@dataclass(frozen=True)
class Example:
    """Subject: versions of its image on the network's scale, and its labels, [K, J, I].

    Attributes:
        versions: [K, J, I] each.
        isotropic: whether patches may be taken in other planes than the slices.
    """

    versions: tuple[Halves, ...]
    labels: npt.NDArray[np.uint8]
    isotropic: bool = True

    @cached_property
    def labeled(self) -> npt.NDArray[np.int16]:
        """Indices of labeled voxels, [N, 3]."""
        return np.argwhere(self.labels).astype(np.int16)


def draw_batch(
    examples: list[Example], config: TrainHeadConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw random patches: images [B, channels, P, P] and label indices [B, 1, P, P].

    They have any of the three planes if voxels are nearly isotropic, a zoom of 0.8 to 1.3, random
    flips, and in MR a random contrast.

    Args:
        examples: drawn from with replacement, all with the same probability.
        config: B is `batch`, P is `patch`; `labeled_share` of them lie around a labeled voxel.
        rng: draws everything.
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
    stacked = torch.stack(images).contiguous(memory_format=torch.channels_last)
    return stacked, torch.stack(labels)


def _varied(image: Tensor, modality: str, rng: np.random.Generator) -> Tensor:
    """Give MR a random contrast; shift CT, whose scale is fixed, by up to 15 HU."""
    if profile_of(modality).is_absolute:
        return image + float(rng.uniform(-0.015, 0.015))
    # A wide range: bright scalp fat halves the scaled values of the brain, so tissue has to be
    # recognized by contrast, not by value.
    gamma, gain = np.exp(rng.uniform(-0.6, 0.6)), rng.uniform(0.6, 1.3)
    return image.sign() * image.abs() ** float(gamma) * float(gain)


def _patch(
    voxels: Halves,
    labels: npt.NDArray[np.uint8],
    config: TrainHeadConfig,
    rng: np.random.Generator,
    around: npt.NDArray[np.int16] | None,
) -> tuple[Tensor, Tensor]:
    context, side = config.network.context, config.patch
    zoom = rng.uniform(0.8, 1.3)
    extent = round(side / zoom)
    depth, *sides = labels.shape
    middle = int(rng.integers(depth) if around is None else around[0])
    slices = np.clip(np.arange(middle - context, middle + context + 1), 0, depth - 1)
    starts = [int(rng.integers(max(n - extent, 0) + 1)) for n in sides]
    if around is not None:
        offsets = rng.integers(extent, size=2)
        starts = [
            int(np.clip(int(at) - offset, 0, max(n - extent, 0)))
            for at, offset, n in zip(around[1:], offsets, sides, strict=True)
        ]
    rows, columns = (slice(start, start + extent) for start in starts)
    image = torch.from_numpy(voxels[slices, rows, columns].astype(np.float32))
    label = torch.from_numpy(labels[middle, rows, columns].astype(np.float32))
    missing = (0, extent - image.shape[2], 0, extent - image.shape[1])
    # Beyond the image there is air, which is 0 in MR and -1 (−1000 HU) in CT.
    image = F.pad(image, missing, value=-1.0 if profile_of(config.modality).is_absolute else 0.0)
    label = F.pad(label[None], missing)
    image = F.interpolate(image[None], (side, side), mode="bilinear", align_corners=False)[0]
    label = F.interpolate(label[None], (side, side), mode="nearest")[0]
    flips = [axis for axis in (1, 2) if rng.random() < 0.5]
    return image.flip(flips), label.flip(flips)


def _means(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the means over patients, a row for each image."""
    for image in dict.fromkeys(row["image"] for row in rows):
        same = [row for row in rows if row["image"] == image]
        means = {"subject": "mean", "image": image}
        for name in [name for name in same[0] if name not in means]:
            values = [row[name] for row in same]
            means[name] = None if None in values else round(float(np.mean(values)), 4)
        yield means


def dice_in_words(means: Sequence[Mapping[str, Any]]) -> str:
    """State the Dice in held-out patients, for the card; means: a row for each image."""
    scans = {"noisy": "on a noisy scan", "enhanced": "enhanced", "clean": "on a clean scan"}
    dice = {row["image"]: row["dice"] for row in means}
    figures = [f"{dice[image]:.2f} {words}" for image, words in scans.items() if image in dice]
    return f"Mean Dice in persons held out: {', '.join(figures)}."
