"""Rigid registration of two images of one patient, whatever their contrast.

start (the headers' geometry, or the centers) → coarse to fine → fit

Mutual information of sampled points (Mattes et al., IEEE Trans. Med. Imaging 22 (2003) 120) is
maximized from voxels of 8 mm down to the volume's own. All work is done on means over blocks of
voxels, so that memory stays small for large volumes. One thread and seeded sampling: the same
images give the same result.

How well both fit is measured apart from that: in small windows, the squared correlation of both
images, which any contrast may have. It is compared with that after a shift of a few millimeters.
Anatomy of the same patient fits in one place alone; another patient, or a mirrored image, fits
almost as well beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.nets.grouped_run import parts_of
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend

Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Triple = tuple[float, float, float]

#: Levels of the registration: voxels of about this size in mm, first step in mm, sampled points.
_LEVELS = ((8.0, 1.0, 2_000), (4.0, 0.5, 20_000), (2.0, 0.25, 50_000), (1.0, 0.1, 100_000))
_ITERATIONS, _BINS, _SEED = 60, 32, 20
#: The last step at each level, as a share of its voxels.
_LAST_STEP = 0.002
#: Smoothing at each level, σ in voxels, against the noise.
_SMOOTHING = 0.5
#: Voxels of the finest level at most.
_MOST_VOXELS = 24_000_000
#: Margin around the tissue in which points are sampled: the outline of the head counts.
_MARGIN_MM = 4.0
#: Windows in which the fit is measured, their radius in voxels, and the shift in mm to compare it
#: with.
_WINDOWS, _RADIUS, _BESIDE_MM = 1_500, 2, 3.0
#: Variance in a window, as a share of that of all, that counts as nothing.
_FLOOR = 1e-3
#: Output voxels that are interpolated at once; voxels of the guide around them.
_SLAB_VOXELS, _AROUND = 4_000_000, 12
#: σ of a Gaussian that averages like a voxel of side 1.
_VOXEL_SIGMA = 0.42


@dataclass(frozen=True, eq=False)
class Image:
    """Voxels [K, J, I] of any type, and where they are."""

    voxels: npt.NDArray[Any]
    geometry: Geometry


@dataclass(frozen=True)
class Rigid:
    """A rotation about a center and a shift, from positions in the volume to those in the guide.

    angles: about the x, y and z axes (LPS), radians, in the order of ITK's Euler3DTransform.
    shift, center: mm, LPS.
    """

    angles: Triple = (0.0, 0.0, 0.0)
    shift: Triple = (0.0, 0.0, 0.0)
    center: Triple = (0.0, 0.0, 0.0)

    @property
    def matrix(self) -> Matrix:
        """4×4, LPS mm → LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.array(_euler(self).GetMatrix()).reshape(3, 3)
        matrix[:3, 3] = np.add(self.center, self.shift) - matrix[:3, :3] @ self.center
        return matrix

    @property
    def degrees(self) -> float:
        """The whole rotation."""
        cosine = (np.trace(self.matrix[:3, :3]) - 1) / 2
        return math.degrees(math.acos(min(1.0, max(-1.0, float(cosine)))))


@dataclass(frozen=True)
class Fit:
    """How well a guide fits a volume at one place.

    value: 0 to 1: how much more of the detail agrees there than a few millimeters beside it.
    overlap: share of the volume's tissue that the guide shows.
    """

    value: float
    overlap: float


