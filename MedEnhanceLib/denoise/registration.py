"""Rigid registration of two images of one patient, whatever their contrast.

SimpleITK maximizes the mutual information of sampled points (Mattes et al., IEEE Trans. Med.
Imaging 22 (2003) 120), from voxels of 8 mm down to 1 mm. One thread and seeded sampling: the same
images give the same result.

The fit is measured separately: the squared correlation of both images in small windows, which does
not depend on contrast, is compared with that after shifts of a few millimeters. The same patient
fits in one place only; another patient or a mirrored image fits almost as well beside it.

A place is a matrix, 4×4, from positions in the volume to those in the guide, in mm (LPS).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask
from MedEnhanceLib.core.imaging import averaged
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.machine import itk_on_one_thread
from MedEnhanceLib.runtime.progress import Monitor, attend

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/guidance.py. Halved or
# doubled on three noisy pairs, _ITERATIONS, _BINS, _LAST_STEP and _SMOOTHING move a guide by .05
# voxels at most; _SMOOTHING changes its fit (.24 to .33) by −.07 to +.10, the others by .001.
#: Levels of the registration: voxels of about this size in mm, first step in mm, sampled points.
_LEVELS = ((8.0, 1.0, 2_000), (4.0, 0.5, 20_000), (2.0, 0.25, 50_000), (1.0, 0.1, 100_000))
_ITERATIONS, _BINS, _SEED = 60, 32, 20
#: Least step at each level, over the side of its voxels.
_LAST_STEP = 0.002
#: Smoothing at each level against noise, σ in voxels.
_SMOOTHING = 0.5
#: Most voxels of the finest level.
_MOST_VOXELS = 24_000_000
#: Voxels in which tissue is segmented, and the margin around it: the outline of the head counts.
_TISSUE_MM, _MARGIN_MM = 3.0, 4.0
#: Number of windows of the fit, their radius in voxels, and the shift in mm for comparison.
_WINDOWS, _RADIUS, _BESIDE_MM = 1_500, 2, 3.0
#: Least variance in a window that counts, over that of all windows.
_FLOOR = 1e-3
#: σ of a Gaussian that averages like a voxel of side 1.
_VOXEL_SIGMA = 0.42


@dataclass(frozen=True)
class GuideFit:
    """Agreement of a guide with a volume at a place.

    Attributes:
        value: how much more of the detail agrees there than a few millimeters beside it, 0 to 1.
        overlap: share of the volume's tissue that the guide shows.
    """

    value: float
    overlap: float


class Registration:
    """The tissue of a volume, to which guides are registered.

    Attributes:
        points: [N, 3], positions in the tissue in mm, LPS; none where the volume shows nothing.
        center: of the tissue, likewise.
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._mask = _tissue(volume)
        inside = np.argwhere(self._mask.voxels)[:, ::-1]
        self._tissue = _moved(self._mask.geometry.affine_lps, inside)
        self.points: Doubles = _sampled(self._tissue, _WINDOWS)
        self.center: Doubles = self._tissue.mean(0) if len(inside) else np.zeros(3)

    def overlap(self, guide: Volume, place: Doubles) -> float:
        """Return the share of the volume's tissue inside the guide's field of view, 0 to 1."""
        return float(_inside(_indices(guide, place, self.points), guide).mean())

    def displacement(self, first: Doubles, second: Doubles) -> Doubles:
        """Return how far apart two places put each tissue point, in voxels."""
        apart = _moved(first, self.points) - _moved(second, self.points)
        steps = np.linalg.inv(self._volume.geometry.affine_lps[:3, :3])
        return np.asarray(np.linalg.norm(apart @ steps.T, axis=1))

    def best(self, guide: Volume, monitor: Monitor) -> Doubles:
        """Search for the place of maximum mutual information, starting from the headers."""
        transform = _sitk().Euler3DTransform()
        transform.SetCenter(self.center.tolist())
        for number, level in enumerate(_LEVELS):
            monitor.progress(number / len(_LEVELS), "registering the guide")
            transform = attend(partial(self._improved, guide, transform, *level), monitor)
        place = np.eye(4)
        place[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
        place[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
        return place

    def _improved(
        self, guide: Volume, start: Any, millimeters: float, step: float, points: int
    ) -> Any:
        """Maximize the mutual information from a start transform, at one level."""
        sitk = _sitk()
        fixed, moving = (_level(each, millimeters).to_sitk() for each in (self._volume, guide))
        mask = sitk.Resample(
            self._mask.to_sitk(), fixed, sitk.Transform(), sitk.sitkNearestNeighbor
        )
        inside = float(sitk.GetArrayViewFromImage(mask).sum())
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(_BINS)
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(min(1.0, points / inside), _SEED)
        method.SetMetricFixedMask(mask)
        # Gradients at the sampled points are faster than a gradient filter over all voxels.
        method.MetricUseMovingImageGradientFilterOff()
        method.MetricUseFixedImageGradientFilterOff()
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(
            step,
            _LAST_STEP * millimeters,
            _ITERATIONS,
            relaxationFactor=0.5,
            gradientMagnitudeTolerance=1e-7,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        result = sitk.Euler3DTransform(start)
        method.SetInitialTransform(result, inPlace=True)
        try:
            with itk_on_one_thread:  # the metric uses only the global number of threads
                method.Execute(fixed, moving)
        except RuntimeError:
            # The images hardly overlap, or one is constant: the fit will be low.
            return start
        return result

    def fits(self, guide: Volume, places: list[Doubles]) -> list[GuideFit]:
        """Measure the fit at each place, by correlation; 0 where the guide covers too little."""
        volume_level, guide_level = (_level(each, _LEVELS[-1][0]) for each in (self._volume, guide))
        windows, positions = self._windows(volume_level)

        def agreement(place: Doubles) -> float:
            """Average the squared correlation of volume and guide in the windows, 0 to 1."""
            indices = _indices(guide_level, place, positions)
            shown = _inside(indices, guide_level).all(1)
            if shown.sum() < _WINDOWS // 40:
                return 0.0
            fixed = windows[shown]
            moving = _centered(_interpolated(guide_level.voxels, indices[shown]))
            squares = ((moving**2).mean(1) + _FLOOR) * ((fixed**2).mean(1) + _FLOOR)
            return float(np.mean((fixed * moving).mean(1) ** 2 / squares))

        smallest = max(min(each.geometry.spacing) for each in (self._volume, guide_level))
        beside = max(_BESIDE_MM, 3 * smallest)
        fits = []
        for place in places:
            nearby = []
            for axis, way in product((0, 1), (beside, -beside)):
                shifted = place.copy()
                shifted[axis, 3] += way
                nearby.append(agreement(shifted))
            chance = float(np.mean(nearby))
            value = (agreement(place) - chance) / max(1 - chance, _FLOOR)
            fits.append(GuideFit(max(0.0, value), self.overlap(guide, place)))
        return fits

    def _windows(self, level: Volume) -> tuple[Floats, Doubles]:
        """Cut windows in the tissue: values [N, V] as `_centered`, and positions [N, V, 3]."""
        spacing = np.array(level.geometry.spacing)
        radius = [max(1, round(_RADIUS * spacing.min() / side)) for side in spacing]
        centers = np.rint(_indices(level, np.eye(4), self._tissue)).astype(np.intp)
        fitting = ((centers >= radius) & (centers < np.array(level.shape[::-1]) - radius)).all(1)
        sides = [np.arange(-reach, reach + 1) for reach in radius]
        offsets = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 3)
        indices = _sampled(centers[fitting], _WINDOWS)[:, None] + offsets
        i, j, k = np.moveaxis(indices, -1, 0)
        return _centered(level.voxels[k, j, i]), _moved(level.geometry.affine_lps, indices)


def resample(guide: Volume, volume: Volume, place: Doubles, monitor: Monitor) -> Floats:
    """Resample the guide to the volume's grid, float32 [K, J, I]; NaN outside its field of view.

    Cubic B-splines blur less than linear interpolation. Along axes in which its voxels are finer
    than the volume's, the guide is smoothed first.

    Args:
        guide: of any grid.
        volume: whose grid the result has.
        place: 4×4, mm in the volume → mm in the guide.
        monitor: may cancel.
    """
    sitk = _sitk()
    monitor.progress(0.0, "resampling the guide")
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(place[:3, :3].ravel().tolist())
    transform.SetTranslation(place[:3, 3].tolist())
    turned = np.array(guide.geometry.direction).T @ place[:3, :3] @ volume.geometry.direction
    sides = np.sqrt(turned**2 @ np.square(volume.geometry.spacing))
    sigmas = [
        _VOXEL_SIGMA * math.sqrt(side**2 - guide_side**2) if side > 1.2 * guide_side else 0.0
        for side, guide_side in zip(sides, guide.geometry.spacing, strict=True)
    ]
    image = _smoothed(guide.with_voxels(guide.voxels.astype(np.float32)), sigmas)
    # Splines need some voxels on each axis.
    kind = sitk.sitkBSpline if min(guide.shape) > 3 else sitk.sitkLinear
    grid = volume.to_sitk()
    resampled = attend(
        lambda: sitk.Resample(image, grid, transform, kind, math.nan, sitk.sitkFloat32), monitor
    )
    return np.asarray(sitk.GetArrayFromImage(resampled))


# --- levels ---------------------------------------------------------------------------------------


def _tissue(volume: Volume) -> Volume:
    """Mask the tissue (above Otsu's threshold) with a margin, in coarse voxels."""
    sitk = _sitk()
    coarse = _level(volume, _TISSUE_MM)
    if coarse.voxels.min() == coarse.voxels.max():
        return coarse.with_voxels(np.zeros(coarse.shape, np.uint8))
    mask = sitk.OtsuThreshold(coarse.to_sitk(), 0, 1, 128)
    margin = [math.ceil(_MARGIN_MM / side) for side in coarse.geometry.spacing]
    return coarse.with_voxels(sitk.GetArrayFromImage(sitk.BinaryDilate(mask, margin)))


def _level(volume: Volume, millimeters: float) -> Volume:
    """Average over blocks of about that size, and smooth slightly; float32."""
    spacing, shape = volume.geometry.spacing[::-1], volume.shape
    factors = [
        max(1, min(int(millimeters / side + 0.3), count // 6))
        for side, count in zip(spacing, shape, strict=True)
    ]
    while math.prod(c // f for c, f in zip(shape, factors, strict=True)) > _MOST_VOXELS:
        finest = min(range(3), key=lambda axis: factors[axis] * spacing[axis])
        factors[finest] += 1
    coarse = averaged(volume, factors)
    sigmas = [
        _SMOOTHING * side if side < 1.5 * millimeters else 0.0 for side in coarse.geometry.spacing
    ]
    return coarse.with_voxels(_sitk().GetArrayFromImage(_smoothed(coarse, sigmas)))


def _smoothed(volume: Volume, sigmas: list[float]) -> Any:
    """Convert to a SimpleITK image, convolved with a Gaussian of σ in mm along each axis."""
    image = volume.to_sitk()
    if not any(sigmas):
        return image
    return _sitk().DiscreteGaussian(
        image, variance=[sigma**2 for sigma in sigmas], maximumKernelWidth=64, maximumError=0.01
    )


# --- positions ------------------------------------------------------------------------------------


def _moved(matrix: Doubles, points: Array) -> Doubles:
    """Move points [..., 3] by a 4×4 matrix."""
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def _indices(guide: Volume, place: Doubles, positions: Doubles) -> Doubles:
    """Convert positions in the volume [..., 3], in mm, to indices (i, j, k) in the guide."""
    return _moved(np.linalg.inv(guide.geometry.affine_lps) @ place, positions)


def _inside(indices: Doubles, volume: Volume) -> Mask:
    """Test whether each index (i, j, k) lies within the volume, rounding aside."""
    last = np.array(volume.shape[::-1]) - 1
    return np.asarray(((indices >= -1e-6) & (indices <= last + 1e-6)).all(-1))


def _interpolated(voxels: Array, indices: Doubles) -> Floats:
    """Interpolate linearly between the eight voxels around each index (i, j, k) [..., 3]."""
    last = np.array(voxels.shape[::-1]) - 1
    indices = np.clip(indices, 0, last)
    low = np.minimum(indices.astype(np.intp), np.maximum(last - 1, 0))
    share = (indices - low).astype(np.float32)
    result = np.zeros(indices.shape[:-1], np.float32)
    for step in np.ndindex(2, 2, 2):
        i, j, k = np.moveaxis(np.minimum(low + step, last), -1, 0)
        result += np.where(np.array(step) == 1, share, 1 - share).prod(-1) * voxels[k, j, i]
    return result


def _centered(windows: Array) -> Floats:
    """Subtract the mean of each row of [windows, voxels]; divide by their common deviation."""
    scale = float(windows.std()) or 1.0
    return np.asarray((windows - windows.mean(1, keepdims=True)) / scale)


def _sampled(rows: Array, count: int) -> Array:
    """Sample at most `count` of the rows, with a fixed seed."""
    if len(rows) <= count:
        return rows
    return rows[np.random.default_rng(_SEED).choice(len(rows), count, replace=False)]


def _sitk() -> Any:
    return require("SimpleITK", purpose="Registering a guide")
