"""A frozen head from label maps that teaches a network: its loss in a window of a corrected scan.

No reader's labels are needed: those of the head itself on the clean scan are the truth. Priors and
places are also those of the clean scan; the mixture is that of the image at hand, as users have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.arrays import Bytes, Ints
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom.structures.correcting import (
    BINS,
    MULTIPLE,
    bins_of,
    correct,
    fit_histograms,
    voxel_prior,
)
from MedEnhanceLib.gradprom.structures.locating import resampling
from MedEnhanceLib.gradprom.structures.model import StructureModel, open_structures
from MedEnhanceLib.gradprom.structures.networks import VOXEL_MM
from MedEnhanceLib.gradprom.structures.segmenting import PlacedScan, place, segment_structures
from MedEnhanceLib.gradprom.structures.space import index_grid
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.heads import class_loss

# Chosen by hand; no table isolates it.
#: Voxels of a window at which a class trusts its own changes of intensity by half.
_FEW = 30.0
#: Voxels of 2 mm around a window that the corrector sees as well.
_MARGIN = 8


class StructuresTask:
    """A head that does not change, and its loss on corrected images.

    It runs in float32, as differences of its loss would vanish in bfloat16.

    Args:
        bundle: of the head.
        device: as torch names it.
    """

    def __init__(self, bundle: Bundle, device: str) -> None:
        self._bundle, self._device = bundle, device
        self._model = open_structures(bundle)
        self._corrector = deepcopy(self._model.corrector).to(device)  # segmenting is the CPU's
        self._scenes: list[_Scene] = []

    def identity(self) -> Mapping[str, str]:
        """Return name and hash of the head."""
        return self._bundle.identity()

    def labeled(self, volumes: Sequence[Volume], monitor: Monitor) -> list[Ints]:
        """Return the numbers of the voxels of canonical scans, 0 where there is no structure.

        `loss` knows scan and place by them. Raises InputError for a scan in which the head
        recognizes nothing.
        """
        self._scenes, labels, first = [], list[Ints](), 1
        for number, volume in enumerate(volumes):
            monitor.progress(0.0, f"segmenting scan {number + 1} of {len(volumes)}")
            placement = place(volume.upright(), self._model)
            scene = _Scene.of(volume, placement, self._model, first)
            if scene is None:
                raise InputError(
                    f"{volume.source}: the head {self._bundle.name} recognizes no structures",
                    "Leave the scan out (leave_out), or give scans like those the head is for.",
                )
            self._scenes.append(scene)
            numbers = np.arange(first, first + volume.voxels.size).reshape(scene.clean.shape)
            numbers = volume.geometry.upright_turn.undo(numbers)
            shown = self._segmented(volume, placement) > 0
            labels.append(np.where(shown, numbers, 0).astype(np.int32))
            first += volume.voxels.size
        return labels

    def loss(self, image: Tensor, labels: Tensor) -> Tensor:
        """Compute cross-entropy + 1 − Dice in a window within its clean surroundings.

        Args:
            image: [D, H, W] on the scale of `scaling_for`, corrected.
            labels: [D, H, W], numbers of voxels from `labeled`. Without any the loss is 0.
        """
        known = labels.nonzero()
        if not len(known):
            return 0.0 * image.sum()
        number = int(labels[tuple(known[0])])
        scene = next(scene for scene in reversed(self._scenes) if scene.first <= number)
        image, place = image.permute(scene.axes), known[0][list(scene.axes)].tolist()
        voxel = np.unravel_index(number - scene.first, scene.clean.shape)
        start = [int(at) - shift for at, shift in zip(voxel, place, strict=True)]
        window = tuple(slice(a, a + n) for a, n in zip(start, image.shape, strict=True))
        box, seen = scene.box(window)
        with torch.autocast(image.device.type, enabled=False):
            scan = scene.image_with(image.float(), window)[box]
            half = tuple(slice(side.start // 2, side.stop // 2) for side in box)
            places = scene.places[(slice(None), *half)]
            prior = self._model.space.at(places.movedim(0, -1))
            share = scene.shares(scan.cpu(), prior, box, seen)
            inputs = (each.to(image.device)[None] for each in (share, prior, places))
            logits, _ = self._corrector(scan[None, None], *inputs)
            inside = logits[(slice(None), slice(None), *seen)].cpu()
            return class_loss(inside, scene.classes[box][seen])

    def _segmented(self, volume: Volume, placement: PlacedScan) -> Bytes:
        """Return the head's label values [K, J, I]."""
        seen = volume.upright()
        made = segment_structures(seen, placement, self._model, self._device, Monitor())
        return volume.geometry.upright_turn.undo(made.labels)


