"""Refuses volumes with voxels that are no number."""

from __future__ import annotations

import numpy as np

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.volume import Volume


def refuse_not_finite(volume: Volume) -> None:
    """Raise InputError naming how many voxels are NaN or infinite, and where the first is."""
    if volume.dtype.kind != "f":
        return
    slices = volume.voxels.reshape(-1, *volume.shape[-2:])
    counts = [part.size - int(np.count_nonzero(np.isfinite(part))) for part in slices]
    if not any(counts):
        return
    first = next(index for index, count in enumerate(counts) if count)
    frame, index = divmod(first, volume.shape[-3])
    where = f"slice {index} of frame {frame}" if volume.is_sequence else f"slice {index}"
    raise InputError(
        f"{volume.source or 'volume'}: {sum(counts)} voxels are NaN or infinite, first in {where}",
        "Replace them by a number (the background, say) and save the volume again.",
    )
