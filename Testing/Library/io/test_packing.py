"""Files of gzip are one member, whatever threads made it: every reader reads all of it."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import packing


@pytest.fixture
def packed(head: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A volume in some thirty blocks."""
    monkeypatch.setattr(packing, "_BLOCK_BYTES", 1000)
    io.save(head, tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


def test_all_readers_read_all_blocks(packed: Path, head: Volume) -> None:
    assert io.load(packed).is_equal(head)
    np.testing.assert_array_equal(np.asarray(nibabel.load(packed).dataobj).T, head.voxels)
    image = SimpleITK.ReadImage(str(packed))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), head.voxels)
    first = zlib.decompressobj(zlib.MAX_WBITS | 16)  # some readers stop after one member
    assert first.decompress(packed.read_bytes()) == gzip.decompress(packed.read_bytes())
    assert (first.eof, first.unused_data) == (True, b"")


def test_the_number_of_threads_changes_no_byte(
    packed: Path, head: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threads in (1, 2, 7):
        monkeypatch.setattr(packing, "cpu_threads", lambda count=threads: count)
        path = packed.with_name(f"{threads}.nii.gz")
        io.save(head, path)
        assert path.read_bytes() == packed.read_bytes()


def test_blocks_cost_less_than_one_percent(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = np.cumsum(rng.integers(-3, 4, (6, 512, 512)), axis=2).astype(np.int16)
    io.save(Volume(voxels, modality="CT"), tmp_path / "a.nii.gz")
    packed = (tmp_path / "a.nii.gz").read_bytes()
    whole = gzip.compress(gzip.decompress(packed), packing._LEVEL)
    assert len(packed) < 1.01 * len(whole)
