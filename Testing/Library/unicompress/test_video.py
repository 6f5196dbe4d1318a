"""Blocks as videos: what is stored comes back, at any extents, and forged bytes do no harm."""

from __future__ import annotations

import numpy as np
import pytest

from MedEnhanceLib.unicompress import av1, video
from MedEnhanceLib.unicompress.blocks import video_grid
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.unicompress.decode import FOREIGN_ERRORS
from MedEnhanceLib.volume import Voxels


def smooth(shape: tuple[int, int, int], dtype: str = "i2") -> Voxels:
    """Waves with noise, −300 to 300 and a little."""
    rng = np.random.default_rng(4)
    k, j, i = np.indices(shape)
    waves = 150 * np.sin(j / 9 + k / 5) + 150 * np.cos(i / 7)
    return (waves + rng.normal(0, 3, shape)).astype(dtype)


def context_of(block: Voxels) -> DecodeContext:
    return DecodeContext(block.dtype, (block.min().item(), block.max().item()))


@pytest.fixture(scope="module")
def coded() -> video.Video:
    return video.encode(smooth((5, 40, 36)), 8.0, speed="fast")


@pytest.mark.parametrize(
    "shape", [(1, 20, 24), (1, 2, 1), (2, 1, 40), (3, 7, 5), (4, 33, 17), (5, 16, 65)], ids=str
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_extent_comes_back(shape: tuple[int, int, int], axis: int) -> None:
    block = smooth(shape)
    made = video.encode(block, 4.0, speed="fast", axis=axis)
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


def test_coarser_steps_take_fewer_bytes_and_lose_more() -> None:
    block = smooth((6, 64, 64))
    made = [video.encode(block, step, speed="fast") for step in (2.0, 8.0, 32.0, 128.0)]
    errors = [
        video.error_of(block, video.decode(one.data, block.shape, context_of(block)))
        for one in made
    ]
    assert [len(one.data) for one in made] == sorted((len(one.data) for one in made), reverse=True)
    assert errors == sorted(errors)


def test_the_first_slice_is_no_worse_than_the_others() -> None:
    block = smooth((9, 96, 96))
    made = video.encode(block, 30.0, speed="normal")
    back = video.decode(made.data, block.shape, context_of(block)).astype(float)
    errors = np.square(back - block).mean(axis=(1, 2))
    assert errors[0] < 2 * errors[1:].mean()


def test_only_the_stream_is_stored(coded: video.Video) -> None:
    assert coded.data[video.HEAD.size :] == coded.stream
    rebuilt = av1.file_of(coded.stream, 6, 40, 36)
    assert len(rebuilt) > len(coded.stream) + 500
    assert av1.stream_of(rebuilt) == coded.stream


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(5, 40, 36), (7, 40, 36), (6, 41, 36), (6, 40, 4000)]
)
def test_a_stream_of_another_size_is_refused_before_it_is_decoded(
    coded: video.Video, frames: int, height: int, width: int
) -> None:
    with pytest.raises(ValueError, match="video of"):
        av1.file_of(coded.stream, frames, height, width)


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
            back = video.decode(bytes(data), (5, 40, 36), context)
        except FOREIGN_ERRORS:
            refused += 1
        else:
            assert back.shape == (5, 40, 36)
            assert back.min() >= -400
            assert back.max() <= 400
    assert refused > 100


def test_videos_are_long_and_blocks_stay_within_the_format() -> None:
    assert video_grid((100, 512, 512)).counts == (2, 1, 1)
    assert video_grid((114, 215, 252)).counts == (1, 1, 1)
    for shape in ((30, 2000, 3000), (1, 5000, 40), (4000, 8, 9), (3, 20, 512, 512)):
        assert video_grid(shape).largest_block <= 1 << 24
