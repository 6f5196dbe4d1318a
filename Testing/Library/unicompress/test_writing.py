"""A file appears whole, read back and proved, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from Library.forked import rows_of

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, CodecError, OutputError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress import CompressConfig, compress, encode
from MedEnhanceLib.unicompress import container as container_module
from MedEnhanceLib.unicompress.blocks import Grid
from MedEnhanceLib.unicompress.codecs.block_types import BLOCK_TYPES
from MedEnhanceLib.unicompress.codecs.predictor import learned
from MedEnhanceLib.unicompress.verify import Tally, check_target

from . import killing

LOSSLESS = CompressConfig(lossless=True, speed="fast", threads=2)


class BrokenError(Exception):
    pass


def fail(*_: Any, **__: Any) -> Any:
    raise BrokenError


STAGES: dict[str, tuple[Any, str]] = {
    "coding": (encode, "code_bounded"),
    "laying out": (encode, "build_front"),
    "writing": (encode, "write_container"),
    "flushing": (container_module.os, "fsync"),
    "verifying": (encode, "check_target"),
    "replacing": (Path, "replace"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("exists", [True, False], ids=["over a file", "new"])
def test_a_failure_at_any_stage_leaves_the_old_file_or_none(
    stage: str, exists: bool, scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.ucv"
    if exists:
        path.write_bytes(b"old")
    monkeypatch.setattr(*STAGES[stage], fail)
    with pytest.raises(BrokenError):
        compress(scan, path, LOSSLESS, overwrite=True)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ucv"] * exists
    if exists:
        assert path.read_bytes() == b"old"


def test_an_existing_file_is_not_replaced_without_request(scan: Volume, tmp_path: Path) -> None:
    path = tmp_path / "a.ucv"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists already"):
        compress(scan, path, LOSSLESS)
    with pytest.raises(OutputError, match="extension"):
        compress(scan, tmp_path / "a.nii", LOSSLESS)
    assert path.read_bytes() == b"old"
    assert compress(scan, path, LOSSLESS, overwrite=True).file_bytes == path.stat().st_size


@pytest.mark.parametrize(
    "config", [{"lossless": True}, {"max_error": 2.0}, {"ratio": 8.0}], ids=str
)
@pytest.mark.parametrize("checks", [1, 30])
def test_a_cancel_leaves_nothing(
    config: dict[str, Any], checks: int, scan: Volume, tmp_path: Path, small_blocks: None
) -> None:
    asked = 0

    def cancel() -> bool:
        nonlocal asked
        asked += 1
        return asked > checks

    before = threading.active_count()
    with pytest.raises(Cancelled):
        compress(scan, tmp_path / "a.ucv", CompressConfig(**config), monitor=Monitor(cancel=cancel))
    assert list(tmp_path.iterdir()) == []
    end = time.monotonic() + 120
    while threading.active_count() > before:  # the blocks under way are not waited for, but end
        assert time.monotonic() < end
        time.sleep(0.01)


def wrong_voxel(decode: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(*given: Any) -> Any:
        block = decode(*given).copy()
        block.flat[0] ^= 4
        return block

    return wrong


@pytest.mark.parametrize("config", [{"lossless": True}, {"max_error": 1.0}], ids=str)
@pytest.mark.parametrize("speed", ["fast", "normal"])
def test_a_codec_or_predictor_that_errs_is_caught_before_the_file_appears(
    config: dict[str, Any],
    speed: Literal["fast", "normal"],
    scan: Volume,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learned, "would_take", lambda *_: -1e9)  # the predictor codes it
    for kind, block_type in BLOCK_TYPES.items():
        wrong = replace(block_type, decode=wrong_voxel(block_type.decode))
        monkeypatch.setitem(BLOCK_TYPES, kind, wrong)
    with pytest.raises(CodecError, match="misses its target"):
        compress(scan, tmp_path / "a.ucv", CompressConfig(**config, speed=speed))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "reached", "says"),
    [
        ({"lossless": True}, {}, "a voxel is off by 2"),
        ({"max_error": 1}, {}, "off by 2, above its bound of 1"),
        ({"ratio": 3}, {}, "above 9600"),
        ({"psnr": 60.0}, {}, "PSNR is 35.5"),
        ({"max_error": 2}, {"voxels_sha256": "0" * 64}, "differ from those coded"),
        ({"max_error": 2}, {"is_sealed": False}, "differ from those written"),
        ({"max_error": 2}, {}, ""),
    ],
    ids=str,
)
def test_a_file_that_misses_its_target_is_no_file(
    mode: dict[str, Any], reached: dict[str, Any], says: str, scan: Volume
) -> None:
    wrong = scan.voxels.copy()
    wrong[3, 4, 5] += 2
    tally = Tally(scan.voxels, Grid(scan.shape, (1, 1, 1)))
    tally.add(wrong)
    file: Any = SimpleNamespace(size=9999, is_sealed=lambda: reached.get("is_sealed", True))
    header: Any = SimpleNamespace(exact=True, raw_bytes=scan.nbytes, peak=1.0)
    header.voxels_sha256 = reached.get("voxels_sha256", tally.sha256)
    with pytest.raises(CodecError, match=says) if says else contextlib.nullcontext():
        check_target(tally, CompressConfig(**mode), file, header)


def test_the_hashes_are_those_of_the_file_and_its_voxels(scan: Volume, tmp_path: Path) -> None:
    done = compress(scan, tmp_path / "a.ucv", LOSSLESS)
    assert done.file_sha256 == hashlib.sha256((tmp_path / "a.ucv").read_bytes()).hexdigest()
    assert done.sha256 == hashlib.sha256(scan.voxels.tobytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks")
def test_a_killed_writer_leaves_the_old_file_or_none(tmp_path: Path) -> None:
    """Some of the points of Benchmarks/kills.py, which tries full disks too."""
    rows = rows_of(killing.__file__, "kill", str(tmp_path), "15", "1")
    assert sum(row["killed"] for row in rows) >= 12
    assert {row["writer"] for row in rows} >= set(killing.MODES)
    for row in rows:
        assert row["target"] in ("old", "new", "none"), row
        assert row["temporary"] <= 1, row
        assert (row["litter"], row["source"]) == (0, "same"), row
