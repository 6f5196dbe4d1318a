"""A segmentation head that learns along with an enhancer and teaches it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.gradprom.config import TrainHeadConfig
from MedEnhanceLib.gradprom.folds import find_split
from MedEnhanceLib.gradprom.head import export_head, make_head
from MedEnhanceLib.gradprom.labelled import read_labelled
from MedEnhanceLib.gradprom.learner import Learner
from MedEnhanceLib.gradprom.train import segmentation_loss
from MedEnhanceLib.runtime.progress import Monitor


class SegmentationTask(Learner):
    """A head as the bi-level scheme wants it: hqg.bilevel's protocol TaskHead.

    In float32 throughout: second-order differences of its loss would vanish in bfloat16.
    """

    def __init__(self, config: TrainHeadConfig, device: str) -> None:
        network = make_head(config.network, len(config.structures))
        super().__init__(network, device, context=config.network.context, ema=config.ema)
        self.config = config
        self._criterion = segmentation_loss(over_batch=config.labelled_share > 0)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """CE + Dice of up to four slices of each slab, each seen with its neighbours.

        images: [B, D, H, W] on the network's scale. labels: [B, D, H, W], indices.
        """
        middles, stacks = self.chosen(images)
        wanted = labels[:, middles].flatten(0, 1)[:, None]
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.network(stacks.float())
            loss: Tensor = self._criterion(logits, wanted.float())
        return loss

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Indices [B, D, H, W] for every slice, with the averaged weights."""
        network = self.average.module.eval()
        stacks = self.stacks(images, list(range(images.shape[1])))
        found: Tensor = network(stacks.float()).argmax(dim=1)
        return found.reshape(images.shape)

    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Dice of each structure by its name; 1 where it is in neither."""
        found, wanted = self.predict(images).cpu().numpy(), labels.cpu().numpy()
        return {
            label.name: dice(wanted, found, index)
            for index, label in enumerate(self.config.label_set, start=1)
        }

    def export(self, folder: Path, seconds: float, summary: str = "") -> Bundle:
        """Write the head with its averaged weights, which are what is shipped.

        summary: how it was trained, for its card.
        """
        return export_head(folder, self.config, self.average.module, seconds, summary)


def make_optimiser(task: SegmentationTask) -> torch.optim.Optimizer:
    """As heads are trained alone."""
    return torch.optim.AdamW(task.parameters(), lr=task.config.learning_rate, weight_decay=1e-4)


def read_subjects(
    config: TrainHeadConfig, data: Path, monitor: Monitor
) -> Iterator[tuple[Path, npt.NDArray[np.uint8]]]:
    """Each image that is learned from and its labels as indices, as hqg.labelled takes them."""
    found, _ = find_split(config, data)
    for index, files in enumerate(found):
        part = monitor.part(index / len(found), (index + 1) / len(found))
        yield files[0], read_labelled(config, data, files, part).indices
