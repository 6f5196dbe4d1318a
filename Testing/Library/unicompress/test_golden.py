"""Files of every released format open for ever."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress import decompress, inspect_container
from MedEnhanceLib.unicompress.codecs import lossless
from MedEnhanceLib.unicompress.container import VERSION

from .golden import FOLDER, GEOMETRY, MAX_ERROR, golden_volume, golden_voxels

VERSIONS = ["1.0", "1.1", "1.2"]
#: SHA-256 of every file as it was released. A line is never changed: a reader that cannot open an
#: old file is wrong, not the file. New versions add lines.
RELEASED = {
    "v1.0-float": "9a564b158bd5fd1b34914a4b51f360083d772f3955a5bb76190a9a991ba3f454",
    "v1.0-lossless": "24b51e298e5f43576c4c59a5b96d30680055e4a671b2c63400f3dae436df1519",
    "v1.0-max-error": "5545d5bc6823bfbcd18b05444bc3076faf7c7f828a53ff39bc5bb8280894be0e",
    "v1.0-ratio": "697ca79377d8b67eb8b0c145775b01b03a0291e5fcff712c304b1aaed96e4a40",
    "v1.0-types": "99ff15df9d7ecd8b718ca9943087f5d38b56ae83a1446a93002583089349748b",
    "v1.1-float": "465d05843d390bc6a5ca2c7859cde98a34a5ae2152702e5a7932ab79b1b5573a",
    "v1.1-lossless": "878a14f72ad561013f458937e29f9ac230f6c80991f8bb529d3914857aa4e099",
    "v1.1-max-error": "d6d782e7450b12bffdb0263bd86a4dcef6909bb139bdc906b089e8bf91377507",
    "v1.1-models": "6aaee628871ef7c5de8c55864bcaaa186d7d02e6fd3bb7272e3eed4e41781010",
    "v1.1-ratio": "56131c6e006ddbbefdc6560c8635f9feb75a0d05814ba0ac6015b5b4edc30207",
    "v1.1-types": "6d5cba4a45d9715be8a3b3ea93447acd4e01de81fdec88c18a2fd9c33c79c8db",
    "v1.1-video-10-bit": "65f1091be2fe4b7b2d76401e270068d0301c3270299845dd91b39f4e448711e5",
    "v1.2-float": "f617cb539e17048f315d5ea45dfe8bda8f4652cca445a4591ebb824cf5d6c6ec",
    "v1.2-lossless": "1c0b2007233f3e40a1c15a6b26dbed477ffe91296ce55e390ff7881f1122b464",
    "v1.2-max-error": "fc58e930910d74539b9f7a60eea0c97d8db0e0d472effc2f1fecb72b978e4595",
    "v1.2-models": "cd58f6b7c838158510209d66391633483f602b858f8152f91e83e6ccdd40bac9",
    "v1.2-ratio": "c03dc6a6da065695f9229b21914c9dab3a93bbc5de474cec6d2d55e4808c36d2",
    "v1.2-types": "383557dfbef56dcbd54993240de1c6f29781ae785852898cb5b51c1d6a1b57d0",
    "v1.2-video-10-bit": "950480895e081fa532e2c4d327728ebeabce9629e94e1e3fcdb346509dc476e7",
}


def test_this_version_has_its_files() -> None:
    assert VERSIONS[-1] == ".".join(map(str, VERSION)), "write golden files for the new format"


def test_no_released_file_is_ever_written_anew() -> None:
    files = {path.stem: path.read_bytes() for path in FOLDER.glob("*.ucv")}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == RELEASED


@pytest.mark.parametrize("version", VERSIONS)
class TestGolden:
    def test_lossless(self, version: str) -> None:
        volume = decompress(FOLDER / f"v{version}-lossless.ucv")
        assert volume.is_equal(golden_volume())
        assert (volume.modality, volume.units, volume.geometry) == ("CT", "HU", GEOMETRY)
        assert volume.history == ("made for a test",)

    def test_max_error(self, version: str) -> None:
        volume = decompress(FOLDER / f"v{version}-max-error.ucv")
        assert np.abs(volume.voxels.astype(int) - golden_voxels()).max() <= MAX_ERROR
        assert "DERIVED" in volume.history[-1]

    def test_ratio(self, version: str) -> None:
        path = FOLDER / f"v{version}-ratio.ucv"
        error = decompress(path).voxels.astype(float) - golden_voxels()
        psnr = inspect_container(path)["measured"]["psnr_db"]
        peak = np.ptp(golden_voxels().astype(float))
        assert 10 * np.log10(peak**2 / np.mean(error**2)) == pytest.approx(psnr, abs=0.2)

    def test_float(self, version: str) -> None:
        volume = decompress(FOLDER / f"v{version}-float.ucv")
        assert np.array_equal(volume.voxels, golden_voxels("<f4") / np.float32(3))

    def test_every_block_type(self, version: str) -> None:
        frames = decompress(FOLDER / f"v{version}-types.ucv").voxels
        assert (frames[lossless.CONSTANT] == -3).all()
        for kind in set(lossless.CODERS) - {lossless.CONSTANT}:
            assert np.array_equal(frames[kind], golden_voxels()), lossless.block_type_name(kind)
        assert np.abs(frames[lossless.WAVELET].astype(int) - golden_voxels()).max() <= 1


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_blocks_that_need_models(version: str) -> None:
    """The models that released files name are kept, under their hashes, whatever ships later."""
    path = FOLDER / f"v{version}-models.ucv"
    frames = decompress(path).voxels
    assert np.array_equal(frames[1], golden_voxels())
    found = inspect_container(path)
    assert set(found["models"]) == {"restoration", "predictor", "implicit"}


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_a_video_of_10_bits(version: str) -> None:
    """Its header names the hash of its voxels, which reading proves; PyAV is not needed."""
    volume = decompress(FOLDER / f"v{version}-video-10-bit.ucv")
    assert volume.voxels.shape == (6, 67, 65)
    error = np.abs(volume.voxels[:, :28, :24].astype(int) - golden_voxels())
    assert np.median(error) < 40


@pytest.mark.parametrize("version", VERSIONS[2:])
@pytest.mark.parametrize(("name", "run"), [("lossless", 40), ("types", 1024)])
def test_damage_that_parity_repairs(version: str, name: str, run: int, tmp_path: Path) -> None:
    """A small file has one row, whose place is found by trying; the other has pages of 1024."""
    whole = (FOLDER / f"v{version}-{name}.ucv").read_bytes()
    path = tmp_path / "a.ucv"
    path.write_bytes(whole[:1024] + bytes(run) + whole[1024 + run :])
    warnings: list[str] = []
    monitor = Monitor(lambda event: warnings.append(event.fields.get("message", "")))
    back = decompress(path, monitor=monitor)
    assert back.is_equal(decompress(FOLDER / f"v{version}-{name}.ucv"))
    assert any("repaired from its parity" in line for line in warnings)


def test_the_files_are_small() -> None:
    for version in VERSIONS:
        assert sum(path.stat().st_size for path in FOLDER.glob(f"v{version}-*.ucv")) < 35_000
    assert sum(path.stat().st_size for path in FOLDER.glob("*.ucv")) < 30_000 * len(VERSIONS)