class Registration:
    """The tissue of a volume, to which guides are registered.

    center: of the tissue, mm, LPS. points: [N, 3], positions in the tissue in mm, LPS.
    """

    def __init__(self, volume: Image) -> None:
        self._volume = volume
        self._mask = _tissue(volume)
        inside = np.argwhere(self._mask.voxels)
        middle = inside.mean(0) if len(inside) else (np.array(volume.voxels.shape) - 1) / 2
        self.center = _position(self._mask.geometry, middle[::-1])
        indices = _chosen(inside, _WINDOWS)[:, ::-1]
        steps, origin = _steps(self._mask.geometry), np.array(self._mask.geometry.origin)
        self.points: Matrix = indices @ steps.T + origin

    @property
    def is_empty(self) -> bool:
        """Whether the volume shows nothing."""
        return not len(self.points)

    def by_headers(self) -> Rigid:
        """The start that trusts the geometry of both files."""
        return Rigid(center=self.center)

    def by_centers(self, guide: Image) -> Rigid:
        """The start that lays the center of the guide's tissue onto the volume's."""
        other = Registration(guide)
        x, y, z = np.subtract(other.center, self.center).tolist()
        return Rigid(shift=(x, y, z), center=self.center)

    def overlap(self, guide: Image, place: Rigid) -> float:
        """Share of the volume's tissue inside the guide's field of view, 0 to 1."""
        return float(_inside(_indices(guide.geometry, place, self.points), guide).mean())

    def displacement(self, one: Rigid, other: Rigid) -> float:
        """Mean distance between two places over the volume's tissue, in voxels of the volume."""
        homogeneous = np.c_[self.points, np.ones(len(self.points))]
        moved = (homogeneous @ (one.matrix - other.matrix).T)[:, :3]
        in_voxels = moved @ np.linalg.inv(_steps(self._volume.geometry)).T
        return float(np.linalg.norm(in_voxels, axis=1).mean())

    def best(self, guide: Image, start: Rigid, monitor: Monitor) -> Rigid:
        """The place of most mutual information, from coarse to fine.

        Raises Cancelled where the monitor says so.
        """
        transform = _euler(start)
        for number, (millimeters, step, points) in enumerate(_LEVELS):
            monitor.progress(number / len(_LEVELS), "registering the guide")
            finer = _LEVELS[number + 1 :][:1]
            if finer and all(
                _factors(image, millimeters) == _factors(image, finer[0][0])
                for image in (self._volume, guide)
            ):
                continue

            volume = _level(self._volume, millimeters)
            mask = self._mask_on(volume.geometry, volume.voxels.shape)
            steps = (step, _LAST_STEP * millimeters, points)
            moving = _level(guide, millimeters)
            work = partial(_optimized, volume, moving, mask, transform, steps)
            transform = attend(work, monitor)
        x, y, z, *shift = transform.GetParameters()
        return Rigid((x, y, z), (shift[0], shift[1], shift[2]), self.center)

    def fits(self, guide: Image, places: list[Rigid]) -> list[Fit]:
        """How well the guide fits at each place; 0 where it shows too little of the volume."""
        finest = _LEVELS[-1][0]
        windows = _Windows(_level(self._volume, finest), self._mask)
        level = _level(guide, finest)
        spacing = level.geometry.spacing
        beside = max(_BESIDE_MM, 3 * min(self._volume.geometry.spacing), 3 * min(spacing))
        found = []
        for place in places:
            here = windows.agreement(level, place)
            there = []
            for way in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)):
                x, y, z = (np.array(place.shift) + beside * np.array(way)).tolist()
                there.append(windows.agreement(level, replace(place, shift=(x, y, z))))
            chance = float(np.mean(there))
            value = max(0.0, (here - chance) / max(1 - chance, _FLOOR))
            found.append(Fit(value, self.overlap(guide, place)))
        return found

    def _mask_on(self, geometry: Geometry, shape: tuple[int, ...]) -> Any:
        """The mask of the tissue on the grid of a level, as an image of SimpleITK."""
        sitk = _sitk()
        grid = _to_sitk(Image(np.zeros(shape, np.uint8), geometry))
        mask = _to_sitk(self._mask)
        return sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkNearestNeighbor)


