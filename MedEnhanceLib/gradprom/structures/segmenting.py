"""Segments a volume by a head that learned from label maps.

volume → 2 mm → locator → placement in the space → priors → mixture → corrector
   → placement refined by what the corrector saw → once more → voxels of the volume
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.arrays import Bytes, Floats
from MedEnhanceLib.core.labels import INTRACRANIAL
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.gradprom.segmenters import Comparison, HeadSegmenter, VoxelLabels
from MedEnhanceLib.gradprom.structures.correcting import ClassShares, correct
from MedEnhanceLib.gradprom.structures.locating import (
    CoarseScan,
    Location,
    locate,
    make_scan,
)
from MedEnhanceLib.gradprom.structures.model import ALL, StructureModel, open_structures
from MedEnhanceLib.gradprom.structures.networks import scaled
from MedEnhanceLib.gradprom.structures.space import smooth
from MedEnhanceLib.noise.quick import quick_noise
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
Value = TypeVar("Value")
#: Class outside the structures that shows that these are all within the skull.
_SKULL = "skull"
# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/segmentation.py.
#: Voxels at an end of the image that count as its edge; share of structures there that is much.
_EDGE, _CUT_SHARE = 2, 0.01
#: Sizes beside those of the other structures, over the average, between which none is warned of.
_SIZES = (0.5, 1.65)
#: Size of a side over that of the other above which is warned: readers' labels of 16 persons had at
#: most 1.35, but for two of 160 structures.
_SIDES = 1.4
#: Noise over the contrast of the tissue from which it is removed before a head looks: 10 % of the
#: brightest tissue gave .54 to 2.8, scans of brains .002 to .29, two of 100 more (decision 0115).
_NOISY = 0.4


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
    of_class = share[index]
    return 2 * float(of_class[shown].sum()) / (count + float(of_class.sum()))


def segment_painted(
    scan: CoarseScan, location: Location, model: StructureModel
) -> tuple[Tensor, float]:
    """Segment a painted scan.

    Args:
        scan: [K, J, I], of 2 mm.
        location: of the structures.
        model: the head.
    Returns probabilities [C, K, J, I], and their entropy in the structures.
    """
    window, shape = correct(scan, location, model), scan.image.shape
    ends = list[int]()
    for first, count, size in zip(window.start, window.share.shape[1:], shape, strict=True):
        ends = [first, size - first - count, *ends]  # the last axis comes first
    background, others = F.pad(window.share[:1], ends, value=1.0), F.pad(window.share[1:], ends)
    share = torch.cat([background, others])
    inner = model.anatomy.inner(share) > 0.5
    return share, float(_entropy(share)[inner].mean()) if inner.any() else 1.0


class PlacedScan(NamedTuple):
    """An upright volume, the same at 2 mm, and where its structures lie; None if it shows none."""

    volume: Volume
    scan: CoarseScan
    location: Location | None


def place(volume: Volume, model: StructureModel, known: PlacedScan | None = None) -> PlacedScan:
    """Find the structures in an upright single volume, which takes seconds.

    Args:
        volume: upright, single.
        model: the head.
        known: of the volume before it was enhanced: where they lie on its grid does not change.
    """
    is_on_grid = known is not None and known.volume.shape == volume.shape
    if known is None or not (is_on_grid and known.volume.geometry == volume.geometry):
        scan = make_scan(volume)
        return PlacedScan(volume, scan, locate(scan, model))
    if np.shares_memory(known.volume.voxels, volume.voxels):
        return known
    return PlacedScan(volume, make_scan(volume), known.location)


def find_unlike(location: Location | None, limits: Mapping[str, float]) -> str:
    """State why a volume of this location is beyond the limits of a head; "" if it is not."""
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
    """Segment an upright single volume.

    Args:
        volume: any spacing.
        placement: of its structures.
        model: the head.
        device: of the networks, as PyTorch names it.
        monitor: progress and cancelling.
    """
    _, scan, location = placement
    if location is None:
        empty = np.zeros(volume.shape, np.float32)
        quality = {label.name: float("nan") for label in model.anatomy.labels}
        return VoxelLabels(
            empty.astype(np.uint8), empty, quality, ("no structures are recognized",)
        )
    monitor.progress(0.15, "recognizing structures")
    window = correct(scan, location, model, device)
    sized = replace(window, share=model.weighted(window.share))
    labels, uncertainty = label_voxels(volume, scan, sized, model, monitor.part(0.8, 1))
    return VoxelLabels(
        labels,
        uncertainty,
        _quality(sized, location, model),
        tuple(_warnings(scan, location, window, model)),
        _intervals(model, is_whole=not window.is_stripped),
    )


def _quality(window: ClassShares, location: Location, model: StructureModel) -> dict[str, float]:
    """Return the expected Dice of each label, by the calibration of the head."""
    classes = window.share.argmax(0)
    by_class = {}
    for index, name in enumerate(model.anatomy.structures, 1):
        of_certainty, of_placement, offset, most = model.quality.get(name, (1.0, 0.0, 0.0, 1.0))
        expected = of_certainty * expected_dice(window.share, classes, index)
        expected += of_placement * location.information + offset
        by_class[name] = min(most, max(0.0, expected)) if expected == expected else expected
    return _by_label(by_class, model)


def _intervals(model: StructureModel, *, is_whole: bool) -> dict[str, tuple[float, float]]:
    """Return the factors of each label's volume, and of all where these end at the skull."""
    intervals = _by_label(model.volume_interval, model)
    if is_whole and _SKULL in model.anatomy.classes and ALL in model.volume_interval:
        intervals[INTRACRANIAL] = model.volume_interval[ALL]
    return intervals


