"""The open volumes that codecs are measured on: whole, and nothing was trained or tuned on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from _common import QUICK, SHARED_DATA

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load

LARGE = "ct/abdomen/CT.nii.gz"
#: Each tile of the large volume lies this much further along rows and columns.
_SHIFT = (37, 53)


@dataclass(frozen=True)
class Subject:
    """A volume: its name on the page, its file below the shared data, its modality."""

    name: str
    file: str
    modality: str


SUBJECTS = (
    Subject("CT STS_013", "ct/sts/STS_013/CT.nii.gz", "CT"),
    Subject("MR studyforrest T1", "mr/studyforrest/T1.nii.gz", "MR"),
    Subject("MR open_ms C19", "mr/open_ms/C19/T1.nii.gz", "MR"),
    Subject("MR open_ms L20", "mr/open_ms/L20/study2_T1W.nii.gz", "MR"),
    Subject("EM medulla_v_z0", "em/medulla_v_z0.nii.gz", "EM"),
)


def load_subject(subject: Subject) -> Volume:
    """The whole volume; of a quick run a few slices."""
    volume = load(SHARED_DATA / subject.file, modality=subject.modality)
    return volume.crop(k=slice(9, 15)) if QUICK else volume


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
