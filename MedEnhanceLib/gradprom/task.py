"""The task that teaches an enhancer: a segmentation head, which learns along or stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.store import open_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.gradprom.config import TrainHeadConfig
from MedEnhanceLib.gradprom.head import export_head, make_head, open_head
from MedEnhanceLib.gradprom.labeled import check_structures, find_split, read_labeled
from MedEnhanceLib.gradprom.likeness import record_likeness
from MedEnhanceLib.gradprom.train import segmentation_loss
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.precision import move
from MedEnhanceLib.nets.training import Learner
from MedEnhanceLib.runtime.progress import Monitor

#: Slices of a slab that enter the loss; neighboring slices are redundant.
_MOST_SLICES = 4
Subject = tuple[Path, Volume, npt.NDArray[np.uint8]]


class SegmentationTask:
    """Segmentation head that learns beside an enhancer: `head`, None of one that stays as it is.

    It runs in float32: differences of its loss would vanish in bfloat16.

    Args:
        config: of the head; its averaged weights are exported.
        data: folder that its patterns are relative to.
        device: as torch names it.
        start: name or folder of a head whose weights are started from; empty: new ones.
        learns: whether it learns along; else it stays as it is.
    Raises:
        ModelError: that head has another size or number of labels.
    """

    def __init__(
        self,
        config: TrainHeadConfig,
        data: Path,
        device: str,
        *,
        start: str = "",
        learns: bool = True,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = make_head(config.network, len(config.structures))
        if start:
            model = open_head(open_bundle(start, kind="head", modality=config.modality))
            if (model.config, len(model.labels)) != (config.network, len(config.structures)):
                raise ModelError(
                    f"head {start} has another size, or another number of labels",
                    "Give network and structures as its metadata.json states them.",
                )
            network.load_state_dict(model.network.state_dict())
        self.network = move(network, device).train(learns).requires_grad_(learns)
        self.head = Learner(self.network, config.learning_rate, config.ema) if learns else None
        self.config, self._data = config, data
        self._criterion = segmentation_loss(over_batch=config.labeled_share > 0)

    @classmethod
    def frozen(
        cls,
        name_or_path: str,
        images: Sequence[str],
        labels: Sequence[str],
        data: Path,
        modality: str,
        device: str,
    ) -> SegmentationTask:
        """Make the task of a trained head that stays as it is, on volumes labeled with its values.

        images, labels: patterns below `data`, in the same order.
        """
        metadata = open_bundle(name_or_path, kind="head", modality=modality).metadata
        fields = {"images": images, "labels": labels, "modality": modality}
        fields |= {"structures": metadata["labels"], "network": metadata["network"]}
        config = TrainHeadConfig.from_json(fields)
        return cls(config, data, device, start=name_or_path, learns=False)

    def subjects(self, monitor: Monitor) -> Iterator[Subject]:
        """Yield each training image and its labels as indices; patients held out are not read.

        Raises InputError for data that do not fit together.
        """
        learned, _ = find_split(self.config, self._data)
        read = []
        for files in learned:
            labeled = read_labeled(self.config, self._data, files, monitor)
            read.append(labeled.indices)
            yield files[0], labeled.image, labeled.indices
        if self.head is not None:
            check_structures(self.config, read)

    def loss(self, images: Tensor, labels: Tensor, subject: int) -> Tensor:
        """Compute CE + Dice of up to four slices of each slab, each seen with its neighbors.

        images: [B, D, H, W] on the network's scale. labels: [B, D, H, W], indices. subject: any.
        """
        middles, stacks = self._chosen(images)
        drawn = labels[:, middles].flatten(0, 1)[:, None]
        rows, columns = images.shape[-2:]
        # Each stage halves the sides.
        multiple = 2 ** (len(self.config.network.widths) - 1)
        short = (0, -columns % multiple, 0, -rows % multiple)
        with torch.autocast(images.device.type, enabled=False):
            padded = F.pad(stacks.float(), short, mode="replicate")
            logits: Tensor = self.network(padded)[..., :rows, :columns]
            loss: Tensor = self._criterion(logits, drawn.float())
        return loss

    def _chosen(self, images: Tensor) -> tuple[list[int], Tensor]:
        """Choose up to four slices of slabs [B, D, H, W], in stacks [B·M, 2k + 1, H, W].

        Slices whose neighbors are all in the slab are preferred; beyond the ends the last slice is
        repeated.
        """
        depth, context = images.shape[1], self.config.network.context
        whole = list(range(context, depth - context)) or [depth // 2]
        places = np.linspace(0, len(whole) - 1, min(len(whole), _MOST_SLICES)).round().astype(int)
        middles = [whole[place] for place in places]
        offsets = np.arange(-context, context + 1)
        seen = [np.clip(middle + offsets, 0, depth - 1).tolist() for middle in middles]
        return middles, images[:, seen].flatten(0, 1)

    def export(self, out: Path, seconds: float) -> None:
        """Write the bundle of a head that learned along, `out/<name>`."""
        if self.head is None:
            return
        summary = (
            "Learned along with an enhancer, on clean, noisy and enhanced crops of the same "
            f"images; seed {self.config.seed}, {seconds / 60:.0f} minutes"
        )
        folder = out / self.config.name
        export_head(folder, self.config, self.head.averaged(), seconds, summary)
        learned, _ = find_split(self.config, self._data)
        images = (load(path, modality=self.config.modality).single() for path, _ in learned)
        record_likeness(folder, images)
