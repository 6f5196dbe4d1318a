"""A frozen segmentation head: its Dice on enhanced images, and its loss to train an enhancer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.store import Bundle, open_bundle
from MedEnhanceLib.core.arrays import Bytes
from MedEnhanceLib.core.labels import LabeledFile
from MedEnhanceLib.core.metrics import dice, psnr
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Enhance, Volume
from MedEnhanceLib.degradation.lowdose import ELECTRONIC
from MedEnhanceLib.degradation.pipeline import LowDose, Rician
from MedEnhanceLib.gradprom import segment
from MedEnhanceLib.gradprom.config import SegmentConfig
from MedEnhanceLib.gradprom.head import open_head, segmentation_loss
from MedEnhanceLib.gradprom.labeled import Files, LabeledImage, config_of, find_split, read_labeled
from MedEnhanceLib.learning.intensity import TISSUE, scaling_for
from MedEnhanceLib.learning.precision import move
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/gradprom.py.
#: Noise of the measured images: σ over the brightest tissue; photons per ray.
_SIGMA, _PHOTONS = 0.1, 5e3
_CLEAN, _NOISY = "clean", "noisy"
#: Slices of a slab that enter the loss; neighboring slices are redundant.
_MOST_SLICES = 4
#: Share of a training's progress that reading the labeled images takes, before its first step.
READING = 0.03


class FrozenTask:
    """A head that does not change: what it makes of held-out images.

    Args:
        bundle: of the head.
        config: modality, structures, images and who of them is held out.
        data: folder that patterns are relative to.
        device: as torch names it.
    """

    #: Noise of the measured images of MR, σ over the brightest tissue.
    sigma = _SIGMA
    #: Slices of a held-out patient that are measured, those with most labels; None: all.
    depth: int | None = None

    def __init__(self, bundle: Bundle, config: TrainHeadConfig, data: Path, device: str) -> None:
        self._bundle, self._config = bundle, config
        self._data, self._device = data, device

    def identity(self) -> Mapping[str, str]:
        """Return name and hash of the head."""
        return self._bundle.identity()

    def held_out(self) -> list[str]:
        """List patterns of the images of held-out patients, from which nothing may learn."""
        _, held_out = find_split(self._config, self._data)
        return [escape(path.relative_to(self._data).as_posix()) for path, _ in held_out]

    def _read(self, files: Files, monitor: Monitor) -> LabeledImage:
        """Read an image and its true labels."""
        return read_labeled(self._config, files, monitor)

    def _segmented(self, volume: Volume) -> Bytes:
        """Return the head's label values [K, J, I]."""
        head = str(self._bundle.folder)
        options = SegmentConfig(model=head, device=self._device, force_segmenter=True)
        # Warnings of each image would repeat.
        labels: Bytes = segment(volume, options, monitor=Monitor()).volume.voxels
        return labels

    def measure(self, enhancers: Mapping[str, Enhance], monitor: Monitor) -> list[dict[str, Any]]:
        """Segment held-out images: clean, noisy, and noisy after each enhancer.

        Patients are numbered, as file names may contain patient names; the log maps numbers to
        files.

        Args:
            enhancers: by name, which rows have as "image".
            monitor: progress and cancelling.
        Returns:
            A row for each patient and image: "subject", "image" ("clean", "noisy" or an enhancer's
            name), "dice" (mean over the structures), "volume_error" (of the structures: mean
            absolute difference as a share of the true volume), "psnr_db" (of tissue; None for the
            clean image), and "LABEL (Dice)".
        """
        rows, config = [], self._config
        names = [_CLEAN, _NOISY, *enhancers]
        _, held_out = find_split(config, self._data)
        for number, files in enumerate(held_out):
            part = monitor.part(number / len(held_out), (number + 1) / len(held_out))
            subject = f"held-out patient {number + 1}"
            monitor.log(f"{subject}: {files[0].relative_to(self._data)}")
            labeled = self._read(files, part.part(0, 0.1))
            labeled = labeled.slab(self.depth) if self.depth else labeled
            is_ct = profile_of(config.modality).is_projected
            noise = LowDose(_PHOTONS, ELECTRONIC, number) if is_ct else Rician(self.sigma, number)
            noisy = noise.apply(labeled.image)
            for index, name in enumerate(names):
                part.progress(0.1 + 0.9 * index / len(names), f"measuring the {name} image")
                volume = labeled.image if name == _CLEAN else noisy
                volume = enhancers[name](noisy) if name in enhancers else volume
                figures = _figures(labeled, volume, self._segmented(volume), config)
                rows.append({"subject": subject, "image": name, **figures})
        return rows


