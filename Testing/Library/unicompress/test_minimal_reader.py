"""The page docs/ucv-format.md is enough to read every file: a second reader made from it does."""

from __future__ import annotations

import dataclasses
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.unicompress import container, decompress
from MedEnhanceLib.unicompress.codec_models import DecodeContext
from MedEnhanceLib.unicompress.codecs.block_types import BLOCK_TYPES
from MedEnhanceLib.unicompress.codecs.predictor import learned
from MedEnhanceLib.unicompress.codecs.video import video, wiener
from MedEnhanceLib.unicompress.codecs.video.av1 import Encoder, encoders
from MedEnhanceLib.unicompress.header import DTYPES

from . import minimal_reader, minimal_video
from .conftest import Write
from .test_round_trip import same_bits, smooth

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = (REPOSITORY / "docs" / "ucv-format.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("encoder", encoders(), ids=lambda encoder: f"{encoder.bits} bits")
@pytest.mark.parametrize(("noise", "classes"), [(0, 0), (33, 2), (70, 16)])
def test_it_reads_videos_and_filters_as_we_do(encoder: Encoder, noise: int, classes: int) -> None:
    block = smooth((5, 71, 67), "i2")
    coded = video.encode(block, 9.0, speed="fast", encoder=encoder)
    if classes:
        weights = np.random.default_rng(noise).integers(-127, 128, (classes, wiener.TERMS))
        chosen = wiener.Filter(20, 6, weights.astype(np.int8))
        coded = dataclasses.replace(coded, noise=noise, filter=chosen)
    limits = block.min().item(), block.max().item()
    ours = minimal_video.decode(coded.data, block.shape, {"dtype": "<i2", "range": limits})
    context = DecodeContext(block.dtype, limits)
    assert same_bits(ours, video.decode(coded.data, block.shape, context))


MODES: list[dict[str, Any]] = [{"lossless": True}, {"max_error": 1.5}, {"ratio": 2.5}]


@pytest.mark.parametrize(
    ("dtype", "mode"), [("?", MODES[0]), *product(["i1", "u8", "f2", "f8"], MODES)]
)
def test_it_reads_what_is_written_today(
    dtype: str, mode: dict[str, Any], write: Write, small_blocks: None
) -> None:
    wide = smooth((5, 40, 36), "i2")
    voxels: Voxels = (wide % 2 == 0) if dtype == "?" else (wide % 120).astype(dtype)
    if dtype in ("f2", "f8"):
        voxels = voxels / voxels.dtype.type(7)
    path = write(Volume(voxels), speed="fast", **mode)
    _, ours, proved = minimal_reader.read(path)
    assert proved
    assert same_bits(ours, decompress(path).voxels)


def test_it_reads_a_network_that_the_file_holds(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "would_take", lambda *_: -1e9)
    voxels = smooth((3, 20, 18), "i2")
    header, ours, proved = minimal_reader.read(write(Volume(voxels, modality="CT"), lossless=True))
    assert proved
    assert "predictor" in header["models"]
    assert same_bits(ours, voxels)


def test_the_page_lists_what_the_code_knows(scan: Volume, write: Write) -> None:
    """Types, sizes, fields of the header, and the version."""
    headings = {int(number) for number in re.findall(r"(?m)^### (\d+) ", PAGE)}
    assert set(BLOCK_TYPES) <= headings, "the page lacks a section for a block type"
    assert f"`file_bytes` = {container.SMALLEST_FILE} + " in PAGE
    version, types = container.VERSION, ", ".join(map(str, sorted(BLOCK_TYPES)))
    line = f"This page is version {version[0]}.{version[1]}: block types {types}."
    assert line in PAGE, "a new block type raises the minor version, in the code and on the page"
    for dtype in DTYPES:
        assert dtype.replace("|", "\\|") in PAGE
    for config in ({"lossless": True}, {"ratio": 6}):
        with container.Container(write(scan, f"{len(config)}.ucv", **config)) as opened:
            for field in opened.header:
                assert f"| `{field}` |" in PAGE
