"""Segments a volume by a head that learned from label maps.

volume → 2 mm → locator → placement in the space → priors → mixture → corrector
   → placement refined by what the corrector saw → once more → voxels of the volume
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.segmenters import VoxelLabels
from MedEnhanceLib.gradprom.structures.correcting import ClassShares, correct
from MedEnhanceLib.gradprom.structures.labeling import label_voxels
from MedEnhanceLib.gradprom.structures.locating import CoarseScan, Location, locate, make_scan
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.painting import VOXEL_MM
from MedEnhanceLib.runtime.progress import Monitor

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/segmentation.py.
#: Voxels at an end of the image that count as its edge; share of structures there that is much.
_EDGE, _CUT_SHARE = 2, 0.01


def expected_dice(share: Tensor, classes: Tensor, index: int) -> float:
    """Estimate the Dice of a class from its probabilities; NaN where it is not shown.

    Args:
        share: [C, K, J, I], probabilities.
        classes: [K, J, I], the most likely class of each voxel.
        index: of the class.
    """
    shown = classes == index
    count = float(shown.sum())
    if count == 0:
        return float("nan")
    return 2 * float(share[index][shown].sum()) / (count + float(share[index].sum()))


def segment_painted(image: Tensor, model: StructureModel) -> tuple[Location, Tensor, float] | None:
    """Segment an image of 2 mm, 0 to 1; None where no structures are shown.

    Returns the location, the probabilities [C, K, J, I] on the image's grid, and their mean entropy
    in the structures.
    """
    scan = CoarseScan(image, (0.0, 1.0), torch.full((3,), VOXEL_MM))
    location = locate(scan, model)
    if location is None:
        return None
    window = correct(scan, location, model)
    share = torch.zeros(len(window.share), *image.shape)
    share[0] = 1
    parts, places = [], []
    for first, count, size in zip(window.start, window.share.shape[1:], image.shape, strict=True):
        low, high = max(0, first), min(size, first + count)
        places.append(slice(low, high))
        parts.append(slice(low - first, high - first))
    share[(slice(None), *places)] = window.share[(slice(None), *parts)]
    inner = model.anatomy.inner(share) > 0.5
    return location, share, float(_entropy(share)[inner].mean()) if inner.any() else 1.0


class PlacedScan(NamedTuple):
    """A volume at 2 mm, and where structures lie in it; None where there are none."""

    scan: CoarseScan
    location: Location | None


def place(volume: Volume, model: StructureModel) -> PlacedScan:
    """Find the structures in a canonical single volume, which takes seconds."""
    scan = make_scan(volume)
    return PlacedScan(scan, locate(scan, model))


def find_unlike(placement: PlacedScan, model: StructureModel) -> str:
    """State why a volume cannot be segmented; "" if it can."""
    return _unlike(placement.location, model.limits)


def is_like(location: Location, limits: Mapping[str, float]) -> bool:
    """Test whether a location is within the limits of a head."""
    return not _unlike(location, limits)


def _unlike(location: Location | None, limits: Mapping[str, float]) -> str:
    if location is None:
        return "no such structures were recognized"
    if location.information < limits.get("information", 0.0):
        return (
            f"its structures do not match the averages of the training (mutual information "
            f"{location.information:.2f}; at least {limits['information']:.2f})"
        )
    low, high = limits.get("scale_low", 0.0), limits.get("scale_high", np.inf)
    if location.scales[-1] < low or location.scales[0] > high:
        return (
            f"its size is {1 / location.scales[0]:.2f} to {1 / location.scales[-1]:.2f} times the "
            f"usual ({1 / high:.2f} to {1 / low:.2f} are known)"
        )
    return ""


def segment_structures(
    volume: Volume, placement: PlacedScan, model: StructureModel, device: str, monitor: Monitor
) -> VoxelLabels:
    """Segment a canonical single volume.

    Args:
        volume: any spacing.
        placement: of its structures.
        model: the head.
        device: of the networks, as PyTorch names it.
        monitor: progress and cancelling.
    """
    scan, location = placement
    if location is None:
        empty = np.zeros(volume.shape, np.float32)
        quality = {label.name: float("nan") for label in model.anatomy.labels}
        return VoxelLabels(
            empty.astype(np.uint8), empty, quality, ("no structures are recognized",)
        )
    monitor.progress(0.15, "recognizing structures")
    window = correct(scan, location, model, device)
    labels, uncertainty = label_voxels(volume, scan, window, model, monitor.part(0.6, 1))
    return VoxelLabels(
        labels,
        uncertainty,
        _quality(window, model),
        tuple(_warnings(scan, location, window, model)),
    )


def _quality(window: ClassShares, model: StructureModel) -> dict[str, float]:
    """Return the expected Dice of each label, by the calibration of the head."""
    classes = window.share.argmax(0)
    by_class = {}
    for index, name in enumerate(model.anatomy.structures, 1):
        slope, offset = model.quality.get(name, (1.0, 0.0))
        expected = slope * expected_dice(window.share, classes, index) + offset
        by_class[index] = min(1.0, max(0.0, expected)) if expected == expected else expected
    right, left = model.anatomy.values
    return {
        label.name: by_class[int(((right == label.value) | (left == label.value)).argmax())]
        for label in model.anatomy.labels
    }


def _warnings(
    scan: CoarseScan, location: Location, window: ClassShares, model: StructureModel
) -> list[str]:
    """State what limits the labels: structures cut off, uncertain, or of an unusual size."""
    warnings = []
    inner = model.anatomy.inner(window.share) > 0.5
    ends = zip(inner.nonzero().T, window.start, scan.image.shape, strict=True)
    cut = [
        float(
            (places + first < _EDGE).float().mean()
            + (places + first >= size - _EDGE).float().mean()
        )
        for places, first, size in ends
    ]
    if max(cut) > _CUT_SHARE:
        warnings.append("part of the structures lies outside the volume")
    unsure = float(_entropy(window.share)[inner].mean())
    if unsure > model.limits.get("entropy", 1.0):
        warnings.append(
            f"the model is unsure of many voxels (entropy {unsure:.2f}; at most "
            f"{model.limits['entropy']:.2f} in its measurement)"
        )
    low, high = model.limits.get("low_ml", 0.0), model.limits.get("high_ml", float("inf"))
    if not low <= location.volume_ml <= high:
        warnings.append(
            f"structures take {location.volume_ml:.0f} mL; {low:.0f} to {high:.0f} mL were learned "
            "(a child, a crop, another anatomy)"
        )
    return warnings


def _entropy(share: Tensor) -> Tensor:
    """Return the entropy of probabilities [C, ...] over that of equal ones."""
    return -(share * share.clamp_min(1e-6).log()).sum(0) / float(np.log(len(share)))
