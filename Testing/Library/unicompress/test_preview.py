"""A container opened as a preview: the middle planes are true, the rest is empty and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress, decompress_preview
from MedEnhanceLib.unicompress.container import Chunk, Container

from .test_damage import chunks_of, rebuild


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


class TestBegun:
    """A download that is still running: the first layer is enough, and nothing less is."""

    @pytest.fixture
    def layered(self, tmp_path: Path) -> Path:
        """A file of one block and a second layer, which no block type writes yet."""
        path = tmp_path / "a.ucv"
        rng = np.random.default_rng(0)
        volume = Volume(rng.integers(0, 999, (4, 30, 30)).astype(np.int16))
        compress(volume, path, CompressConfig(lossless=True, speed="fast"))
        rebuild(path, chunks=[*chunks_of(path), Chunk(0, 17, bytes(2000), layer=1)])
        return path

    def test_the_first_layer_is_enough(self, layered: Path) -> None:
        with Container(layered) as opened:
            second = opened.chunks[1]
        whole, raw = decompress(layered, layers=1), layered.read_bytes()
        for size in (second.offset, second.offset + 900, len(raw) - 500, len(raw) - 1, len(raw)):
            layered.write_bytes(raw[:size])
            events: list[Event] = []
            seen, share = decompress_preview(layered, monitor=Monitor(events.append))
            assert np.array_equal(seen.voxels, whole.voxels)
            assert share == 1
            assert "preview" in seen.history[-1]
            assert any(event.kind == "warning" for event in events) == (size < len(raw))

    def test_less_is_refused_as_ever(self, layered: Path) -> None:
        with Container(layered) as opened:
            first, second = opened.chunks
        raw = layered.read_bytes()
        for size in (0, 50, 100, first.offset + 9, second.offset - 1):
            layered.write_bytes(raw[:size])
            with pytest.raises(CodecError):
                decompress_preview(layered)

    def test_other_damage_is_refused_as_ever(self, layered: Path) -> None:
        raw = bytearray(layered.read_bytes())
        with Container(layered) as opened:
            place = opened.chunks[0].offset + 5
        for damaged, cut in ((3, 0), (70, 0), (place, 0), (3, 100), (70, 100), (place, 100)):
            content = bytearray(raw)
            content[damaged] ^= 1
            layered.write_bytes(content[: len(raw) - cut])
            with pytest.raises(CodecError):
                decompress_preview(layered)
