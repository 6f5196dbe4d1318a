"""Labels of one person carried to others by registration: a peer of heads.

Affine (mutual information), then diffeomorphic demons inside the brain, by SimpleITK.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.machine import itk_on_one_thread

#: Approximate voxel size of the registration; a finer one gained nothing and takes minutes.
_WORKING_MM = 2.0
_AFFINE_ITERATIONS = 100
_SAMPLES = 100_000
_DEMONS_ITERATIONS = 60
_DEMONS_SMOOTHING = 1.5


def carry_labels(image: Volume, labels: Any, target: Volume) -> Any:
    """Carry labels [K, J, I] of an image to a target of the same contrast, as they are."""
    sitk = require("SimpleITK", purpose="Carrying labels")
    fixed, moving = (sitk.Cast(each.to_sitk(), sitk.sitkFloat32) for each in (target, image))
    drawn = sitk.GetImageFromArray(labels.astype(np.float32))
    drawn.CopyInformation(moving)
    coarse_fixed, coarse_moving = (
        sitk.Shrink(each, [max(1, round(_WORKING_MM / spacing)) for spacing in each.GetSpacing()])
        for each in (fixed, moving)
    )
    with itk_on_one_thread:
        affine = _affine(coarse_fixed, coarse_moving, sitk)
        transform = _demons(coarse_fixed, coarse_moving, drawn, affine, sitk)
    carried = sitk.Resample(drawn, fixed, transform, sitk.sitkNearestNeighbor)
    return sitk.GetArrayFromImage(carried).astype(np.int32)


def _affine(fixed: Any, moving: Any, sitk: Any) -> Any:
    by_geometry = sitk.CenteredTransformInitializerFilter.GEOMETRY
    affine = sitk.AffineTransform(3)
    initial = sitk.CenteredTransformInitializer(fixed, moving, affine, by_geometry)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, _SAMPLES / fixed.GetNumberOfPixels()), 1)
    # Otherwise the border of an atlas without skull would be matched to the skull of the image.
    method.SetMetricMovingMask(sitk.BinaryDilate(sitk.Cast(moving > 1, sitk.sitkUInt8), [4] * 3))
    method.SetInterpolator(sitk.sitkLinear)
    # Plain gradient descent diverged from a good start on small images.
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, _AFFINE_ITERATIONS)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SetInitialTransform(initial, inPlace=False)
    return method.Execute(fixed, moving)


def _demons(fixed: Any, moving: Any, labels: Any, affine: Any, sitk: Any) -> Any:
    """Estimate the deformation after the affine; returns both as one transform, fixed to moving."""
    brain = sitk.Resample(labels, fixed, affine, sitk.sitkNearestNeighbor) > 0
    inside = sitk.Mask(fixed, sitk.BinaryDilate(brain, [2] * 3))
    moved = sitk.Resample(moving, fixed, affine, sitk.sitkLinear)
    moved = sitk.HistogramMatching(moved, inside, 256, 15, True)
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(_DEMONS_ITERATIONS)
    demons.SetStandardDeviations(_DEMONS_SMOOTHING)
    demons.SetSmoothDisplacementField(True)
    field = sitk.Cast(demons.Execute(inside, moved), sitk.sitkVectorFloat64)
    return sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(field)])
