"""The open volumes that codecs are measured on: whole, and nothing was trained or tuned on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from _common import SHARED_DATA

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load

CT_WINDOW_HU = (-160, 240)
LARGE = "ct/abdomen/CT.nii.gz"
_QUICK_SLICES = 12
#: Each tile of the large volume lies this much further along rows and columns.
_SHIFT = (37, 53)


@dataclass(frozen=True)
class Subject:
    """crop: slice, rows and columns of the picture, as shares of the extents; None for no picture.

    window: what black and white stand for, None for the 0.5 and 99.5 percentiles.
    """

    name: str
    file: str
    modality: str
    crop: tuple[float, float, float] | None = None
    window: tuple[float, float] | None = None


SUBJECTS = (
    Subject("CT STS_013", "ct/sts/STS_013/CT.nii.gz", "CT", (0.5, 0.45, 0.35), (-160, 240)),
    Subject("MR studyforrest T1", "mr/studyforrest/T1.nii.gz", "MR", (0.5, 0.45, 0.5)),
    Subject("MR open_ms C19", "mr/open_ms/C19/T1.nii.gz", "MR"),
    Subject("MR open_ms L20", "mr/open_ms/L20/study2_T1W.nii.gz", "MR"),
    Subject("EM medulla_v_z0", "em/medulla_v_z0.nii.gz", "EM", (0.5, 0.5, 0.5)),
)


def load_subjects(quick: bool, only: list[str] | None = None) -> Iterator[tuple[Subject, Volume]]:
    """Whole volumes, or the middle slices of each."""
    for subject in SUBJECTS:
        if only and not any(name in subject.name for name in only):
            continue
        volume = load(SHARED_DATA / subject.file, modality=subject.modality)
        if quick:
            start = (len(volume.voxels) - _QUICK_SLICES) // 2
            voxels = np.ascontiguousarray(volume.voxels[start : start + _QUICK_SLICES])
            volume = Volume(voxels, volume.geometry, modality=subject.modality)
        yield subject, volume


def large_volume(slices: int) -> Volume:
    """A CT of 512 × 512 as long as is asked, for time and memory, never for quality.

    Copies of a real one with its noise, every second mirrored along the slices so that no jump
    shows where they meet, and each moved within the slice, wrapping around: no slice comes twice
    in one place.
    """
    base = load(SHARED_DATA / LARGE, modality="CT")
    tiles = [
        np.roll(base.voxels[:: 1 - 2 * (n % 2)], (n * _SHIFT[0], n * _SHIFT[1]), axis=(1, 2))
        for n in range(-(-slices // len(base.voxels)))
    ]
    return Volume(np.concatenate(tiles)[:slices], base.geometry, modality="CT")
