"""Large volumes pass by a few slices at a time, with the same bytes as all at once."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core import arrays
from MedEnhanceLib.core.arrays import Voxels, extremes
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.io import WRITABLE, load, save
from MedEnhanceLib.runtime.progress import Monitor


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every volume counts as large, a slab holds two slices of `scan`."""
    monkeypatch.setattr(arrays, "LARGE_BYTES", 1)
    monkeypatch.setattr(arrays, "SLAB_BYTES", 1200)


@pytest.fixture
def scan(oblique_geometry: Geometry) -> Volume:
    """7 × 20 × 15, int16."""
    voxels = np.random.default_rng(1).integers(-1024, 3000, (7, 20, 15), np.int16)
    return Volume(voxels, oblique_geometry, modality="CT", units="HU", history=("made",))


def backing(voxels: Voxels) -> Any:
    owner: Any = voxels
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner


@pytest.mark.parametrize("ending", WRITABLE)
@pytest.mark.parametrize("shape", [(7, 20, 15), (2, 3, 20, 15)], ids=str)
def test_voxels_stay_on_the_disk(
    ending: str, shape: tuple[int, ...], scan: Volume, tmp_path: Path
) -> None:
    voxels = np.random.default_rng(0).integers(-1024, 3000, shape, np.int16)
    save(Volume(voxels, scan.geometry, modality="CT"), tmp_path / f"a{ending}")
    whole = load(tmp_path / f"a{ending}")
    mapped = load(tmp_path / f"a{ending}", scratch=tmp_path)
    assert isinstance(backing(mapped.voxels), mmap.mmap)
    assert not isinstance(backing(whole.voxels), mmap.mmap)
    assert mapped.is_equal(whole)
    assert [entry.name for entry in tmp_path.iterdir()] == [f"a{ending}"]


def test_unpacking_can_be_stopped(scan: Volume, tmp_path: Path) -> None:
    save(scan, tmp_path / "a.nii.gz")
    with pytest.raises(Cancelled):
        load(tmp_path / "a.nii.gz", scratch=tmp_path, monitor=Monitor(cancel=lambda: True))


def test_extremes_are_those_of_the_whole(scan: Volume) -> None:
    assert extremes(scan.voxels) == (scan.voxels.min(), scan.voxels.max())
    assert np.isnan(extremes(np.array([[[1.0, np.nan]]]))[0])