class _Windows:
    """Small windows of a volume's tissue, their means taken off."""

    def __init__(self, level: Image, mask: Image) -> None:
        spacing = np.array(level.geometry.spacing)
        radius = [max(1, round(_RADIUS * spacing.min() / side)) for side in spacing]
        sizes = np.array(level.voxels.shape[::-1])
        inside = np.argwhere(mask.voxels)
        # Places of the mask's voxels in the level, whose grid has the same axes.
        centers = inside[:, ::-1] @ _steps(mask.geometry).T + np.array(mask.geometry.origin)
        centers = np.rint(_indices(level.geometry, None, centers)).astype(np.intp)
        fitting = ((centers >= radius) & (centers < sizes - radius)).all(1)
        sides = [np.arange(-reach, reach + 1) for reach in radius]
        offsets = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 3)
        self._places = _chosen(centers[fitting], _WINDOWS)[:, None] + offsets
        i, j, k = np.moveaxis(self._places, -1, 0)
        self._values = _centered(level.voxels[k, j, i])
        self._steps, self._origin = _steps(level.geometry), np.array(level.geometry.origin)

    def agreement(self, guide: Image, place: Rigid) -> float:
        """Mean squared correlation of volume and guide in the windows, 0 to 1."""
        positions = self._places @ self._steps.T + self._origin
        indices = _indices(guide.geometry, place, positions)
        shown = _inside(indices, guide).all(1)
        if shown.sum() < _WINDOWS // 40:
            return 0.0
        theirs = _centered(_interpolated(guide.voxels, indices[shown]))
        ours = self._values[shown]
        product = (ours * theirs).mean(1)
        squares = ((theirs**2).mean(1) + _FLOOR) * ((ours**2).mean(1) + _FLOOR)
        return float(np.mean(product**2 / squares))


