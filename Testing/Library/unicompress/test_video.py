"""Blocks as videos: what is stored comes back, at any extents, and forged bytes do no harm."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress import CompressConfig, compress
from MedEnhanceLib.unicompress.allocation import lossy
from MedEnhanceLib.unicompress.allocation.coding_task import CodingTask, Room
from MedEnhanceLib.unicompress.codec_models import DecodeContext
from MedEnhanceLib.unicompress.codecs.video import video
from MedEnhanceLib.unicompress.codecs.video.av1 import LIBAOM, SVT, Encoder, encoders
from MedEnhanceLib.unicompress.decode import FOREIGN_ERRORS


def smooth(shape: tuple[int, int, int], dtype: str = "i2") -> Voxels:
    """Waves with noise, −300 to 300 and a little."""
    rng = np.random.default_rng(4)
    k, j, i = np.indices(shape)
    waves = 150 * np.sin(j / 9 + k / 5) + 150 * np.cos(i / 7)
    return (waves + rng.normal(0, 3, shape)).astype(dtype)


def context_of(block: Voxels) -> DecodeContext:
    return DecodeContext(block.dtype, (block.min().item(), block.max().item()))


@pytest.fixture(scope="module", params=[LIBAOM, SVT], ids=lambda encoder: f"{encoder.bits} bits")
def encoder(request: pytest.FixtureRequest) -> Encoder:
    if request.param not in encoders():
        pytest.skip("PyAV is not installed")
    assert isinstance(request.param, Encoder)
    return request.param


@pytest.fixture(scope="module")
def coded(encoder: Encoder) -> video.Video:
    return video.encode(smooth((5, 71, 66)), 8.0, speed="fast", encoder=encoder)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        *(((1, 20, 24), "i2"), ((1, 2, 1), "u8"), ((2, 1, 40), "i1"), ((3, 7, 5), "f8")),
        *(((4, 33, 17), "u2"), ((5, 16, 65), "f2")),
    ],
    ids=str,
)
def test_every_extent_and_type_comes_back(shape: tuple[int, int, int], dtype: str) -> None:
    block = (smooth(shape, "f8") / 6 + 60).astype(dtype)
    made = video.encode(block, 1.0, speed="fast")
    back = video.decode(made.data, shape, context_of(block))
    assert (back.shape, back.dtype) == (shape, block.dtype)
    assert np.abs(back.astype(float) - block.astype(float)).max() < 8
    assert block.min() <= back.min()
    assert back.max() <= block.max()


@pytest.mark.parametrize("shape", [(4, 71, 66), (6, 71, 66), (5, 73, 66), (5, 71, 4000)], ids=str)
def test_a_stream_of_another_size_is_refused(
    coded: video.Video, shape: tuple[int, int, int]
) -> None:
    """What else may be forged is the fuzzer's."""
    with pytest.raises(FOREIGN_ERRORS):
        video.decode(coded.data, shape, DecodeContext(np.dtype("i2"), (-400, 400)))


def test_without_pyav_a_video_of_10_bits_says_what_it_needs(
    coded: video.Video, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    again = video.Video.read(coded.data, (5, 71, 66))
    if encoder is LIBAOM:
        assert again.frames.shape == (5, 71, 66)
        return
    with pytest.raises(DependencyError, match="10 bits needs the package av"):
        assert again.frames is None


def test_without_pyav_libaom_codes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lossy, "encoders", lambda: (LIBAOM,))
    voxels = smooth((16, 96, 96))
    task = CodingTask(voxels, context_of(voxels), "fast", 1, Monitor())
    coded = lossy.code_to_ratio(task, Room(ratio=30, bytes=9000))
    assert 0.9 * 9000 < coded.bytes <= 9000


@pytest.mark.slow
def test_much_background_is_coded_by_the_encoder_that_suits_it(tmp_path: Path) -> None:
    if SVT not in encoders():
        pytest.skip("PyAV is not installed")
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in (48, 96, 96)), indexing="ij")
    texture = scipy.ndimage.gaussian_filter(np.random.default_rng(0).normal(size=k.shape), 2.0)
    brain = np.where(np.hypot(np.hypot(k, j), i) < 0.5, 700 + 150 * texture / texture.std(), 0)
    volume, config = Volume(brain.astype(np.int16), modality="MR"), CompressConfig(ratio=60)

    def psnr(background: float) -> float:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lossy, "_TRIAL_BACKGROUND", background)
            found = compress(volume, tmp_path / f"{background}.ucv", config).psnr
        assert found is not None
        return found

    without_a_trial = psnr(2.0)
    assert psnr(0.5) > without_a_trial + 1
