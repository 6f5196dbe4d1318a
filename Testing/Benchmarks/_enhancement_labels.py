"""A fixed segmenter: the shipped head for brain tissue, the same for every arm."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from _enhancement_data import Floats, Subject

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom import SegmentConfig, segment

Labels = npt.NDArray[np.uint8]
NAMES = {1: "csf", 2: "grey", 3: "white"}


def tissue(volume: Volume) -> Labels:
    return np.asarray(
        segment(volume, SegmentConfig(model="brain-tissue", device="cpu")).volume.voxels
    )


@lru_cache(maxsize=2)
def clean_tissue(subject: Subject) -> Labels:
    return tissue(subject.volume)


def measure_labels(subject: Subject, result: Floats) -> dict[str, Any]:
    """Dice of the result's tissue with the clean volume's, and with the template's own labels."""
    found = tissue(subject.volume.with_voxels(result))
    truths = {"clean": clean_tissue(subject), "template": subject.labels}
    row: dict[str, Any] = {}
    for name, truth in truths.items():
        if truth is not None:
            dice = [metrics.dice(truth, found, label) for label in NAMES]
            row[f"dice_{name}"] = float(np.mean(dice))
    return row
