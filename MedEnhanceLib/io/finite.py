"""Refuses volumes with voxels that are no number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from MedEnhanceLib.core.slabs import slabs
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import InputError


def refuse_not_finite(volume: Volume) -> None:
    """Raise InputError naming how many voxels are NaN or infinite, and where the first is."""
    if volume.dtype.kind != "f":
        return
    counts = [count for part in slabs(volume.voxels) for count in _not_finite(part)]
    if any(counts):
        first = next(index for index, count in enumerate(counts) if count)
        raise _refusal(volume, f"{sum(counts)} voxels", first)


def finite_parts(parts: Iterable[Voxels], outline: Volume) -> Iterator[Voxels]:
    """Pass on runs of slices, [n, J, I]; raise InputError at the first that is not finite.

    outline: the volume that they make up, which need not hold them.
    """
    passed = 0
    for part in parts:
        if part.dtype.kind == "f" and any(counts := _not_finite(part)):
            first = next(index for index, count in enumerate(counts) if count)
            raise _refusal(outline, "voxels", passed + first)
        passed += len(part)
        yield part


def _not_finite(slices: Voxels) -> list[int]:
    return [part.size - int(np.count_nonzero(np.isfinite(part))) for part in slices]


def _refusal(volume: Volume, what: str, first: int) -> InputError:
    frame, index = divmod(first, volume.shape[-3])
    where = f"slice {index} of frame {frame}" if volume.is_sequence else f"slice {index}"
    return InputError(
        f"{volume.source or 'volume'}: {what} are NaN or infinite, first in {where}",
        "Replace them by a number (the background, say) and save the volume again.",
    )
