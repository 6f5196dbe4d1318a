"""Segmentation heads that learn along with an enhancer and teach it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.gradprom.config import TrainHeadConfig
from MedEnhanceLib.gradprom.head import export_head, make_head
from MedEnhanceLib.gradprom.labeled import find_split, read_labeled
from MedEnhanceLib.gradprom.train import segmentation_loss
from MedEnhanceLib.nets.precision import move
from MedEnhanceLib.nets.training import averaged_weights
from MedEnhanceLib.runtime.progress import Monitor

#: Slices of a slab that enter the loss; neighboring slices are redundant.
_MOST_SLICES = 4


class SegmentationTask:
    """A segmentation head that learns beside an enhancer: its network, and the average of that.

    It runs in float32: differences of its loss would vanish in bfloat16.

    Args:
        config: of the head: its network, its structures, and the decay of the averaged weights,
            which are used for predictions.
        device: as torch names it.
    """

    def __init__(self, config: TrainHeadConfig, device: str) -> None:
        self.network = move(make_head(config.network, len(config.structures)), device)
        self.average = averaged_weights(self.network, config.ema)
        self.context = config.network.context
        self.config = config
        self._criterion = segmentation_loss(over_batch=config.labelled_share > 0)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that a lower step updates."""
        return self.network.parameters()

    def train(self, mode: bool = True) -> None:
        """Whether batch normalization takes its statistics from the batch."""
        self.network.train(mode)

    def follow(self) -> None:
        """Move the averaged weights towards the network's."""
        self.average.update_parameters(self.network)

    def state_dict(self) -> dict[str, Tensor]:
        """Of the network and of its averaged weights."""
        return self._both().state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from such a state."""
        self._both().load_state_dict(state)

    def _both(self) -> nn.ModuleDict:
        return nn.ModuleDict({"network": self.network, "average": self.average})

    def chosen(self, images: Tensor) -> tuple[list[int], Tensor]:
        """Up to four slices of slabs [B, D, H, W], and stacks [B·M, 2k + 1, H, W] around them.

        Slices whose neighbors are all in the slab are preferred.
        """
        depth = images.shape[1]
        whole = list(range(self.context, depth - self.context)) or [depth // 2]
        places = np.linspace(0, len(whole) - 1, min(len(whole), _MOST_SLICES)).round().astype(int)
        middles = [whole[place] for place in places]
        return middles, self.stacks(images, middles)

    def stacks(self, images: Tensor, middles: list[int]) -> Tensor:
        """Each of these slices with its neighbors; beyond the ends the last slice is repeated."""
        offsets = np.arange(-self.context, self.context + 1)
        last = images.shape[1] - 1
        seen = [np.clip(middle + offsets, 0, last).tolist() for middle in middles]
        return images[:, seen].flatten(0, 1)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """CE + Dice of up to four slices of each slab, each seen with its neighbors.

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
        """Export the head with its averaged weights; summary: of the training, for its card."""
        return export_head(folder, self.config, self.average.module, seconds, summary)


def make_optimizer(task: SegmentationTask) -> torch.optim.Optimizer:
    """The optimizer of heads that are trained alone."""
    return torch.optim.AdamW(task.parameters(), lr=task.config.learning_rate, weight_decay=1e-4)


def read_subjects(
    config: TrainHeadConfig, data: Path, monitor: Monitor
) -> Iterator[tuple[Path, npt.NDArray[np.uint8]]]:
    """Each training image and its labels as indices, one after another."""
    found, _ = find_split(config, data)
    for index, files in enumerate(found):
        part = monitor.part(index / len(found), (index + 1) / len(found))
        yield files[0], read_labeled(config, data, files, part).indices
