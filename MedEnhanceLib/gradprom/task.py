"""A segmentation head that learns along with an enhancer and teaches it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.gradprom.config import TrainHeadConfig
from MedEnhanceLib.gradprom.head import export_head, make_head
from MedEnhanceLib.gradprom.labelled import find_labelled, read_labelled
from MedEnhanceLib.gradprom.train import segmentation_loss
from MedEnhanceLib.nets.precision import move
from MedEnhanceLib.nets.training import averaged_weights
from MedEnhanceLib.progress import Monitor

#: Slices of a slab that the loss is taken of: neighbours say nearly the same.
_MOST_SLICES = 4


class SegmentationTask:
    """A head as the bi-level scheme wants it: hqg.bilevel's protocol TaskHead.

    In float32 throughout: second-order differences of its loss would vanish in bfloat16.
    """

    def __init__(self, config: TrainHeadConfig, device: str) -> None:
        self.config = config
        self.network = move(make_head(config.network, len(config.structures)), device)
        self.average = averaged_weights(self.network, config.ema)
        self._criterion = segmentation_loss()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """CE + Dice of up to four slices of each slab, each seen with its neighbours.

        images: [B, D, H, W] on the network's scale. labels: [B, D, H, W], indices. Slices whose
        neighbours are all in the slab are preferred; beyond its ends the last slice is repeated.
        """
        middles, seen = _slices(images.shape[1], self.config.network.context)
        stacks = images[:, seen].flatten(0, 1)
        wanted = labels[:, middles].flatten(0, 1)[:, None]
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.network(stacks.float())
            loss: Tensor = self._criterion(logits, wanted.float())
        return loss

    def parameters(self) -> Iterator[nn.Parameter]:
        """What a lower step changes; the averaged weights follow."""
        return self.network.parameters()

    def train(self, mode: bool = True) -> None:
        """Whether batch normalisation takes its statistics from the batch."""
        self.network.train(mode)

    def follow(self) -> None:
        """Move the averaged weights towards the head's."""
        self.average.update_parameters(self.network)

    def state_dict(self) -> dict[str, Tensor]:
        """Of the head and of its averaged weights."""
        return self._both().state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from such a state."""
        self._both().load_state_dict(state)

    def export(self, folder: Path, seconds: float, summary: str = "") -> Bundle:
        """Write the head with its averaged weights, which are what is shipped.

        summary: how it was trained, for its card.
        """
        return export_head(folder, self.config, self.average.module, seconds, summary)

    def _both(self) -> nn.ModuleDict:
        return nn.ModuleDict({"network": self.network, "average": self.average})


def make_optimiser(task: SegmentationTask) -> torch.optim.Optimizer:
    """As heads are trained alone."""
    return torch.optim.AdamW(task.parameters(), lr=task.config.learning_rate, weight_decay=1e-4)


def read_subjects(
    config: TrainHeadConfig, data: Path, monitor: Monitor
) -> Iterator[tuple[Path, npt.NDArray[np.uint8]]]:
    """Each labelled image's file and its labels as indices, as hqg.labelled takes them."""
    found = find_labelled(config, data)
    for index, files in enumerate(found):
        part = monitor.part(index / len(found), (index + 1) / len(found))
        yield files[0], read_labelled(config, data, files, part).indices


def _slices(depth: int, context: int) -> tuple[list[int], list[list[int]]]:
    """Which slices of a slab are labelled, and the 2·context + 1 that the head sees for each."""
    whole = list(range(context, depth - context)) or [depth // 2]
    chosen = np.linspace(0, len(whole) - 1, min(len(whole), _MOST_SLICES)).round().astype(int)
    middles = [whole[place] for place in chosen]
    offsets = np.arange(-context, context + 1)
    return middles, [np.clip(middle + offsets, 0, depth - 1).tolist() for middle in middles]
