"""Blocks as streams of their own: chunks of zarr arrays, and whatever else stores arrays."""

from __future__ import annotations

import subprocess
import sys
import zlib
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.errors import CodecError, ConfigError, InputError
from MedEnhanceLib.unicompress.streams import MOST_VOXELS, decode_stream, encode_stream

from .minimal_reader import read_stream

zarr = pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")
if zarr:
    from MedEnhanceLib.unicompress.zarr_codecs import MedEnhanceCodec

SHAPES = [(), (7,), (5, 6), (4, 9, 11), (2, 3, 9, 11)]
TYPES = ["?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"]


def noisy(shape: tuple[int, ...], dtype: str = "<i2") -> np.ndarray:
    values = np.random.default_rng(3).normal(60, 20, shape)
    return np.asarray(values.round() % 2 if dtype == "?" else values).astype(dtype)


class TestStream:
    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_every_type_and_shape_comes_back(self, shape: tuple[int, ...], dtype: str) -> None:
        array = noisy(shape, dtype)
        found = decode_stream(encode_stream(array, speed="fast"), shape=shape)
        assert found.dtype == array.dtype
        assert found.shape == shape
        assert found.tobytes() == array.tobytes()

    @pytest.mark.parametrize("dtype", ["<i2", "u1", "<f4"])
    def test_a_bound_holds_and_saves_bytes(self, dtype: str) -> None:
        array = noisy((8, 32, 32), dtype)
        stream = encode_stream(array, max_error=3)
        error = np.abs(decode_stream(stream).astype(float) - array.astype(float))
        assert 0 < error.max() <= 3
        assert len(stream) < 0.7 * len(encode_stream(array))

    def test_what_cannot_be_coded_is_refused(self) -> None:
        with pytest.raises(InputError, match="complex"):
            encode_stream(np.ones((2, 2), complex))
        with pytest.raises(InputError, match="little-endian"):
            encode_stream(np.ones((2, 2), ">i2"))
        with pytest.raises(InputError, match="voxels"):
            encode_stream(np.ones(0, "i2"))
        with pytest.raises(InputError, match="voxels"):
            encode_stream(np.broadcast_to(np.int16(1), MOST_VOXELS + 1))
        with pytest.raises(ConfigError, match="max_error"):
            encode_stream(np.ones(3, "i2"), max_error=-1)

    def test_every_changed_byte_is_noticed(self) -> None:
        stream = encode_stream(noisy((3, 8, 8)))
        for place in range(len(stream)):
            changed = bytearray(stream)
            changed[place] ^= 4
            for bad in (stream[:place], bytes(changed)):
                with pytest.raises(CodecError):
                    decode_stream(bad)

    @pytest.mark.parametrize(
        ("place", "value"), [(4, 99), (5, 7), (5, 16), (5, 99), (6, 1 << 31), (6, 0)]
    )
    def test_no_number_in_a_forged_head_is_believed(self, place: int, value: int) -> None:
        stream = bytearray(encode_stream(noisy((3, 8, 8))))
        width = 1 if place < 6 else 4
        stream[place : place + width] = value.to_bytes(width, "little")
        stream[18:22] = zlib.crc32(stream[22:], zlib.crc32(stream[:18])).to_bytes(4, "little")
        with pytest.raises(CodecError):
            decode_stream(bytes(stream))

    def test_another_shape_or_type_than_the_arrays_is_refused(self) -> None:
        stream = encode_stream(noisy((3, 8, 8)))
        with pytest.raises(CodecError, match="expected"):
            decode_stream(stream, shape=(8, 8, 3))
        with pytest.raises(CodecError, match="expected"):
            decode_stream(stream, dtype=np.dtype("<u2"))

    @pytest.mark.parametrize("bound", [None, 2])
    @pytest.mark.parametrize("dtype", TYPES)
    def test_another_reader_reads_it_by_the_page(self, dtype: str, bound: float | None) -> None:
        stream = encode_stream(noisy((3, 8, 8), dtype), max_error=bound)
        found = read_stream(stream)
        assert found.dtype == np.dtype(dtype)
        assert found.tobytes() == decode_stream(stream).tobytes()


