"""Factors of a head's classes by which its volumes become those of labels that people trust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom.structures.correcting import ClassShares, correct
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.segmenting import PlacedScan, label_voxels, place
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.label_maps import image_beside, read_labels

# Chosen in a trial (decision 0103); no table isolates them.
#: Rounds, and change of a factor's logarithm by the mean error of that of the volumes.
_ROUNDS, _GAIN = 6, 1.5
#: Largest error that counts, and largest factor, or its inverse: few images show few contrasts, and
#: factors of 5 gained as much again on them and doubled volumes in painted scans of others.
_LARGEST_ERROR, _LARGEST = np.log(2.0), np.log(2.5)
#: Fewer voxels of a structure say nothing about its volume.
_FEWEST = 50


@dataclass(frozen=True, eq=False)
class _Head:
    """A labeled image as a model sees it, and true voxels of each class."""

    placed: PlacedScan
    window: ClassShares
    true: Doubles

    def error(self, model: StructureModel) -> Doubles:
        """Return the logarithm of found over true volumes; NaN where labels show no structure."""
        window = replace(self.window, share=model.weighted(self.window.share))
        labels, _ = label_voxels(self.placed.volume, self.placed.scan, window, model, Monitor())
        classes = np.zeros(256, np.int64)
        for values in model.anatomy.values[:, 1:]:
            classes[values] = np.arange(1, len(values) + 1)
        classes[0] = 0
        found = np.bincount(classes[labels].ravel(), minlength=len(self.true))
        shown = np.where(self.true >= _FEWEST, self.true, np.nan)
        errors: Doubles = np.log(np.maximum(found, 1) / shown)
        return errors


def fit_sizes(
    model: StructureModel, labeled: Mapping[Path, list[Path]], modality: str, monitor: Monitor
) -> dict[str, float]:
    """Find factors of the structures by which volumes become, on average, those of labels.

    Args:
        model: as it was trained.
        labeled: the images of each label map, of which the first is taken.
        modality: of the images.
        monitor: progress and cancelling.
    Raises:
        InputError: an image is off the grid of its labels, or shows none of the structures.
    """
    heads = []
    for number, (path, images) in enumerate(labeled.items()):
        monitor.progress(number / (len(labeled) + 1), f"segmenting {images[0].name}")
        labels = read_labels(path)
        heads.append(_head(image_beside(images[0], labels, modality), labels, model, images[0]))
    logs = np.zeros(len(model.anatomy.structures))
    for _ in range(_ROUNDS):
        monitor.progress(len(labeled) / (len(labeled) + 1), "fitting sizes")
        model = replace(model, sizes=_by_name(model, logs))
        errors = np.stack([head.error(model) for head in heads])[:, 1 : len(logs) + 1]
        shown = np.isfinite(errors)
        errors = np.where(shown, errors, 0).clip(-_LARGEST_ERROR, _LARGEST_ERROR)
        logs -= _GAIN * errors.sum(0) / np.maximum(1, shown.sum(0))
        logs = logs.clip(-_LARGEST, _LARGEST)
    return _by_name(model, logs)


def _by_name(model: StructureModel, logs: Doubles) -> dict[str, float]:
    return dict(zip(model.anatomy.structures, np.exp(logs).round(3).tolist(), strict=True))


def _head(image: Volume, labels: Volume, model: StructureModel, path: Path) -> _Head:
    anatomy, placed = model.anatomy, place(image, model)
    if placed.location is None:
        raise InputError(f"{path}: no structures of the head are recognized", "Leave it out.")
    classes = anatomy.tissue_classes[anatomy.painted(labels.voxels) & 127]
    true = np.bincount(classes.ravel(), minlength=len(anatomy.classes)).astype(np.float64)
    return _Head(placed, correct(placed.scan, placed.location, model), true)
