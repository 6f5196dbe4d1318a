"""How much there is to code in a part of a volume, told from how much neighbours differ."""

from __future__ import annotations

import numpy as np

from MedEnhanceLib.core.slabs import slabs
from MedEnhanceLib.core.volume import Voxels

#: Every so many rows and slices are looked at for the differences of neighbours.
_ROW_STEP = 8
_SLICE_STEP = 4


def activity_of(voxels: Voxels, unit: float | None = None) -> float:
    """About how much there is to code: neighbours' differences on a logarithmic scale, summed.

    unit: below it a difference counts little; None for the smallest step.
    """
    if voxels.shape[-1] < 2:
        return 0.0
    bits, seen = 0.0, 0
    for part in slabs(voxels):
        rows = part[::_SLICE_STEP, ::_ROW_STEP]
        steps = np.abs(np.diff(rows.astype(np.float32), axis=-1))
        seen += rows.size
        if unit is None and voxels.dtype.kind == "f":
            # Of floats kept exactly most bits are noise: what counts is where they differ at all.
            bits += float(np.count_nonzero(steps))
        else:
            steps /= np.float32(unit or 1)
            bits += float(np.log2(steps + 1, dtype=np.float32).sum(dtype=np.float64))
    return bits * voxels.size / seen
