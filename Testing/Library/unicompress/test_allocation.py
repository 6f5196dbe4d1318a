"""Low ratios take equal steps, others videos; a search ends near its goal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress
from MedEnhanceLib.unicompress.allocation import lossy


@pytest.fixture(scope="module")
def noisy() -> Volume:
    """[16, 60, 64]: waves with noise of 40, about 7.4 bits a voxel."""
    rng = np.random.default_rng(2)
    k, j, i = np.indices((16, 60, 64))
    values = 300 * np.sin(j / 9 + k / 5) + 300 * np.cos(i / 7) + rng.normal(0, 40, k.shape)
    return Volume(np.rint(values).astype(np.int16))


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [2.5, 4.0, 6.0])
def test_equal_steps_win_at_low_ratios(
    noisy: Volume, wanted: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CompressConfig(ratio=wanted)
    done = compress(noisy, tmp_path / "a.ucv", config)
    assert done.ratio >= wanted
    error = np.abs(decompress(done.path).voxels.astype(int) - noisy.voxels)
    assert error.max() == done.max_error
    monkeypatch.setattr(lossy, "code_within", lambda *_, **__: None)
    other = compress(noisy, tmp_path / "b.ucv", config)
    assert done.psnr is not None
    assert other.psnr is not None
    assert done.psnr >= other.psnr
    if wanted < 5:
        assert done.psnr > other.psnr + 0.5
        assert done.max_error < other.max_error


@pytest.mark.slow
def test_high_ratios_do_without(noisy: Volume, tmp_path: Path) -> None:
    done = compress(noisy, tmp_path / "a.ucv", CompressConfig(ratio=40.0, speed="fast"))
    assert set(done.block_types) == {"video (AV1)"}
