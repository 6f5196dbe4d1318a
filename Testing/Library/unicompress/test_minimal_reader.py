"""The page docs/ucv-format.md is enough to read every file: a second reader made from it does."""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.unicompress import coders, container, decompress
from MedEnhanceLib.unicompress.header import DTYPES
from MedEnhanceLib.volume import Volume, Voxels

from . import minimal_reader
from .conftest import Write
from .golden import FOLDER
from .test_round_trip import same_bits, smooth

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = (REPOSITORY / "docs" / "ucv-format.md").read_text(encoding="utf-8")
FILES = sorted(FOLDER.glob("*.ucv"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_both_readers_give_the_same_voxels(path: Path) -> None:
    header, voxels, proved = minimal_reader.read(path)
    assert same_bits(voxels, decompress(path).voxels)
    assert proved
    assert hashlib.sha256(voxels.tobytes()).hexdigest() == header["voxels_sha256"]


def test_it_is_independent_and_small() -> None:
    text = Path(minimal_reader.__file__).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {
        "__future__", "collections", "hashlib", "imagecodecs", "json", "math", "numpy", "pathlib",
        "struct", "sys", "typing", "zlib", "zstandard",
    }  # fmt: skip


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f8"])
@pytest.mark.parametrize("mode", ["lossless", "max_error", "ratio"])
def test_it_reads_what_is_written_today(
    dtype: str, mode: str, write: Write, small_blocks: None
) -> None:
    if dtype == "?" and mode != "lossless":
        pytest.skip("labels are coded without loss only")
    wide = smooth((5, 20, 36), "i2")
    voxels: Voxels = (wide % 2 == 0) if dtype == "?" else (wide % 120).astype(dtype)
    if dtype in ("f2", "f8"):
        voxels = voxels / voxels.dtype.type(7)
    config: dict[str, Any] = {mode: {"lossless": True, "max_error": 1.5, "ratio": 2.5}[mode]}
    path = write(Volume(voxels), speed="fast", **config)
    _, ours, proved = minimal_reader.read(path)
    assert proved
    assert same_bits(ours, decompress(path).voxels)


@pytest.mark.parametrize("shape", [(1, 60, 50), (60, 50, 1), (2, 5, 40, 50), (1, 1, 3000)], ids=str)
@pytest.mark.parametrize("ratio", [3, 6])
def test_it_reads_wavelets_of_any_shape(shape: tuple[int, ...], ratio: int, write: Write) -> None:
    j, i = np.mgrid[0 : shape[-2], 0 : shape[-1]]
    voxels = np.broadcast_to(900 * np.sin(j / 9) * np.cos(i / 7), shape)
    noise = np.random.default_rng(0).normal(0, 9, shape)
    if shape[:2] == (1, 1):
        ratio = 1  # a line has no wavelet
    path = write(Volume((voxels + noise).astype(np.int16)), ratio=ratio, speed="fast")
    _, ours, proved = minimal_reader.read(path)
    assert proved
    assert same_bits(ours, decompress(path).voxels)


@pytest.mark.parametrize("place", [0, 5, 61, 70, 400, 900, -140])
def test_it_finds_damage(place: int, tmp_path: Path) -> None:
    raw = bytearray(FILES[1].read_bytes())
    raw[place] ^= 4
    (tmp_path / "a.ucv").write_bytes(raw)
    header_and_table_again = place == -140
    try:
        _, _, proved = minimal_reader.read(tmp_path / "a.ucv")
    except minimal_reader.BadFileError:
        return
    assert proved
    assert header_and_table_again


class TestPage:
    """What the page lists is what the code knows."""

    def test_types_are_those_of_the_code(self) -> None:
        known = {*coders.CODERS, *coders.VOXEL_TYPES}
        rows = {int(number) for number in re.findall(r"(?m)^\| (\d+) \|", PAGE)}
        headings = {int(number) for number in re.findall(r"(?m)^### (\d+) ", PAGE)}
        assert known <= rows | headings
        assert known <= headings

    def test_the_minimal_reader_knows_every_type(self) -> None:
        known = {*coders.CODERS, *coders.VOXEL_TYPES}
        assert {*minimal_reader.INDEX_TYPES, *minimal_reader.VOXEL_TYPES} >= known

    def test_sizes_are_those_of_the_code(self) -> None:
        assert container._PROLOGUE.size == 64
        assert container._ROW_BYTES == 15
        assert "exactly 15 ·" in PAGE
        for dtype in DTYPES:
            assert dtype.replace("|", "\\|") in PAGE

    def test_every_header_field_is_told(self) -> None:
        for path in FILES:
            with container.Container(path) as opened:
                for field in opened.header:
                    assert f"| `{field}` |" in PAGE

    def test_the_version_is_told(self) -> None:
        assert "| {}.{} |".format(*container.VERSION) in PAGE
