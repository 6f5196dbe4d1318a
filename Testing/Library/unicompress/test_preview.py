"""A container opened as a preview: the middle planes are true, the rest is empty and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress, decompress_preview


@pytest.fixture(scope="module", params=["volume", "sequence"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = (20, 600, 540) if request.param == "volume" else (2, 9, 600, 540)
    steps = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    voxels = (steps % 997 - 30).astype(np.int16)
    path = tmp_path_factory.mktemp("preview") / "a.ucv"
    compress(Volume(voxels), path, CompressConfig(lossless=True, speed="fast"))
    return path


def test_the_three_middle_planes_are_true(file: Path) -> None:
    seen, share = decompress_preview(file)
    whole = decompress(file)
    assert (seen.shape, seen.dtype, seen.geometry) == (whole.shape, whole.dtype, whole.geometry)
    first, true = seen.frame(0).voxels, whole.frame(0).voxels
    k, j, i = (extent // 2 for extent in true.shape)
    assert np.array_equal(first[k], true[k])
    assert np.array_equal(first[:, j], true[:, j])
    assert np.array_equal(first[:, :, i], true[:, :, i])
    assert 0 < share < 1
    assert "preview" in seen.history[-1]


def test_the_rest_holds_the_lowest_value(file: Path) -> None:
    seen, whole = decompress_preview(file)[0].voxels, decompress(file).voxels
    assert set(np.unique(seen[seen != whole])) == {-30}
    assert 0 < (seen != whole).mean() < 0.9


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    small = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    compress(small, tmp_path / "a.ucv", CompressConfig(lossless=True))
    seen, share = decompress_preview(tmp_path / "a.ucv")
    assert seen.is_equal(small)
    assert (share, seen.history) == (1.0, ())


def test_damage_is_reported_as_in_a_full_read(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    (tmp_path / "cut.ucv").write_bytes(data[: len(data) // 2])
    with pytest.raises(CodecError):
        decompress_preview(tmp_path / "cut.ucv")
