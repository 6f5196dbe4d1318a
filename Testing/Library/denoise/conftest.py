"""The sample, and the enhancer that ships for MR."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from MedEnhanceLib.bundles.store import open_bundle
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


@pytest.fixture(scope="session")
def model() -> str:
    """Its folder, as users name a model of their own."""
    return str(open_bundle("auto", kind="enhancer", modality="MR").folder)
