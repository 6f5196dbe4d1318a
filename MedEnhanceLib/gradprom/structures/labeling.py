"""Labels of a volume's own voxels from classes in voxels of 2 mm."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.core.arrays import Bytes, Floats
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.structures.correcting import ClassShares
from MedEnhanceLib.gradprom.structures.head import StructureModel
from MedEnhanceLib.gradprom.structures.locating import CoarseScan, scaled
from MedEnhanceLib.gradprom.structures.space import smooth
from MedEnhanceLib.runtime.progress import Monitor

#: Voxels of a slab; share from which a voxel enters the histogram of a class; weight of the
#: intensities against the corrector.
_SLAB, _SURE, _TRUST = 2_000_000, 0.5, 0.7
#: Bins of the intensities of voxels, and σ of their smoothing.
_BINS, _BIN_BLUR = 64, 1.5


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
    spacing = torch.tensor(volume.geometry.spacing, dtype=torch.float32)
    ratio = (spacing / scan.step_mm).flip(0).tolist()  # voxels of the grid per voxel, k, j, i
    box = []
    for axis, (first, count) in enumerate(zip(window.start, window.share.shape[1:], strict=True)):
        low = max(0, int(np.ceil((first + 0.5) / ratio[axis] - 0.5)))
        high = min(volume.shape[axis], int((first + count - 0.5) / ratio[axis] - 0.5) + 1)
        box.append((low, high))
    slabs = _slabs(box)
    likelihood = _intensities(volume, scan, window, slabs, box, ratio)
    for number, (first, last) in enumerate(slabs):
        monitor.progress(number / len(slabs), "labeling voxels")
        bins = _bins(volume, scan.scale, first, last, box)
        total, weighted = torch.zeros(bins.shape), torch.zeros(bins.shape)
        best, chosen = torch.full(bins.shape, -np.inf), torch.zeros(bins.shape, dtype=torch.long)
        for index in range(len(window.share)):
            share = _lines(window.share[index], window.start, first, last, box, ratio)
            score = share.clamp_min(1e-6).log() + likelihood[index][bins]
            better = score > best
            best[better], chosen[better] = score[better], index
            part = score.exp()
            total += part
            weighted += part * score
        entropy = (total.log() - weighted / total) / np.log(len(window.share))
        left = _lines(window.left, window.start, first, last, box, ratio) > 0.5
        where = (slice(first, last), slice(*box[1]), slice(*box[2]))
        labels[where] = values[left.long(), chosen].numpy()
        uncertainty[where] = entropy.clamp(0, 1).numpy()
    return labels, uncertainty


def _slabs(box: list[tuple[int, int]]) -> list[tuple[int, int]]:
    (low, high), rows, columns = box
    size = max(1, _SLAB // max(1, (rows[1] - rows[0]) * (columns[1] - columns[0])))
    return [(first, min(first + size, high)) for first in range(low, high, size)]


def _bins(
    volume: Volume,
    scale: tuple[float, float],
    first: int,
    last: int,
    box: list[tuple[int, int]],
) -> Tensor:
    part = volume.voxels[first:last, slice(*box[1]), slice(*box[2])].astype(np.float32)
    unit = scaled(torch.from_numpy(part), scale)
    return (unit * (_BINS - 1)).round().long()


def _lines(
    values: Tensor,
    start: tuple[int, ...],
    first: int,
    last: int,
    box: list[tuple[int, int]],
    ratio: list[float],
) -> Tensor:
    """Interpolate values [K, J, I] of a window at voxels of a slab of the volume."""
    for axis, (low, high) in enumerate(((first, last), box[1], box[2])):
        at = (torch.arange(low, high) + 0.5) * ratio[axis] - 0.5 - start[axis]
        at = at.clamp(0, values.shape[axis] - 1)
        base = at.floor().long().clamp(max=max(0, values.shape[axis] - 2))
        share = (at - base).view([-1 if other == axis else 1 for other in range(3)])
        following = (base + 1).clamp(max=values.shape[axis] - 1)
        values = torch.lerp(
            values.index_select(axis, base), values.index_select(axis, following), share
        )
    return values


def _intensities(
    volume: Volume,
    scan: CoarseScan,
    window: ClassShares,
    slabs: list[tuple[int, int]],
    box: list[tuple[int, int]],
    ratio: list[float],
) -> list[Tensor]:
    """Return the log-likelihood of each bin of intensity for each class."""
    counts = torch.zeros(len(window.share), _BINS)
    for first, last in slabs:
        bins = _bins(volume, scan.scale, first, last, box).reshape(-1)
        for index in range(len(window.share)):
            share = _lines(window.share[index], window.start, first, last, box, ratio)
            counts[index].index_add_(0, bins, (share * (share > _SURE)).reshape(-1))
    total = counts.sum(1, keepdim=True)
    smoothed = smooth(counts / (total + 1), _BIN_BLUR, 1) + 2e-3
    trust = (total / (total + 2000)).clamp(0, 1)
    smoothed = trust * smoothed / smoothed.sum(1, keepdim=True) + (1 - trust) / _BINS
    return list(smoothed.log() * _TRUST)
