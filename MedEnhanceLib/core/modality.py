"""The likely modality of a volume whose file states none, and the unit of its intensities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from MedEnhanceLib.core.arrays import Voxels, extremes

#: mm; a smaller spacing is that of a microscope.
MICROSCOPY_MM = 1e-3
_LARGEST_SAMPLE = 200_000
#: Air is -1000 HU; -4096 is the lowest padding in use; metal saturates at 12 or 16 bits.
_HU_AIR, _HU_LOWEST, _HU_HIGHEST = -500, -4096, 32767
#: Values besides the background that an image has at least; the largest share of voxels of a label
#: map that differ from all neighbors (measured: .0005; in images of 8 gray levels .014 and more);
#: how many voxels show it.
_FEWEST_GRAYS, _MOST_ALONE, _ENOUGH_VOXELS = 4, 0.005, 20_000
#: How to set the modality, for hints.
SET_MODALITY = "--modality (modality= in Python)"
#: mm; no scanner has a larger spacing, but µm read as mm give one.
FARTHEST_MM = 100.0


def guess_modality(voxels: Voxels, spacing: Sequence[float]) -> str:
    """Guess the modality: EM by its spacing, CT by values like HU, MR by many levels from 0.

    Everything else is OT: label maps and small ranges (SUV, probabilities) among them.
    """
    if min(spacing) < MICROSCOPY_MM:
        return "EM"
    low, high = (float(end) for end in extremes(voxels))
    if _HU_LOWEST <= low <= _HU_AIR and 100 <= high <= _HU_HIGHEST:
        return "CT"
    sample = voxels.flat[:: max(1, voxels.size // _LARGEST_SAMPLE)]
    if low >= -0.25 * high and high >= 64 and np.unique(sample).size > 32:
        return "MR"
    return "OT"


def may_be_labels(voxels: Voxels) -> bool:
    """Return whether voxels may be a label map: whole numbers in large constant regions.

    Unlike `looks_like_labels`, of any number of values: that is, at most 4, or hardly a voxel that
    differs from all four neighbors in its slice.
    """
    planes = voxels.reshape(-1, *voxels.shape[-2:])
    middle, values, count, alone = len(planes) // 2, set[float](), 0, 0
    background = planes[middle].min()
    for plane in (*planes[middle:], *planes[:middle]):
        if plane.dtype.kind == "f" and not np.array_equal(plane, np.round(plane)):
            return False
        inner = plane[1:-1, 1:-1]
        differs = inner != background
        values.update(np.unique(inner[differs]).tolist())
        count += int(differs.sum())
        for beside in (plane[:-2, 1:-1], plane[2:, 1:-1], plane[1:-1, :-2], plane[1:-1, 2:]):
            differs &= inner != beside
        alone += int(differs.sum())
        if count > _ENOUGH_VOXELS:
            break
    return count > 0 and (len(values) < _FEWEST_GRAYS or alone <= _MOST_ALONE * count)


def default_units(modality: str) -> str:
    """Return the unit of a modality's intensities if the file does not state one."""
    return "HU" if modality == "CT" else ""
