"""A frozen segmenter of a MONAI bundle: it segments volumes, and can teach an enhancer.

slab on the networks' scale → axes, spacing, intensities → sides filled up → network → back
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.schema import FORMAT, METADATA
from MedEnhanceLib.bundles.store import folder_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError, ModelError
from MedEnhanceLib.gradprom.monai_bundle import open_monai_bundle
from MedEnhanceLib.gradprom.monai_config import Config
from MedEnhanceLib.gradprom.segmenter_spec import SegmenterSpec, View, view_of
from MedEnhanceLib.nets.intensity import Scaling, scaling_for
from MedEnhanceLib.runtime.progress import Monitor

#: Resampling by more shows the network images unlike those that it learned from.
_MOST_ZOOM = 3.0
#: Side of the random image that a network is tried with, at least.
_PROBE = 32


def is_own_head(source: str) -> bool:
    """Whether a segmenter is the name or folder of a model of this project, not a MONAI bundle."""
    folder = folder_of(source) or (Path(source) if Path(source).suffix else None)
    return folder is None or Config(folder, str(METADATA)).fields.get("format") == FORMAT


def open_segmenter(source: str | Path) -> Segmenter:
    """Open the folder of a MONAI bundle, freeze its network, and try it with a random image.

    Raises ModelError where it cannot be read, or does not give what it states; DependencyError
    where its network needs a package that is missing.
    """
    if is_own_head(str(source)):
        raise ModelError(
            f"{source} is not the folder of a MONAI bundle",
            "Name a segmentation model of MedEnhance as the model (model, --model).",
        )
    folder = Path(source).resolve()
    network, spec, sha256, notes = open_monai_bundle(folder)
    network.requires_grad_(False)
    segmenter = Segmenter(folder.name, network, spec, sha256, notes)
    _try(segmenter)
    return segmenter


def _try(segmenter: Segmenter) -> None:
    """Raise ModelError unless the network takes and gives what is stated of it."""
    spec = segmenter.spec
    side = math.ceil(_PROBE / spec.multiple) * spec.multiple
    images = torch.rand((1, 1, side, side, side), generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            logits = segmenter.network(images)
    except Exception as cause:  # whatever the network raises for what it cannot take
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
        raise ModelError(
            f"segmenter {segmenter.name!r} does not take an image of {side}³ voxels: {reason}",
            "Choose one for images of one channel, or correct what its bundle states.",
        ) from cause
    shape = list(getattr(logits, "shape", []))
    if shape != [1, spec.outputs, side, side, side]:
        raise ModelError(
            f"segmenter {segmenter.name!r} gives {shape or type(logits).__name__} for "
            f"{list(images.shape)}, with {spec.outputs} channels by the labels of its bundle",
            "Correct channel_def in its metadata.",
        )
    if not torch.isfinite(logits).all():
        raise ModelError(
            f"segmenter {segmenter.name!r} gives values that are not finite", "Check its weights."
        )


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A frozen segmenter.

    Attributes:
        name: as the user knows it.
        network: [B, 1, D, H, W] → logits [B, outputs, D, H, W], for use.
        spec: what it expects.
        sha256: of its weights.
        notes: what of its bundle was left out, and its license, for users.
    """

    name: str
    network: nn.Module
    spec: SegmenterSpec
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its labels; label n has the index n + 1, the background 0."""
        return self.spec.labels

    def identity(self) -> dict[str, str]:
        """Name, kind and hash, as manifests record them."""
        return {"name": self.name, "kind": "monai-bundle", "sha256": self.sha256}

    def view_of(self, volume: Volume, scaling: Scaling | None = None) -> View:
        """What of the way to the network depends on the volume; scaling: of its slabs."""
        return view_of(self.spec, volume, scaling or scaling_for(volume))

    def check(self, volume: Volume, labels: Volume | None = None) -> None:
        """Raise an error for a volume, or labels drawn on it, that the segmenter is not for.

        Raises:
            ModelError: it was trained on another modality.
            InputError: the volume is a sequence, too coarse, too fine or too small; the labels
                hold values that are no label.
        """
        spec, who = self.spec, volume.source or "volume"
        if volume.is_sequence:
            raise InputError(f"{who}: a sequence", "Give one frame at a time.")
        is_open = volume.modality_is_guess or volume.modality == "OT"
        if volume.modality != spec.modality and not is_open:
            raise ModelError(
                f"segmenter {self.name!r} is for {spec.modality}, {who} is {volume.modality}",
                "Use another segmenter, or correct the modality (--modality, or modality= when "
                "loading).",
            )
        view = self.view_of(volume)
        worst = max(view.zoom, key=lambda ratio: abs(math.log(ratio)))
        if abs(math.log(worst)) > math.log(_MOST_ZOOM):
            place = view.zoom.index(worst)
            spacing = volume.geometry.spacing[2 - view.axes[place]]
            raise InputError(
                f"{who}: voxels of {spacing:.3g} mm, segmenter {self.name!r} is for "
                f"{spec.spacing[place]:g} mm: more than {_MOST_ZOOM:g} times different",
                "Choose volumes of about its resolution.",
            )
        sides = view.sides(volume.shape)
        if any(2 * side < spec.multiple for side in sides):
            raise InputError(
                f"{who}: {' × '.join(map(str, sides))} voxels at the resolution of segmenter "
                f"{self.name!r}, which needs {spec.multiple}",
                "Choose larger volumes: most of its input would be padding.",
            )
        if labels is not None and int(labels.voxels.max()) > len(self.labels):
            raise InputError(
                f"{labels.source or f'labels of {who}'}: values up to {labels.voxels.max()}, "
                f"segmenter {self.name!r} has {len(self.labels)}: {', '.join(self.labels[:5])}",
                "Number its labels from 1 on, in this order, and the background 0.",
            )

    def logits(self, slab: Tensor, view: View) -> Tensor:
        """What the segmenter finds in a slab, differentiably.

        slab: [D, H, W], on the scale of this project's networks. Returns [C, D, H, W] on the same
        grid; with softmax, channel 0 is the background.
        """
        # Half precision would round away the small differences that teach.
        with torch.autocast(slab.device.type, enabled=False):
            seen = self._seen(slab, view)
            filling = [(0, -side % self.spec.multiple) for side in reversed(seen.shape)]
            padded = F.pad(seen[None, None], [*chain(*filling)], mode="replicate")
            logits = self.network(padded)[0]
            logits = logits[(..., *(slice(0, side) for side in seen.shape))]
        return _turned_back(_resampled(logits, view.along(slab.shape)), view)

    def loss(self, slab: Tensor, view: View, target: Tensor) -> Tensor:
        """Dice and cross-entropy of a slab, a scalar.

        slab: [D, H, W], as for `logits`. target: label indices [D, H, W], 0 for the background.
        """
        from monai.losses.dice import DiceLoss

        logits = self.logits(slab, view)[None]
        is_softmax = self.spec.activation == "softmax"
        shares = F.one_hot(target.to(slab.device).long(), len(self.labels) + 1)
        shares = shares.movedim(-1, 0).float()[None, 0 if is_softmax else 1 :]
        # Most of a slab is background: it would drown the labels in the Dice.
        dice = DiceLoss(
            include_background=not is_softmax, softmax=is_softmax, sigmoid=not is_softmax
        )
        entropy = F.cross_entropy if is_softmax else F.binary_cross_entropy_with_logits
        loss: Tensor = dice(logits, shares) + entropy(logits, shares)
        return loss

    def find(self, volume: Volume, monitor: Monitor | None = None) -> npt.NDArray[np.uint8]:
        """Label indices of a whole volume on its grid, 0 for the background.

        Overlapping labels: the likeliest counts. Raises as `check`; Cancelled.
        """
        monitor = monitor or Monitor()
        self.check(volume)
        scaling = scaling_for(volume)
        view = self.view_of(volume, scaling)
        with torch.inference_mode():
            slab = torch.from_numpy(scaling.apply(volume.voxels))
            seen = self._seen(slab.to(next(self.network.parameters()).device), view)
            logits = self._in_windows(seen, monitor)
            labels = self._likeliest(logits, view.along(volume.shape))
        monitor.progress(1, "segmenting")
        return np.ascontiguousarray(_turned_back(labels[None], view)[0].numpy())

    def _seen(self, slab: Tensor, view: View) -> Tensor:
        """The slab in the network's axes, spacing and intensities."""
        turned = slab.float().permute(view.axes).flip(view.flips)
        values = _resampled(turned[None], view.sides(slab.shape))[0] * view.gain + view.offset
        if view.zero is not None:
            at, near = view.zero
            values = torch.where((values - at).abs() <= near, 0.0, values)
        return values if view.clip is None else values.clamp(*view.clip)

    def _in_windows(self, seen: Tensor, monitor: Monitor) -> Tensor:
        """Logits [C, …] of a whole volume [D, H, W]; one window if none is stated."""
        from monai.inferers.utils import sliding_window_inference

        spec, done = self.spec, 0
        window = spec.window or tuple(side + -side % spec.multiple for side in seen.shape)
        windows = math.prod(
            math.ceil(max(side - part, 0) / max(1, int(part * (1 - spec.overlap)))) + 1
            for side, part in zip(seen.shape, window, strict=True)
        )

        def run(images: Tensor) -> Tensor:
            nonlocal done
            monitor.progress(done / windows, "segmenting")
            done += 1
            logits: Tensor = self.network(images)
            return logits

        found: Tensor = sliding_window_inference(
            seen[None, None], window, 1, run, spec.overlap, mode="gaussian",
            padding_mode="replicate",
        )  # fmt: skip
        return found[0]

    def _likeliest(self, logits: Tensor, sides: tuple[int, int, int]) -> Tensor:
        """The index of the highest channel; one channel after the other, to save memory."""
        is_softmax = self.spec.activation == "softmax"
        best = _resampled(logits[:1], sides)[0] if is_softmax else torch.zeros(sides).to(logits)
        labels = torch.zeros(sides, dtype=torch.uint8, device=logits.device)
        for index, channel in enumerate(logits[1:] if is_softmax else logits, start=1):
            values = _resampled(channel[None], sides)[0]
            labels[values > best] = index
            best = torch.maximum(best, values)
        return labels.cpu()


def _resampled(values: Tensor, sides: tuple[int, int, int]) -> Tensor:
    """[C, …] on another grid of the same extent, linearly; as it is where the grid is the same."""
    if values.shape[1:] == sides:
        return values
    # MONAI keeps the center of the first voxel, not the extent: its grid lies up to half a voxel
    # elsewhere. What the network finds is brought back from the grid that it saw.
    return F.interpolate(values[None], sides, mode="trilinear", align_corners=False)[0]


def _turned_back(values: Tensor, view: View) -> Tensor:
    """[C, …] along the network's axes → [C, D, H, W]."""
    back = [0, *(1 + view.axes.index(axis) for axis in range(3))]
    return values.flip([1 + axis for axis in view.flips]).permute(back)
