"""Compares the contrast of two MR volumes, without registering them.

In heads the order of tissues decides: in T1 most of the brain is white matter, brighter than the
rest, and fluid is the dark extreme; in FLAIR white matter lies in the middle; in T2 fluid is the
bright extreme. Two numbers of the distribution of intensities deep inside the body distinguish
them. Intensities are smoothed, so that noise hardly counts, and divided by the mean of their
surroundings, so that bias fields and scales do not count.

    tails = log((q98 - q50) / (q50 - q2))       above 0: the extreme is bright
    middle = log((q75 - q50) / (q50 - q25))     below 0: most tissue is brighter than the rest

What lies in none of the ranges of heads, such as most limbs, is not judged.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.image import gaussian_blur
from MedEnhanceLib.hqg.averaging import averaged
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.runtime.dependencies import require

Floats = npt.NDArray[np.float32]

#: Side of the cells that intensities are averaged over, σ of their smoothing, of the mean of the
#: surroundings and of the depth, in mm.
_CELL_MM, _SMOOTH_MM, _AROUND_MM, _DEEP_MM = 2.0, 2.0, 9.0, 15.0
#: Share of the body that counts, the deepest: without skin, fat and skull.
_DEEPEST = 0.4
#: Of Otsu's threshold, above which a cell is body.
_BODY = 0.8
#: Cells (160 ml of tissue) without which nothing is compared.
_FEWEST = 20_000
#: Ranges of `tails` and `middle` by contrast. Measured: 27 volumes of heads from six scanners, with
#: noise up to 10 % of the brightest tissue, and a margin.
_HEADS = {
    "T1": ((-1.35, -0.7), (-0.85, -0.29)),
    "FLAIR": ((-1.2, -0.1), (-0.29, 0.25)),
    "T2": ((0.5, 1.4), (0.0, 0.8)),
}
#: Two contrasts differ where one of the numbers differs by this much: T1 and FLAIR touch.
_CLEAR = 0.2


class Contrast(NamedTuple):
    """How intensities deep inside the body are distributed; see the module."""

    tails: float
    middle: float

    @property
    def kind(self) -> str:
        """The contrast of a head: "T1", "FLAIR" or "T2"; empty for anything else."""
        for name, ((low, high), (lower, upper)) in _HEADS.items():
            if low <= self.tails <= high and lower <= self.middle <= upper:
                return name
        return ""


def show_the_same(volume: Volume, other: Volume) -> bool:
    """Whether two MR volumes can show the same contrast, as far as it can be measured.

    Args:
        volume: [K, J, I], or a sequence, of which the first frame counts.
        other: likewise, on any grid.
    """
    first, second = (measure_contrast(each.frame(0)) for each in (volume, other))
    if not (first and second and first.kind and second.kind) or first.kind == second.kind:
        return True
    return float(np.abs(np.subtract(first, second)).max()) <= _CLEAR


def measure_contrast(volume: Volume) -> Contrast | None:
    """Measure the contrast of an MR volume.

    Args:
        volume: [K, J, I], finite, any grid.

    Returns:
        None where too little tissue is shown, or it has one intensity.
    """
    sizes = [
        max(1, min(round(_CELL_MM / mm), side))
        for mm, side in zip(reversed(volume.geometry.spacing), volume.shape, strict=True)
    ]
    coarse = averaged(volume, sizes)
    cells = scaling_for(volume).apply(coarse.voxels)
    di, dj, dk = coarse.geometry.spacing

    def smoothed(values: Floats, sigma_mm: float) -> Floats:
        return gaussian_blur(values, 2 * sigma_mm / (di + dj), sigma_slices=sigma_mm / dk)

    image = smoothed(cells, _SMOOTH_MM)
    body = (image > _BODY * _otsu(image)).astype(np.float32)
    share = smoothed(body, _AROUND_MM)
    inside = share > 0.5
    if inside.sum() < _FEWEST:
        return None
    depth = smoothed(body, _DEEP_MM)
    deepest = inside & (depth >= np.quantile(depth[inside], 1 - _DEEPEST))
    around = smoothed(cells * body, _AROUND_MM) / np.maximum(share, 1e-3)
    relative = image[deepest] / np.maximum(around[deepest], 1e-3)
    low, lower, middle, upper, high = np.percentile(relative, [2, 25, 50, 75, 98])
    if not low < lower < middle < upper < high:
        return None
    return Contrast(
        tails=float(np.log((high - middle) / (middle - low))),
        middle=float(np.log((upper - middle) / (middle - lower))),
    )


def _otsu(image: Floats) -> float:
    """The threshold between background and body by Otsu's criterion, for intensities up to 1.2."""
    sitk = require("SimpleITK", purpose="Comparing contrasts")
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(np.minimum(image, 1.2)))
    return float(otsu.GetThreshold())
