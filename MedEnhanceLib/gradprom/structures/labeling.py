"""Labels of a volume's own voxels from classes in voxels of 2 mm."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.core.arrays import Bytes, Floats
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.structures.correcting import ClassShares
from MedEnhanceLib.gradprom.structures.locating import CoarseScan
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.painting import scaled
from MedEnhanceLib.gradprom.structures.space import smooth
from MedEnhanceLib.runtime.progress import Monitor

# Chosen in trials (decision 0075); no table isolates them. Measured by Benchmarks/segmentation.py.
#: Voxels of a slab; share from which a voxel enters the histogram of a class; weight of the
#: intensities against the corrector.
_SLAB, _SURE, _TRUST = 2_000_000, 0.5, 0.7
#: Bins of the intensities of voxels, and σ of their smoothing.
_BINS, _BIN_BLUR = 64, 1.5
#: Least share of a class where it counts.
_LEAST = 2e-3
#: First and last voxel + 1 along k, j, i.
Box = tuple[tuple[int, int], ...]


def label_voxels(
    volume: Volume, scan: CoarseScan, window: ClassShares, model: StructureModel, monitor: Monitor
) -> tuple[Bytes, Floats]:
    """Bring classes to the voxels of the volume, sharpened by their own intensities.

    A histogram of each class, weighted by its probability, says how likely each intensity is.

    Args:
        volume: canonical.
        scan: of it, resampled by `make_scan`.
        window: its classes.
        model: the head.
        monitor: progress and cancelling.
    Returns labels [K, J, I], and uncertainty [K, J, I].
    """
    labels = np.zeros(volume.shape, np.uint8)
    uncertainty = np.zeros(volume.shape, np.float32)
    values = torch.from_numpy(model.anatomy.values)
    fine = _Fine(volume, scan, window)
    likelihood = fine.likelihood()
    for number, slab in enumerate(fine.slabs):
        monitor.progress(number / len(fine.slabs), "labeling voxels")
        bins = fine.bins(slab)
        total = torch.full(bins.shape, 1e-12)
        weighted, best = torch.zeros(bins.shape), torch.zeros(bins.shape)
        chosen = torch.zeros(bins.shape, dtype=torch.long)
        for index, where, share in fine.classes(slab):
            score = share * likelihood[index][bins[where]]
            better = score > best[where]
            best[where] = torch.where(better, score, best[where])
            chosen[where] = torch.where(better, index, chosen[where])
            total[where] += score
            weighted[where] += score * score.clamp_min(1e-12).log()
        entropy = (total.log() - weighted / total) / math.log(len(window.share))
        left = fine.read(window.left, slab) > 0.5
        inside = tuple(slice(*ends) for ends in slab)
        labels[inside] = values[left.long(), chosen].numpy()
        uncertainty[inside] = entropy.clamp(0, 1).numpy()
    return labels, uncertainty


class _Fine:
    """A window's classes at the voxels of a volume.

    Attributes:
        slabs: boxes of voxels that together cover the window.
    """

    def __init__(self, volume: Volume, scan: CoarseScan, window: ClassShares) -> None:
        self._volume, self._scan, self._window = volume, scan, window
        spacing = torch.tensor(volume.geometry.spacing, dtype=torch.float32)
        self._ratio: list[float] = (spacing / scan.step_mm).flip(0).tolist()
        low, rows, columns = box = self._box([(0, side) for side in window.share.shape[1:]])
        size = max(1, _SLAB // max(1, (rows[1] - rows[0]) * (columns[1] - columns[0])))
        firsts = range(low[0], low[1], size)
        self.slabs: list[Box] = [((k, min(k + size, low[1])), *box[1:]) for k in firsts]
        self._boxes = [self._class_box(share) for share in window.share]

    def bins(self, slab: Box) -> Tensor:
        """Return the bins of the intensities of a slab."""
        part = self._volume.voxels[tuple(slice(*ends) for ends in slab)].astype(np.float32)
        unit = scaled(torch.from_numpy(part), self._scan.scale)
        return (unit * (_BINS - 1)).round().long()

    def classes(self, slab: Box) -> Iterator[tuple[int, tuple[slice, ...], Tensor]]:
        """Yield index, place in the slab, and share of each class that it shows."""
        for index, box in enumerate(self._boxes):
            pairs = list(zip(box, slab, strict=True))
            part = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in pairs)
            if all(first < last for first, last in part):
                where = tuple(
                    slice(first - start, last - start)
                    for (first, last), (start, _) in zip(part, slab, strict=True)
                )
                yield index, where, self.read(self._window.share[index], part)

    def read(self, values: Tensor, part: Box) -> Tensor:
        """Interpolate values [K, J, I] of the window at the voxels of a box."""
        for axis, (low, high) in enumerate(part):
            at = (torch.arange(low, high) + 0.5) * self._ratio[axis] - 0.5
            at = (at - self._window.start[axis]).clamp(0, values.shape[axis] - 1)
            base = at.floor().long().clamp(max=max(0, values.shape[axis] - 2))
            share = (at - base).view([-1 if other == axis else 1 for other in range(3)])
            after = (base + 1).clamp(max=values.shape[axis] - 1)
            values = torch.lerp(
                values.index_select(axis, base), values.index_select(axis, after), share
            )
        return values

    def likelihood(self) -> Tensor:
        """Return how likely each bin of intensity is for each class: [C, bins]."""
        counts = torch.zeros(len(self._window.share), _BINS)
        for slab in self.slabs:
            bins = self.bins(slab)
            for index, where, share in self.classes(slab):
                sure = (share * (share > _SURE)).reshape(-1)
                counts[index].index_add_(0, bins[where].reshape(-1), sure)
        total = counts.sum(1, keepdim=True)
        smoothed = smooth(counts / (total + 1), _BIN_BLUR, 1) + 2e-3
        trust = total / (total + 2000)
        smoothed = trust * smoothed / smoothed.sum(1, keepdim=True) + (1 - trust) / _BINS
        return smoothed**_TRUST

    def _box(self, ends: list[tuple[int, int]]) -> Box:
        """Return the voxels whose centers lie between voxels (first, last + 1) of the window."""
        box = []
        for axis, (first, last) in enumerate(ends):
            start, ratio = self._window.start[axis], self._ratio[axis]
            low = max(0, math.ceil((first + start + 0.5) / ratio - 0.5))
            high = math.floor((last + start - 0.5) / ratio - 0.5) + 1
            box.append((low, min(self._volume.shape[axis], high)))
        return tuple(box)

    def _class_box(self, share: Tensor) -> Box:
        index = (share > _LEAST).nonzero()
        if len(index) == 0:
            return ((0, 0),) * 3
        first, last = index.min(0).values - 1, index.max(0).values + 2
        return self._box(list(zip(first.tolist(), last.tolist(), strict=True)))
