"""A user's own, frozen segmenter, through which an enhancer can be taught.

slab on the networks' scale → axes, spacing, intensities → sides filled up → network → back
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError, ModelError
from MedEnhanceLib.gradprom import segmenter_spec
from MedEnhanceLib.gradprom.segmenter_bundle import Opened, open_source
from MedEnhanceLib.gradprom.segmenter_probe import Frozen, count, probe
from MedEnhanceLib.gradprom.segmenter_spec import View, axes_of, zoom_of
from MedEnhanceLib.nets.intensity import Scaling, scaling_for
from MedEnhanceLib.runtime.progress import Monitor

#: Resampling by more shows the network images unlike those that it learned from.
_MOST_ZOOM = 3.0
#: Pixels of slices at once: what is best on a CPU.
_PIXELS = 512 * 512


def open_segmenter(source: str | Path, *, trust: bool = False) -> Segmenter:
    """Open a segmenter, freeze it, and check with a probe that it can teach.

    Args:
        source: the name or folder of a head of MedEnhance; a MONAI bundle, folder or zip.
        trust: whether a program in it, TorchScript, may run.
    Raises:
        ModelError: it cannot be read, is not trusted, or does not teach: its output does not depend
            differentiably on the image.
        DependencyError: its network needs a package that is missing.
    """
    return frozen(open_source(str(source), trust=trust))


def frozen(opened: Opened) -> Segmenter:
    """A network that was opened, frozen and checked; raises ModelError as `open_segmenter`."""
    network = Frozen(opened.network, opened.name)
    probe(network, opened.spec, opened.name)
    return Segmenter(**vars(opened) | {"network": network})


@dataclass(frozen=True, eq=False)
class Segmenter(Opened):
    """A frozen segmenter: its network is [B, channels, …] → logits [B, outputs, …], for use."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its labels; label n has the index n + 1, the background 0."""
        return self.spec.labels

    def identity(self) -> dict[str, str]:
        """Name, kind and hash, as manifests record them."""
        return {"name": self.name, "kind": self.kind, "sha256": self.sha256}

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
        axes, _ = axes_of(spec.orientation, volume.geometry)
        zoom = zoom_of(spec.spacing, axes, volume.geometry)
        worst = max(zoom, key=lambda ratio: abs(math.log(ratio)))
        if abs(math.log(worst)) > math.log(_MOST_ZOOM):
            place = zoom.index(worst)
            raise InputError(
                f"{who}: voxels of {volume.geometry.spacing[2 - axes[place]]:.3g} mm, segmenter "
                f"{self.name!r} is for {spec.spacing[place]:g} mm: more than {_MOST_ZOOM:g} times "
                "apart",
                "Choose volumes of about its resolution.",
            )
        sides = View(axes=axes, zoom=zoom).sides(volume.shape)[3 - spec.dimensions :]
        if any(2 * side < spec.multiple for side in sides):
            raise InputError(
                f"{who}: {' × '.join(map(str, sides))} voxels at the resolution of segmenter "
                f"{self.name!r}, which needs {spec.multiple}",
                "Choose larger volumes: most of what it would see is filling.",
            )
        most = len(self.labels)
        if labels is not None and int(labels.voxels.max()) > most:
            raise InputError(
                f"{labels.source or f'labels of {who}'}: values up to {labels.voxels.max()}, "
                f"segmenter {self.name!r} has {count(most, 'label')} "
                f"({', '.join(self.labels[:5])}{' …' if most > 5 else ''})",
                "Number its labels from 1 on, in this order, and the background 0.",
            )

    def view_of(self, volume: Volume, scaling: Scaling) -> View:
        """What of the way to the network depends on the volume.

        Args:
            volume: what intensities are measured on, as it is, where the spec says so.
            scaling: of the slabs, as nets.intensity.scaling_for gives it.
        """
        return segmenter_spec.view_of(self.spec, volume, scaling)

    def logits(self, slab: Tensor, view: View) -> Tensor:
        """What the segmenter finds in a slab, differentiably.

        slab: [D, H, W], on the scale of this project's networks. Returns [C, D, H, W] on the same
        grid; with softmax, channel 0 is the background.
        """
        seen = self._seen(slab, view)
        # Half precision would round away the small differences that teach.
        with torch.autocast(slab.device.type, enabled=False):
            found = self._run(seen, slice(0, len(seen)), is_whole=False)
        found = _resampled(found, _along(slab.shape, view))
        return _turned_back(found, view)

    def loss(self, slab: Tensor, view: View, target: Tensor) -> Tensor:
        """Dice and cross-entropy of a slab, a scalar.

        slab: [D, H, W], as for `logits`. target: label indices [D, H, W], 0 for the background.
        """
        from monai.losses.dice import DiceLoss

        logits = self.logits(slab, view)
        wanted = self._shares(target.to(slab.device))[None]
        is_softmax = self.spec.activation == "softmax"
        # Most of a slab is background: it would drown the labels in the Dice.
        dice = DiceLoss(
            include_background=not is_softmax, softmax=is_softmax, sigmoid=not is_softmax
        )
        entropy = F.cross_entropy if is_softmax else F.binary_cross_entropy_with_logits
        loss: Tensor = dice(logits[None], wanted) + entropy(logits[None], wanted)
        return loss

    def _shares(self, target: Tensor) -> Tensor:
        """Indices [D, H, W] → 0 or 1 for each channel, [C, D, H, W]."""
        wanted = F.one_hot(target.long(), len(self.labels) + 1).movedim(-1, 0).float()
        return wanted if self.spec.activation == "softmax" else wanted[1:]

    def find(self, volume: Volume, monitor: Monitor | None = None) -> npt.NDArray[np.uint8]:
        """Label indices of a whole volume on its grid, 0 for the background.

        Overlapping labels: the likeliest counts. Raises as `check`; Cancelled.
        """
        monitor = monitor or Monitor()
        self.check(volume)
        scaling = scaling_for(volume)
        view = self.view_of(volume, scaling)
        found = torch.zeros(_along(volume.shape, view), dtype=torch.uint8)
        with torch.inference_mode():
            slab = torch.from_numpy(scaling.apply(volume.voxels))
            seen = self._seen(slab.to(self._device()), view)
            for where in self._parts(seen):
                part = monitor.part(where.start / len(seen), where.stop / len(seen))
                part.progress(0, "segmenting")
                logits = self._run(seen, where, is_whole=True, monitor=part)
                rows = where if self.spec.dimensions == 2 else slice(0, len(found))
                sides = (rows.stop - rows.start, *found.shape[1:])
                found[rows] = self._likeliest(logits, sides)
        monitor.progress(1, "segmenting")
        return np.ascontiguousarray(_turned_back(found[None], view)[0].numpy())

    def _parts(self, seen: Tensor) -> Iterator[slice]:
        """Slices at once: few of networks of slices, which are not resampled; all of others."""
        step = len(seen)
        if self.spec.dimensions == 2:
            step = max(1, _PIXELS // (seen.shape[1] * seen.shape[2]))
        for start in range(0, len(seen), step):
            yield slice(start, min(start + step, len(seen)))

    def _likeliest(self, logits: Tensor, sides: tuple[int, int, int]) -> Tensor:
        """The index of the highest channel; one channel after the other, to save memory."""
        is_softmax = self.spec.activation == "softmax"
        best = _resampled(logits[:1], sides)[0] if is_softmax else torch.zeros(sides).to(logits)
        found = torch.zeros(sides, dtype=torch.uint8, device=logits.device)
        for index, channel in enumerate(logits[1:] if is_softmax else logits, start=1):
            values = _resampled(channel[None], sides)[0]
            found[values > best] = index
            best = torch.maximum(best, values)
        return found.cpu()

    def _device(self) -> torch.device:
        tensors = chain(self.network.parameters(), self.network.buffers())
        return next((one.device for one in tensors), torch.device("cpu"))

    def _seen(self, slab: Tensor, view: View) -> Tensor:
        """The slab in the network's axes, spacing and intensities."""
        turned = slab.float().permute(view.axes).flip(view.flips)
        seen = _resampled(turned[None], view.sides(slab.shape))[0]
        values = seen * view.gain + view.offset
        if view.zero is not None:
            at, near = view.zero
            values = torch.where((values - at).abs() <= near, 0.0, values)
        return values if view.clip is None else values.clamp(*view.clip)

    def _run(
        self, seen: Tensor, where: slice, *, is_whole: bool, monitor: Monitor | None = None
    ) -> Tensor:
        """Logits [C, …] of slices of the network's grid; in windows if whole volumes are run so."""
        spec = self.spec
        if spec.dimensions == 3:
            batch = seen[None, None]
        else:
            offsets = torch.arange(-spec.context, spec.context + 1)
            wanted = torch.arange(where.start, where.stop)[:, None] + offsets
            batch = seen[wanted.clamp(0, len(seen) - 1).to(seen.device)]
        if is_whole and spec.window:
            found = self._in_windows(batch, monitor)
        else:
            filling = [(0, -side % spec.multiple) for side in reversed(batch.shape[2:])]
            found = self.network(F.pad(batch, [*chain(*filling)], mode="replicate"))
            found = found[(..., *(slice(0, side) for side in batch.shape[2:]))]
        return found[0] if spec.dimensions == 3 else found.movedim(0, 1)

    def _in_windows(self, batch: Tensor, monitor: Monitor | None) -> Tensor:
        from monai.inferers.utils import sliding_window_inference

        spec, done = self.spec, 0
        windows = len(batch) * math.prod(
            math.ceil(max(side - window, 0) / max(1, int(window * (1 - spec.overlap)))) + 1
            for side, window in zip(batch.shape[2:], spec.window, strict=True)
        )

        def run(images: Tensor) -> Tensor:
            nonlocal done
            if monitor is not None:
                monitor.progress(done / windows, "segmenting")
            done += 1
            found: Tensor = self.network(images)
            return found

        found: Tensor = sliding_window_inference(
            batch, spec.window, 1, run, spec.overlap, mode="gaussian", padding_mode="replicate"
        )
        return found


def _along(shape: tuple[int, ...], view: View) -> tuple[int, int, int]:
    """Sides of a volume or slab along the network's axes, on its own grid."""
    first, second, third = (int(shape[axis]) for axis in view.axes)
    return first, second, third


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
