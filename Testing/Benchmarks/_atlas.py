"""Labels of others, carried by registration: a peer of heads, and tissue refined by intensity.

Affine (mutual information), then diffeomorphic demons inside the brain, by SimpleITK; the
propagated labels become the prior of a mixture of one Gaussian per structure, fitted to the image
(after Van Leemput et al., IEEE Trans. Med. Imaging 18 (1999) 897, without bias or neighborhood
terms).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.machine import itk_on_one_thread
from MedEnhanceLib.runtime.progress import Monitor

#: Approximate voxel size of the registration; a finer one gained nothing and takes minutes.
_WORKING_MM = 2.0
_AFFINE_ITERATIONS = 100
_SAMPLES = 100_000
_DEMONS_ITERATIONS = 60
_DEMONS_SMOOTHING = 1.5
_PRIOR_SMOOTHING_MM2 = 2.0
_MIXTURE_ITERATIONS = 20
_PRIOR_FLOOR = 1e-3


def propagate_labels(
    atlas: Volume, atlas_labels: Volume, image: Volume, monitor: Monitor | None = None
) -> Volume:
    """Propagate labels of an atlas to an image's grid, uint8; deterministic on one machine.

    Args:
        atlas: single, of the same contrast as `image`.
        atlas_labels: on the grid of `atlas`, 0 for the background.
        image: single, on any grid that overlaps the atlas in space.
        monitor: receives progress; may cancel between registrations.
    Raises InputError where image and atlas do not overlap, or atlas and labels differ in shape.
    """
    monitor = monitor or Monitor()
    if atlas.shape != atlas_labels.shape:
        raise InputError(
            f"the atlas has shape {atlas.shape}, its labels {atlas_labels.shape}",
            "Give labels drawn on the atlas.",
        )
    sitk = require("SimpleITK", purpose="Propagating labels")
    fixed, moving, labels = (
        sitk.Cast(volume.to_sitk(), sitk.sitkFloat32) for volume in (image, atlas, atlas_labels)
    )
    coarse_fixed, coarse_moving = (
        sitk.Shrink(each, [max(1, round(_WORKING_MM / spacing)) for spacing in each.GetSpacing()])
        for each in (fixed, moving)
    )
    with itk_on_one_thread:
        monitor.progress(0.05, "registering the atlas (affine)")
        affine = _affine(coarse_fixed, coarse_moving, sitk)
        monitor.progress(0.2, "registering the atlas (demons)")
        transform = _demons(coarse_fixed, coarse_moving, labels, affine, sitk)
    monitor.progress(0.8, "refining labels by intensity")
    priors = _priors(sitk.Resample(labels, fixed, transform, sitk.sitkNearestNeighbor), sitk)
    if priors[1:].sum() == 0:
        raise InputError(
            f"{image.source or 'image'}: the atlas does not overlap it", "Check its geometry."
        )
    # All voxels except the zeros around a skull-stripped brain; zeros inside it are included.
    filled = sitk.BinaryFillhole(sitk.Cast(sitk.Abs(fixed) > 0, sitk.sitkUInt8))
    interior = sitk.GetArrayFromImage(filled) > 0
    indices = _mixture(image.voxels.astype(np.float32), priors, interior)
    return image.with_voxels(indices, did="labels propagated from an atlas")


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


def _priors(labels: Any, sitk: Any) -> npt.NDArray[np.float32]:
    """Smooth the mask of each label value 0…n, [n + 1, K, J, I]."""
    count = int(sitk.GetArrayViewFromImage(labels).max()) + 1
    members = (sitk.Cast(labels == value, sitk.sitkFloat32) for value in range(count))
    smoothed = (sitk.DiscreteGaussian(member, _PRIOR_SMOOTHING_MM2) for member in members)
    return np.stack([sitk.GetArrayFromImage(image) for image in smoothed])


def _mixture(
    voxels: npt.NDArray[np.float32],
    priors: npt.NDArray[np.float32],
    interior: npt.NDArray[np.bool_],
) -> npt.NDArray[np.uint8]:
    """Find the maximum a posteriori label of one Gaussian per structure (EM)."""
    inside = (priors[1:].sum(axis=0) > 0.5) & interior
    values = voxels[inside].astype(np.float64)
    prior = priors[1:, inside] + _PRIOR_FLOOR
    prior /= prior.sum(axis=0)
    share = prior
    for _ in range(_MIXTURE_ITERATIONS):
        weight = share.sum(axis=1)
        mean = share @ values / weight
        deviation = values - mean[:, None]
        spread = np.sqrt((share * deviation**2).sum(axis=1) / weight) + 1e-6
        density = np.exp(-0.5 * (deviation / spread[:, None]) ** 2) / spread[:, None]
        share = density * prior + 1e-12
        share /= share.sum(axis=0)
    labels = np.zeros(voxels.shape, np.uint8)
    labels[inside] = share.argmax(axis=0) + 1
    return labels
