"""Segments a volume by a head that learned from label maps.

volume → 2 mm → locator → placement in the space → priors → mixture → corrector
   → placement refined by what the corrector saw → once more → voxels of the volume
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.arrays import Bytes, Floats
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.structures.head import StructureModel
from MedEnhanceLib.gradprom.structures.mixture import posteriors
from MedEnhanceLib.gradprom.structures.painting import VOXEL_MM, scale_of, smooth_all
from MedEnhanceLib.gradprom.structures.space import (
    CELL_MM,
    Placement,
    fit_placement,
    sampled,
    smooth,
    transformed,
)
from MedEnhanceLib.gradprom.structures.training import ROUNDS
from MedEnhanceLib.learning.precision import mixed_precision
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

#: Looks of the locator after the first, and the least side of an image that it takes.
_MORE_LOOKS, _LEAST = 1, 16
#: Room around the structures in the window of the corrector, in voxels; sides of the window are
#: multiples of the second number.
_ROOM, _MULTIPLE = 8, 16
#: σ of the smoothing of displacements, in cells.
_FIELD_BLUR = 1.5
#: Fewer cells with structures are none.
_FEWEST_CELLS = 100
#: Steps by which a placement is refined.
_REFINED = 25
#: Voxels of a slab; share from which a voxel enters the histogram of a class; weight of the
#: intensities against the corrector.
_SLAB, _SURE, _TRUST = 2_000_000, 0.5, 0.7
#: Bins of the intensities of voxels, and σ of their smoothing.
_BINS, _BIN_BLUR = 64, 1.5


@dataclass(frozen=True, eq=False)
class Segmented:
    """Labels of a volume.

    Attributes:
        labels: [K, J, I], values of the labels, 0 for the background.
        uncertainty: [K, J, I], entropy of the classes over that of equal shares, 0 to 1.
        quality: expected Dice of each label, by name; NaN for one that is not shown.
        warnings: why labels may be wrong.
    """

    labels: Bytes
    uncertainty: Floats
    quality: dict[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """An image of voxels of about 2 mm along the volume's own axes.

    Attributes:
        image: [K, J, I], 0 to 1; sides are even.
        scale: of intensities: (low, high).
        step_mm: along i, j, k.
    """

    image: Tensor
    scale: tuple[float, float]
    step_mm: Tensor


@dataclass(frozen=True, eq=False)
class Location:
    """Where the structures of a grid lie.

    Attributes:
        placement: from mm along the grid's own axes to the space.
        box: first and last voxel + 1 along k, j, i of a window around them.
        misfit_mm: median distance of predicted places from their best affine.
        scales: singular values of that affine's linear part, descending.
        volume_ml: of the cells with structures, in the volume.
    """

    placement: Placement
    box: tuple[tuple[int, int], ...]
    misfit_mm: float
    scales: tuple[float, ...]
    volume_ml: float


def make_grid(volume: Volume) -> Grid:
    """Resample a canonical volume to voxels of about 2 mm."""
    voxels = torch.from_numpy(np.ascontiguousarray(volume.voxels, dtype=np.float32))
    spacing = volume.geometry.spacing[::-1]
    size = [
        max(16, round(n * mm / VOXEL_MM / 2) * 2)
        for n, mm in zip(volume.shape, spacing, strict=True)
    ]
    for axis, mm in enumerate(spacing):
        voxels = smooth(voxels, max(0.0, (VOXEL_MM / mm) ** 2 - 1) ** 0.5 / 2.355, axis)
    image = F.interpolate(voxels[None, None], size=size, mode="trilinear", align_corners=False)[
        0, 0
    ]
    step = [n * mm / m for n, mm, m in zip(volume.shape, spacing, size, strict=True)]
    return Grid(image, scale_of(image), torch.tensor(step[::-1], dtype=torch.float32))


def locate(grid: Grid, model: StructureModel) -> Location | None:
    """Place a grid in the space of a head; None where it shows no structures.

    The first look is at the whole image; each later one at a window of the space, into which the
    affine of the last look brings the image: pose and field of view matter less and less.
    """
    image, to_mm = _halved(grid)
    look = _look(image, to_mm, model)
    for _ in range(_MORE_LOOKS):
        if look is not None:
            look = _look(*_window(image, to_mm, look.affine, model), model)
    if look is None:
        return None
    inner = look.shown > 0.5
    residual = look.places - transformed(look.affine, look.points).movedim(-1, 0)
    weight = smooth_all(look.shown, _FIELD_BLUR) + 0.02
    field = smooth_all(residual * look.shown, _FIELD_BLUR) / weight
    low, node, sides = model.space.nodes()
    nodes = _grid_of(sides) * node + low
    cells = transformed(_inverse(look.cell_to_mm), transformed(_inverse(look.affine), nodes))
    last = torch.tensor(field.shape[:0:-1]) - 1
    field = sampled(field, cells / last * 2 - 1, beyond="zeros")
    corners = look.points[inner] / grid.step_mm
    first, end = corners.min(0).values - _ROOM, corners.max(0).values + 1 + _ROOM
    box = tuple(
        (max(0, int(a) // 2 * 2), min(n, -(-int(b) // 2) * 2))
        for a, b, n in zip(first.flip(0), end.flip(0), grid.image.shape, strict=True)
    )
    linear = torch.linalg.svdvals(look.affine[:, :3])
    cell_ml = float(torch.linalg.det(look.cell_to_mm[:, :3]).abs()) / 1000
    return Location(
        Placement(look.affine, field, low, node),
        box,
        look.misfit_mm,
        tuple(linear.tolist()),
        float(inner.sum()) * cell_ml,
    )


@dataclass(frozen=True, eq=False)
class _Look:
    """What the locator says of a window.

    Attributes:
        points: [k, j, i, 3], mm along the volume's axes.
        places: [3, k, j, i], mm of the space.
        shown: [k, j, i], probability of structures.
        affine: [3, 4] from points to places.
        misfit_mm: median distance from it.
        cell_to_mm: [3, 4] from indices of cells to points.
    """

    points: Tensor
    places: Tensor
    shown: Tensor
    affine: Tensor
    misfit_mm: float
    cell_to_mm: Tensor


def _halved(grid: Grid) -> tuple[Tensor, Tensor]:
    """Average a grid to voxels of 4 mm: [K, J, I], and the affine [3, 4] of their indices to mm."""
    image = F.avg_pool3d(_scaled(grid.image, grid.scale)[None], 2)[0]
    return image, torch.cat([torch.diag(2 * grid.step_mm), 0.5 * grid.step_mm[:, None]], 1)


def _look(image: Tensor, to_mm: Tensor, model: StructureModel) -> _Look | None:
    sides = [max(_LEAST, -(-side // 2) * 2) for side in image.shape]
    ends = [side - size for side, size in zip(sides, image.shape, strict=True)]
    padded = F.pad(image, [end for pair in ((0, end) for end in ends[::-1]) for end in pair])
    with torch.inference_mode(), mixed_precision("cpu"):
        places, logits = model.locator(padded[None, None])
    places, shown = places[0].float().clone(), logits[0].float().sigmoid().clone()
    shown = _largest(shown > 0.5) * shown
    inner = shown > 0.5
    if int(inner.sum()) < _FEWEST_CELLS:
        return None
    cell_to_mm = torch.cat(
        [to_mm[:, :3] * 2, transformed(to_mm, torch.full((3,), 0.5))[:, None]], 1
    )
    points = transformed(cell_to_mm, _grid_of(tuple(shown.shape)))
    affine, misfit = _fit(points[inner], places[:, inner].T)
    return _Look(points, places, shown, affine, misfit, cell_to_mm)


def _window(
    image: Tensor, to_mm: Tensor, affine: Tensor, model: StructureModel
) -> tuple[Tensor, Tensor]:
    """Bring an image into a window of the space: [K, J, I] of 4 mm, and its affine to mm."""
    sides = torch.tensor([-(-side // 2) * 2 for side in model.space.prior.shape[1:]])
    index = torch.cat([torch.eye(3) * CELL_MM, torch.tensor(model.space.origin)[:, None]], 1)
    back = _inverse(affine)
    window_to_mm = torch.cat(
        [back[:, :3] @ index[:, :3], transformed(back, index[:, 3])[:, None]], 1
    )
    points = transformed(window_to_mm, _grid_of(tuple(sides.tolist())))
    at = transformed(_inverse(to_mm), points)
    last = torch.tensor(image.shape[::-1]) - 1
    return sampled(image[None], at / last * 2 - 1, beyond="zeros")[0], window_to_mm


def _grid_of(sides: tuple[int, ...]) -> Tensor:
    """Return the indices (i, j, k) of a grid: [K, J, I, 3]."""
    lines = [torch.arange(n, dtype=torch.float32) for n in sides]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], -1)


def _inverse(affine: Tensor) -> Tensor:
    """Invert an affine [3, 4]."""
    linear = torch.linalg.inv(affine[:, :3])
    return torch.cat([linear, -(linear @ affine[:, 3])[:, None]], 1)


def _scaled(image: Tensor, scale: tuple[float, float]) -> Tensor:
    return ((image - scale[0]) / (scale[1] - scale[0])).clamp(0, 1)


def _fit(points: Tensor, places: Tensor) -> tuple[Tensor, float]:
    """Fit an affine [3, 4] to places of points [N, 3], robustly; returns the median distance."""
    rows = torch.cat([points, torch.ones(len(points), 1)], 1).double()
    weight = torch.ones(len(points), 1, dtype=torch.float64)
    for _ in range(4):
        solution = torch.linalg.lstsq(rows * weight, places.double() * weight).solution
        distance = (rows @ solution - places).norm(dim=1, keepdim=True)
        weight = 1 / (1 + (distance / 8.0) ** 2)
    return solution.T.float(), float(distance.median())


def _largest(mask: Tensor) -> Tensor:
    """Keep the largest connected part of a mask [K, J, I]."""
    sitk = require("SimpleITK", purpose="Segmenting a volume")
    parts = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.numpy().astype(np.uint8)))
    labels = sitk.GetArrayFromImage(sitk.RelabelComponent(parts, sortByObjectSize=True))
    return torch.from_numpy(labels == 1)


@dataclass(frozen=True, eq=False)
class Window:
    """The part of a grid around the structures, with what the corrector says of it.

    Attributes:
        start: first voxel along k, j, i, which may be negative: the window is padded.
        share: [C, K, J, I], probabilities of the classes.
        left: [K, J, I], probability of the left side.
        placement: the last.
    """

    start: tuple[int, ...]
    share: Tensor
    left: Tensor
    placement: Placement


def correct(
    grid: Grid, location: Location, model: StructureModel, *, rounds: int = 2, mirror: bool = True
) -> Window:
    """Estimate classes in voxels of the grid, and refine the placement between rounds."""
    image = _scaled(grid.image, grid.scale)
    start, sides = [], []
    for first, last in location.box:
        count = -(-(last - first) // _MULTIPLE) * _MULTIPLE
        start.append((first + last - count) // 4 * 2)
        sides.append(count)
    part = _cut(image, start, sides)
    lines = [
        torch.arange(count // 2) * 2 + 0.5 + first
        for first, count in zip(start, sides, strict=True)
    ]
    points = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], -1) * grid.step_mm
    placement, share, left = location.placement, None, None
    for number in range(rounds):
        if number:
            assert share is not None
            placement = _refine(placement, points, F.avg_pool3d(share, 2), model)
        share, left = _probabilities(part, placement(points).movedim(-1, 0), model, mirror)
    assert share is not None and left is not None
    return Window(tuple(start), share, left, placement)


def _cut(image: Tensor, start: list[int], sides: list[int]) -> Tensor:
    """Cut a window out of an image; 0 beyond its ends."""
    padding = []
    for first, count, size in zip(start[::-1], sides[::-1], image.shape[::-1], strict=True):
        padding += [-first, first + count - size]
    return F.pad(image, padding)


def _refine(
    placement: Placement, points: Tensor, share: Tensor, model: StructureModel
) -> Placement:
    inner = share[1 : len(model.anatomy.structures) + 1].sum(0)
    near = F.max_pool3d(inner[None, None], 7, stride=1, padding=3)[0, 0] > 0.5
    return fit_placement(
        model.space, points[near], share[:, near], placement, _REFINED, is_affine_fixed=False
    )


def _probabilities(
    image: Tensor, places: Tensor, model: StructureModel, mirror: bool
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(), mixed_precision("cpu"):
        prior = model.space.at(places.movedim(0, -1))
        share = posteriors(image, prior, ROUNDS)
        logits, side = model.corrector(image[None, None], share[None], prior[None], places[None])
        classes, left = logits[0].float().softmax(0), side[0].float().sigmoid()
        if mirror and model.anatomy.has_sides:
            turned = (places * torch.tensor([-1.0, 1, 1]).view(3, 1, 1, 1)).flip(3)
            logits, side = model.corrector(
                image.flip(2)[None, None], share.flip(3)[None], prior.flip(3)[None], turned[None]
            )
            classes = (classes + logits[0].float().softmax(0).flip(3)) / 2
            left = (left + 1 - side[0].float().sigmoid().flip(2)) / 2
    return classes.clone(), left.clone()


def label_voxels(
    volume: Volume, grid: Grid, window: Window, model: StructureModel, monitor: Monitor
) -> tuple[Bytes, Floats]:
    """Bring classes to the voxels of the volume, sharpened by their own intensities.

    A histogram of each class, weighted by its probability, says how likely each intensity is.

    Returns labels [K, J, I], and uncertainty [K, J, I].
    """
    labels = np.zeros(volume.shape, np.uint8)
    uncertainty = np.zeros(volume.shape, np.float32)
    values = torch.from_numpy(model.anatomy.values)
    spacing = torch.tensor(volume.geometry.spacing, dtype=torch.float32)
    ratio = (spacing / grid.step_mm).flip(0).tolist()  # voxels of the grid per voxel, k, j, i
    box = []
    for axis, (first, count) in enumerate(zip(window.start, window.share.shape[1:], strict=True)):
        low = max(0, int(np.ceil((first + 0.5) / ratio[axis] - 0.5)))
        high = min(volume.shape[axis], int((first + count - 0.5) / ratio[axis] - 0.5) + 1)
        box.append((low, high))
    slabs = _slabs(box)
    likelihood = _intensities(volume, grid, window, slabs, box, ratio)
    for number, (first, last) in enumerate(slabs):
        monitor.progress(number / len(slabs), "labeling voxels")
        bins = _bins(volume, grid.scale, first, last, box)
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
    unit = _scaled(torch.from_numpy(part), scale)
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
    grid: Grid,
    window: Window,
    slabs: list[tuple[int, int]],
    box: list[tuple[int, int]],
    ratio: list[float],
) -> list[Tensor]:
    """Return the log-likelihood of each bin of intensity for each class."""
    counts = torch.zeros(len(window.share), _BINS)
    for first, last in slabs:
        bins = _bins(volume, grid.scale, first, last, box).reshape(-1)
        for index in range(len(window.share)):
            share = _lines(window.share[index], window.start, first, last, box, ratio)
            counts[index].index_add_(0, bins, (share * (share > _SURE)).reshape(-1))
    total = counts.sum(1, keepdim=True)
    smoothed = smooth(counts / (total + 1), _BIN_BLUR, 1) + 2e-3
    trust = (total / (total + 2000)).clamp(0, 1)
    smoothed = trust * smoothed / smoothed.sum(1, keepdim=True) + (1 - trust) / _BINS
    return list(smoothed.log() * _TRUST)


def expected_dice(share: Tensor, classes: Tensor, index: int) -> float:
    """Return the Dice that probabilities promise for a class; NaN where it is not shown."""
    shown = classes == index
    count = float(shown.sum())
    if count == 0:
        return float("nan")
    return 2 * float(share[index][shown].sum()) / (count + float(share[index].sum()))


def segment_painted(image: Tensor, model: StructureModel) -> tuple[Location, Tensor] | None:
    """Segment an image of 2 mm, 0 to 1; None where no structures are shown.

    Returns the location, and the probabilities [C, K, J, I] on the image's grid.
    """
    grid = Grid(image, (0.0, 1.0), torch.full((3,), VOXEL_MM))
    location = locate(grid, model)
    if location is None:
        return None
    window = correct(grid, location, model)
    share = torch.zeros(len(window.share), *image.shape)
    share[0] = 1
    parts, places = [], []
    for first, count, size in zip(window.start, window.share.shape[1:], image.shape, strict=True):
        low, high = max(0, first), min(size, first + count)
        places.append(slice(low, high))
        parts.append(slice(low - first, high - first))
    share[(slice(None), *places)] = window.share[(slice(None), *parts)]
    return location, share


def find_unlike(volume: Volume, model: StructureModel) -> str:
    """State why a canonical single volume cannot be segmented; "" if it can."""
    return _unlike(locate(make_grid(volume), model), model)


def _unlike(location: Location | None, model: StructureModel) -> str:
    if location is None:
        return "no such structures were recognized"
    limits = model.limits
    if location.misfit_mm > limits.get("misfit_mm", np.inf):
        return (
            f"places of its structures do not fit together (off by {location.misfit_mm:.0f} mm; at "
            f"most {limits['misfit_mm']:.0f})"
        )
    low, high = limits.get("scale_low", 0.0), limits.get("scale_high", np.inf)
    if location.scales[-1] < low or location.scales[0] > high:
        return (
            f"its size is {1 / location.scales[0]:.2f} to {1 / location.scales[-1]:.2f} times the "
            f"usual ({1 / high:.2f} to {1 / low:.2f} are known)"
        )
    return ""


def segment_structures(
    volume: Volume, model: StructureModel, device: str, monitor: Monitor
) -> Segmented:
    """Segment a canonical single volume.

    Args:
        volume: any spacing.
        model: the head.
        device: as PyTorch names it; the networks take seconds on a CPU, and run there.
        monitor: progress and cancelling.
    """
    monitor.progress(0.0, "placing the structures")
    grid = make_grid(volume)
    location = locate(grid, model)
    if location is None:
        empty = np.zeros(volume.shape, np.float32)
        quality = {label.name: float("nan") for label in model.anatomy.labels}
        return Segmented(empty.astype(np.uint8), empty, quality, ("no structures are recognized",))
    monitor.progress(0.15, "recognizing structures")
    window = correct(grid, location, model)
    labels, uncertainty = label_voxels(volume, grid, window, model, monitor.part(0.6, 1))
    return Segmented(
        labels, uncertainty, _quality(window, model), _warnings(location, window, model)
    )


def _quality(window: Window, model: StructureModel) -> dict[str, float]:
    """Return the expected Dice of each label, by the calibration of the head."""
    classes = window.share.argmax(0)
    found = {}
    for index, name in enumerate(model.anatomy.structures, 1):
        slope, offset = model.quality.get(name, (1.0, 0.0))
        found[index] = min(
            1.0, max(0.0, slope * expected_dice(window.share, classes, index) + offset)
        )
    right, left = model.anatomy.values
    return {
        label.name: found[int(np.flatnonzero((right == label.value) | (left == label.value))[0])]
        for label in model.anatomy.labels
    }


def _warnings(location: Location, window: Window, model: StructureModel) -> tuple[str, ...]:
    return ()
