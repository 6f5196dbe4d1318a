"""A segmenter that stands in for a trained one: it labels columns in turn, and refuses the dark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from MedEnhanceLib.bundles.export import export_bundle
from MedEnhanceLib.core.labels import INTRACRANIAL
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.segmenters import Comparison, HeadSegmenter, VoxelLabels
from MedEnhanceLib.runtime.progress import Monitor

KIND, NAME, WARNING = "stripes", "stripes", "It sees stripes."
RECIPE = Path(__file__).resolve().parents[2] / "docs/recipes/brain.json"
_QUALITY = {"Left thalamus": 0.8765, "Right thalamus": 0.5}
_INTERVALS = {"Left thalamus": (0.5, 1.5), INTRACRANIAL: (0.75, 1.25)}


class Stripes(HeadSegmenter):
    """Labels columns in turn; knows how certain it is, and refuses what is as dark as night."""

    seen: ClassVar[list[Volume]] = []

    def compare(self, volume: Volume) -> Comparison:
        self.seen.append(volume)
        return Comparison("it is dark" if float(volume.voxels.mean()) < 10 else "")

    def segment(
        self, volume: Volume, device: str, monitor: Monitor, placement: None = None
    ) -> VoxelLabels:
        self.seen.append(volume)
        columns = np.arange(volume.shape[2])
        values = np.array([0, *(label.value for label in self.labels)], np.uint8)
        labels = np.broadcast_to(values[columns % len(values)], volume.shape).copy()
        spread = np.broadcast_to(columns / volume.shape[2], volume.shape).astype(np.float32)
        warnings = ("its border is cut off",)
        return VoxelLabels(labels, spread.copy(), _QUALITY, warnings, _INTERVALS)


class Unsure(Stripes):
    """The same, without an estimate of its uncertainty."""

    def segment(
        self, volume: Volume, device: str, monitor: Monitor, placement: None = None
    ) -> VoxelLabels:
        return VoxelLabels(super().segment(volume, device, monitor).labels)


def write_stripes(folder: Path) -> Path:
    """Write the bundle of a head of this kind, for MR of the brain; returns its folder."""
    metadata: dict[str, Any] = {
        "name": NAME,
        "kind": "head",
        "modality": "MR",
        "anatomy": "brain",
        "description": "Stripes.",
        "license": "CC0-1.0",
        "network": {"kind": KIND},
        "labels": json.loads(RECIPE.read_text(encoding="utf-8"))["structures"],
        "limits": ["Of stripes alone."],
        "warnings": [WARNING],
    }
    return export_bundle(folder / NAME, {"w": torch.zeros(1)}, metadata).folder
