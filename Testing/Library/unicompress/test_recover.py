"""Damage is found and named, and what is intact is recovered: chunks and ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, CodecError
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.unicompress import (
    CompressConfig,
    RecoverReport,
    blocks,
    compress,
    decompress,
    inspect_container,
    recover,
)
from MedEnhanceLib.unicompress.container import Container

from .conftest import Write, damage
from .test_round_trip import same_bits


def assert_all_but_the_lost_is_equal(
    volume: Volume, report: RecoverReport, original: Volume
) -> None:
    mask = report.mask(volume).voxels.astype(bool)
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
    damage(file, (chunk.offset, 1))
    with pytest.raises(CodecError, match=f"chunk 10 at byte {chunk.offset} is damaged"):
        decompress(file)
    assert np.array_equal(decompress(file, region=(slice(7, 10),)).voxels, scan.voxels[7:10])
    volume, report = recover(file)
    (lost,) = report.lost
    assert (lost.block, report.proved) == (10, False)
    assert f"chunk 10 at byte {chunk.offset}" in lost.reason
    assert volume.history[-1].startswith("DERIVED: recovered without 1 of 27 damaged blocks")
    assert_all_but_the_lost_is_equal(volume, report, scan)


@pytest.mark.parametrize(
    "mode", [{"lossless": True}, {"max_error": 2}, {"ratio": 8}, {"psnr": 40}], ids=str
)
@pytest.mark.usefixtures("small_blocks")
def test_a_flipped_bit_costs_an_eighth_or_the_writing_said_so(
    scan: Volume, mode: dict[str, Any], tmp_path: Path
) -> None:
    """27 blocks without loss or with a bounded error, as videos three."""
    path, events = tmp_path / "a.ucv", list[Event]()
    config = CompressConfig(**mode, speed="fast")
    written = compress(scan, path, config, monitor=Monitor(events.append))
    said = [event for event in events if "damaged byte can cost 40%" in str(event.fields)]
    assert bool(said) == (written.largest_loss > 1 / 8) == (not config.is_bounded)
    assert inspect_container(path)["largest_loss"] == written.largest_loss
    with Container(path) as opened:
        chunks = opened.chunks
    for chunk in chunks[:: len(chunks) // 3 + 1]:
        damaged = tmp_path / "b.ucv"
        damaged.write_bytes(path.read_bytes())
        damage(damaged, (chunk.offset + chunk.length // 2, 1))
        try:
            lost = recover(damaged)[1].lost_voxels
        except CodecError:
            lost = scan.voxels.size
        assert lost <= written.largest_loss * scan.voxels.size


def test_a_cut_file_keeps_what_was_before_the_cut(file: Path, scan: Volume) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[: int(0.6 * len(raw))])
    volume, report = recover(file)
    assert 0 < len(report.lost) < 27
    assert "cut short" in report.notes[0]
    assert_all_but_the_lost_is_equal(volume, report, scan)


def test_every_lost_slice_is_named_and_no_other(file: Path) -> None:
    with Container(file) as opened:
        offsets = [opened.chunks[block].offset for block in (2, 20)]
    damage(file, *((offset, 1) for offset in offsets))
    with pytest.raises(CodecError, match=r"chunk 2 .*; lost: slices 0:3, 6:10\. "):
        decompress(file)
    with pytest.raises(CodecError, match=r"lost: slices 6:10\. "):
        decompress(file, region=(slice(4, 10),))


def test_recovering_is_advised_only_where_it_can_save_something(
    file: Path, scan: Volume, write: Write
) -> None:
    single = write(
        scan.crop(k=slice(0, 2), j=slice(0, 9), i=slice(0, 9)), "b.ucv", lossless=True, speed="fast"
    )
    for path, is_worth_it in ((file, True), (single, False)):
        whole = path.read_bytes()
        with Container(path) as opened:
            offset = opened.chunks[0].offset
        damage(path, (offset + 5, 1))
        with pytest.raises(CodecError) as caught:
            decompress(path)
        assert ("me.recover" in caught.value.hint) == is_worth_it
        for size in (50, offset + 5):  # nothing is left
            path.write_bytes(whole[:size])
            with pytest.raises(CodecError) as caught:
                decompress(path)
            assert "recover" not in caught.value.hint
        path.write_bytes(whole + b"more")
        with pytest.raises(CodecError) as caught:
            decompress(path)
        assert "me.recover" in caught.value.hint
        recover(path)


def test_verifying_reports_every_damaged_chunk_with_its_block_and_place(file: Path) -> None:
    assert inspect_container(file)["check"] is None
    state = {"intact": True, "chunks": 27, "damaged": [], "sealed": True}
    assert inspect_container(file, verify=True)["check"] == state
    with Container(file) as opened:
        chunks = [opened.chunks[4], opened.chunks[20]]
    damage(file, *((chunk.offset + chunk.length - 1, 1) for chunk in chunks))
    check = inspect_container(file, verify=True)["check"]
    assert (check["intact"], check["sealed"]) == (False, False)
    assert [row["chunk"] for row in check["damaged"]] == [4, 20]
    first = check["damaged"][0]
    box = blocks.Grid((10, 40, 36), (3, 3, 3)).box(chunks[0].block)
    assert (first["block"], first["offset"]) == (chunks[0].block, chunks[0].offset)
    assert (first["start"], first["stop"]) == tuple(map(list, box.place(3)))


@pytest.mark.parametrize("place", [-1, -32])
def test_damage_in_which_no_voxel_lies_is_found_and_does_no_harm(
    place: int, file: Path, scan: Volume
) -> None:
    damage(file, (file.stat().st_size + place, 1))
    check = inspect_container(file, verify=True)["check"]
    assert (check["intact"], check["damaged"], check["sealed"]) == (False, [], False)
    assert same_bits(decompress(file).voxels, scan.voxels)
    assert recover(file)[1].proved


@pytest.mark.parametrize("read", [decompress, partial(inspect_container, verify=True)])
def test_reading_and_verifying_can_be_stopped(read: Callable[..., object], file: Path) -> None:
    with pytest.raises(Cancelled):
        read(file, monitor=Monitor(cancel=lambda: True))
