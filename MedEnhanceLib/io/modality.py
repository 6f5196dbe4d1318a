"""Guesses what a volume shows, for files whose header does not say."""

from __future__ import annotations

import numpy as np

from MedEnhanceLib.core.slabs import every, extremes
from MedEnhanceLib.core.volume import Volume

_LARGEST_SAMPLE = 200_000
#: Below 1 µm it is no patient.
_MICROSCOPY_MM = 1e-3
#: Air is -1000 HU; -4096 is the lowest padding in use; metal saturates at 12 or 16 bits.
_HU_AIR, _HU_LOWEST, _HU_HIGHEST = -500, -4096, 32767


def guess_modality(volume: Volume) -> str:
    """Tell EM by its spacing, CT by values that look like HU, MR by many levels from zero on.

    Everything else is OT: label maps and small ranges (SUV, probabilities) among them. A guess:
    whoever knows better passes the modality.
    """
    if min(volume.geometry.spacing) < _MICROSCOPY_MM:
        return "EM"
    low, high = (float(end) for end in extremes(volume.voxels))
    if _HU_LOWEST <= low <= _HU_AIR and 100 <= high <= _HU_HIGHEST:
        return "CT"
    if low >= -0.25 * high and high >= 64:
        sample = every(volume.voxels, max(1, volume.voxels.size // _LARGEST_SAMPLE))
        if np.unique(sample).size > 32:
            return "MR"
    return "OT"


def default_units(modality: str) -> str:
    """The unit that a modality's intensities have where nothing else is said."""
    return "HU" if modality == "CT" else ""
