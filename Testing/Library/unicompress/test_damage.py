"""Damaged and hostile files: an error that names the place, or voxels that are right."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import CodecError, DeviceMemoryError, InputError, NoContainerError
from MedEnhanceLib.unicompress import (
    container,
    decode,
    decompress,
    inspect_container,
    inspection,
    recover,
)
from MedEnhanceLib.unicompress.codecs import lossless
from MedEnhanceLib.unicompress.container import Chunk, Container, build_front, write_container

from ..conftest import WarningRecorder
from .fuzzing import chunks_of, lay_out


def rebuild(path: Path, *, chunks: list[Chunk] | None = None, **fields: Any) -> None:
    """Write the file anew, sound in itself, with other header fields or chunks."""
    with Container(path) as opened:
        header = {**opened.header, **fields}
    chunks = chunks_of(path) if chunks is None else chunks
    write_container(path, build_front(header, chunks), chunks)


def test_a_file_cut_at_any_byte_is_refused_with_its_place(file: Path) -> None:
    whole, says = file.read_bytes(), r"chunk|does it begin with UCV1"
    for size in [0, *range(7, 400, 7), *range(400, len(whole), 301), len(whole) - 1]:
        file.write_bytes(whole[:size])
        with pytest.raises(CodecError, match=says if size else r"is empty") as caught:
            decompress(file)
        assert caught.value.hint
        assert file.name in caught.value.message
    file.write_bytes(whole + b"\0")
    with pytest.raises(CodecError, match="1 bytes follow"):
        decompress(file)


def test_changed_voxels_are_refused_where_they_must_be_exact(
    file: Path, recorder: WarningRecorder
) -> None:
    rebuild(file, voxels_sha256="0" * 64)
    with pytest.raises(CodecError, match="SHA-256"):
        decompress(file)
    rebuild(file, exact=False)
    decompress(file, monitor=recorder.monitor)
    assert "last bit" in recorder.warnings[0]


@pytest.mark.parametrize(
    "content", [b"", b"UCV1", b"NRRD0004 " + bytes(200), bytes(500), bytes(5000)], ids=len
)
def test_what_is_no_container_is_said_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.ucv"
    path.write_bytes(content)
    error = CodecError if content.startswith(b"UCV1") else NoContainerError
    for call in (decompress, recover, inspect_container):
        with pytest.raises(error, match=r"a\.ucv"):
            call(path)  # type: ignore[operator]
    with pytest.raises(CodecError) as caught:
        recover(path)
    assert "recover" not in caught.value.hint  # it was tried
    for missing in (tmp_path / "nothing.ucv", tmp_path):
        with pytest.raises(InputError, match=missing.name):
            decompress(missing)


def test_a_file_that_lost_its_first_byte_is_damaged(file: Path) -> None:
    raw = file.read_bytes()
    file.write_bytes(b"\xff" + raw[1:])
    with pytest.raises(CodecError, match="the prologue is damaged"):
        decompress(file)
    file.write_bytes(b"\xff" + raw[1:10] + b"\xff" + raw[11:])
    with pytest.raises(NoContainerError, match="does not begin with UCV1"):
        decompress(file)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", [10, 40, -36]),
        ("shape", [10**400, 1, 1]),
        ("blocks", [0, 1, 1]),
        ("dtype", "O"),
        ("modality", "XX"),
        ("exact", 1),
        ("blocks", [1 << 20, 1 << 20, 1 << 20]),
        ("range", [0, 1 << 15]),
        ("range", [2, 1]),
        ("geometry", {"spacing_mm": [0, 1, 1], "origin_lps_mm": [0] * 3, "direction_lps": []}),
        ("voxels_sha256", "abc"),
        ("models", {"predictor": {"id": "a", "sha256": "b"}}),
        ("frame_interval_s", "1"),
        ("gradients", [[1000.0, 0.0, 0.0, 1.0]] * 2),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_header_that_cannot_be_is_refused(field: str, value: Any, file: Path) -> None:
    rebuild(file, **{field: value})
    for call in (decompress, inspect_container, recover):
        with pytest.raises(CodecError, match=field) as caught:
            call(file)  # type: ignore[operator]
        assert caught.value.hint


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "shape",
    [[1 << 31, 1 << 31, 1 << 31], [1 << 20, 1 << 13, 1 << 13], [30000, 4000, 4000]],
    ids=str,
)
def test_a_bomb_is_refused_before_memory_is_taken(shape: list[int], file: Path) -> None:
    rebuild(file, shape=shape, blocks=[3, 3, 3])
    with little_memory(), pytest.raises((CodecError, DeviceMemoryError)):
        decompress(file)


def test_a_volume_beyond_memory_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "memory", lambda: {"total": 64 << 30})
    count = 1 << 12
    many = [Chunk(number, lossless.CONSTANT, b"\1\1" + bytes(8)) for number in range(count)]
    rebuild(file, shape=[count, 1 << 12, 1 << 12], blocks=[count, 1, 1], chunks=many)
    with pytest.raises(DeviceMemoryError, match=r"137\.4 GB") as caught:
        decompress(file)
    assert "region" in caught.value.hint
    assert not decompress(file, region=(slice(77, 78), slice(9), slice(9))).voxels.any()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"chunks": [[0, 0, 20, 1], [1, 0, 2147483648, 2]]}', "do not add up"),
        (b'{"chunks": [[0, 0, 0, 1]]}', "chunk 0 has the row"),
        (b'{"chunks": [[0, 0, 4294967296, 1]]}', "chunk 0 has the row"),
        (b'{"chunks": [[0, 0, 20]]}', "chunk 0 has the row"),
        (b'{"chunks": [[0, 0, 20.5, 1]]}', "no rows of chunks"),
        (b'{"chunks": {"0": 20}}', "no rows of chunks"),
        (b"[]", "no rows of chunks"),
        (bytes(1 << 24), "cannot be read|the size it should"),
        (b"{" + b" " * (1 << 23) + b"}", "cannot be read|the size it should"),
        (b'{"chunks": [NaN]}', "chunks is not a finite number"),
        (b'{"chunks": [], "range": [0, 1e999]}', "range is not a finite number"),
        (b"[" * 100_000, "cannot be read"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_head_that_cannot_be_is_refused(text: bytes, says: str, file: Path) -> None:
    """Under checksums that fit."""
    file.write_bytes(lay_out(text, chunks_of(file)))
    with pytest.raises(CodecError, match=says):
        decompress(file)


def edit_prologue(file: Path, field: int, value: int) -> None:
    raw = bytearray(file.read_bytes())
    fields = list(container.PROLOGUE.unpack(raw[:28]))
    fields[field] = value
    raw[:24] = container.PROLOGUE.pack(*fields)[:-4]
    raw[24:28] = struct.pack("<I", zlib.crc32(raw[:24]))
    file.write_bytes(raw)


@pytest.mark.parametrize("field", range(3, 6))
@pytest.mark.parametrize("value", [0, 1, 70, (1 << 32) - 1])
def test_no_size_in_the_prologue_is_believed(field: int, value: int, file: Path) -> None:
    edit_prologue(file, field, value)
    with pytest.raises(CodecError):
        decompress(file)


def test_a_later_format_says_what_is_needed(file: Path) -> None:
    edit_prologue(file, 1, 2)
    with pytest.raises(CodecError, match=r"format 2\.\d, this version reads 1\.x") as caught:
        decompress(file)
    assert "upgrade" in caught.value.hint


class TestChunks:
    def test_an_unknown_type_says_what_wrote_it(self, file: Path) -> None:
        chunks = chunks_of(file)
        chunks[2] = Chunk(2, 177, b"\0\0\0")
        models = {"new": {"id": "model-m", "sha256": "5" * 64}}
        rebuild(file, chunks=chunks, encoder="medenhance 9.9", models=models)
        says = r"chunk 2 .* block type 177.*medenhance 9\.9"
        with pytest.raises(CodecError, match=says) as caught:
            decompress(file)
        assert "model-m" in caught.value.hint
        card = inspect_container(file)
        assert card["blocks"]["unknown type 177"] == 1
        for name in ("model-m", "medenhance 9.9"):
            assert any(name in line for line in card["missing"])
        _, report = recover(file)
        assert [lost.block for lost in report.lost] == [2]

    def test_later_fields_and_chunks_without_voxels_are_ignored_in_any_order(
        self, file: Path, scan: Volume
    ) -> None:
        chunks = [*chunks_of(file)[::-1], Chunk(container.NO_BLOCK, 99, b"something")]
        rebuild(file, chunks=chunks, color="blue")
        edit_prologue(file, 2, 7)  # the minor version
        assert decompress(file).is_equal(scan)

    @pytest.mark.parametrize(
        ("last", "says"),
        [(None, "block 26 of 27 has no chunk"), (3, "block 3, which"), (27, "block 27, which")],
    )
    def test_each_block_has_one_chunk(self, last: int | None, says: str, file: Path) -> None:
        chunks = chunks_of(file)
        more = [] if last is None else [Chunk(last, 0, b"\1\1" + bytes(8))]
        rebuild(file, chunks=chunks[:-1] + more)
        with pytest.raises(CodecError, match=says):
            decompress(file)

    def test_a_packed_bomb_takes_no_memory(self, file: Path) -> None:
        bomb = lossless.encode_zstd(np.zeros((1, 1 << 13, 1 << 12), np.uint8), "fast")
        chunks = chunks_of(file)
        chunks[0] = Chunk(0, lossless.ZSTD, b"\1\1" + bytes(8) + bomb)
        rebuild(file, chunks=chunks)
        with little_memory(), pytest.raises(CodecError, match="not the size of the block"):
            decompress(file)


def test_inspect_names_what_is_missing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inspect_container(file)["missing"] == []
    monkeypatch.setattr(inspection, "find_spec", lambda _: None)
    missing = inspect_container(file)["missing"]
    assert {line.startswith("the package ") for line in missing} == {True}
