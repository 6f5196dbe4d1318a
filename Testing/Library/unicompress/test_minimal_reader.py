"""The page docs/ucv-format.md is enough to read every file: a second reader made from it does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.unicompress import container, decompress
from MedEnhanceLib.unicompress.codecs import lossless
from MedEnhanceLib.unicompress.codecs.video import video, wiener
from MedEnhanceLib.unicompress.codecs.video.av1 import SVT, encoders
from MedEnhanceLib.unicompress.header import DTYPES
from MedEnhanceLib.unicompress.models import DecodeContext

from . import minimal_reader, minimal_video
from .conftest import Write
from .test_round_trip import same_bits, smooth

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = (REPOSITORY / "docs" / "ucv-format.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("noise", "classes"), [(0, 1), (33, 2), (70, 16)])
def test_it_filters_videos_as_we_do(noise: int, classes: int) -> None:
    rng = np.random.default_rng(noise)
    weights = rng.integers(-127, 128, (classes, wiener.TERMS)).astype(np.int8)
    chosen = wiener.Filter(20, 6, weights)
    block = smooth((4, 19, 33), "i2")
    range_of = block.min().item(), block.max().item()
    coded = video.encode(block, 9.0, speed="fast")
    data = dataclasses.replace(coded, noise=noise, filter=chosen).data
    head = {"dtype": block.dtype.str, "range": range_of}
    ours = minimal_video.decode(data, block.shape, head)
    context = DecodeContext(block.dtype, range_of)
    theirs = video.decode(data, block.shape, context)
    assert same_bits(ours, theirs)
    assert not same_bits(ours, video.decode(coded.data, block.shape, context))


@pytest.mark.parametrize("shape", [(4, 64, 64), (5, 71, 67)], ids=str)
def test_it_reads_videos_of_10_bits(shape: tuple[int, int, int]) -> None:
    if SVT not in encoders():
        pytest.skip("PyAV is not installed")
    block = smooth(shape, "i2")
    limits = block.min().item(), block.max().item()
    coded = video.encode(block, 6.0, speed="fast", encoder=SVT).data
    head = {"dtype": block.dtype.str, "range": limits}
    ours = minimal_video.decode(coded, block.shape, head)
    assert same_bits(ours, video.decode(coded, block.shape, DecodeContext(block.dtype, limits)))


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i4", "u8", "f2", "f8"])
@pytest.mark.parametrize("mode", ["lossless", "max_error", "ratio"])
def test_it_reads_what_is_written_today(
    dtype: str, mode: str, write: Write, small_blocks: None
) -> None:
    if dtype == "?" and mode != "lossless":
        pytest.skip("labels are coded without loss only")
    wide = smooth((5, 40, 36), "i2")
    voxels: Voxels = (wide % 2 == 0) if dtype == "?" else (wide % 120).astype(dtype)
    if dtype in ("f2", "f8"):
        voxels = voxels / voxels.dtype.type(7)
    config: dict[str, Any] = {mode: {"lossless": True, "max_error": 1.5, "ratio": 2.5}[mode]}
    path = write(Volume(voxels), speed="fast", **config)
    _, ours, proved = minimal_reader.read(path)
    assert proved
    assert same_bits(ours, decompress(path).voxels)


class TestPage:
    """What the page lists is what the code knows."""

    def test_types_are_those_of_the_code(self) -> None:
        known = set(lossless.BLOCK_TYPES)
        rows = {int(number) for number in re.findall(r"(?m)^\| (\d+) \|", PAGE)}
        headings = {int(number) for number in re.findall(r"(?m)^### (\d+) ", PAGE)}
        assert known <= rows | headings
        assert known <= headings

    def test_sizes_are_those_of_the_code(self) -> None:
        assert container._PROLOGUE.size == 28
        assert f"`file_bytes` = {container.SMALLEST_FILE} + " in PAGE
        for dtype in DTYPES:
            assert dtype.replace("|", "\\|") in PAGE

    def test_every_header_field_is_in_the_page(self, scan: Volume, write: Write) -> None:
        for config in ({"lossless": True}, {"ratio": 6}):
            with container.Container(write(scan, f"{len(config)}.ucv", **config)) as opened:
                for field in opened.header:
                    assert f"| `{field}` |" in PAGE

    def test_the_version_is_in_the_page(self) -> None:
        assert "This page is version {}.{}.".format(*container.VERSION) in PAGE
