"""What an estimate says, against what compressing then gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.late_cancel import LateCancel

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.unicompress import CompressConfig, compress, estimate


@pytest.fixture(scope="module")
def template() -> Volume:
    return io.load(resource_folder("samples") / "mni152_t1.nii.gz")


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{"lossless": True}, {"max_error": 2.0}, {"ratio": 3.0}, {"ratio": 12.0}], ids=str
)
def test_an_estimate_comes_near_what_compressing_gives(
    template: Volume, fields: dict[str, Any], tmp_path: Path
) -> None:
    config = CompressConfig(**fields, speed="fast")
    volume = template.crop(k=slice(72, 108))
    found = estimate(volume, config)
    done = compress(volume, tmp_path / "a.ucv", config)
    assert found.ratio == pytest.approx(done.ratio, rel=0.12)
    assert found.file_bytes == pytest.approx(done.file_bytes, rel=0.12)
    assert found.raw_bytes == done.raw_bytes
    assert found.lossless is (done.max_error == 0)
    assert 0 < found.share <= 1
    assert found.blocks >= 1
    assert found.psnr == (None if done.psnr is None else pytest.approx(done.psnr, abs=2.5))
    assert 0.3 * done.max_error <= found.max_error <= 2 * done.max_error


@pytest.mark.parametrize("fields", [{"lossless": True}, {"max_error": 3.0}], ids=str)
def test_where_every_block_is_coded_the_estimate_is_the_result(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 200, (5, 40, 44)).astype(np.int16)
    volume, config = Volume(noise, modality="OT"), CompressConfig(**fields, speed="fast")
    found, done = estimate(volume, config), compress(volume, tmp_path / "a.ucv", config)
    assert found.share == 1
    assert found.file_bytes == pytest.approx(done.file_bytes, rel=0.02)
    assert found.max_error == done.max_error


def test_what_compress_would_refuse_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 9999, (4, 8, 8)).astype(np.int16)
    with pytest.raises(ConfigError, match="cannot be reached"):
        estimate(Volume(noise), CompressConfig(ratio=5000))
    with pytest.raises(InputError, match="labels"):
        estimate(Volume(noise, modality="SEG"), CompressConfig(ratio=2))


def test_an_estimate_stops_within_two_seconds(template: Volume) -> None:
    request = LateCancel()
    with pytest.raises(Cancelled):
        estimate(template, CompressConfig(ratio=20), monitor=Monitor(cancel=request))
    assert request.seconds() < 2
