"""The task that takes part in a training: labeled slabs in two splits, and when the head teaches.

Stage 2 of the bi-level scheme (hqg.bilevel) within the training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.bilevel import BilevelTask
from MedEnhanceLib.hqg.config import TaskConfig, TrainConfig
from MedEnhanceLib.hqg.train.augment import Degradations, turn, vary_contrast
from MedEnhanceLib.hqg.train.pools import (
    Batch,
    Floats,
    PoolVolume,
    cut,
    prepared,
    random_place,
    step_generator,
)
from MedEnhanceLib.nets.training import set_learning_rate
from MedEnhanceLib.runtime.progress import Monitor

Labels = npt.NDArray[np.uint8]
#: A: the head is trained on it (lower step). B: the enhancer is (upper step).
Split = Literal["A", "B"]
_SPLITS: tuple[Split, Split] = ("A", "B")
#: Random places that are tried for a slab with a label in it.
_TRIES = 5
#: Device → head with its gate, and labeled data; called once the networks exist.
MakeTask = Callable[[str], tuple[BilevelTask, "LabeledPools"]]
_PURPOSES: dict[Split, int] = {"A": 2, "B": 3}


@dataclass(frozen=True)
class LabeledVolume:
    """A volume of the pool and its labels on the same grid, 0 the background."""

    image: PoolVolume
    labels: Labels


@dataclass(frozen=True)
class LabeledBatch:
    """Slabs and their labels [B, D, P, P], uint8."""

    slabs: Batch
    labels: Labels


class LabeledPools:
    """Labeled volumes in two splits, and seeded random slabs from them."""

    def __init__(
        self,
        config: TrainConfig,
        task: TaskConfig,
        splits: Mapping[Split, Sequence[LabeledVolume]],
    ) -> None:
        self._config, self._task = config, task
        self._splits = {name: tuple(splits[name]) for name in _SPLITS}
        self._degradations = Degradations(config)

    @classmethod
    def make(
        cls,
        config: TrainConfig,
        task: TaskConfig,
        subjects: Iterable[tuple[Path, Labels]],
        monitor: Monitor,
    ) -> LabeledPools:
        """Read the labeled images and split them.

        Whole subjects alternate between the splits. A single one is cut in halves along K, with a
        warning, as both splits then show the same person.

        Args:
            config: of the training.
            task: batch size and weights of the task.
            subjects: file of each image and its labels as indices, [K, J, I], 0 the background.
            monitor: progress, messages and warnings.
        Raises:
            InputError: there is no subject, or labels do not fit their image.
        """
        rng = np.random.default_rng(config.seed + 3)
        volumes = []
        for path, labels in subjects:
            images = list(prepared(path, config, rng, clean=True, monitor=monitor))
            if labels.shape != images[0].voxels.shape:
                raise InputError(
                    f"{path}: shape {images[0].voxels.shape}, its labels {labels.shape}",
                    "Give labels drawn on the image.",
                )
            volumes.append(
                [LabeledVolume(image, _resized(labels, image.voxels.shape)) for image in images]
            )
        if not volumes:
            raise InputError("the task has no labeled image", "State its images and labels.")
        if len(volumes) == 1:
            monitor.warn(
                f"{volumes[0][0].image.name} is the only labeled image: the head learns on the "
                "first half of its slices and teaches on the second. Both are one subject"
            )
            halves = [_halves(volume) for volume in volumes[0]]
            return cls(config, task, {"A": [a for a, _ in halves], "B": [b for _, b in halves]})
        monitor.log(f"{len(volumes)} labeled images: every other one teaches the enhancer")
        alternate = {
            name: [volume for subject in volumes[first::2] for volume in subject]
            for first, name in enumerate(_SPLITS)
        }
        return cls(config, task, alternate)

    def volumes(self, split: Split) -> tuple[LabeledVolume, ...]:
        """The volumes of a split."""
        return self._splits[split]

    def batch(self, rng: np.random.Generator, split: Split) -> LabeledBatch:
        """Slabs of one split, degraded at random strength, each with a guide from the split."""
        examples, labels = [], []
        for _ in range(self._task.batch):
            clean, noise, drawn = self._slab(split, rng)
            guide = self._slab(split, rng, depth=1)[0]
            examples.append(self._degradations.apply(clean, noise, guide, rng))
            labels.append(drawn)
        return LabeledBatch(Batch.of(examples), np.stack(labels))

    def _slab(
        self, split: Split, rng: np.random.Generator, depth: int | None = None
    ) -> tuple[Floats, Floats | None, Labels]:
        """A slab [D, P, P] with a label in it where one was found, its noise and its labels."""
        config, volumes = self._config, self._splits[split]
        volume = volumes[int(rng.integers(len(volumes)))]
        image = volume.image
        noise = image.noise[rng.integers(len(image.noise))] if image.noise else None
        free = image.isotropic and noise is None
        axes = tuple(rng.permutation(3)) if free else (0, 1, 2)
        size = (depth or config.slab, config.patch, config.patch)
        stack, drawn = (values.transpose(axes) for values in (image.voxels, volume.labels))
        for _ in range(_TRIES):
            start = random_place(stack.shape, size, rng)
            labels = cut(drawn, size, start)
            if labels.any():
                break
        turns, flips = int(rng.integers(4)), (bool(rng.integers(2)), bool(rng.integers(2)))

        def placed(values: npt.NDArray[Any]) -> Floats:
            return turn(cut(values, size, start), turns, flips)

        slab = placed(stack)
        if config.modality == "MR":
            slab = vary_contrast(slab, rng)
        return slab, None if noise is None else placed(noise), placed(drawn).astype(np.uint8)


def _resized(labels: Labels, shape: Sequence[int]) -> Labels:
    """The nearest label at every voxel of a coarser grid over the same field of view."""
    places = [
        np.minimum(((np.arange(wanted) + 0.5) * have / wanted).astype(int), have - 1)
        for have, wanted in zip(labels.shape, shape, strict=True)
    ]
    return np.ascontiguousarray(labels[np.ix_(*places)])


def _halves(volume: LabeledVolume) -> tuple[LabeledVolume, LabeledVolume]:
    """Below and above the middle of the slices."""
    middle = volume.labels.shape[0] // 2
    lower, upper = (
        LabeledVolume(
            replace(
                volume.image,
                voxels=volume.image.voxels[part],
                raw=None,
                noise=tuple(noise[part] for noise in volume.image.noise),
            ),
            volume.labels[part],
        )
        for part in (slice(None, middle), slice(middle, None))
    )
    return lower, upper


class Teaching:
    """A task that takes part in a training, and its labeled batches by step."""

    def __init__(
        self, config: TrainConfig, chosen: TaskConfig, make: MakeTask, device: str
    ) -> None:
        self._config, self._chosen, self._device = config, chosen, device
        self.task, self._labeled = make(device)
        self._begin = int(chosen.start * config.steps)

    def lower_step(self, number: int, enhance: Callable[[Batch], Tensor]) -> dict[str, float]:
        """The head learns on enhanced slabs of split A, from its start on; its loss."""
        steps = self._config.steps
        if not self._chosen.head_learns(number, steps):
            return {}
        slabs, labels = self._batch(number, "A")
        teaches = self._chosen.head_teaches(number, steps)
        with torch.set_grad_enabled(self._chosen.second_order and teaches):
            enhanced = enhance(slabs)
        rate, done = self.task.learning_rate, number - self._begin
        set_learning_rate(self.task.optimizer, rate, done, max(1, steps - self._begin))
        return {"task_lower": self.task.lower_step(enhanced, labels, teaches=teaches)}

    def upper_batch(self, number: int) -> tuple[Batch, Tensor] | None:
        """Slabs of split B and their labels, where the head teaches at this step."""
        if not self._chosen.head_teaches(number, self._config.steps):
            return None
        return self._batch(number, "B")

    def checkpoint_parts(self) -> dict[str, dict[str, Any]]:
        """What belongs into a checkpoint."""
        return self.task.checkpoint_parts()

    def _batch(self, number: int, split: Split) -> tuple[Batch, Tensor]:
        rng = step_generator(self._config.seed, number, 0, _PURPOSES[split])
        batch = self._labeled.batch(rng, split)
        return batch.slabs.to(self._device), torch.from_numpy(batch.labels).to(self._device)