def resample(guide: Image, volume: Image, place: Rigid, monitor: Monitor) -> Floats:
    """The guide on the volume's grid: cubic B-splines, which blur less than linear weights.

    Along axes in which its voxels are finer than the volume's, it is averaged first.

    Returns:
        float32 [K, J, I]; NaN outside the guide's field of view.
    """
    sitk = _sitk()
    result = np.empty(volume.voxels.shape, np.float32)
    for part in parts_of(0, len(result), max(1, _SLAB_VOXELS // result[0].size)):
        monitor.progress(part.start / len(result), "resampling the guide")
        grid = volume.geometry.cropped((part.start, 0, 0))
        shape = result[part].shape
        region = _region(guide, place, grid, shape)
        if region is None:
            result[part] = np.nan
            continue
        image = _smoothed(region, _averaging(guide.geometry, place, grid))
        resampled = sitk.Resample(
            image,
            [int(size) for size in shape[::-1]],
            _euler(place),
            # Splines need some voxels on each axis.
            sitk.sitkBSpline if min(region.voxels.shape) > 3 else sitk.sitkLinear,
            grid.origin,
            grid.spacing,
            np.ravel(grid.direction).tolist(),
            float("nan"),
            sitk.sitkFloat32,
        )
        result[part] = sitk.GetArrayViewFromImage(resampled)
    return result


def _region(guide: Image, place: Rigid, grid: Geometry, shape: tuple[int, ...]) -> Image | None:
    """The part of the guide that a slab of the volume's grid needs; None where it has none."""
    corners = np.indices((2, 2, 2)).reshape(3, 8).T * (np.array(shape[::-1]) - 1)
    indices = _indices(guide.geometry, place, corners @ _steps(grid).T + np.array(grid.origin))
    sizes = np.array(guide.voxels.shape[::-1])
    low = np.maximum(0, np.floor(indices.min(0)) - _AROUND).astype(int)
    high = np.minimum(sizes, np.ceil(indices.max(0)) + _AROUND + 1).astype(int)
    if (low >= high).any():
        return None
    (i, j, k), (ends_i, ends_j, ends_k) = low.tolist(), high.tolist()
    part = guide.voxels[k:ends_k, j:ends_j, i:ends_i].astype(np.float32)
    return Image(part, guide.geometry.cropped((k, j, i)))


def _averaging(guide: Geometry, place: Rigid, grid: Geometry) -> list[float]:
    """σ in mm along each axis of the guide, so that it resolves no more than the volume."""
    turned = np.array(guide.direction).T @ place.matrix[:3, :3] @ np.array(grid.direction)
    sides = np.sqrt((turned**2) @ np.array(grid.spacing) ** 2)
    return [
        _VOXEL_SIGMA * math.sqrt(side**2 - own**2) if side > 1.2 * own else 0.0
        for side, own in zip(sides, guide.spacing, strict=True)
    ]


# --- levels ---------------------------------------------------------------------------------------


def _tissue(volume: Image) -> Image:
    """A mask of what is brighter than the background, with a margin, in voxels of about 3 mm."""
    sitk = _sitk()
    coarse = _level(volume, 3.0)
    if coarse.voxels.min() == coarse.voxels.max():
        return Image(np.zeros(coarse.voxels.shape, np.uint8), coarse.geometry)
    mask = sitk.OtsuThreshold(_to_sitk(coarse), 0, 1, 128)
    mask = sitk.BinaryDilate(
        mask, [math.ceil(_MARGIN_MM / side) for side in coarse.geometry.spacing]
    )
    return Image(sitk.GetArrayFromImage(mask), coarse.geometry)


def _level(image: Image, millimeters: float) -> Image:
    """Means over blocks of voxels, of about that size, smoothed a little; float32."""
    binned = _binned(image, _factors(image, millimeters))
    sigmas = [
        _SMOOTHING * side if side < 1.5 * millimeters else 0.0 for side in binned.geometry.spacing
    ]
    smooth = _sitk().GetArrayFromImage(_smoothed(binned, sigmas))
    return Image(smooth, binned.geometry)


def _factors(image: Image, millimeters: float) -> list[int]:
    """Voxels along k, j, i that make one of about that size."""
    spacing, shape = image.geometry.spacing[::-1], image.voxels.shape
    factors = [
        max(1, min(int(millimeters / side + 0.3), count // 6))
        for side, count in zip(spacing, shape, strict=True)
    ]
    while math.prod(c // f for c, f in zip(shape, factors, strict=True)) > _MOST_VOXELS:
        finest = min(range(3), key=lambda axis: factors[axis] * spacing[axis])
        factors[finest] += 1
    return factors


def _binned(image: Image, factors: list[int]) -> Image:
    """Means over blocks of [k, j, i] voxels; what fills no block at the end is left out."""
    k, j, i = (size // factor for size, factor in zip(image.voxels.shape, factors, strict=True))
    fk, fj, fi = factors
    means = np.empty((k, j, i), np.float32)
    for index in range(k):
        block = image.voxels[index * fk : (index + 1) * fk, : j * fj, : i * fi]
        # Axis by axis: several at once take numpy ten times as long.
        rows = block.mean(0, dtype=np.float32).reshape(j, fj, i * fi).mean(1)
        means[index] = rows.reshape(j, i, fi).mean(2)
    old = image.geometry
    first = (np.array(factors[::-1]) - 1) / 2
    x, y, z = _position(old, first)
    spacing = tuple(side * factor for side, factor in zip(old.spacing, factors[::-1], strict=True))
    return Image(means, Geometry((spacing[0], spacing[1], spacing[2]), (x, y, z), old.direction))


def _smoothed(image: Image, sigmas: list[float]) -> Any:
    """As an image of SimpleITK, convolved with a Gaussian of σ in mm along each axis."""
    result = _to_sitk(image)
    if not any(sigmas):
        return result
    return _sitk().DiscreteGaussian(
        result, variance=[sigma**2 for sigma in sigmas], maximumKernelWidth=64, maximumError=0.01
    )


def _optimized(
    volume: Image, guide: Image, mask: Any, transform: Any, steps: tuple[float, float, int]
) -> Any:
    """One level: the transform of most mutual information.

    steps: the first and the last step in mm, and the number of points that are sampled.
    """
    sitk = _sitk()
    first, last, points = steps
    inside = float(sitk.GetArrayViewFromImage(mask).sum())
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(min(1.0, points / inside), _SEED)
    method.SetMetricFixedMask(mask)
    # Gradients where points are sampled are faster than a filter over all voxels.
    method.MetricUseMovingImageGradientFilterOff()
    method.MetricUseFixedImageGradientFilterOff()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        first, last, _ITERATIONS, relaxationFactor=0.5, gradientMagnitudeTolerance=1e-7
    )
    method.SetOptimizerScalesFromPhysicalShift()
    result = sitk.Euler3DTransform(transform)
    method.SetInitialTransform(result, inPlace=True)
    try:
        method.Execute(_to_sitk(volume), _to_sitk(guide))
    except RuntimeError:
        # Both hardly overlap, or one is flat: nothing to improve, and the fit will say so.
        return transform
    return result


# --- positions ------------------------------------------------------------------------------------


def _steps(geometry: Geometry) -> Matrix:
    """3×3, from steps along i, j, k to mm."""
    return np.array(geometry.affine_lps[:3, :3])


def _position(geometry: Geometry, index: Any) -> Triple:
    """Of an index (i, j, k), in mm."""
    x, y, z = (_steps(geometry) @ np.asarray(index) + np.array(geometry.origin)).tolist()
    return x, y, z


def _indices(geometry: Geometry, place: Rigid | None, positions: Matrix) -> Matrix:
    """Positions in the volume [..., 3] in mm → indices (i, j, k) in the other image."""
    matrix = np.linalg.inv(geometry.affine_lps)
    if place is not None:
        matrix = matrix @ place.matrix
    return np.asarray(positions @ matrix[:3, :3].T + matrix[:3, 3])


def _inside(indices: Matrix, image: Image) -> npt.NDArray[np.bool_]:
    """Whether each index (i, j, k) lies between the image's voxels, rounding aside."""
    last = np.array(image.voxels.shape[::-1]) - 1
    return np.asarray(((indices >= -1e-6) & (indices <= last + 1e-6)).all(-1))


def _interpolated(voxels: Floats, indices: Matrix) -> Floats:
    """Linear between the eight voxels around each index (i, j, k) [..., 3]."""
    last = np.array(voxels.shape[::-1]) - 1
    indices = np.clip(indices, 0, last)
    low = np.minimum(indices.astype(np.intp), np.maximum(last - 1, 0))
    share = (indices - low).astype(np.float32)
    result = np.zeros(indices.shape[:-1], np.float32)
    for step in np.ndindex(2, 2, 2):
        i, j, k = np.moveaxis(np.minimum(low + step, last), -1, 0)
        result += np.where(np.array(step) == 1, share, 1 - share).prod(-1) * voxels[k, j, i]
    return result


def _centered(windows: Floats) -> Floats:
    """[windows, voxels] over their common standard deviation, each less its own mean."""
    scale = float(windows.std()) or 1.0
    return np.asarray((windows - windows.mean(1, keepdims=True)) / scale)


def _chosen(rows: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """At most `count` of the rows, at random but always the same."""
    if len(rows) <= count:
        return rows
    return rows[np.random.default_rng(_SEED).choice(len(rows), count, replace=False)]


def _euler(place: Rigid) -> Any:
    transform = _sitk().Euler3DTransform()
    transform.SetCenter(place.center)
    transform.SetRotation(*place.angles)
    transform.SetTranslation(place.shift)
    return transform


def _to_sitk(image: Image) -> Any:
    result = _sitk().GetImageFromArray(image.voxels)
    result.SetSpacing(image.geometry.spacing)
    result.SetOrigin(image.geometry.origin)
    result.SetDirection(np.ravel(image.geometry.direction).tolist())
    return result


def _sitk() -> Any:
    return require("SimpleITK", purpose="Registering a guide")
