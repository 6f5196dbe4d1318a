"""What is intact in a damaged file is saved, and what is not is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.unicompress import RecoverReport, decompress, recover
from MedEnhanceLib.unicompress.container import Container

from .conftest import Write


@pytest.fixture
def file(scan: Volume, write: Write, small_blocks: None) -> Path:
    return write(scan, lossless=True, speed="fast")


def damage(path: Path, start: int, size: int = 1) -> None:
    raw = bytearray(path.read_bytes())
    raw[start : start + size] = bytes(byte ^ 0x5A for byte in raw[start : start + size])
    path.write_bytes(raw)


def assert_all_but_the_lost_is_equal(
    volume: Volume, report: RecoverReport, original: Volume
) -> None:
    mask = np.zeros(original.shape, bool)
    for lost in report.lost:
        mask[tuple(map(slice, lost.start, lost.stop))] = True
    assert mask.sum() == report.lost_voxels
    assert np.array_equal(volume.voxels[~mask], original.voxels[~mask])
    assert (volume.voxels[mask] == report.fill_value).all()
    assert volume.geometry == original.geometry


def test_an_intact_file_is_proved(file: Path, scan: Volume) -> None:
    volume, report = recover(file)
    assert volume.is_equal(scan)
    assert report == RecoverReport(27, (), 0, scan.voxels.min(), (), proved=True)
    assert volume.history == ()


def test_a_damaged_chunk_costs_its_block_only(file: Path, scan: Volume) -> None:
    with Container(file) as opened:
        chunk = opened.chunks[10]
    damage(file, chunk.offset)
    volume, report = recover(file)
    (lost,) = report.lost
    assert (lost.block, report.proved) == (10, False)
    assert f"chunk 10 at byte {chunk.offset}" in lost.reason
    assert volume.history[-1].startswith("DERIVED: recovered without 1 of 27 damaged blocks")
    assert_all_but_the_lost_is_equal(volume, report, scan)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_file_keeps_what_was_before_the_cut(share: float, file: Path, scan: Volume) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[: int(share * len(raw))])
    volume, report = recover(file)
    assert 0 < len(report.lost) < 27
    assert "cut short" in report.notes[0]
    assert_all_but_the_lost_is_equal(volume, report, scan)


@pytest.mark.parametrize("place", [0, 3, 20, 61, 64, 100, 500])
def test_a_damaged_beginning_is_repaired_from_the_end(place: int, file: Path, scan: Volume) -> None:
    damage(file, place, 3)
    with pytest.raises(CodecError):
        decompress(file)
    volume, report = recover(file)
    assert volume.is_equal(scan)
    assert report.proved
    assert "damaged" in report.notes[0]


def test_a_lost_end_does_not_matter(file: Path, scan: Volume) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[:-40])
    volume, report = recover(file)
    assert volume.is_equal(scan)
    assert "every chunk is intact" in report.notes[0]


def test_both_copies_lost_is_an_error(file: Path) -> None:
    damage(file, 70, 50)
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CodecError, match="damaged"):
        recover(file)


def test_a_sequence_tells_the_frame(write: Write, small_blocks: None) -> None:
    volume = Volume(np.arange(2 * 3 * 20 * 20, dtype=np.int32).reshape(2, 3, 20, 20))
    path = write(volume, lossless=True, speed="fast")
    with Container(path) as opened:
        chunk = opened.chunks[5]
    damage(path, chunk.offset)
    back, report = recover(path)
    assert report.lost[0].start[0] == 1
    assert_all_but_the_lost_is_equal(back, report, volume)


@pytest.mark.slow
@pytest.mark.parametrize("config", [{"max_error": 2.0}, {"ratio": 5.0}], ids=str)
def test_lossy_files_are_recovered_too(
    config: dict[str, float], scan: Volume, write: Write, small_blocks: None
) -> None:
    path = write(scan, **config)
    whole = decompress(path)
    with Container(path) as opened:
        chunk = opened.chunks[3]
    damage(path, chunk.offset + chunk.length - 1)
    volume, report = recover(path)
    assert [lost.block for lost in report.lost] == [3]
    assert_all_but_the_lost_is_equal(volume, report, whole)


@pytest.mark.slow
def test_any_damage_gives_a_volume_or_a_named_error(file: Path, scan: Volume) -> None:
    whole = file.read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(60):
        file.write_bytes(whole)
        for start in rng.integers(0, len(whole), 3):
            damage(file, int(start), int(rng.integers(1, 40)))
        try:
            volume, report = recover(file, threads=1)
        except CodecError:
            continue
        assert_all_but_the_lost_is_equal(volume, report, scan)


def test_recover_never_advises_to_recover(tmp_path: Path) -> None:
    path = tmp_path / "a.ucv"
    path.write_bytes(b"UCV1" + bytes(40))
    with pytest.raises(CodecError) as caught:
        recover(path)
    assert "Copy the file again" in caught.value.hint
    assert "recover" not in caught.value.hint
