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


def default_units(modality: str) -> str:
    """Return the unit of a modality's intensities if the file does not state one."""
    return "HU" if modality == "CT" else ""
