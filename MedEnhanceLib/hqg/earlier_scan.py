"""Lets the patient's earlier scan help to remove noise, without anything of it in the result.

register → pilot_from → the last stage of the denoiser, with the result as its pilot

The pilot of a Wiener filter only decides which coefficients of the new scan count as anatomy; the
values come from the new scan alone. The first estimate of the new scan is regressed locally on the
earlier one, so contrast and shading may differ. The pilot takes from this only detail that the
first estimate shows as well, but more weakly. Everywhere else, as where a lesion is new or gone,
the first estimate stays the pilot.
Source of the local regression: He, Sun and Tang, IEEE Trans. Pattern Anal. 35 (2013) 1397.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.nets.intensity import TISSUE, scaling_for
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend

Floats = npt.NDArray[np.float32]

#: Share of the volume's tissue that the earlier scan must show, and the least correlation there.
#: Measured: .97 for the same patient, .77 at most for others (results/guidance.json).
_LEAST_OVERLAP, _LEAST_SIMILARITY = 0.6, 0.85
#: Resolutions of the registration: voxels of about this size in mm, and the steps at each.
_LEVELS_MM = (8.0, 4.0, 2.0)
_ITERATIONS = 60
#: Share of the voxels that the metric samples at each level, and its seed.
_SAMPLED, _SEED = (0.5, 0.25, 0.1), 20
#: Windows of the regression: slices, rows, columns.
_WINDOW = (3, 5, 5)
#: Error of a first estimate relative to the noise of the scan, as far as chance explains it.
_START_ERROR = 0.35
#: Smaller windows, in which a common sign of the differences is looked for.
_PATCH = (1, 3, 3)
#: Slices that are computed at once.
_SLAB = 16
_TINY = 1e-12


@dataclass(frozen=True)
class Registration:
    """An earlier scan on the grid of the new one.

    aligned: float32 [K, J, I], on the scale of the networks (MR: robust maximum 1, CT: HU / 1000);
        NaN where the earlier scan shows nothing.
    overlap: share of the new scan's tissue that is inside the earlier one's field of view.
    similarity: correlation of both there, after smoothing over 3 voxels, 0 to 1.
    matrix, translation_mm: from positions in the new scan to those in the earlier one, LPS mm.
    """

    aligned: Floats
    overlap: float
    similarity: float
    matrix: tuple[tuple[float, ...], ...]
    translation_mm: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "overlap": round(self.overlap, 4),
            "similarity": round(self.similarity, 4),
            "matrix": [list(row) for row in self.matrix],
            "translation_mm": list(self.translation_mm),
        }


def register(earlier: Volume, volume: Volume, monitor: Monitor | None = None) -> Registration:
    """Register a patient's earlier scan to the new one: rigidly, and affinely if that is better.

    Mutual information, so brightness may differ. Deterministic.

    Args:
        earlier: same modality, any grid.
        volume: the new scan.
        monitor: progress and cancelling.
    Raises:
        InputError: a sequence, another modality, or a result in which both do not overlap or do
            not resemble each other.
    """
    name = earlier.source or "earlier scan"
    if earlier.modality != volume.modality:
        raise InputError(
            f"{name}: the earlier scan is {earlier.modality}, the volume {volume.modality}",
            "Choose an earlier scan of the same modality.",
        )
    if earlier.is_sequence or volume.is_sequence:
        raise InputError(
            f"{name}: a sequence cannot be registered", "Choose a single volume, or a frame."
        )
    moving, fixed = (scaling_for(each).apply(each.voxels) for each in (earlier, volume))
    candidates = attend(lambda: _transforms(moving, earlier, fixed, volume), monitor)
    best: tuple[float, float, Floats, Any] | None = None
    for candidate in candidates:
        aligned = attend(partial(_resampled, moving, earlier, volume, candidate), monitor)
        overlap, similarity = _agreement(aligned, fixed, volume.modality)
        if best is None or similarity > best[0]:
            best = similarity, overlap, aligned, candidate
    assert best is not None
    similarity, overlap, aligned, found = best
    if overlap < _LEAST_OVERLAP:
        raise InputError(
            f"{name}: the earlier scan shows {overlap:.0%} of the volume's tissue, "
            f"{_LEAST_OVERLAP:.0%} are needed",
            "Choose a scan of the same region, or leave it out.",
        )
    if similarity < _LEAST_SIMILARITY:
        raise InputError(
            f"{name}: registered, the earlier scan resembles the volume too little (correlation "
            f"{similarity:.2f}, {_LEAST_SIMILARITY:.2f} are needed)",
            "Check that it is the same patient, region and contrast, or leave it out.",
        )
    matrix = np.array(found.GetMatrix()).reshape(3, 3)
    shift = matrix @ -np.array(found.GetCenter()) + found.GetCenter() + found.GetTranslation()
    return Registration(
        aligned,
        overlap,
        similarity,
        tuple(tuple(row) for row in matrix.round(7).tolist()),
        tuple(shift.round(4).tolist()),
    )


def pilot_from(start: Floats, aligned: Floats, sigma: float | Floats) -> Floats:
    """A pilot for the last stage of a denoiser.

    Args:
        start: first estimate of the new scan, [K, J, I].
        aligned: the earlier scan on the same grid, in any unit; NaN where it shows nothing.
        sigma: standard deviation of the noise in the new scan, in the unit of `start`: a number, or
            [K, J, I].
    Returns:
        [K, J, I]: the start, regressed on the earlier scan where the two agree.
    """
    require("torch", purpose="Using an earlier scan")
    if start.shape != aligned.shape:
        raise InputError(
            f"the start has shape {start.shape}, the earlier scan {aligned.shape}",
            "Register the earlier scan to the volume first.",
        )
    noise = np.broadcast_to(np.asarray(sigma, np.float32), start.shape)
    pilot = np.empty(start.shape, np.float32)
    reach = 3 * (_WINDOW[0] // 2)
    for first in range(0, len(start), _SLAB):
        last = min(first + _SLAB, len(start))
        low, high = max(0, first - reach), min(len(start), last + reach)
        slab = slice(low, high)
        result = _regressed(start[slab], aligned[slab], noise[slab])
        pilot[first:last] = result[first - low : last - low]
    return pilot


def _regressed(start: Floats, aligned: Floats, sigma: Floats) -> Floats:
    import torch

    with torch.inference_mode():
        shown = torch.from_numpy(np.isfinite(aligned)).float()
        seen = torch.from_numpy(np.nan_to_num(aligned, nan=0.0, copy=True))
        own = torch.from_numpy(np.ascontiguousarray(start))
        # A copy: σ may be one number seen at every voxel, which PyTorch does not take.
        chance = (_START_ERROR * torch.from_numpy(np.array(sigma, order="C"))).square()
        mean_own, mean_seen = _mean(own), _mean(seen)
        variance = (_mean(seen.square()) - mean_seen.square()).clamp_min(0)
        slope = (_mean(own * seen) - mean_own * mean_seen) / (variance + _TINY)
        # Windows in which the earlier scan explains less than chance does are flat.
        explained = slope.square() * variance
        slope *= explained / (explained + chance / 4)
        offset = mean_own - slope * mean_seen
        fit = _mean(slope) * seen + _mean(offset)
        misfit = own - fit
        # Two signs of disagreement: large differences, and small ones of one sign. The weight is
        # that of the better of two estimates, whose errors add up to the misfit.
        large = _mean(misfit.square()) / chance
        common = _mean(misfit, _PATCH).square() / (chance * 3 / math.prod(_PATCH))
        weight = 1 / (1 + (large - 1).clamp_min(0) + (common - 1).clamp_min(0))
        # Only detail that the start shows too, and shows more weakly: no detail of the new scan is
        # taken from the pilot, and none is in it that only the earlier scan has.
        own_detail, detail = own - mean_own, fit - _mean(fit)
        adds = (own_detail * detail > 0) & (detail.abs() > own_detail.abs())
        adds &= _mean(shown) > 0.999
        result: Floats = (own + weight * adds * (fit - own)).numpy()
    return result


def _mean(values: Any, window: tuple[int, int, int] = _WINDOW) -> Any:
    """Means over windows, [K, J, I]; at the borders over what lies inside."""
    import torch

    margin = [side // 2 for side in window]
    return torch.nn.functional.avg_pool3d(
        values[None, None], window, stride=1, padding=margin, count_include_pad=False
    )[0, 0]


def _image(voxels: Floats, like: Volume) -> Any:
    sitk: Any = require("SimpleITK", purpose="Registering an earlier scan")
    image = sitk.GetImageFromArray(voxels)
    geometry = like.geometry
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection([value for row in geometry.direction for value in row])
    return image


def _transforms(moving: Floats, earlier: Volume, fixed: Floats, volume: Volume) -> list[Any]:
    """The rigid and the affine transform from the new scan's positions to the earlier one's."""
    sitk: Any = require("SimpleITK", purpose="Registering an earlier scan")
    old, new = _image(moving, earlier), _image(fixed, volume)
    rigid = sitk.CenteredTransformInitializer(
        new, old, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    for level, millimeters in enumerate(_LEVELS_MM):
        coarse = _coarse(new, millimeters), _coarse(old, millimeters)
        rigid = _optimize(*coarse, rigid, level, 1.0)
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    affine.SetCenter(rigid.GetCenter())
    # Small steps: from a good rigid result larger ones of this optimizer run away.
    return [rigid, _optimize(*coarse, affine, len(_LEVELS_MM) - 1, 0.1)]


def _optimize(new: Any, old: Any, transform: Any, level: int, step_mm: float) -> Any:
    sitk: Any = require("SimpleITK", purpose="Registering an earlier scan")
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(48)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(_SAMPLED[level], _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        step_mm, 0.005, _ITERATIONS, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-5
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    method.SetGlobalDefaultNumberOfThreads(1)
    method.SetNumberOfThreads(1)
    method.Execute(new, old)
    return transform


def _coarse(image: Any, millimeters: float) -> Any:
    """Smoothed and shrunk to voxels of about that size."""
    sitk: Any = require("SimpleITK", purpose="Registering an earlier scan")
    factors = [
        max(1, min(round(millimeters / spacing), size // 8))
        for spacing, size in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]
    sigmas = [
        0.4 * factor * spacing if factor > 1 else 0.0
        for factor, spacing in zip(factors, image.GetSpacing(), strict=True)
    ]
    if any(sigmas):
        image = sitk.DiscreteGaussian(
            image, variance=[sigma**2 for sigma in sigmas], maximumKernelWidth=64
        )
    return sitk.Shrink(image, factors)


def _resampled(moving: Floats, earlier: Volume, volume: Volume, transform: Any) -> Floats:
    sitk: Any = require("SimpleITK", purpose="Registering an earlier scan")
    grid = _image(np.zeros(volume.shape, np.uint8), volume)
    aligned: Floats = sitk.GetArrayFromImage(
        sitk.Resample(
            _image(moving, earlier),
            grid,
            transform,
            sitk.sitkLinear,
            float("nan"),
            sitk.sitkFloat32,
        )
    )
    return aligned


def _agreement(aligned: Floats, fixed: Floats, modality: str) -> tuple[float, float]:
    """Overlap and similarity, see Registration."""
    import torch

    tissue = fixed > TISSUE.get(modality, 0.1)
    shown = np.isfinite(aligned)
    if not tissue.any():
        return 0.0, 0.0
    overlap = float((shown & tissue).sum() / tissue.sum())
    inside = tissue & shown
    if inside.sum() < 1000:
        return overlap, 0.0
    smooth = [
        _mean(torch.from_numpy(np.nan_to_num(part, nan=0.0)), _PATCH).numpy()[inside]
        for part in (aligned, fixed)
    ]
    return overlap, max(0.0, float(np.corrcoef(*smooth)[0, 1]))