class TestZarr:
    @pytest.mark.parametrize(
        ("format_", "dtype"),
        [
            (2, "<i2"),
            (3, ">i2"),
            *(
                pytest.param(n, t, marks=pytest.mark.slow)
                for n in (2, 3)
                for t in ("u1", "<f4", "?")
            ),
        ],
    )
    def test_an_array_of_chunks_comes_back_in_a_process_that_imports_zarr_alone(
        self, format_: int, dtype: str, tmp_path: Path
    ) -> None:
        array = noisy((10, 33, 30), dtype)
        made = create(tmp_path / "a.zarr", format_, array.shape, array.dtype)
        made[...] = array
        np.save(tmp_path / "a.npy", array)
        program = (
            "import numpy as np, zarr, sys\n"
            "found = zarr.open_array('a.zarr', mode='r')\n"
            "wanted = np.load('a.npy')\n"
            "assert np.array_equal(found[...], wanted)\n"
            "assert np.array_equal(found[3:5, 8:20, ::3], wanted[3:5, 8:20, ::3])\n"
        )
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)

    @pytest.mark.parametrize("format_", [2, 3])
    def test_the_bound_is_the_arrays(self, format_: int, tmp_path: Path) -> None:
        array = noisy((8, 32, 32))
        made = create(tmp_path / "a.zarr", format_, array.shape, array.dtype, max_error=4)
        made[...] = array
        found = zarr.open_array(tmp_path / "a.zarr", mode="r")[...]
        assert 0 < np.abs(found.astype(int) - array).max() <= 4

    @pytest.mark.parametrize("format_", [2, 3])
    def test_a_damaged_chunk_is_an_error_that_says_so(self, format_: int, tmp_path: Path) -> None:
        made = create(tmp_path / "a.zarr", format_, (8, 32, 32), np.dtype("<i2"))
        made[...] = noisy((8, 32, 32))
        files = [path for path in (tmp_path / "a.zarr").rglob("*") if path.is_file()]
        chunk = max(files, key=lambda path: path.stat().st_size)
        stream = bytearray(chunk.read_bytes())
        stream[-3] ^= 1
        chunk.write_bytes(bytes(stream))
        with pytest.raises(CodecError, match="damaged"):
            zarr.open_array(tmp_path / "a.zarr", mode="r")[...]

    def test_an_array_that_no_chunk_could_hold_is_refused_when_it_is_made(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="complex"):
            create(tmp_path / "a.zarr", 3, (4, 4), np.dtype("complex64"))

    def test_the_example_of_the_page_runs(self, tmp_path: Path) -> None:
        page = Path(__file__).parents[3] / "docs" / "compression.md"
        section = page.read_text(encoding="utf-8").split("## Chunks of zarr arrays")[1]
        program = section.split("```python\n")[1].split("```")[0]
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)
        assert (tmp_path / "volume.zarr" / "zarr.json").is_file()

    def test_both_are_found_by_name(self) -> None:
        for group in ("numcodecs.codecs", "zarr.codecs"):
            assert "medenhance" in entry_points(group=group).names
        codec = numcodecs.get_codec({"id": "medenhance", "max_error": 2})
        assert codec.get_config() == {"id": "medenhance", "max_error": 2, "speed": "normal"}


def create(
    place: Path,
    format_: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    max_error: float | None = None,
) -> zarr.Array:
    if format_ == 2:
        codec = numcodecs.get_codec({"id": "medenhance", "max_error": max_error})
        return zarr.create_array(
            place, shape=shape, dtype=dtype, chunks=(4, 16, 16), zarr_format=2, compressors=codec
        )
    return zarr.create_array(
        place,
        shape=shape,
        dtype=dtype,
        chunks=(4, 16, 16)[: len(shape)],
        serializer=MedEnhanceCodec(max_error=max_error),
        compressors=None,
    )
