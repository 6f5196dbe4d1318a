"""Segments with a MONAI bundle: its transforms and windows are run by MONAI itself.

volume → transforms → network, in windows → back to the volume's grid → labels
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.core.modality import SET_MODALITY
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError, ModelError
from MedEnhanceLib.gradprom.monai_bundle import MonaiBundle, first_line, read_monai_bundle
from MedEnhanceLib.io.describe import refuse_too_large
from MedEnhanceLib.runtime.progress import Monitor

#: A resampled volume has at most this many times more or fewer voxels: 3 along each axis.
_MOST_ZOOM = 27.0
#: Side of the random image that a network is tried with, at least.
_PROBE = 32


def open_segmenter(source: str | Path) -> Segmenter:
    """Open the folder of a MONAI bundle, and try it with a random image.

    Raises ModelError where it cannot be read, or does not give what it states; DependencyError
    where its network needs a package that is missing.
    """
    segmenter = Segmenter(read_monai_bundle(Path(source).resolve()))
    bundle = segmenter.bundle
    side = math.ceil(_PROBE / bundle.multiple) * bundle.multiple
    voxels = np.random.default_rng(0).random((side, side, side), np.float32)
    try:
        with torch.no_grad():
            logits = bundle.network(torch.from_numpy(voxels)[None, None])
            segmenter.check_logits(logits)
            seen = segmenter.seen(Volume(voxels))
            segmenter.labels_of(torch.zeros(bundle.outputs, *seen.shape[1:]), seen)
    except ModelError:
        raise
    except Exception as cause:  # whatever network and transforms raise for what they cannot take
        raise ModelError(
            f"segmenter {bundle.name!r} does not take an image of {side}³ voxels: "
            f"{first_line(cause)}",
            "Choose one for images of one channel, or correct what its bundle states.",
        ) from cause
    return segmenter


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A frozen segmenter."""

    bundle: MonaiBundle

    def identity(self) -> dict[str, str]:
        """Return name, kind and hash, as manifests record them."""
        return {
            "name": self.bundle.name, "kind": "monai-bundle", "sha256": self.bundle.sha256,
        }  # fmt: skip

    def check(self, volume: Volume) -> None:
        """Raise an error for a volume that the segmenter is not for.

        ModelError: another modality. InputError: a sequence, too coarse or fine, too large values.
        """
        bundle, who = self.bundle, volume.source or "volume"
        volume = volume.single("Give one frame at a time.")
        refuse_too_large(volume)
        if volume.modality not in (bundle.modality, "OT"):
            raise ModelError(
                f"segmenter {bundle.name!r} is for {bundle.modality}, {who} is {volume.modality}",
                f"Use another segmenter, or correct the modality: {SET_MODALITY}.",
            )
        own = volume.geometry.spacing
        sides = [side or mm for side, mm in zip(bundle.spacing, own, strict=False)]
        zoom = math.prod(own) / math.prod(sides) if sides else 1.0
        if not 1 / _MOST_ZOOM <= zoom <= _MOST_ZOOM:
            raise InputError(
                f"{who}: voxels of {' × '.join(f'{mm:.3g}' for mm in own)} mm, segmenter "
                f"{bundle.name!r} is for {' × '.join(f'{mm:g}' for mm in sides)} mm: more than "
                f"{_MOST_ZOOM:g} times larger or smaller",
                "Choose volumes of about its resolution.",
            )

    def find(self, volume: Volume, monitor: Monitor | None = None) -> npt.NDArray[np.uint8]:
        """Find label indices of a whole volume on its grid, 0 for the background.

        Overlapping labels: the likeliest counts. Raises as `check`; Cancelled; ModelError where the
        transforms of the bundle do not take the volume.
        """
        monitor = monitor or Monitor()
        self.check(volume)
        volume = volume.single()
        with torch.no_grad():
            try:
                seen = self.seen(volume)
            except (RuntimeError, TypeError, ValueError) as cause:
                raise ModelError(
                    f"segmenter {self.bundle.name!r} does not take {volume.source or 'the volume'}:"
                    f" {first_line(cause)}",
                    "Use another segmenter.",
                ) from cause
            logits = self._in_windows(seen, monitor)
            self.check_logits(logits)
            labels = self.labels_of(logits[0], seen)
        monitor.progress(1, "segmenting")
        return labels

    def seen(self, volume: Volume) -> Any:
        """Make the volume as the network gets it: a MetaTensor [1, …] that knows the way back."""
        from monai.data.meta_tensor import MetaTensor

        voxels = np.array(volume.voxels.T[None], np.float32, order="C")
        affine = torch.from_numpy(volume.geometry.affine_ras)
        image = MetaTensor(torch.from_numpy(voxels), affine=affine)
        return self.bundle.before({self.bundle.image: image})[self.bundle.image]

    def check_logits(self, logits: Any) -> None:
        """Raise ModelError unless logits [1, C, …] are of all labels, and finite."""
        name, shape = self.bundle.name, list(getattr(logits, "shape", []))
        if len(shape) != 5 or shape[1] != self.bundle.outputs:
            raise ModelError(
                f"segmenter {name!r} gives {shape or type(logits).__name__}, with "
                f"{self.bundle.outputs} channels by the labels of its bundle",
                "Correct channel_def in its metadata.",
            )
        if not torch.isfinite(logits).all():
            raise ModelError(
                f"segmenter {name!r} gives values that are not finite", "Check its weights."
            )

    def _in_windows(self, seen: Any, monitor: Monitor) -> Tensor:
        """Compute logits [1, C, …] of a whole image [1, …]; one window if none is stated."""
        from monai.inferers.utils import sliding_window_inference

        bundle, done = self.bundle, 0
        images = seen.as_tensor().to(next(bundle.network.parameters()).device)
        sides = images.shape[1:]
        window = bundle.window or tuple(side + -side % bundle.multiple for side in sides)
        windows = math.prod(
            math.ceil(max(side - part, 0) / max(1, int(part * (1 - bundle.overlap)))) + 1
            for side, part in zip(sides, window, strict=True)
        )

        def run(part: Tensor) -> Tensor:
            nonlocal done
            monitor.progress(done / windows, "segmenting")
            done += 1
            logits: Tensor = bundle.network(part)
            return logits

        found: Tensor = sliding_window_inference(
            images[None], window, 1, run, bundle.overlap, mode="gaussian", padding_mode="replicate"
        )
        return found

    def labels_of(self, logits: Tensor, seen: Any) -> npt.NDArray[np.uint8]:
        """Find the index of the highest of logits [C, …] on the volume's grid [K, J, I].

        One channel after the other goes back to that grid, to save memory.
        """
        channels = (self._back(channel, seen) for channel in logits)
        first = next(channels)
        best = first if self.bundle.has_background else torch.zeros_like(first)
        labels = np.zeros(tuple(first.shape), np.uint8)
        rest = channels if self.bundle.has_background else chain([first], channels)
        for index, channel in enumerate(rest, 1):
            labels[(channel > best).numpy()] = index
            best = torch.maximum(best, channel)
        return np.ascontiguousarray(labels.T)

    def _back(self, channel: Tensor, seen: Any) -> Tensor:
        """Resample one channel from the network's grid to the volume's, [I, J, K]."""
        from monai.data.meta_tensor import MetaTensor

        # A copy, as transforms take from the record of what was done what they have undone.
        done = copy.deepcopy(seen.applied_operations)
        if not done:
            return channel.float().cpu()
        image = MetaTensor(channel[None].float().cpu(), meta=seen.meta, applied_operations=done)
        back = self.bundle.before.inverse({self.bundle.image: image})[self.bundle.image]
        on_grid: Tensor = back.as_tensor()[0]
        return on_grid
