"""The implicit network in a file, its training, and the parts that both are made of."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from Library.unicompress.fuzzing import chunks_of
from Library.unicompress.test_damage import rebuild
from safetensors.numpy import load

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, CodecError, ConfigError, InputError, ModelError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.unicompress.config import ImplicitConfig
from MedEnhanceLib.training.unicompress.two_stages import ImplicitTrainer, train
from MedEnhanceLib.unicompress import (
    CompressConfig,
    compress,
    decompress,
    inspect_container,
    recover,
)
from MedEnhanceLib.unicompress.codec_models import CodecModel, shipped_model
from MedEnhanceLib.unicompress.codecs.implicit.decoder import Decoder, positions_of
from MedEnhanceLib.unicompress.codecs.implicit.settings import DecoderConfig
from MedEnhanceLib.unicompress.codecs.implicit.weights import Reader
from MedEnhanceLib.unicompress.container import Container

from .conftest import waves

RATIO = 30.0


@pytest.mark.usefixtures("shipped")
class TestFile:
    """Implicit blocks in a file, on request."""

    @pytest.fixture
    def volume(self) -> Volume:
        return waves((70, 60, 50))

    @pytest.fixture
    def file(self, volume: Volume, tmp_path: Path) -> Path:
        path = tmp_path / "a.ucv"
        compress(volume, path, CompressConfig(ratio=RATIO, block_type="implicit", embed_model=True))
        return path

    def test_a_forced_block_type_keeps_the_ratio_and_says_that_it_is_not_exact(
        self, volume: Volume, file: Path
    ) -> None:
        assert file.stat().st_size <= volume.voxels.nbytes / RATIO
        card = inspect_container(file)
        assert set(card["blocks"]) == {"implicit"}
        with Container(file) as container:
            assert container.header["exact"] is False
        whole = decompress(file).voxels
        error = np.sqrt(np.mean((whole.astype(float) - volume.voxels) ** 2))
        assert error < 0.6 * volume.voxels.std()
        part = decompress(file, region=(slice(60, 70), slice(5, 9))).voxels
        assert np.abs(part.astype(int) - whole[60:70, 5:9]).max() <= 1

    def test_forged_codes_are_refused_and_the_other_block_recovered(self, file: Path) -> None:
        whole = decompress(file).voxels
        chunks = chunks_of(file)
        number = next(n for n, chunk in enumerate(chunks) if chunk.block == 1)
        data = bytes(chunks[number].data)
        for forged in (data[:9], data[:-3], b"\2" + data[1:], data[:1] + b"\77" + data[2:]):
            chunks[number] = replace(chunks[number], data=forged)
            rebuild(file, chunks=chunks)
            with pytest.raises(CodecError, match=f"chunk {number}"):
                decompress(file)
        volume, report = recover(file)
        assert [lost.block for lost in report.lost] == [1]
        assert np.array_equal(volume.voxels[:30], whole[:30])

    def test_what_it_cannot_code_or_nobody_could_read_is_refused(
        self, volume: Volume, tmp_path: Path
    ) -> None:
        with pytest.raises(ModelError, match="not on this machine"):  # verified before it appears
            compress(volume, tmp_path / "c.ucv", CompressConfig(ratio=30, block_type="implicit"))
        assert list(tmp_path.iterdir()) == []
        floats = volume.with_voxels(volume.voxels.astype(np.float32))
        with pytest.raises(InputError, match="cannot code MR"):
            compress(floats, tmp_path / "c.ucv", CompressConfig(ratio=9, block_type="implicit"))
        with pytest.raises(ConfigError, match="cannot be reached"):
            compress(volume, tmp_path / "c.ucv", CompressConfig(ratio=9999, block_type="implicit"))
        with pytest.raises(ConfigError, match="requires ratio"):
            CompressConfig(lossless=True, block_type="implicit")


@pytest.mark.parametrize("modality", ["CT", "MR", "EM"])
def test_the_models_that_ship_are_whole(modality: str) -> None:
    model = shipped_model("implicit", modality)
    assert model is not None
    assert len(Reader(model).branches) == 9


def test_a_model_that_lacks_something_is_refused(models: dict[str, CodecModel]) -> None:
    whole = models["implicit"]
    for old, new in ((b"gain.bias", b"gain.bios"), (b"0011", b"0021")):
        data = whole.data.replace(old, new)
        with pytest.raises(ModelError, match="cannot be"):
            Reader(replace(whole, data=data))


@pytest.mark.slow
def test_a_training_stopped_in_either_stage_goes_on_to_the_same_state(
    smoke: ImplicitConfig,
    files: list[Path],
    models: dict[str, CodecModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = ImplicitTrainer.step
    for stop in (8, smoke.teacher_steps + 5):
        stopped = threading.Event()

        def watched(
            trainer: ImplicitTrainer,
            number: int,
            stop: int = stop,
            stopped: threading.Event = stopped,
        ) -> dict[str, float]:
            if number == stop:
                stopped.set()
            return step(trainer, number)

        monkeypatch.setattr(ImplicitTrainer, "step", watched)
        with pytest.raises(Cancelled, match="checkpoint"):
            train(smoke, files, tmp_path, Monitor(cancel=stopped))
    monkeypatch.undo()
    trained = train(smoke, files, tmp_path)
    # The order of the metadata in a file is not that of another process.
    for path, model in zip(trained, models.values(), strict=True):
        arrays, before = load(path.read_bytes()), load(model.data)
        assert arrays.keys() == before.keys()
        assert all(np.array_equal(arrays[name], before[name]) for name in arrays)


def test_no_volumes_and_shares_beyond_one_are_errors(smoke: ImplicitConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no volumes of this modality"):
        train(smoke, [], tmp_path)
    with pytest.raises(ConfigError, match="joint is more than 1"):
        ImplicitConfig(match=0.5, joint=0.6)


@pytest.mark.parametrize("thick", [False, True])
def test_a_whole_block_is_what_its_voxels_are_one_by_one(thick: bool) -> None:
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(hidden=8, depth=2, scaled=1), 16)
    low, high = torch.randn(2, 1, 16, 4, 3, 2)
    shape = (13, 21, 15)
    whole = decoder.decode(low, high, shape, thick=thick)
    voxels = torch.cartesian_prod(*map(torch.arange, shape))
    with torch.no_grad():
        alone = decoder(low, high, positions_of(voxels, thick=thick)[None, :, None]).values
    torch.testing.assert_close(whole, alone.view(shape), atol=1e-4, rtol=0)