def _by_label(by_structure: Mapping[str, Value], model: StructureModel) -> dict[str, Value]:
    right, left = model.anatomy.values
    classes = [
        model.anatomy.classes[int(((right == label.value) | (left == label.value)).argmax())]
        for label in model.anatomy.labels
    ]
    pairs = zip(model.anatomy.labels, classes, strict=True)
    return {label.name: by_structure[name] for label, name in pairs if name in by_structure}


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
    classes = model.weighted(window.share).argmax(0)
    if unusual := _unusual_sizes(classes, model):
        warnings.append(
            f"the share of all structures is unusual, so labels may be wrong: {', '.join(unusual)}"
        )
    if uneven := _uneven_sides(classes, window.left > 0.5, model):
        warnings.append(f"sides differ, so labels may be wrong: {', '.join(uneven)}")
    return warnings


def _uneven_sides(classes: Tensor, is_left: Tensor, model: StructureModel) -> list[str]:
    """Name structures that are much larger on one side; not those that vary, as ventricles do."""
    right, left = model.anatomy.values
    found = []
    for index in _steady(model):
        on_left = int((is_left & (classes == index)).sum())
        counts = on_left, int((classes == index).sum()) - on_left
        ratio = max(counts) / max(1, min(counts))
        if right[index] != left[index] and ratio > _SIDES:
            side = "left" if on_left == max(counts) else "right"
            name = model.anatomy.structures[index - 1]
            found.append(f"{name} is {ratio:.2g} times as large on the {side}")
    return found


def _steady(model: StructureModel) -> list[int]:
    """Return the classes of structures that are alike in most people."""
    anatomy = model.anatomy
    pairs = zip(anatomy.tissue_classes, anatomy.tissues, strict=False)
    varying = {int(index) for index, tissue in pairs if tissue.enlarges}
    return [index for index in range(1, len(anatomy.structures) + 1) if index not in varying]


def _unusual_sizes(classes: Tensor, model: StructureModel) -> list[str]:
    """Name structures that the averages have otherwise; not those that vary, as ventricles do."""
    count = len(model.anatomy.structures)
    made = torch.bincount(classes.flatten(), minlength=count + 1)[1 : count + 1]
    ratios = made / model.space.prior[1 : count + 1].flatten(1).sum(1).clamp_min(1e-6)
    ratios /= ratios.median().clamp_min(1e-6)
    sizes = {index: float(ratios[index - 1]) for index in _steady(model)}
    return [
        f"{model.anatomy.structures[index - 1]} {ratio:.2g} times the average"
        for index, ratio in sizes.items()
        if not _SIZES[0] <= ratio <= _SIZES[1]
    ]


def _entropy(share: Tensor) -> Tensor:
    """Return the entropy of probabilities [C, ...] over that of equal ones."""
    return -(share * share.clamp_min(1e-6).log()).sum(0) / float(np.log(len(share)))


def label_voxels(
    volume: Volume, scan: CoarseScan, window: ClassShares, model: StructureModel, monitor: Monitor
) -> tuple[Bytes, Floats]:
    """Bring classes to the voxels of the volume, sharpened by their own intensities.

    A histogram of each class, weighted by its probability, says how likely each intensity is.

    Args:
        volume: upright.
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
        self._ratio: list[float] = (spacing / window.step_mm).flip(0).tolist()
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


class StructureSegmenter(HeadSegmenter):
    """Structures with sides, their uncertainty and expected quality.

    It learned upright heads, and turns a volume whose thick slices are not axial.
    """

    @property
    def _model(self) -> StructureModel:
        return self.opened(open_structures)

    def compare(self, volume: Volume) -> Comparison:
        """Place the structures, and state why the volume cannot be segmented."""
        placement = place(volume.upright(), self._model)
        return Comparison(find_unlike(placement.location, self._model.limits), placement)

    def segment(
        self, volume: Volume, device: str, monitor: Monitor, placement: PlacedScan | None = None
    ) -> VoxelLabels:
        """Label the structures.

        Args:
            volume: single, in canonical order.
            device: as torch names it.
            monitor: receives progress; may cancel.
            placement: by `compare`, of this volume or of the one that it was enhanced from.
        """
        monitor.progress(0.0, "placing the structures")
        turn, warnings = volume.geometry.upright_turn, []
        noise = quick_noise(volume.voxels, modality=volume.modality, spacing=volume.spacing)
        if _NOISY < noise < math.inf:
            volume = _without_noise(volume, device, monitor.part(0, 0.1))
            warnings = ["the volume is very noisy: its noise was removed before it was segmented"]
        seen = volume.upright()
        placed = place(seen, self._model, placement)
        made = segment_structures(seen, placed, self._model, device, monitor)
        return replace(
            made,
            labels=turn.undo(made.labels),
            uncertainty=None if made.uncertainty is None else turn.undo(made.uncertainty),
            warnings=(*warnings, *made.warnings),
        )


def _without_noise(volume: Volume, device: str, monitor: Monitor) -> Volume:
    """Enhance a volume for the eyes of a head alone: what is said of the result helps nobody."""
    silent = Monitor(cancel=lambda: monitor.cancelled)
    monitor.progress(0, "removing noise")
    return enhance(volume, EnhanceConfig(device=device), monitor=silent).volume
