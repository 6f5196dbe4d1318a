"""Classes of the voxels around the structures: priors, mixture, corrector, some rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.gradprom.structures.locating import (
    CoarseScan,
    Location,
    largest,
)
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.networks import scaled
from MedEnhanceLib.gradprom.structures.space import Placement, Space, fit_placement, index_grid
from MedEnhanceLib.learning.precision import mixed_precision

#: Sides of a window are multiples of the first number of voxels, and at least the second: the
#: coarsest stage needs more than one.
MULTIPLE, _LEAST = 16, 32
# Chosen in trials (decision 0075); no table isolates them. Measured by Benchmarks/segmentation.py.
#: Estimations of the classes, and steps by which the placement is refined between two of them; of
#: the cells each step sees one in so many.
_LOOKS, _REFINED, _PARTS = 5, 25, 2
#: Share of background where the priors have skull and scalp, from which a scan is stripped: it was
#: .93 to .99 where it is, and at most .46 in other scans that were placed right (decision 0110).
_STRIPPED = 0.9
#: Rounds of the mixture.
_ROUNDS = 6
#: Bins of a histogram; σ of their smoothing, in bins.
BINS, _BLUR = 48, 1.3
#: Voxels at which a class trusts its own histogram by half; fewer borrow from all of its prior.
_FEW = 300.0
#: Every how many voxels enter the histograms: prime, so that all columns do.
_EACH = 5


@dataclass(frozen=True, eq=False)
class ClassShares:
    """Classes of the part of a scan around the structures, by the corrector.

    Attributes:
        start: first voxel along k, j, i, which may be negative: the window is padded.
        step_mm: side of its voxels along i, j, k.
        share: [C, K, J, I], probabilities of the classes.
        left: [K, J, I], probability of the left side.
        placement: the last.
        is_stripped: whether background is where the priors have skull.
    """

    start: tuple[int, ...]
    step_mm: Tensor
    share: Tensor
    left: Tensor
    placement: Placement
    is_stripped: bool = False


def correct(
    scan: CoarseScan,
    location: Location,
    model: StructureModel,
    device: str = "cpu",
) -> ClassShares:
    """Estimate classes in voxels of a scan, and refine the placement between rounds.

    Args:
        scan: resampled by `make_scan`.
        location: of its structures.
        model: the head.
        device: of the network, as PyTorch names it.
    """
    image = scaled(scan.image, scan.scale)
    start, sides = [], []
    for first, last in location.box:
        count = max(_LEAST, -(-(last - first) // MULTIPLE) * MULTIPLE)
        start.append((first + last - count) // 4 * 2)
        sides.append(count)
    part = _cut(image, start, sides)
    middles = index_grid(tuple(count // 2 for count in sides)) * 2 + 0.5
    points = (middles + torch.tensor(start[::-1])) * scan.step_mm
    placement = location.placement
    space = None
    for _ in range(_LOOKS - 1):
        places = placement(points)
        share, _ = _probabilities(part, places.movedim(-1, 0), model, device)
        cells = F.avg_pool3d(share, 2)
        space = space or _space_of(model, places, cells)
        placement = _refine(placement, points, cells, model, space)
    places = placement(points).movedim(-1, 0)
    share, left = _probabilities(part, places, model, device)
    _remove_islands(share, len(model.anatomy.structures))
    is_stripped = space is not model.space
    return ClassShares(tuple(start), scan.step_mm, share, left, placement, is_stripped)


def _remove_islands(share: Tensor, structures: int) -> None:
    """Give islands of structures to the last class outside, or to the background."""
    inner = share[1 : structures + 1].sum(0)
    islands = (inner > 0.5) & ~largest(inner > 0.5)
    share[-1 if len(share) > structures + 1 else 0][islands] += inner[islands]
    share[1 : structures + 1, islands] = 0


def _cut(image: Tensor, start: list[int], sides: list[int]) -> Tensor:
    """Cut a window out of an image; 0 beyond its ends."""
    padding = []
    for first, count, size in zip(start[::-1], sides[::-1], image.shape[::-1], strict=True):
        padding += [-first, first + count - size]
    return F.pad(image, padding)


def _refine(
    placement: Placement, points: Tensor, share: Tensor, model: StructureModel, space: Space
) -> Placement:
    near = _near(model.anatomy.inner(share))
    near &= index_grid(tuple(near.shape)).sum(-1) % 2 == 0  # half of the cells say as much
    cells = points[near], share[:, near]
    return fit_placement(space, *cells, placement, _REFINED, is_affine_fixed=False, parts=_PARTS)


def _space_of(model: StructureModel, places: Tensor, share: Tensor) -> Space:
    """Return the priors by which a scan is placed.

    Where the skull is stripped, background beside the structures says only that it is outside of
    them. The background of a whole head lies behind the scalp: it would pull the cortex there.

    Args:
        model: the head.
        places: [k, j, i, 3], of the cells.
        share: [C, k, j, i], their classes.
    """
    prior, first = model.space.at(places), len(model.anatomy.structures) + 1
    beside = (prior[first:].sum(0) > 0.5) & _near(model.anatomy.inner(prior))
    if not beside.any() or float(share[0, beside].mean()) < _STRIPPED:
        return model.space
    merged = model.space.prior.clone()
    merged[0] += merged[first:].sum(0)
    return replace(model.space, prior=merged)


def _near(inner: Tensor) -> Tensor:
    """Mark the cells [k, j, i] with structures, and those beside them."""
    return F.max_pool3d(inner[None, None], 7, stride=1, padding=3)[0, 0] > 0.5


def _probabilities(
    image: Tensor, places: Tensor, model: StructureModel, device: str
) -> tuple[Tensor, Tensor]:
    """Return probabilities [C, K, J, I], and of the left side [K, J, I]."""
    prior = model.space.at(places.movedim(0, -1))
    share = posteriors(image, prior)
    network, inputs = model.corrector.to(device), (image[None], share, prior, places)
    with torch.inference_mode(), mixed_precision(device):
        logits, side = network(*(item[None].to(device) for item in inputs))
    return logits[0].float().softmax(0).cpu().clone(), side[0].float().sigmoid().cpu().clone()


def posteriors(image: Tensor, prior: Tensor) -> Tensor:
    """Estimate the classes of voxels by expectation maximization: a histogram for each class.

    Args:
        image: [K, J, I], 0 to 1.
        prior: [C, k, j, i], shares in cells of two voxels a side.
    Returns shares [C, K, J, I].
    """
    fine, bins = voxel_prior(prior, image.shape), bins_of(image)
    share = fine * fit_histograms(fine, bins)[:, bins]
    return share / share.sum(0, keepdim=True)


def voxel_prior(prior: Tensor, sides: Sequence[int]) -> Tensor:
    """Interpolate shares [C, k, j, i] in cells at the voxels of a window: [C, K, J, I], above 0."""
    fine = F.interpolate(prior[None], size=sides, mode="trilinear", align_corners=False)[0]
    return (fine + 1e-4) / (1 + len(fine) * 1e-4)


def bins_of(image: Tensor) -> Tensor:
    """Return the bins of intensities from 0 to 1."""
    return (image * (BINS - 1)).round().long().clamp(0, BINS - 1)


def fit_histograms(fine: Tensor, bins: Tensor) -> Tensor:
    """Estimate the histogram of each class, [C, BINS].

    Args:
        fine: [C, K, J, I], priors of voxels.
        bins: [K, J, I], of their intensities.
    """
    # Histograms are estimated from a part of the voxels: all of them only take longer.
    few, few_bins = fine.reshape(len(fine), -1)[:, ::_EACH], bins.reshape(-1)[::_EACH]
    likelihood = _histograms(few, few_bins)
    for _ in range(_ROUNDS - 1):
        share = few * likelihood[:, few_bins]
        likelihood = _histograms(share / share.sum(0, keepdim=True), few_bins)
    return likelihood


def _histograms(share: Tensor, bins: Tensor) -> Tensor:
    """Return the smoothed distribution of each class over the bins: [C, bins]."""
    taps = torch.exp(-0.5 * (torch.arange(-4, 5) / _BLUR) ** 2)
    counts = torch.zeros(len(share), BINS).index_add_(1, bins, share * _EACH)
    total = counts.sum(1, keepdim=True) + 1e-3
    lines = F.pad((counts / total)[:, None], (4, 4), mode="replicate")
    smoothed = F.conv1d(lines, (taps / taps.sum()).view(1, 1, -1))[:, 0] + 1e-4
    trust = total / (total + _FEW)
    return trust * smoothed / smoothed.sum(1, keepdim=True) + (1 - trust) / BINS
