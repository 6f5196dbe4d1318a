"""Classification of slices as a task of the bi-level scheme (docs/gradient-gate.md)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom.task import Learner


class ClassificationTask(Learner):
    """A classifier of slices that learns along with an enhancer and teaches it, in float32.

    A slice has a structure where any of its voxels has the structure's index. Slices need 32 pixels
    or more in each direction.

    Args:
        structures: their number; labels have indices 1 to `structures`.
        device: as torch names it.
        context: slices on each side that the network sees.
        features: of the first layer.
        ema: decay of the averaged weights.
    """

    def __init__(
        self,
        structures: int,
        device: str = "cpu",
        *,
        context: int = 1,
        features: int = 16,
        ema: float = 0.99,
    ) -> None:
        network = make_classifier(2 * context + 1, structures, features)
        super().__init__(network, device, context=context, ema=ema)
        self.structures = structures

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy of up to four slices of each slab, mean over the structures.

        images: [B, D, H, W] on the network's scale. labels: [B, D, H, W], indices.
        """
        middles, stacks = self.chosen(images)
        wanted = self.presence(labels[:, middles]).flatten(0, 1)
        with torch.autocast(images.device.type, enabled=False):
            return F.binary_cross_entropy_with_logits(self.network(stacks.float()), wanted)

    def presence(self, labels: Tensor) -> Tensor:
        """[B, D, structures]: 1 where a slice of labels [B, D, H, W] has the structure, else 0.

        Raises InputError for an index that is none of them.
        """
        largest = int(labels.max())
        if largest > self.structures:
            raise InputError(
                f"label {largest}, but there are only {self.structures} structures",
                "Give label indices from 1 on, 0 for the background.",
            )
        found = [(labels == index).any(-1).any(-1) for index in range(1, self.structures + 1)]
        return torch.stack(found, dim=-1).float()

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Probabilities [B, D, structures] for every slice, with the averaged weights."""
        network = self.average.module.eval()
        stacks = self.stacks(images, list(range(images.shape[1])))
        found: Tensor = network(stacks.float()).sigmoid()
        return found.reshape(*images.shape[:2], self.structures)

    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Accuracy, sensitivity and specificity over slices; NaN where there is no such slice."""
        wanted = self.presence(labels) > 0
        found = self.predict(images) > 0.5
        return {
            "accuracy": _share(found == wanted),
            "sensitivity": _share(found[wanted]),
            "specificity": _share(~found[~wanted]),
        }


def make_classifier(channels: int, structures: int, features: int) -> nn.Module:
    """MONAI's DenseNet, small: [B, channels, H, W] → logits [B, structures]."""
    from monai.networks.nets.densenet import DenseNet

    network: nn.Module = DenseNet(
        spatial_dims=2,
        in_channels=channels,
        out_channels=structures,
        init_features=features,
        growth_rate=max(1, features // 2),
        block_config=(2, 2, 2),
        bn_size=2,
    )
    return network


def _share(hits: Tensor) -> float:
    return float(hits.float().mean()) if hits.numel() else math.nan
