"""A MONAI bundle that segments; MONAI runs its transforms and windows.

volume → transforms → network, in windows → back to the volume's grid → labels
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.modality import SET_MODALITY
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ModelError, UnfitModelError
from MedEnhanceLib.io.describe import refuse_too_large
from MedEnhanceLib.runtime.device import is_device_lost, is_out_of_memory
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import reason_of

#: Sides of a volume that is run as a whole are padded to a multiple of this, as stages halve them.
_MULTIPLE = 32
#: Key of the image in the mapping that transforms take and return.
IMAGE = "image"


@dataclass(frozen=True, eq=False)
class MonaiBundle:
    """Statements of a bundle, and its frozen network.

    Attributes:
        name: of its folder.
        network: [B, 1, D, H, W] → logits [B, outputs, D, H, W], frozen, for use.
        before: MONAI's Compose of what is done before it, on a mapping with the image as "image".
        modality: of the images that it was trained on, CT or MR.
        labels: names of its channels, in order, without the background.
        has_background: whether the first channel is the background, so that a voxel has one label;
            else labels may overlap.
        window: sides of the window that whole volumes are run in; empty: all at once.
        overlap: of neighboring windows, as a share.
        sha256: of its weights.
        notes: what was left out, and its license, for users.
    """

    name: str
    network: nn.Module
    before: Any
    modality: str
    labels: tuple[str, ...]
    has_background: bool
    window: tuple[int, ...]
    overlap: float
    sha256: str
    notes: tuple[str, ...]

    def refuse_other_modality(self, volume: Volume) -> None:
        """Raise UnfitModelError for a volume of another modality."""
        if not volume.profile.takes(self.modality):
            raise UnfitModelError(
                f"MONAI bundle {self.name!r} is for {self.modality}, {volume.source or 'volume'} "
                f"is {volume.modality}",
                f"Use another bundle, or correct the modality: {SET_MODALITY}.",
            )

    def segment(self, volume: Volume, monitor: Monitor) -> npt.NDArray[np.uint8]:
        """Find label indices of a whole volume on its grid, 0 for the background.

        Of overlapping labels the likeliest counts. Raises ModelError where the bundle is for
        another modality, transforms or network fail on the volume, or outputs are not as stated;
        InputError for a sequence, or too large values; Cancelled.
        """
        name = volume.source or "volume"
        volume = volume.single("Give one frame at a time.")
        refuse_too_large(volume)
        self.refuse_other_modality(volume)
        try:
            with torch.no_grad():
                image = self._transformed(volume)
                labels = self._labels_of(self._in_windows(image, monitor), image)
        except (RuntimeError, TypeError, ValueError) as cause:
            reason = cause.__cause__ or cause  # MONAI wraps what a transform raises
            if is_out_of_memory(reason) or is_device_lost(reason):
                raise reason from None
            raise ModelError(
                f"MONAI bundle {self.name!r} does not take {name}: {reason_of(reason)}",
                "Choose one for images of one channel, or correct what its bundle states.",
            ) from cause
        monitor.progress(1, "segmenting")
        return labels

    def _transformed(self, volume: Volume) -> Any:
        """Transform the image for the network: a MetaTensor [1, …] that records the transforms."""
        from monai.data.meta_tensor import MetaTensor

        voxels = np.array(volume.voxels.T[None], np.float32, order="C")
        affine = torch.from_numpy(volume.geometry.affine_ras)
        image = MetaTensor(torch.from_numpy(voxels), affine=affine)
        return self.before({IMAGE: image})[IMAGE]

    def _in_windows(self, image: Any, monitor: Monitor) -> Tensor:
        """Compute logits [C, …] of a whole image [1, …], in one window if none is stated."""
        from monai.inferers.utils import sliding_window_inference

        voxels = image.as_tensor().to(next(self.network.parameters()).device)
        sides, count = voxels.shape[1:], 0
        window = self.window or tuple(side + -side % _MULTIPLE for side in sides)
        windows = math.prod(
            math.ceil(max(side - part, 0) / max(1, int(part * (1 - self.overlap)))) + 1
            for side, part in zip(sides, window, strict=True)
        )

        def run(part: Tensor) -> Tensor:
            nonlocal count
            monitor.progress(count / windows, "segmenting")
            count += 1
            return self._checked(self.network(part))

        logits: Tensor = sliding_window_inference(
            voxels[None], window, 1, run, self.overlap, mode="gaussian", padding_mode="replicate"
        )
        return logits[0]

    def _checked(self, logits: Any) -> Tensor:
        """Return logits [1, C, …]; raises ModelError for another C, or values not finite."""
        shape = list(getattr(logits, "shape", []))
        outputs = len(self.labels) + self.has_background
        if len(shape) != 5 or shape[1] != outputs:
            raise ModelError(
                f"MONAI bundle {self.name!r} gives {shape or type(logits).__name__}, with "
                f"{outputs} channels by the labels of its bundle",
                "Correct channel_def in its metadata.",
            )
        if not torch.isfinite(logits).all():
            raise ModelError(
                f"MONAI bundle {self.name!r} gives values that are not finite", "Check its weights."
            )
        checked: Tensor = logits
        return checked

    def _labels_of(self, logits: Tensor, image: Any) -> npt.NDArray[np.uint8]:
        """Find the index of the highest of logits [C, …] on the volume's grid [K, J, I].

        Channels are resampled to that grid one by one, to save memory.
        """
        if not self.has_background:
            logits = torch.cat([torch.zeros_like(logits[:1]), logits])
        scores = (self._back(channel, image) for channel in logits)
        best = next(scores)
        labels = torch.zeros(best.shape, dtype=torch.uint8)
        for index, score in enumerate(scores, 1):
            labels[score > best] = index
            best = torch.maximum(best, score)
        return np.ascontiguousarray(labels.numpy().T)

    def _back(self, channel: Tensor, image: Any) -> Tensor:
        """Resample one channel from the network's grid to the volume's, [I, J, K]."""
        from monai.data.meta_tensor import MetaTensor

        # A copy, as the inverse transforms remove entries from the record.
        record = copy.deepcopy(image.applied_operations)
        scores = MetaTensor(channel[None].float().cpu(), meta=image.meta, applied_operations=record)
        if record:
            scores = self.before.inverse({IMAGE: scores})[IMAGE]
        on_grid: Tensor = scores.as_tensor()[0]
        return on_grid
