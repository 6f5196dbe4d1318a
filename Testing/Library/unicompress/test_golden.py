"""Files of every released format open for ever."""

from __future__ import annotations

import numpy as np
import pytest

from MedEnhanceLib.unicompress import coders, decompress, inspect_container
from MedEnhanceLib.unicompress.container import VERSION

from .golden import FOLDER, GEOMETRY, MAX_ERROR, golden_volume, golden_voxels

VERSIONS = ["1.0"]


def test_this_version_has_its_files() -> None:
    assert VERSIONS[-1] == ".".join(map(str, VERSION)), "write golden files for the new format"


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
        assert (frames[coders.CONSTANT] == -3).all()
        for kind in set(coders.CODERS) - {coders.CONSTANT}:
            assert np.array_equal(frames[kind], golden_voxels()), coders.block_type_name(kind)
        assert np.abs(frames[coders.WAVELET].astype(int) - golden_voxels()).max() <= 1


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.ucv")) < 60_000