@dataclass(frozen=True, eq=False)
class _Scene:
    """Result of a head on a clean scan, upright; tensors of 2 mm cover the corrector's window.

    Attributes:
        first: number of the scan's first voxel.
        axes: of an image in canonical order, upright.
        clean: [K, J, I] on the scale of `scaling_for`.
        gain: units of `image` in one of `clean`.
        image: [k, j, i], not clipped to 0 to 1.
        resampling: for each axis the weights of the scan's voxels, [k, K].
        histograms: [C, BINS], of the classes.
        places: [3, k/2, j/2, i/2], mm of the common space.
        classes: [k, j, i].
    """

    first: int
    axes: tuple[int, ...]
    clean: Tensor
    gain: float
    image: Tensor
    resampling: tuple[Tensor, ...]
    histograms: Tensor
    places: Tensor
    classes: Tensor

    @classmethod
    def of(
        cls, scan: Volume, placement: PlacedScan, model: StructureModel, first: int
    ) -> _Scene | None:
        """Segment a canonical scan; None where the head recognizes nothing."""
        volume, grid, location = placement
        if location is None:
            return None
        window = correct(grid, location, model)
        low, high = grid.scale
        sides = window.share.shape[1:]
        cells = index_grid([n // 2 for n in sides]) * 2 + 0.5
        points = (cells + torch.tensor(window.start[::-1])) * grid.step_mm
        places = window.placement(points)
        image = (grid.image - low) / (high - low)
        for axis, (at, n) in enumerate(zip(window.start, sides, strict=True)):
            image = _part(image, axis, at, n)
        fine = voxel_prior(model.space.at(places), image.shape)
        weights = resampling(volume, grid.image.shape, VOXEL_MM)
        scaling = scaling_for(volume)
        return cls(
            first,
            scan.geometry.upright_turn.axes,
            torch.from_numpy(scaling.apply(volume.voxels)),
            scaling.scale / (high - low),
            image,
            tuple(map(_part, weights, (0, 0, 0), window.start, sides)),
            fit_histograms(fine, bins_of(image.clamp(0, 1))),
            places.movedim(-1, 0).contiguous(),
            window.share.argmax(0).to(torch.uint8),
        )

    def image_with(self, window: Tensor, where: tuple[slice, ...]) -> Tensor:
        """Return the image, 0 to 1, with other voxels of the scan in a window."""
        change = (window - self.clean[where].to(window.device)) * self.gain
        for axis, weights in enumerate(self.resampling):
            near = weights[:, where[axis]].to(window.device)
            change = torch.tensordot(change, near, dims=([0], [1]))  # its axis comes last
        return (self.image.to(window.device) + change).clamp(0, 1)

    def shares(
        self, scan: Tensor, prior: Tensor, box: tuple[slice, ...], seen: tuple[slice, ...]
    ) -> Tensor:
        """Estimate classes as the mixture of a scan would that is everywhere like its window.

        A mixture needs a whole scan; a window has too few voxels. So the histogram of each class in
        the clean scan is convolved with the changes of the intensities of that class in the window.
        Histograms have no gradient: it passes through the places of intensities on them.

        Args:
            scan: [k, j, i] of the box, by `image_with`.
            prior: [C, k/2, j/2, i/2] of the box.
            box: in the image.
            seen: the window's part of the box.
        Returns [C, k, j, i].
        """
        fine = voxel_prior(prior, scan.shape)
        clean, now = bins_of(self.image[box].clamp(0, 1)), bins_of(scan.detach())
        share = fine * self.histograms[:, clean]
        share = (share / share.sum(0))[(slice(None), *seen)].flatten(1)
        change = (now - clean)[seen].flatten() + BINS - 1
        counts = torch.zeros(len(share), 2 * BINS - 1).index_add_(1, change, share)
        counts += _FEW * counts.sum(0) / counts.sum()
        kernels = counts.flip(1)[:, None]  # conv1d correlates
        lines = F.conv1d(self.histograms[None], kernels, padding=BINS - 1, groups=len(counts))[0]
        lines = lines / lines.sum(1, keepdim=True)
        at = scan * (BINS - 1)
        low = at.detach().long().clamp(max=BINS - 2)
        share = fine * torch.lerp(lines[:, low], lines[:, low + 1], at - low)
        return share / share.sum(0)

    def box(self, where: tuple[slice, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return what the corrector sees of a window, and the window's part of that."""
        box, seen = [], []
        for weights, side in zip(self.resampling, where, strict=True):
            touched = (weights[:, side].sum(1) > 0.5).nonzero()[:, 0].tolist() or [0]
            first, last, count = touched[0], touched[-1] + 1, len(weights)
            size = min(count, -(-(last - first + 2 * _MARGIN) // MULTIPLE) * MULTIPLE)
            start = min(max(0, (first + last - size) // 4 * 2), count - size)
            box.append(slice(start, start + size))
            seen.append(slice(first - start, last - start))
        return tuple(box), tuple(seen)


def _part(values: Tensor, axis: int, first: int, count: int) -> Tensor:
    """Cut a range of an axis, which may begin and end beyond it: 0 there."""
    ends = [-first, first + count - values.shape[axis]]
    return F.pad(values, [0, 0] * (values.dim() - 1 - axis) + ends)
