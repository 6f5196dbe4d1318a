"""Blocks as videos: what is stored comes back, at any extents, and forged bytes do no harm."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.allocation import videos
from MedEnhanceLib.unicompress.allocation.task import Task
from MedEnhanceLib.unicompress.allocation.videos import VideoTask
from MedEnhanceLib.unicompress.blocks import Grid, video_grid
from MedEnhanceLib.unicompress.codecs.lossless import VIDEO
from MedEnhanceLib.unicompress.codecs.video import video
from MedEnhanceLib.unicompress.codecs.video.av1 import LIBAOM, SVT, Encoder, encoders
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.decode import FOREIGN_ERRORS
from MedEnhanceLib.unicompress.models import DecodeContext


def smooth(shape: tuple[int, int, int], dtype: str = "i2") -> Voxels:
    """Waves with noise, −300 to 300 and a little."""
    rng = np.random.default_rng(4)
    k, j, i = np.indices(shape)
    waves = 150 * np.sin(j / 9 + k / 5) + 150 * np.cos(i / 7)
    return (waves + rng.normal(0, 3, shape)).astype(dtype)


def context_of(block: Voxels) -> DecodeContext:
    return DecodeContext(block.dtype, (block.min().item(), block.max().item()))


def task_of(voxels: Voxels, speed: Speed) -> Task:
    return Task(voxels, context_of(voxels), speed, 1, Monitor())


@pytest.fixture(scope="module", params=[LIBAOM, SVT], ids=lambda one: one.name)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    if request.param not in encoders():
        pytest.skip("PyAV is not installed")
    assert isinstance(request.param, Encoder)
    return request.param


@pytest.fixture(scope="module")
def coded(encoder: Encoder) -> video.Video:
    return video.encode(smooth((5, 71, 66)), 8.0, speed="fast", encoder=encoder)


@pytest.mark.parametrize(
    "shape", [(1, 20, 24), (1, 2, 1), (2, 1, 40), (3, 7, 5), (4, 33, 17), (5, 16, 65)], ids=str
)
def test_every_extent_comes_back(shape: tuple[int, int, int]) -> None:
    block = smooth(shape)
    made = video.encode(block, 4.0, speed="fast")
    back = video.decode(made.data, shape, context_of(block))
    assert back.shape == shape
    assert back.dtype == block.dtype
    assert np.abs(back.astype(float) - block).max() < 25


@pytest.mark.parametrize("dtype", ["i1", "u1", "u2", "i4", "u8", "f2", "f4", "f8"])
def test_every_type_comes_back(dtype: str) -> None:
    block = (smooth((3, 30, 30), "f8") / 6 + 60).astype(dtype)
    made = video.encode(block, 1.0, speed="fast")
    back = video.decode(made.data, block.shape, context_of(block))
    assert back.dtype == np.dtype(dtype)
    assert np.abs(back.astype(float) - block.astype(float)).max() < 8
    assert block.min() <= back.min()
    assert back.max() <= block.max()


def test_coarser_steps_take_fewer_bytes_and_lose_more(encoder: Encoder) -> None:
    block = smooth((6, 64, 64))
    steps = (2.0, 8.0, 32.0, 128.0)
    made = [video.encode(block, step, speed="fast", encoder=encoder) for step in steps]
    errors = [
        video.error_of(block, video.decode(one.data, block.shape, context_of(block)))
        for one in made
    ]
    assert [len(one.data) for one in made] == sorted((len(one.data) for one in made), reverse=True)
    assert errors == sorted(errors)


@pytest.mark.parametrize("shape", [(4, 71, 66), (6, 71, 66), (5, 73, 66), (5, 71, 4000)], ids=str)
def test_a_stream_of_another_size_is_refused(
    coded: video.Video, shape: tuple[int, int, int]
) -> None:
    with pytest.raises(FOREIGN_ERRORS):
        assert video.Video.read(coded.data, shape).frames is None


def test_forged_chunks_do_no_harm(coded: video.Video) -> None:
    """Flipped bits, cuts and swapped parts: an error that is known, or voxels of the right kind."""
    rng = np.random.default_rng(0)
    context = DecodeContext(np.dtype("i2"), (-400, 400))
    refused = 0
    for _ in range(300):
        data = bytearray(coded.data)
        for _ in range(int(rng.integers(1, 6))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        if rng.random() < 0.3:
            del data[int(rng.integers(len(data))) :]
        try:
            back = video.decode(bytes(data), (5, 71, 66), context)
        except FOREIGN_ERRORS:
            refused += 1
        else:
            assert back.shape == (5, 71, 66)
            assert back.min() >= -400
            assert back.max() <= 400
    assert refused > 100


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
    monkeypatch.setattr(videos, "encoders", lambda: (LIBAOM,))
    done = videos.into_bytes(task_of(smooth((16, 96, 96)), "fast"), 9000)
    assert done is not None
    assert 0.9 * 9000 < done.bytes <= 9000


def test_ten_bits_are_taken_where_they_suffice() -> None:
    """10 bits hold the middle of the second volume, and not the whole: a voxel is far brighter."""
    if SVT not in encoders():
        pytest.skip("PyAV is not installed")
    block = smooth((16, 96, 96), "i4")
    assert videos._encoder_for(task_of(block, "normal"), 20.0) is SVT
    whole = np.pad(block, ((0, 0), (100, 100), (0, 0)), mode="reflect")
    whole[0, 0, 0] = 400_000
    assert videos._encoder_for(task_of(whole, "normal"), 20.0) is LIBAOM


@pytest.mark.parametrize(("blocks", "most"), [(1, 3), (7, 3)])
def test_a_size_takes_few_codings(blocks: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes follow the step by other laws than is expected, not evenly, each block by its own."""
    sizes = np.random.default_rng(blocks).uniform(8e4, 12e4, blocks)
    good: list[float] = []

    def coded(
        _: object, block: np.ndarray, step: float, __: float, *, quickly: bool
    ) -> tuple[int, bytes]:
        size = sizes[int(block.flat[0]) % blocks] * step**-1.4
        if not quickly:
            good.append(step)
            size *= 1.05 + 0.01 * np.sin(500 * step)
        return VIDEO, bytes(round(size))

    monkeypatch.setattr(videos, "_code_one", coded)
    voxels = np.repeat(np.arange(blocks, dtype=np.int16), 8)[:, None, None] * np.ones((1, 8, 8))
    task = VideoTask(
        **vars(task_of(voxels.astype(np.int16), "normal")),
        grid=Grid(voxels.shape, (blocks, 1, 1)),
        encoder=SVT,
    )
    budget = round(sizes.sum() / 20)
    chunks = videos._search(task, videos.Goal(bytes=budget), 4.0)
    assert chunks is not None
    assert 0.95 * budget <= sum(len(chunk.data) for chunk in chunks) <= budget
    assert len(set(good)) <= most + 1


def test_videos_are_long_and_blocks_stay_within_the_format() -> None:
    assert video_grid((100, 512, 512)).counts == (2, 1, 1)
    assert video_grid((114, 215, 252)).counts == (1, 1, 1)
    for shape in ((30, 2000, 3000), (1, 5000, 40), (4000, 8, 9), (3, 20, 512, 512)):
        assert video_grid(shape).largest_block <= 1 << 24
