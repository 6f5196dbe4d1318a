"""The bias field of MR, measured in a coarse copy by N4.

N4 gets means over blocks of 5 mm: noise averages out, and a bias field changes over 50 mm and more.
Its spline is stiff (spans of 60 mm along each axis), so that little anatomy enters the field, even
where the body is cropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Floats, Mask, interpolated, robust_max
from MedEnhanceLib.core.imaging import averaged
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.dependencies import require

#: Side of the blocks, and fewest blocks along an axis (if it has as many voxels).
_BLOCK_MM, _FEWEST_BLOCKS = 5.0, 8
# Tuned on open MR with simulated fields. Measured again by Benchmarks/bias_field.py.
#: Spans of the spline. With 50 mm, and with N4's usual doubling of a span per axis, more anatomy
#: enters the field; with 100 mm the correction loses 0.4 dB.
_SPAN_MM = 60.0
_ITERATIONS = 30
#: Tissue is above this share of the robust maximum. Otsu's threshold leaves out gray matter or fat,
#: whose intensities distinguish a field from anatomy.
_TISSUE = 0.15


@dataclass(frozen=True, eq=False)
class BiasField:
    """A multiplicative bias field, whose slices are made when they are read.

    Attributes:
        shape: [K, J, I] of the volume.
        blocks: its logarithm at the centers of blocks, with a mean of 0 over tissue.
        steps: voxels of a block along k, j, i.
    """

    shape: tuple[int, ...]
    blocks: Floats
    steps: tuple[int, ...]

    def __getitem__(self, slices: slice) -> Floats:
        """Interpolate the field in some slices: float32 [n, J, I], no unit."""
        sides = zip(self.shape, self.steps, strict=True)
        k, j, i = ((np.arange(count) + 0.5) / step - 0.5 for count, step in sides)
        return np.exp(interpolated(self.blocks, (k[slices], j, i)))


def measure_bias_field(volume: Volume, *, passes: int = 1) -> BiasField:
    """Measure the multiplicative bias field of a volume (about 1 s for a head); needs SimpleITK.

    Anatomy alone also gives a field: the user has to know whether there is one to correct.

    Source: Tustison et al., IEEE Trans. Med. Imaging 29 (2010) 1310, as SimpleITK implements it;
    blocks, spline and mask are our choice.

    volume: one frame, [K, J, I].
    passes: of N4, each over the result of the last: it stops early in strong fields. Three leave
        half of what one leaves in crops of a body, and change what is even as little as one.
    Returns the field; 1 everywhere if intensities are constant.
    Raises DependencyError: SimpleITK is missing.
    """
    steps = tuple(
        max(1, min(round(_BLOCK_MM / size), count // _FEWEST_BLOCKS))
        for size, count in zip(reversed(volume.geometry.spacing), volume.shape, strict=True)
    )
    means = averaged(volume, steps)
    coarse = means.voxels
    tissue = coarse > max(_TISSUE * robust_max(coarse), 0.0)
    if not tissue.any() or float(coarse[tissue].std()) == 0:
        return BiasField(volume.shape, np.zeros_like(coarse), steps)
    log_field = np.zeros_like(coarse)
    for _ in range(passes):
        even = replace(means, voxels=coarse / np.exp(log_field))
        log_field = log_field + _log_field(even, tissue)
    log_field -= log_field[tissue].mean()
    return BiasField(volume.shape, log_field, steps)


def _log_field(means: Volume, tissue: Mask) -> Floats:
    """Estimate the logarithm of N4's field at the blocks."""
    sitk: Any = require("SimpleITK", purpose="The bias field (N4)")
    coarse, shape, spacing = means.voxels, means.shape, means.geometry.spacing
    for axis in range(3):
        if coarse.shape[axis] == 1:  # a spline needs an extent
            coarse, tissue = np.repeat(coarse, 2, axis), np.repeat(tissue, 2, axis)
    image = sitk.GetImageFromArray(coarse)
    image.SetSpacing(spacing)
    mask = sitk.GetImageFromArray(tissue.astype(np.uint8))
    mask.CopyInformation(image)
    spans = [
        max(1, round(count * size / _SPAN_MM))
        for count, size in zip(image.GetSize(), spacing, strict=True)
    ]
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetNumberOfControlPoints([count + corrector.GetSplineOrder() for count in spans])
    corrector.SetMaximumNumberOfIterations([_ITERATIONS])
    corrector.Execute(image, mask)
    log_field: Floats = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image))
    return log_field[: shape[0], : shape[1], : shape[2]]
