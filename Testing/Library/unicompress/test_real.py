"""The open volumes: targets met, and sizes that a change may not spoil."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.io import load
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress

pytestmark = pytest.mark.shared

FILES = {
    "CT": "ct/abdomen/CT.nii.gz",
    "MR": "mr/studyforrest/T1.nii.gz",
    "EM": "em/medulla_t2.nii.gz",
}
#: Bits per voxel without loss, and decibels at a ratio of 16: a little worse than measured.
BITS = {"CT": 4.45, "MR": 3.30, "EM": 4.88}
DECIBELS = {"CT": 48.0, "MR": 31.8, "EM": 29.3}


@pytest.fixture(params=FILES)
def slab(request: pytest.FixtureRequest, shared_data: Path) -> tuple[str, Volume]:
    """A corner of eight slices from the middle: one block, quick enough for a test."""
    volume = load(shared_data / FILES[request.param])
    middle = volume.shape[0] // 2
    voxels: Voxels = volume.voxels[middle - 4 : middle + 4, :256, :256]
    return request.param, Volume(voxels, volume.geometry, modality=volume.modality)


@pytest.mark.slow
def test_lossless(slab: tuple[str, Volume], tmp_path: Path) -> None:
    name, volume = slab
    done = compress(volume, tmp_path / "a.ucv", CompressConfig(lossless=True))
    assert np.array_equal(decompress(tmp_path / "a.ucv").voxels, volume.voxels)
    assert 8 * done.file_bytes / volume.voxels.size < BITS[name]


@pytest.mark.parametrize("bound", [1, 8])
def test_max_error(slab: tuple[str, Volume], bound: int, tmp_path: Path) -> None:
    _, volume = slab
    config = CompressConfig(max_error=bound, speed="fast")
    done = compress(volume, tmp_path / "a.ucv", config)
    error = decompress(tmp_path / "a.ucv").voxels.astype(int) - volume.voxels
    assert np.abs(error).max() == done.max_error <= bound


@pytest.mark.slow
def test_ratio(slab: tuple[str, Volume], tmp_path: Path) -> None:
    name, volume = slab
    done = compress(volume, tmp_path / "a.ucv", CompressConfig(ratio=16))
    assert done.ratio >= 16
    assert done.psnr is not None
    assert done.psnr > DECIBELS[name]
