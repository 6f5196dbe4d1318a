"""A head beside labels that people trust: factors that make its volumes right, and its Dice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from MedEnhanceLib.core.arrays import Bytes, Doubles
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom.structures.correcting import ClassShares, correct
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.segmenting import (
    PlacedScan,
    expected_dice,
    label_voxels,
    place,
)
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


class Overlap(NamedTuple):
    """Dice of scans, beside what it is expected from.

    Attributes:
        true: [scans, structures], NaN where one is not shown.
        expected: the same, by the certainty of the classes.
        information: [scans], mutual information of each with the painted priors.
    """

    true: Doubles
    expected: Doubles
    information: Doubles


@dataclass(frozen=True, eq=False)
class _Head:
    """A labeled image as a model sees it, and the true class of each voxel."""

    placed: PlacedScan
    window: ClassShares
    true: Bytes

    def judged(self, model: StructureModel) -> Doubles:
        """Return volumes' log errors, true and expected Dice: [3, structures].

        Structures that the labels do not show are NaN.
        """
        window = replace(self.window, share=model.weighted(self.window.share))
        labels, _ = label_voxels(self.placed.volume, self.placed.scan, window, model, Monitor())
        classes = np.zeros(256, np.int64)
        for values in model.anatomy.values[:, 1:]:
            classes[values] = np.arange(1, len(values) + 1)
        classes[0] = 0
        found, count = classes[labels], len(window.share)
        true, made, both = (
            np.bincount(each.ravel(), minlength=count)[1 : len(model.anatomy.structures) + 1]
            for each in (self.true, found, self.true[self.true == found])
        )
        chosen = window.share.argmax(0)
        expected = [expected_dice(window.share, chosen, n) for n in range(1, len(true) + 1)]
        rows = np.stack([np.log(np.maximum(made, 1) / np.maximum(true, 1)),
                         2 * both / np.maximum(made + true, 1), expected])  # fmt: skip
        rows[:, true < _FEWEST] = np.nan
        return rows


def fit_sizes(
    model: StructureModel, labeled: Mapping[Path, list[Path]], modality: str, monitor: Monitor
) -> tuple[StructureModel, Overlap]:
    """Find factors of the structures by which volumes become, on average, those of labels.

    Args:
        model: as it was trained.
        labeled: the images of each label map, of which the first is taken.
        modality: of the images.
        monitor: progress and cancelling.
    Returns the model with these sizes, and its Dice on the images.
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
        model = _sized(model, logs)
        errors = np.stack([head.judged(model)[0] for head in heads])
        shown = np.isfinite(errors)
        errors = np.where(shown, errors, 0).clip(-_LARGEST_ERROR, _LARGEST_ERROR)
        logs -= _GAIN * errors.sum(0) / np.maximum(1, shown.sum(0))
        logs = logs.clip(-_LARGEST, _LARGEST)
    model = _sized(model, logs)
    _, true, expected = np.stack([head.judged(model) for head in heads], 1)
    locations = [head.placed.location for head in heads]
    information = [location.information for location in locations if location is not None]
    return model, Overlap(true, expected, np.array(information))


def _sized(model: StructureModel, logs: Doubles) -> StructureModel:
    factors = zip(model.anatomy.structures, np.exp(logs).round(3).tolist(), strict=True)
    return replace(model, sizes=dict(factors))


def _head(image: Volume, labels: Volume, model: StructureModel, path: Path) -> _Head:
    anatomy, placed = model.anatomy, place(image, model)
    if placed.location is None:
        raise InputError(f"{path}: no structures of the head are recognized", "Leave it out.")
    classes = anatomy.tissue_classes[anatomy.painted(labels.voxels) & 127]
    return _Head(placed, correct(placed.scan, placed.location, model), classes.astype(np.uint8))
