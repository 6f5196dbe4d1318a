"""Labeled images for the training of heads: split by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom.config import size_of
from MedEnhanceLib.io import load
from MedEnhanceLib.io.describe import refuse_unfit
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig

#: Most files or values that a message names.
_NAMED = 5
#: Most different values of a label volume; an image has more.
_MOST_LABELS = 512
#: Options of a head's training that define its labeled images.
_DATA_OPTIONS = ("images", "labels", "held_out", "labeled_share")
#: An image and its labels.
Files = tuple[Path, Path]


@dataclass(frozen=True)
class LabeledImage:
    """An image with labels on its grid.

    Attributes:
        indices: 0: background, 1… in the order of structures.
    """

    image: Volume
    indices: npt.NDArray[np.uint8]

    def slab(self, depth: int) -> LabeledImage:
        """Return the `depth` neighboring slices that show most of the labels, or all."""
        depth = min(depth, len(self.indices))
        counts = np.cumsum([0, *np.count_nonzero(self.indices, axis=(1, 2))])
        first = int(np.argmax(counts[depth:] - counts[:-depth]))
        part = slice(first, first + depth)
        return LabeledImage(self.image.crop(k=part), self.indices[part])


def read_labeled(config: TrainHeadConfig, files: Files, monitor: Monitor) -> LabeledImage:
    """Read an image of `find_split` with its labels.

    Args:
        config: modality and structures.
        files: the image, and its labels.
        monitor: receives progress.
    Raises InputError where labels are on another grid, are no labels, or contain no structure.
    """
    path, label_path = files
    image = read_image(config, path, monitor)
    labels = load(label_path).single().canonical()
    _check_labels(image, labels, path, label_path)
    indices = np.zeros(labels.shape, np.uint8)
    for index, label in enumerate(config.label_set, start=1):
        indices[labels.voxels == label.value] = index
    if not indices.any():
        stated = ", ".join(str(label.value) for label in config.label_set)
        present = ", ".join(f"{value:g}" for value in np.unique(labels.voxels)[:_NAMED])
        raise InputError(
            f"{label_path}: no voxel has a value of the structures ({stated}); "
            f"its values: {present}",
            "Check the value of each structure.",
        )
    return LabeledImage(image, indices)


def read_image(config: TrainHeadConfig, path: Path, monitor: Monitor) -> Volume:
    """Read an image in the order that networks see in use.

    Args:
        config: its modality.
        path: of the image.
        monitor: receives progress.
    Raises InputError for an unfit one.
    """
    monitor.progress(0, f"reading {path.name}")
    begin = monitor.part(0, 0)
    image = load(path, modality=config.modality, monitor=begin).single().canonical().compact()
    refuse_unfit(image, Monitor(), on_request=True)
    return image


def _check_labels(image: Volume, labels: Volume, path: Path, label_path: Path) -> None:
    """Raise InputError where labels are not on the image's grid, or are no labels."""
    if not labels.geometry.is_close(image.geometry, 0.1, shape=image.shape) or (
        labels.shape != image.shape
    ):
        raise InputError(
            f"{path}: {label_path} has another shape, origin, spacing or direction",
            "Give labels drawn on the image, in the images' order.",
        )
    values = labels.voxels
    is_whole = values.dtype.kind in "bui" or bool((values == np.round(values)).all())
    # Counting values takes seconds, so it is done only where there could be too many.
    has_many = values.max(initial=0) > _MOST_LABELS and np.unique(values).size > _MOST_LABELS
    if not is_whole or values.min(initial=0) < 0 or has_many:
        raise InputError(
            f"{label_path}: an image, not labels", "Give label volumes: whole numbers."
        )


def config_of(
    head: Bundle, images: Sequence[str] = (), held_out: Sequence[str] = ()
) -> TrainHeadConfig:
    """Return the configuration of the labeled images that a head was trained on, or of scans.

    Args:
        head: the bundle.
        images: patterns of scans that a head from label maps labels itself.
        held_out: patterns of those whose patients are measured, not trained on.
    """
    stated = head.metadata.get("training", {}).get("config", {})
    fields = {name: stated[name] for name in _DATA_OPTIONS if name in stated}
    if images:  # no labels are read
        fields = {"images": [*images], "labels": [*images], "held_out": [*held_out]}
    else:
        fields["network"] = size_of(head.metadata["network"])
    fields |= {"structures": head.metadata["labels"], "modality": head.modality}
    return TrainHeadConfig.from_json(fields)


def find_split(config: TrainHeadConfig, data: Path) -> tuple[list[Files], list[Files]]:
    """Find the labeled images below `data` for training, and those of held-out patients.

    A patient is a folder of images, or a single image if all are in one folder. A pattern of
    `held_out` that matches an image holds out its patient. Raises InputError where there are no
    images, or not as many labels, a pattern matches nothing, or no image remains.
    """
    pairs = [*dict.fromkeys(_pairs(config, data))]
    names = [path.relative_to(data).as_posix() for path, _ in pairs]
    folders = [str(path.parent) for path, _ in pairs]
    patients = folders if len(set(folders)) > 1 else names
    held = set()
    for pattern in config.held_out:
        matching = {
            who for name, who in zip(names, patients, strict=True) if fnmatchcase(name, pattern)
        }
        if not matching:
            raise InputError(
                f"{data}: no labeled image matches {pattern!r} (held_out)",
                "Add the images of that patient, or give another pattern, relative to the folder.",
            )
        held |= matching
    training = [files for files, who in zip(pairs, patients, strict=True) if who not in held]
    if not training:
        raise InputError("all labeled images are held out", "Hold out fewer patients.")
    return training, [files for files in pairs if files not in training]


def _pairs(config: TrainHeadConfig, data: Path) -> list[Files]:
    """Find images and their labels in the same order.

    Raises InputError for another number of labels, and where some names agree and others do not:
    one missing and one extra file would silently give wrong pairs.
    """
    images, labels = (
        [path for pattern in patterns for path in sorted(data.glob(pattern))]
        for patterns in (config.images, config.labels)
    )
    if not images:
        raise InputError(
            f"{data}: no image matches {', '.join(config.images)}",
            "Give the folder that these patterns start from, with files of such names.",
        )
    stems, drawn = ([path.name.partition(".")[0] for path in files] for files in (images, labels))
    is_by_name = not set(stems).isdisjoint(drawn) and len(set(stems)) == len(stems)
    if len(images) != len(labels) or (is_by_name and stems != drawn):
        single = sorted(set(stems) ^ set(drawn))[:_NAMED] if is_by_name else []
        raise InputError(
            f"{data}: {len(images)} images and {len(labels)} labels match"
            + (f"; without a partner: {', '.join(single)}" if single else ""),
            "Give one label volume for each image, of the same name or in the same order.",
        )
    return list(zip(images, labels, strict=True))