class SegmentationTask(FrozenTask):
    """Loss of a trained head on enhanced images, and its Dice in held-out patients.

    The images are those of the head's training. It runs in float32, as differences of its loss
    would vanish in bfloat16.

    Args:
        segmenter: name or folder of the head.
        data: folder that patterns are relative to.
        device: as torch names it.
        modality: of the images.
    Raises:
        ModelError: there is no such head.
    """

    depth = 48

    def __init__(self, segmenter: str, data: Path, device: str, *, modality: str) -> None:
        bundle = open_bundle(segmenter, kind="head", modality=modality)
        super().__init__(bundle, config_of(bundle), data, device)
        self._network = move(open_head(bundle).network, device)
        self._criterion = segmentation_loss(over_batch=self._config.labeled_share > 0)

    def subjects(self, monitor: Monitor) -> Iterator[LabeledFile]:
        """Yield each training image and its labels as indices, without held-out patients.

        Raises InputError for data that do not fit together.
        """
        training, _ = find_split(self._config, self._data)
        reading = monitor.part(0.0, READING, is_typical=False)
        count = len(training)
        for number, files in enumerate(training):
            part = reading.part(number / count, (number + 1) / count)
            labeled = self._read(files, part)
            yield files[0], labeled.image, labeled.indices

    def loss(self, image: Tensor, labels: Tensor) -> Tensor:
        """Compute cross-entropy + Dice of up to four slices of a slab, each with its neighbors.

        Slices whose neighbors are all in the slab are preferred; otherwise the last slice is
        repeated beyond the ends.

        Args:
            image: [D, H, W] on the network's scale, enhanced.
            labels: [D, H, W], indices.
        """
        depth, rows, columns = image.shape
        context = self._config.network.context
        whole = range(context, depth - context) or [depth // 2]
        places = np.linspace(0, len(whole) - 1, min(len(whole), _MOST_SLICES)).round().astype(int)
        middles = np.array(whole)[places]
        seen = np.clip(middles[:, None] + np.arange(-context, context + 1), 0, depth - 1)
        stacks = image[torch.from_numpy(seen)].float()
        # Each stage halves the sides.
        multiple = 2 ** (len(self._config.network.widths) - 1)
        short = (0, -columns % multiple, 0, -rows % multiple)
        with torch.autocast(image.device.type, enabled=False):
            padded = F.pad(stacks, short, mode="replicate")
            logits: Tensor = self._network(padded)[..., :rows, :columns]
            loss: Tensor = self._criterion(logits, labels[middles.tolist()][:, None].float())
        return loss


def _figures(
    labeled: LabeledImage, volume: Volume, labels: Bytes, config: TrainHeadConfig
) -> dict[str, Any]:
    """Compute the Dice of labels, and the PSNR of their volume in the tissue of the clean image."""
    scaling = scaling_for(labeled.image)
    clean, voxels = (scaling.apply(image.voxels) for image in (labeled.image, volume))
    fidelity = psnr(clean, voxels, 1.0, mask=clean > TISSUE[config.modality])
    scores = {
        label.name: dice(labeled.indices == index, labels == label.value, 1)
        for index, label in enumerate(config.label_set, 1)
    }
    sizes = {
        label.value: np.count_nonzero(labeled.indices == index)
        for index, label in enumerate(config.label_set, 1)
    }
    errors = [
        abs(np.count_nonzero(labels == value) / size - 1) for value, size in sizes.items() if size
    ]
    return {
        "dice": round(float(np.mean([*scores.values()])), 4),
        "volume_error": round(float(np.mean(errors)), 4),
        "psnr_db": round(fidelity, 3) if math.isfinite(fidelity) else None,
        **{f"{label} (Dice)": round(score, 3) for label, score in scores.items()},
    }
