"""Implicit blocks in a file: forced, refined layer by layer, chosen only where they win."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import CodecError, ConfigError, InputError, ModelError
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress, recover
from MedEnhanceLib.unicompress.codecs.lossless import IMPLICIT
from MedEnhanceLib.unicompress.container import Container

from .. import minimal_reader
from .conftest import waves

pytestmark = pytest.mark.usefixtures("shipped")
RATIO = 20.0


@pytest.fixture
def volume() -> Volume:
    return waves((70, 60, 50))


@pytest.fixture
def file(volume: Volume, tmp_path: Path, without_parity: None) -> Path:
    path = tmp_path / "a.ucv"
    config = CompressConfig(ratio=RATIO, block_type="implicit", embed_model=True)
    compress(volume, path, config)
    return path


@pytest.mark.slow
def test_a_forced_block_type_keeps_the_ratio(volume: Volume, file: Path) -> None:
    assert file.stat().st_size <= volume.voxels.nbytes / RATIO
    with Container(file) as container:
        kinds = {chunk.kind for chunk in container.chunks if chunk.block != 0xFFFFFFFF}
        layers = [chunk.layer for chunk in container.chunks if chunk.kind == IMPLICIT]
    assert kinds == {IMPLICIT}
    assert layers == sorted(layers)
    assert decompress(file).voxels.shape == volume.voxels.shape


@pytest.mark.slow
@pytest.mark.parametrize(("thickness", "modality"), [(1.0, "CT"), (4.0, "MR")])
def test_a_reader_made_from_the_page_gives_the_same_voxels(
    thickness: float, modality: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.ucv"
    config = CompressConfig(ratio=RATIO / 4, block_type="implicit", embed_model=True)
    compress(waves((30, 70, 66), thickness, modality), path, config)
    with Container(path) as container:
        layers = {chunk.layer for chunk in container.chunks if chunk.kind == IMPLICIT}
    assert len(layers) > 1
    _, voxels, proved = minimal_reader.read(path)
    assert proved
    assert np.array_equal(voxels, decompress(path).voxels)


@pytest.mark.slow
def test_parts_are_parts_of_the_whole(file: Path) -> None:
    whole = decompress(file).voxels
    part = decompress(file, region=(slice(60, 70), slice(5, 9))).voxels
    assert np.array_equal(part, whole[60:70, 5:9])


@pytest.mark.slow
def test_fewer_layers_are_a_preview(file: Path) -> None:
    coarse = decompress(file, layers=1)
    assert "from 1 layers" in coarse.history[-1]
    assert not np.array_equal(coarse.voxels, decompress(file).voxels)


@pytest.mark.slow
def test_a_file_without_its_model_says_what_is_missing(volume: Volume, tmp_path: Path) -> None:
    path = tmp_path / "b.ucv"
    with pytest.raises(ModelError, match="not on this machine"):  # verified before it appears
        compress(volume, path, CompressConfig(ratio=RATIO, block_type="implicit"))
    assert not path.exists()


@pytest.mark.slow
def test_a_damaged_layer_is_named_and_the_other_block_recovered(file: Path, tmp_path: Path) -> None:
    with Container(file) as container:
        chunk = next(c for c in container.chunks if c.layer == 1 and c.block == 1)
    data = bytearray(file.read_bytes())
    data[chunk.offset] ^= 1
    damaged = tmp_path / "damaged.ucv"
    damaged.write_bytes(data)
    with pytest.raises(CodecError, match=f"chunk {chunk.index}"):
        decompress(damaged)
    found, report = recover(damaged)
    assert [one.block for one in report.lost] == [1]
    assert np.array_equal(found.voxels[:30], decompress(file).voxels[:30])


def test_floats_and_other_modalities_are_refused(volume: Volume, tmp_path: Path) -> None:
    floats = volume.with_voxels(volume.voxels.astype(np.float32))
    with pytest.raises(InputError, match="no implicit blocks"):
        compress(floats, tmp_path / "c.ucv", CompressConfig(ratio=9, block_type="implicit"))


def test_a_ratio_out_of_reach_says_what_is_reached(volume: Volume, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="smallest file"):
        compress(volume, tmp_path / "c.ucv", CompressConfig(ratio=9999, block_type="implicit"))


def test_options_of_ratio_mode_are_for_ratio_mode() -> None:
    with pytest.raises(ConfigError, match="for ratio"):
        CompressConfig(lossless=True, block_type="implicit")
    with pytest.raises(ConfigError, match="block_type"):
        CompressConfig(ratio=3, block_type="wavelet")  # type: ignore[arg-type]
