"""A head of slices as a segmenter: likeness and labels, slice by slice."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.bundles.suitability import compare_likeness
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.gradprom.head import HeadModel, open_head
from MedEnhanceLib.gradprom.likeness import describe
from MedEnhanceLib.gradprom.segmenters import HeadSegmenter, VoxelLabels
from MedEnhanceLib.gradprom.slice_runner import over_slices, stoppable
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.learning.precision import move
from MedEnhanceLib.runtime.progress import Monitor


class SliceSegmenter(HeadSegmenter):
    """A small network over slices; it estimates no uncertainty."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of its card, and of one without a description of the training images."""
        if "likeness" in self.bundle.metadata:
            return self.bundle.warnings
        unchecked = (
            f"{self.name} has no description of its training images: it was not checked whether "
            "this volume is like them"
        )
        return (*self.bundle.warnings, unchecked)

    @property
    def _model(self) -> HeadModel:
        return self.opened(open_head)

    def find_unlike(self, volume: Volume) -> str:
        """State what makes a volume unlike the training images; "" for nothing.

        Raises InputError for a constant volume; ModelError if the description is damaged.
        """
        likeness = self.bundle.metadata.get("likeness")
        if likeness is None:
            return ""
        numbers = describe(volume, self._model)
        try:
            distance, clause = compare_likeness(likeness, numbers)
            return clause if distance > likeness["limit"] else ""
        except (LookupError, ValueError) as cause:
            raise ModelError(
                f"model {self.name!r}: its description of the training images is damaged",
                "Import it again.",
            ) from cause

    def segment(self, volume: Volume, device: str, monitor: Monitor) -> VoxelLabels:
        """Give each voxel the most likely label.

        Args:
            volume: single, in canonical order.
            device: as torch names it.
            monitor: receives progress; may cancel.
        """
        model = self._model

        def network(batch: Tensor, device: str) -> Tensor:
            logits: Tensor = move(model.network, device)(batch)
            return logits.softmax(dim=1)

        scaling, context = scaling_for(volume), model.config.context
        labels = np.zeros(volume.shape, np.uint8)
        values = np.array([0, *(label.value for label in model.labels)], np.uint8)
        with torch.inference_mode(), stoppable(model.network, monitor):
            for where, likelihood in over_slices(
                network, volume.voxels, scaling, context, device, monitor
            ):
                labels[where] = values[likelihood.argmax(axis=1)]
        return VoxelLabels(labels)
