"""Thin slices of volumes in any storage, and of sequences with constant frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from Library.denoise.conftest import brain, sample
from Library.storages import SOME, Storage, restored, stored

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.slices.thin_slices import enhance_slices

pytestmark = pytest.mark.usefixtures("untuned")


@pytest.mark.parametrize("storage", SOME)
def test_thin_slices_are_those_of_any_other_storage(storage: Storage) -> None:
    voxels = sample().voxels[80:86, 90:118, 70:102].copy()
    noise = np.random.default_rng(0).normal(0, 15, (2, *voxels.shape))
    scan = Volume(np.hypot(voxels + noise[0], noise[1]).astype(np.float32), modality="MR")
    scan = replace(scan, geometry=Geometry((1.0, 1.1, 4.0), (3, 5, -7)))
    config = EnhanceConfig(task="slices", device="cpu")
    first = enhance_slices(scan, config, Monitor())
    other = stored(scan, storage)
    result = enhance_slices(other, config, Monitor())
    for one, two in ((first.volume, result.volume), (first.original, result.original)):
        assert np.array_equal(restored(two.voxels, storage), one.voxels)
    assert result.volume.geometry.direction == other.geometry.direction
    seen, known = result.volume.geometry, stored(first.volume, storage).geometry
    assert seen.is_close(known, 1e-9, shape=result.volume.shape)


def test_thin_slices_of_a_constant_frame_are_constant() -> None:
    thick = brain().crop(j=slice(16, 48), i=slice(16, 48)).voxels.astype(np.float32)
    volume = Volume(np.stack([0 * thick + 5, thick]), Geometry((1, 1, 4)), modality="MR")
    result = enhance_slices(volume, EnhanceConfig(task="slices", device="cpu"), Monitor())
    first, second = result.volume.voxels
    assert np.unique(first).tolist() == [5] and second.std() > 10
    assert "no-tissue" in [each.code for each in result.warnings]
