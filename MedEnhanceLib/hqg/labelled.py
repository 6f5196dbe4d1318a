"""Labelled training data for the bi-level scheme: slabs with their labels, in two splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.augment import Damages, turn, vary_contrast
from MedEnhanceLib.hqg.config import TaskConfig, TrainConfig
from MedEnhanceLib.hqg.pools import Batch, Floats, PoolVolume, cut, prepared, random_place
from MedEnhanceLib.runtime.progress import Monitor

Labels = npt.NDArray[np.uint8]
#: A: the head learns on it (lower step). B: the enhancer is taught on it (upper step).
Split = Literal["A", "B"]

_SPLITS: tuple[Split, Split] = ("A", "B")
#: Places that are tried for a slab with a label in it.
_TRIES = 5


@dataclass(frozen=True)
class LabelledVolume:
    """A volume of the pool and its labels on the same grid, 0 the background."""

    image: PoolVolume
    labels: Labels


@dataclass(frozen=True)
class LabelledBatch:
    """Slabs and their labels [B, D, P, P], uint8."""

    slabs: Batch
    labels: Labels


class LabelledPools:
    """Labelled volumes in two splits and the seeded drawing of slabs from them."""

    def __init__(
        self,
        config: TrainConfig,
        task: TaskConfig,
        splits: Mapping[Split, Sequence[LabelledVolume]],
    ) -> None:
        self._config, self._task = config, task
        self._splits = {name: tuple(splits[name]) for name in _SPLITS}
        self._damages = Damages(config)

    @classmethod
    def make(
        cls,
        config: TrainConfig,
        task: TaskConfig,
        subjects: Iterable[tuple[Path, Labels]],
        monitor: Monitor,
    ) -> LabelledPools:
        """Read the labelled images and split them.

        subjects: each image's file and its labels as indices, [K, J, I], 0 the background.
        Whole subjects alternate between the splits. A single one is cut in halves along K; the
        monitor is told, because then both splits show the same person. Raises InputError where
        there is no subject or labels do not fit their image.
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
                [LabelledVolume(image, _resized(labels, image.voxels.shape)) for image in images]
            )
        if not volumes:
            raise InputError("the task has no labelled image", "State its images and labels.")
        if len(volumes) == 1:
            monitor.warn(
                f"{volumes[0][0].image.name} is the only labelled image: the head learns on the "
                "first half of its slices and teaches on the second. Both are one subject"
            )
            halves = [_halves(volume) for volume in volumes[0]]
            return cls(config, task, {"A": [a for a, _ in halves], "B": [b for _, b in halves]})
        monitor.log(f"{len(volumes)} labelled images: every other one teaches the enhancer")
        alternate = {
            name: [volume for subject in volumes[first::2] for volume in subject]
            for first, name in enumerate(_SPLITS)
        }
        return cls(config, task, alternate)

    def volumes(self, split: Split) -> tuple[LabelledVolume, ...]:
        """What a split holds."""
        return self._splits[split]

    def batch(self, rng: np.random.Generator, split: Split) -> LabelledBatch:
        """Slabs of one split, degraded at random strength, each with a guide from the split."""
        lessons, labels = [], []
        for _ in range(self._task.batch):
            clean, noise, drawn = self._slab(split, rng)
            guide = self._slab(split, rng, depth=1)[0]
            lessons.append(self._damages.apply(clean, noise, guide, rng))
            labels.append(drawn)
        return LabelledBatch(Batch.of(lessons), np.stack(labels))

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


def _halves(volume: LabelledVolume) -> tuple[LabelledVolume, LabelledVolume]:
    """Below and above the middle of the slices."""
    middle = volume.labels.shape[0] // 2
    lower, upper = (
        LabelledVolume(
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
