"""Places the structures of a volume: a scan of 2 mm, the locator, a registration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.networks import VOXEL_MM, scale_of, scaled
from MedEnhanceLib.gradprom.structures.space import (
    CELL_MM,
    Placement,
    index_grid,
    sampled,
    smooth,
    transformed,
)
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.learning.precision import mixed_precision
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.machine import itk_on_one_thread

# Chosen in trials (decision 0075); no table isolates them. Measured by Benchmarks/segmentation.py.
#: Slices that are resampled at once.
_SLAB = 16
#: Looks of the locator after the first, and the least side of an image that it takes.
_MORE_LOOKS, _LEAST = 1, 32
#: Room around the structures in their box, in voxels.
_ROOM = 4
#: Fewer cells with structures are none.
_FEWEST_CELLS = 100
#: Nods of heads from which a registration may start, degrees, and how many starts are run.
_NODS, _RUNS = (0, -15, 15, -30, 30), 2
#: Bins of the histogram, steps of the optimizer, and its first and last step in mm.
_BINS, _STEPS, _FIRST_MM, _LAST_MM = 32, 60, 2.0, 0.02
#: Sizes over the usual that are likely, and the factor of the others' information; share of the
#: structures in an image whose information counts in full.
_SIZES, _UNLIKELY, _SHOWN = (0.75, 1.3), 0.7, 0.25
#: Cells around the structures that count as well.
_AROUND = 2


@dataclass(frozen=True, eq=False)
class CoarseScan:
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
    """Location of the structures of a scan.

    Attributes:
        placement: from mm along the scan's own axes to the space.
        box: first and last voxel + 1 along k, j, i of a window around them.
        information: mutual information of the scan and the painted priors.
        scales: singular values of that affine's linear part, descending.
        volume_ml: of the cells with structures, in the volume.
    """

    placement: Placement
    box: tuple[tuple[int, int], ...]
    information: float
    scales: tuple[float, ...]
    volume_ml: float


def make_scan(volume: Volume) -> CoarseScan:
    """Resample an upright volume to voxels of about 2 mm."""
    scaling_for(volume)  # refuses what single precision does not hold
    size = [
        max(16, round(n * mm / VOXEL_MM / 2) * 2)
        for n, mm in zip(volume.shape, volume.spacing[::-1], strict=True)
    ]
    image = resampled(volume, size, VOXEL_MM)
    extent = torch.tensor(volume.spacing) * torch.tensor(volume.shape[::-1])
    return CoarseScan(image, scale_of(image), extent / torch.tensor(size[::-1]))


def resampled(volume: Volume, size: Sequence[int], voxel_mm: float) -> Tensor:
    """Resample a volume: [K, J, I].

    Args:
        volume: upright.
        size: voxels along k, j, i.
        voxel_mm: about their side, whose resolution is kept.
    """
    slices, rows, columns = resampling(volume, size, voxel_mm)
    parts = []
    for first in range(0, volume.shape[0], _SLAB):
        slab = np.array(volume.voxels[first : first + _SLAB], dtype=np.float32, order="C")
        parts.append(rows @ (torch.from_numpy(slab) @ columns.T))
    image: Tensor = torch.tensordot(slices, torch.cat(parts), 1)
    return image


def resampling(volume: Volume, size: Sequence[int], voxel_mm: float) -> tuple[Tensor, ...]:
    """Make the weights [m, n] of the n voxels of each axis k, j, i, by which it is resampled.

    Args:
        volume: upright.
        size: voxels along k, j, i, m of each.
        voxel_mm: about their side.
    """
    parts = []
    for count, mm, sides in zip(volume.shape, volume.spacing[::-1], size, strict=True):
        # To the resolution of such voxels, where they are coarser.
        sigma = float(max(0.0, (voxel_mm / mm) ** 2 - 1) ** 0.5 / 2.355)
        blurred = smooth(torch.eye(count), sigma, 1)
        parts.append(F.interpolate(blurred[None], size=sides, mode="linear")[0].T.contiguous())
    return tuple(parts)


def locate(scan: CoarseScan, model: StructureModel) -> Location | None:
    """Place a scan in the space of a head; None where it shows no structures.

    The first look is at the whole image; each later one at a window of the space, into which the
    affine of the last look brings the image: pose and field of view matter less and less.
    """
    image, to_mm = _halved(scan)
    looks = [_look(image, to_mm, model)]
    for _ in range(_MORE_LOOKS):
        if (last := looks[-1]) is not None:
            looks.append(_look(*_window(image, to_mm, last.affine, model), model))
    starts = [look.affine for look in looks if look is not None]
    if len(starts) < len(looks):
        return None
    starts += [_nodding(look, nod) for look in looks if look is not None for nod in _NODS]
    affine, information = register(image, to_mm, starts, model)
    look = _look(*_window(image, to_mm, affine, model), model)
    if look is None:
        return None
    inner = look.shown > 0.5
    likely = _centers(model.anatomy.inner(model.space.prior) > 0.5, model)
    cells = transformed(_inverse(affine), likely) / scan.step_mm
    first, end = cells.min(0).values - _ROOM, cells.max(0).values + 1 + _ROOM
    box = tuple(
        (max(0, int(a) // 2 * 2), min(n, -(-int(b) // 2) * 2))
        for a, b, n in zip(first.flip(0), end.flip(0), scan.image.shape, strict=True)
    )
    if any(first >= last for first, last in box):
        return None
    cell_ml = float(torch.linalg.det(look.cell_to_mm[:, :3]).abs()) / 1000
    return Location(
        Placement.linear(affine),
        box,
        information,
        tuple(torch.linalg.svdvals(affine[:, :3]).tolist()),
        float(inner.sum()) * cell_ml,
    )


def register_from(scan: CoarseScan, start: Tensor, model: StructureModel) -> tuple[Tensor, float]:
    """Refine one affine as `register`; returns it and its mutual information.

    Args:
        scan: of 2 mm.
        start: [3, 4], from mm of the scan to the space.
        model: the head.
    """
    return register(*_halved(scan), [start], model)


def _nodding(look: _Look, degrees: float) -> Tensor:
    """Keep what a look says of the middle of the structures; turn them about x, of the usual size.

    Locator and optimizer hardly turn a head further than this, about any axis; most heads that are
    not upright nod.
    """
    middle = look.points[look.shown > 0.5].mean(0)
    angle = torch.tensor(degrees).deg2rad()
    turn = torch.eye(3)
    turn[1, 1] = turn[2, 2] = angle.cos()
    turn[2, 1] = angle.sin()
    turn[1, 2] = -angle.sin()
    return torch.cat([turn, (transformed(look.affine, middle) - turn @ middle)[:, None]], 1)


def _centers(mask: Tensor, model: StructureModel) -> Tensor:
    """Return the centers [N, 3], mm of the space, of the cells of a mask [k, j, i]."""
    return mask.nonzero().flip(1) * CELL_MM + torch.tensor(model.space.origin)


@dataclass(frozen=True, eq=False)
class _Look:
    """Answer of the locator for a window.

    Attributes:
        points: [k, j, i, 3], mm along the volume's axes.
        shown: [k, j, i], probability of structures.
        affine: [3, 4] from points to places.
        cell_to_mm: [3, 4] from indices of cells to points.
    """

    points: Tensor
    shown: Tensor
    affine: Tensor
    cell_to_mm: Tensor


def _halved(scan: CoarseScan) -> tuple[Tensor, Tensor]:
    """Average a scan to voxels of 4 mm: [K, J, I], and the affine [3, 4] of their indices to mm."""
    image = F.avg_pool3d(scaled(scan.image, scan.scale)[None], 2)[0]
    return image, torch.cat([torch.diag(2 * scan.step_mm), 0.5 * scan.step_mm[:, None]], 1)


def _look(image: Tensor, to_mm: Tensor, model: StructureModel) -> _Look | None:
    sides = [max(_LEAST, -(-side // 2) * 2) for side in image.shape]
    ends = [side - size for side, size in zip(sides, image.shape, strict=True)]
    padded = F.pad(image, [end for pair in ((0, end) for end in ends[::-1]) for end in pair])
    with torch.inference_mode(), mixed_precision("cpu"):
        places, logits = model.locator(padded[None, None])
    places, shown = places[0].float().clone(), logits[0].float().sigmoid().clone()
    shown = largest(shown > 0.5) * shown
    inner = shown > 0.5
    if int(inner.sum()) < _FEWEST_CELLS:
        return None
    cell_to_mm = torch.cat(
        [to_mm[:, :3] * 2, transformed(to_mm, torch.full((3,), 0.5))[:, None]], 1
    )
    points = transformed(cell_to_mm, index_grid(tuple(shown.shape)))
    affine = _fit(points[inner], places[:, inner].T)
    return _Look(points, shown, affine, cell_to_mm)


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
    points = transformed(window_to_mm, index_grid(tuple(sides.tolist())))
    at = transformed(_inverse(to_mm), points)
    last = torch.tensor(image.shape[::-1]) - 1
    return sampled(image[None], at / last * 2 - 1, beyond="zeros")[0], window_to_mm


def _inverse(affine: Tensor) -> Tensor:
    """Invert an affine [3, 4]."""
    linear = torch.linalg.inv(affine[:, :3])
    return torch.cat([linear, -(linear @ affine[:, 3])[:, None]], 1)


def _fit(points: Tensor, places: Tensor) -> Tensor:
    """Fit an affine [3, 4] to places of points [N, 3], robustly."""
    rows = torch.cat([points, torch.ones(len(points), 1)], 1).double()
    weight = torch.ones(len(points), 1, dtype=torch.float64)
    for _ in range(4):
        solution = torch.linalg.lstsq(rows * weight, places.double() * weight).solution
        distance = (rows @ solution - places).norm(dim=1, keepdim=True)
        weight = 1 / (1 + (distance / 8.0) ** 2)
    affine: Tensor = solution.T.float()
    return affine


def largest(mask: Tensor) -> Tensor:
    """Keep the largest connected part of a mask [K, J, I]."""
    sitk = require("SimpleITK", purpose="Segmenting a volume")
    parts = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.numpy().astype(np.uint8)))
    labels = sitk.GetArrayFromImage(sitk.RelabelComponent(parts, sortByObjectSize=True))
    part: Tensor = torch.from_numpy(labels == 1)
    return part


def register(
    image: Tensor, to_mm: Tensor, starts: Sequence[Tensor], model: StructureModel
) -> tuple[Tensor, float]:
    """Refine an affine from a scan to the space, and return its mutual information.

    The starts that match best are run to the end. Only the structures and a rim of 8 mm count, so
    scalp and neck pull nothing. Information counts less for unlikely sizes, and where a scan shows
    little of the structures: few voxels match anything. Source: Mattes et al., IEEE Trans. Med.
    Imaging 22 (2003) 120, as in SimpleITK.

    Args:
        image: [K, J, I], of about 4 mm.
        to_mm: [3, 4], from its indices to mm; diagonal but for the shift.
        starts: affines [3, 4] from mm to the space.
        model: the head.
    """
    sitk = require("SimpleITK", purpose="Segmenting a volume")
    template, mask = _template(model)
    fixed = _image(sitk, template, [CELL_MM] * 3, model.space.origin)
    inner = sitk.Cast(_image(sitk, mask, [CELL_MM] * 3, model.space.origin), sitk.sitkUInt8)
    moving = _image(sitk, image, torch.diagonal(to_mm[:, :3]).tolist(), to_mm[:, 3].tolist())

    def method_from(start: Tensor) -> Any:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(_BINS)
        method.SetMetricFixedMask(inner)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(_FIRST_MM, _LAST_MM, _STEPS)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetSmoothingSigmasPerLevel([1.0])
        method.SetShrinkFactorsPerLevel([1])
        back = torch.linalg.inv(torch.cat([start, torch.tensor([[0.0, 0, 0, 1]])]).double())
        initial = sitk.AffineTransform(3)
        initial.SetMatrix(back[:3, :3].flatten().tolist())
        initial.SetTranslation(back[:3, 3].tolist())
        method.SetInitialTransform(initial, inPlace=False)
        return method

    cells = _centers(mask, model)
    ends = torch.tensor(image.shape[::-1]) - 1

    def trust_in(affine: Tensor) -> float:
        back = _inverse(affine)
        at = transformed(_inverse(to_mm), transformed(back, cells))
        shown = float(((at >= 0) & (at <= ends)).all(1).float().mean())
        sizes = torch.linalg.svdvals(back[:, :3])
        is_likely = _SIZES[0] <= sizes.min() <= sizes.max() <= _SIZES[1]
        return min(1.0, shown / _SHOWN) * (1.0 if is_likely else _UNLIKELY)

    def value_of(start: Tensor) -> float:
        try:
            return trust_in(start) * float(method_from(start).MetricEvaluate(fixed, moving))
        except RuntimeError:  # too few voxels overlap
            return 0.0

    best, best_value = starts[0], 0.0
    with itk_on_one_thread:  # the metric has no number of threads of its own
        for start in sorted(starts, key=value_of)[:_RUNS]:
            method = method_from(start)
            try:
                result = method.Execute(fixed, moving)
            except RuntimeError:
                continue
            if hasattr(result, "GetNthTransform"):
                result = result.GetNthTransform(0)
            result = sitk.AffineTransform(result)
            matrix = np.eye(4)
            matrix[:3, :3] = np.array(result.GetMatrix()).reshape(3, 3)
            matrix[:3, 3] = result.TransformPoint((0.0, 0.0, 0.0))
            affine = torch.from_numpy(np.linalg.inv(matrix)[:3]).float()
            value = trust_in(affine) * method.GetMetricValue()
            if value < best_value:
                best, best_value = affine, value
    return best, -best_value


def _template(model: StructureModel) -> tuple[Tensor, Tensor]:
    """Paint the priors in the first known contrast; returns them and where they count."""
    anatomy, prior = model.anatomy, model.space.prior
    levels = torch.linspace(0, 1, len(prior))
    if len(anatomy.contrasts):
        means = anatomy.contrasts[0]
        for index in range(1, len(prior)):
            known = means[(anatomy.tissue_classes == index) & np.isfinite(means)]
            levels[index] = float(known[0]) if len(known) else levels[index]
    inner = anatomy.inner(prior)
    rim = F.max_pool3d(inner[None, None], 2 * _AROUND + 1, stride=1, padding=_AROUND)[0, 0]
    return torch.einsum("c,ckji->kji", levels, prior), (rim > 0.5).float()


def _image(sitk: Any, values: Tensor, spacing: Sequence[float], origin: Sequence[float]) -> Any:
    image = sitk.GetImageFromArray(values.numpy())
    image.SetSpacing([float(mm) for mm in spacing])
    image.SetOrigin([float(mm) for mm in origin])
    return image
