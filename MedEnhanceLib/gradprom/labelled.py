"""Images with labels: drawn ones, or propagated from an atlas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom.atlas import propagate_labels
from MedEnhanceLib.gradprom.config import TrainHeadConfig
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.progress import Monitor

#: Files that a message names at most.
_NAMED = 5
#: Values of a label volume at most; an image has more.
_MOST_LABELS = 512


@dataclass(frozen=True)
class LabelledImage:
    """indices: on the image's grid, 0 for the background, then 1… in the structures' order."""

    path: Path
    image: Volume
    indices: npt.NDArray[np.uint8]

    def values(self, config: TrainHeadConfig) -> npt.NDArray[np.uint8]:
        """The labels by their values instead of their indices."""
        values = np.array([0, *(label.value for label in config.label_set)], np.uint8)
        return values[self.indices]


def find_labelled(config: TrainHeadConfig, data: Path) -> list[tuple[Path, Path | None]]:
    """Files of images and of their labels, None where an atlas gives them.

    Patterns of the configuration are relative to `data`. Raises InputError where there are no
    images, or not as many labels.
    """
    paths = [path for pattern in config.images for path in sorted(data.glob(pattern))]
    labels = [path for pattern in config.labels for path in sorted(data.glob(pattern))]
    if not paths or (config.labels and len(paths) != len(labels)):
        raise InputError(
            f"{data}: {len(paths)} images and {len(labels)} labels match{_lonely(paths, labels)}",
            "Give one label volume for each image, in the same order.",
        )
    _check_names(paths, labels)
    beside: list[Path | None] = [*labels] or [None] * len(paths)
    return list(zip(paths, beside, strict=True))


def _check_names(paths: Sequence[Path], labels: Sequence[Path]) -> None:
    """Raise InputError where labels are called as images are, but not as those they stand beside.

    Files in the order of their names go wrong silently where one is missing and one too many.
    """
    images, drawn = ([_stem(path) for path in files] for files in (paths, labels))
    if not set(images) & set(drawn) or len(set(images)) < len(images):
        return
    for path, label in zip(paths, labels, strict=True):
        if _stem(path) != _stem(label):
            raise InputError(
                f"{path.name} would be labelled by {label.name}, where others go by their names",
                "Give each image's labels the image's name, or name files one by one.",
            )


def _lonely(paths: Sequence[Path], labels: Sequence[Path]) -> str:
    """Names the files that nothing stands beside, where images and labels go by their names."""
    images, drawn = ({_stem(path): path for path in files} for files in (paths, labels))
    if not set(images) & set(drawn):
        return ""
    alone = [images[stem].name for stem in images if stem not in drawn]
    unused = [drawn[stem].name for stem in drawn if stem not in images]
    parts = [
        f"{', '.join(names[:_NAMED])}{' …' if len(names) > _NAMED else ''} {words}"
        for names, words in ((alone, "without labels"), (unused, "without an image"))
        if names
    ]
    return f" ({'; '.join(parts)})" if parts else ""


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def read_labelled(
    config: TrainHeadConfig, data: Path, files: tuple[Path, Path | None], monitor: Monitor
) -> LabelledImage:
    """Read an image of `find_labelled` with its labels; raises InputError where they differ."""
    path, label_path = files
    monitor.progress(0, f"reading {path.name}")
    image = load(path, modality=config.modality)
    if label_path:
        labels = load(label_path)
    else:
        atlas = load(data / config.atlas_image, modality=config.modality)
        drawn = load(data / config.atlas_labels)
        labels = propagate_labels(atlas, drawn, image, monitor)
    if labels.shape != image.shape:
        raise InputError(
            f"{path}: shape {image.shape}, its labels {labels.shape}",
            "Give labels drawn on the image.",
        )
    if not labels.geometry.is_close(image.geometry, 0.1, shape=image.shape):
        raise InputError(
            f"{path}: its labels lie elsewhere ({label_path}: other origin, spacing or direction)",
            "Give labels drawn on the image, in the images' order.",
        )
    return LabelledImage(path, image, _indices(labels.voxels, config, label_path or path))


def check_structures(config: TrainHeadConfig, found: Sequence[npt.NDArray[np.uint8]]) -> None:
    """Raise InputError for a structure that none of the images' indices hold."""
    there = set().union(*(np.unique(indices).tolist() for indices in found))
    for index, label in enumerate(config.label_set, start=1):
        if index not in there:
            raise InputError(
                f"no image to learn from shows {label.name!r} (value {label.value})",
                "Check its label value, or leave the structure out.",
            )


def _check_labels(labels: npt.NDArray[Any], path: Path) -> None:
    """Raise InputError for an image where labels are wanted."""
    is_whole = labels.dtype.kind in "bui" or bool((labels == np.round(labels)).all())
    # Counting values takes seconds: only where they could be too many.
    has_many = labels.max(initial=0) > _MOST_LABELS and np.unique(labels).size > _MOST_LABELS
    if not is_whole or labels.min(initial=0) < 0 or has_many:
        raise InputError(
            f"{path}: these are no labels, but an image", "Give label volumes: whole numbers."
        )


def _indices(
    labels: npt.NDArray[Any], config: TrainHeadConfig, path: Path
) -> npt.NDArray[np.uint8]:
    """Label values → 0 for the background and 1… in the order of the structures."""
    _check_labels(labels, path)
    indices = np.zeros(labels.shape, np.uint8)
    for index, label in enumerate(config.label_set, start=1):
        indices[labels == label.value] = index
    if not indices.any():
        wanted = ", ".join(str(label.value) for label in config.label_set)
        found = np.unique(labels)
        there = ", ".join(f"{value:g}" for value in found[:_NAMED])
        more = f" … ({len(found)} values)" if len(found) > _NAMED else ""
        raise InputError(
            f"{path}: no voxel carries a value of the structures ({wanted}); "
            f"it holds {there}{more}",
            "Check the value of each structure.",
        )
    return indices
