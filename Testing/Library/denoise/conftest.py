"""The sample, whole and in part."""

from __future__ import annotations

from functools import cache

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder


@cache
def sample() -> Volume:
    """A head in T1, 1 mm."""
    return load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")


@cache
def brain() -> Volume:
    """Twelve slices of the sample, 96 × 96 pixels."""
    voxels = np.ascontiguousarray(sample().voxels[84:96, 10:106, 40:136])
    return Volume(voxels, Geometry((1.0, 1.0, 1.0)), modality="MR")
