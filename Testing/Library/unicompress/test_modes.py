"""Each compression mode meets its target, or refuses beforehand."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, DependencyError, InputError
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress

from .conftest import Write
from .test_round_trip import same_bits


def noisy(sigma: float, contrast: float = 40) -> Volume:
    k, j, i = np.mgrid[:24, :72, :72]
    smooth = 60 + contrast * np.sin(j / 30) * np.cos(i / 25) + k / 4
    noise = np.random.default_rng(0).normal(0, sigma, smooth.shape)
    return Volume((smooth + noise).astype("i2"), modality="CT", units="HU", source="scan")


def test_report_and_history_state_what_was_reached(scan: Volume, tmp_path: Path) -> None:
    done = compress(scan, tmp_path / "a.ucv", CompressConfig(max_error=3))
    back = decompress(tmp_path / "a.ucv")
    error = back.voxels.astype(float) - scan.voxels
    peak = float(scan.voxels.max() - scan.voxels.min())
    assert done.max_error == 3 == np.abs(error).max()
    assert done.psnr == pytest.approx(10 * math.log10(peak**2 / np.mean(error**2)))
    assert done.psnr_peak == peak
    assert done.verified
    assert back.history[0].startswith("DERIVED: compressed with a largest error of 3 HU")


class TestRatio:
    @pytest.mark.slow
    def test_it_spends_what_it_may(self, scan: Volume, tmp_path: Path) -> None:
        """All but 6 %: from its second coding on the search ends within two tolerances, of 2 %
        each, and a volume of so much noise leaves most of the 2 % unused that filters may take.
        """
        large = np.tile(scan.voxels, (2, 3, 3))
        noise = np.random.default_rng(0).normal(0, 4, large.shape).astype(np.int16)
        done = compress(Volume(large + noise), tmp_path / "a.ucv", CompressConfig(ratio=12))
        assert 12 <= done.ratio < 12 * 1.02**3

    def test_where_lossless_fits_nothing_is_lost(self, scan: Volume, tmp_path: Path) -> None:
        done = compress(scan, tmp_path / "a.ucv", CompressConfig(ratio=1.5))
        assert (done.psnr, done.max_error) == (None, 0)
        assert same_bits(decompress(tmp_path / "a.ucv").voxels, scan.voxels)

    def test_the_progress_of_a_ratio_never_goes_back(self, tmp_path: Path) -> None:
        """Verifying takes a few hundredths of the time; before it, nearly all is done."""
        seen: list[tuple[str, float]] = []

        def listen(event: Event) -> None:
            if event.kind == "progress":
                seen.append((event.fields["stage"], event.fields["fraction"]))

        config = CompressConfig(ratio=16, threads=1)
        compress(noisy(9, contrast=900), tmp_path / "a.ucv", config, monitor=Monitor(listen))
        fractions = [fraction for _, fraction in seen]
        assert fractions == sorted(fractions)
        assert max(fraction for stage, fraction in seen if stage != "verifying the file") > 0.9

    def test_a_ratio_out_of_reach_is_refused(self, tmp_path: Path) -> None:
        volume = Volume(np.random.default_rng(0).integers(0, 99, (3, 5, 7), np.int16))
        with pytest.raises(ConfigError, match="ratio 64 cannot be reached") as caught:
            compress(volume, tmp_path / "a.ucv", CompressConfig(ratio=64))
        assert caught.value.hint
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"lossless": True, "ratio": 2.0},
        {"max_error": -1.0},
        {"max_error": math.nan},
        {"ratio": 0.5},
        {"lossless": True, "speed": "warp"},
    ],
    ids=str,
)
def test_a_config_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        CompressConfig(**wrong)
    assert caught.value.hint


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is double here")
def test_a_type_that_is_not_held_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match=r"longdouble|float128") as caught:
        write(Volume(np.zeros((1, 2, 3), np.longdouble)), lossless=True)
    assert "float64" in caught.value.hint


def test_a_missing_codec_is_named(
    scan: Volume, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(scan, lossless=True, speed="fast")
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for call in (lambda: write(scan, "b.ucv", lossless=True), lambda: decompress(path)):
        with pytest.raises(DependencyError, match="imagecodecs") as caught:
            call()
        assert "pip install" in caught.value.hint


@pytest.mark.parametrize("mode", [{"max_error": 1}, {"ratio": 8}, {"psnr": 40}])
def test_labels_are_not_compressed_with_a_loss(mode: dict[str, float], tmp_path: Path) -> None:
    """Also where nothing but their values says that they are labels."""
    labels, few = np.zeros((10, 30, 30), np.uint8), np.zeros((3, 5, 7), np.uint8)
    labels[3:7, 5:20, 5:20], labels[4:6, 8:12, 8:12] = 2, 5
    for volume in (Volume(labels), Volume(few, modality="SEG"), Volume(few.astype(bool))):
        with pytest.raises(InputError, match="labels"):
            compress(volume, tmp_path / "a.ucv", CompressConfig(**mode))
    assert list(tmp_path.iterdir()) == []
