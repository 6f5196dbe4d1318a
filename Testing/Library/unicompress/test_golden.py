"""Files of every released format open for ever."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from MedEnhanceLib.unicompress import decompress, inspect_container
from MedEnhanceLib.unicompress.codecs import lossless
from MedEnhanceLib.unicompress.container import VERSION

from .golden import FOLDER, GEOMETRY, MAX_ERROR, golden_volume, golden_voxels

VERSIONS = ["1.0", "1.1"]
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


def test_blocks_that_need_models() -> None:
    """The models that released files name are kept, under their hashes, whatever ships later."""
    path = FOLDER / "v1.1-models.ucv"
    frames = decompress(path).voxels
    assert np.array_equal(frames[1], golden_voxels())
    found = inspect_container(path)
    assert set(found["models"]) == {"restoration", "predictor", "implicit"}


def test_a_video_of_10_bits() -> None:
    """Its header names the hash of its voxels, which reading proves; PyAV is not needed."""
    volume = decompress(FOLDER / "v1.1-video-10-bit.ucv")
    assert volume.voxels.shape == (6, 67, 65)
    error = np.abs(volume.voxels[:, :28, :24].astype(int) - golden_voxels())
    assert np.median(error) < 40


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.ucv")) < 60_000
