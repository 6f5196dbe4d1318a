"""Volumes beyond memory: codes wait on the disk, sources stay in their files, results are written
a run of slices at a time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib import api
from MedEnhanceLib.core import slabs as slabs_module
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, CodecError, OutputError
from MedEnhanceLib.io import load, save
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress import (
    decode,
    decompress,
    decompress_to,
    spool,
)
from MedEnhanceLib.unicompress.container import Container

from .conftest import Write
from .test_damage import rebuild

MODES: list[dict[str, Any]] = [{"lossless": True}, {"max_error": 2.0}, {"ratio": 5.0}]


@pytest.fixture
def file(scan: Volume, write: Write, small_blocks: None) -> Path:
    return write(scan, lossless=True, speed="fast")


class TestDecompressTo:
    @pytest.mark.parametrize("ending", [".nrrd", ".nii.gz"])
    def test_the_file_is_that_of_the_whole_volume(
        self, ending: str, file: Path, tmp_path: Path
    ) -> None:
        save(decompress(file), tmp_path / f"whole{ending}")
        outline = decompress_to(file, tmp_path / f"parts{ending}", threads=2)
        assert (tmp_path / f"parts{ending}").read_bytes() == (
            tmp_path / f"whole{ending}"
        ).read_bytes()
        whole = decompress(file)
        assert (outline.shape, outline.dtype, outline.geometry, outline.history) == (
            whole.shape, whole.dtype, whole.geometry, whole.history,
        )  # fmt: skip

    @pytest.mark.parametrize(
        "region",
        [
            (slice(3, 9),),
            (slice(5, 6), slice(17, 30), slice(0, 1)),
        ],
        ids=str,
    )
    def test_a_region_is_that_of_decompress(self, region: Any, file: Path, tmp_path: Path) -> None:
        decompress_to(file, tmp_path / "a.nrrd", region=region)
        assert load(tmp_path / "a.nrrd").is_equal(decompress(file, region=region))

    def test_damage_leaves_no_file(self, file: Path, tmp_path: Path) -> None:
        with Container(file) as opened:
            last = opened.chunks[-1]
        raw = bytearray(file.read_bytes())
        raw[last.offset] ^= 1
        file.write_bytes(raw)
        (tmp_path / "a.nrrd").write_bytes(b"old")
        with pytest.raises(CodecError, match="chunk 26"):
            decompress_to(file, tmp_path / "a.nrrd", overwrite=True)
        assert (tmp_path / "a.nrrd").read_bytes() == b"old"
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.nrrd", "a.ucv"]

    def test_voxels_that_are_not_the_source_s_leave_no_file(
        self, file: Path, tmp_path: Path
    ) -> None:
        rebuild(file, voxels_sha256="0" * 64)
        with pytest.raises(CodecError, match="SHA-256"):
            decompress_to(file, tmp_path / "a.nrrd")
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.ucv"]
        events: list[str] = []
        rebuild(file, exact=False)
        decompress_to(
            file, tmp_path / "a.nrrd", monitor=Monitor(lambda event: events.append(event.kind))
        )
        assert "warning" in events

    def test_a_few_bytes_cannot_fill_a_disk(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither by a header that claims too much, nor by one of many constant blocks."""
        monkeypatch.setattr(decode.shutil, "disk_usage", lambda _: _Usage(free=20_000))
        with pytest.raises(OutputError, match="no space left") as caught:
            decompress_to(file, tmp_path / "a.nrrd")
        assert "region" in caught.value.hint
        monkeypatch.undo()
        rebuild(file, shape=[1 << 31, 1 << 31, 1 << 31], blocks=[3, 3, 3])
        with pytest.raises((CodecError, OutputError)):
            decompress_to(file, tmp_path / "a.nrrd")
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.ucv"]

    def test_a_cancel_leaves_nothing(self, file: Path, tmp_path: Path) -> None:
        with pytest.raises(Cancelled):
            decompress_to(file, tmp_path / "a.nrrd", monitor=Monitor(cancel=lambda: True))
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.ucv"]


class TestMemory:
    """32 MiB of voxels, of which neither way may hold more than a part."""

    @pytest.fixture
    def source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(slabs_module, "LARGE_BYTES", 1 << 20)
        monkeypatch.setattr(slabs_module, "_SLAB_BYTES", 1 << 20)
        monkeypatch.setattr(spool, "_IN_MEMORY", 1 << 20)
        rng = np.random.default_rng(0)
        voxels = rng.integers(0, 1 << 15, (256, 256, 256), np.int16)
        save(Volume(voxels, modality="CT"), tmp_path / "big.nrrd")
        return tmp_path / "big.nrrd"

    @pytest.mark.slow
    def test_compress_holds_a_few_blocks(self, source: Path, tmp_path: Path) -> None:
        tracemalloc.start()
        try:
            api.compress(source, tmp_path / "a.ucv", lossless=True, speed="fast", threads=1)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            decompress_to(tmp_path / "a.ucv", tmp_path / "back.nrrd", threads=1)
            peak_back = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 20 << 20
        assert peak_back < 20 << 20
        assert load(tmp_path / "back.nrrd").is_equal(load(source))


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free
