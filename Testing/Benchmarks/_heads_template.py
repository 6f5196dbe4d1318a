"""A peer of heads: the labels of one person, carried to others by demons."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own short name

from MedEnhanceLib.core.volume import Volume

#: Side of the voxels of the registration, and its iterations.
_MM, _AFFINE, _DEMONS = 2.0, 100, 60


def carried(image: Volume, labels: Any, target: Volume) -> Any:
    """Carry labels of an image to the grid of a target of the same contrast, [K, J, I]."""
    whole = sitk.Cast(target.to_sitk(), sitk.sitkFloat32)
    moving = _coarse(sitk.Cast(image.to_sitk(), sitk.sitkFloat32))
    fixed = _coarse(whole)
    affine = _affine(fixed, moving)
    moved = sitk.Resample(moving, fixed, affine, sitk.sitkLinear)
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(_DEMONS)
    demons.SetStandardDeviations(1.5)
    demons.SetSmoothDisplacementField(True)
    field = demons.Execute(fixed, sitk.HistogramMatching(moved, fixed, 256, 15, True))
    field = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    both = sitk.CompositeTransform([affine, field])
    drawn = sitk.GetImageFromArray(labels.astype(np.int32))
    drawn.CopyInformation(image.to_sitk())
    return sitk.GetArrayFromImage(sitk.Resample(drawn, whole, both, sitk.sitkNearestNeighbor))


def _coarse(image: Any) -> Any:
    return sitk.Shrink(image, [max(1, round(_MM / spacing)) for spacing in image.GetSpacing()])


def _affine(fixed: Any, moving: Any) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, _AFFINE)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    by_moments = sitk.CenteredTransformInitializerFilter.MOMENTS
    affine = sitk.AffineTransform(3)
    method.SetInitialTransform(
        sitk.CenteredTransformInitializer(fixed, moving, affine, by_moments), inPlace=False
    )
    return method.Execute(fixed, moving)
