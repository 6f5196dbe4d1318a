"""compress, decompress, recover: compression modes, regions, damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib import io
from MedEnhanceLib.cli.compress import parse_region
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError


@pytest.fixture
def packed(run: Callable, scan: Path, tmp_path: Path) -> Path:
    """The scan without loss, as a container."""
    path = tmp_path / "scan.ucv"
    ran = run("compress", scan, path, "--lossless")
    assert ran.status == 0
    assert "one damaged byte can cost 100% of the volume: keep a second copy" in ran.out
    return path


def test_region_which_may_count_from_the_end_is_cropped_with_its_geometry(
    run: Callable, scan: Path, packed: Path, tmp_path: Path
) -> None:
    refused = run("decompress", packed, tmp_path / "part.nrrd", "--region", "-8:9,:,10:")
    assert refused.err.endswith("Join what begins with a hyphen: --region=-8:9,:,10:\n")
    for name in ("-1+1.nii.gz", "-b.nrrd"):
        refused = run("decompress", packed, name)
        assert refused.err.endswith(f"A name that begins with - is written ./{name}\n")
    ran = run("decompress", packed, tmp_path / "part.nrrd", "--region=-8:9,:,10:")
    assert ran.status == 0
    assert "26 × 40 × 5 (columns × rows × slices), int16" in ran.out
    whole, part = io.load(scan), io.load(tmp_path / "part.nrrd")
    assert np.array_equal(part.voxels, whole.voxels[4:9, :, 10:])
    assert part.geometry.is_close(whole.geometry.cropped((4, 0, 10)))


@pytest.mark.parametrize("text", ["", "5", "1:2:3", "a:b", "1:2,,", "1.5:2", "--3:4", "²:3"])
def test_region_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--region"):
        parse_region(text)


def test_card_of_a_container_states_its_compression_mode(run: Callable, packed: Path) -> None:
    ran = run("inspect", packed)
    assert ran.status == 0
    assert "lossless" in ran.out
    assert "times smaller" in ran.out
    assert (
        "; each about 36 × 40 × 12 (columns × rows × slices)" in ran.out
    )  # what reading a part reads
    assert run("inspect", packed, "--json").json["card"]["mode"] == "lossless"


def test_verifying_names_the_first_damaged_chunk_with_its_block(
    run: Callable, damaged: Path
) -> None:
    ran = run("inspect", damaged, "--verify")
    assert ran.status == 6
    assert "1 of 4 chunks is damaged" in ran.err
    assert f"save what is intact: medenhance recover {damaged} " in ran.err
    reported = run("inspect", damaged, "--verify", "--json")
    assert reported.status == 6
    (found,) = reported.json["card"]["check"]["damaged"]
    assert f"chunk {found['chunk']} at byte {found['offset']} is damaged" in ran.err
    assert ran.err.count("large.ucv is damaged") == 1
    offset, half = found["offset"], damaged.stat().st_size // 2
    assert offset <= half < offset + found["length"]


def test_no_recovery_is_advised_where_the_only_block_is_lost(
    run: Callable, head: Volume, tmp_path: Path
) -> None:
    io.save(head, tmp_path / "small.nrrd")
    path = tmp_path / "small.ucv"
    run("compress", tmp_path / "small.nrrd", path, "--lossless", "--speed", "fast")
    damage(path)
    ran = run("inspect", path, "--verify")
    assert (ran.status, "Copy the file again\n" in ran.err) == (6, True)
    assert run("recover", path, tmp_path / "none.nrrd").status == 6


@pytest.fixture
def damaged(run: Callable, head: Volume, tmp_path: Path) -> Path:
    """A container of four blocks, one of which is damaged beyond repair."""
    return _damaged(run, head, tmp_path)


def _damaged(run: Callable, head: Volume, folder: Path, place: int | None = None) -> Path:
    """Beyond 16 bits, where the predictor is not used: its blocks hold a million voxels or more."""
    noise = np.random.default_rng(0).integers(-2000, 2000, (12, 320, 324), np.int32)
    voxels = 100 * np.tile(head.voxels.astype(np.int32), (1, 8, 9)) + noise
    io.save(Volume(voxels, modality="MR"), folder / "large.nrrd")
    path, source = folder / "large.ucv", folder / "large.nrrd"
    run("compress", source, path, "--lossless", "--speed", "fast")
    damage(path, place)
    return path


def test_damage_names_the_slices_that_are_lost(run: Callable, head: Volume, tmp_path: Path) -> None:
    """A file of many slices, damaged in the middle: what is lost is read off its mask."""
    tall = np.tile(head.voxels, (8, 4, 4))
    io.save(Volume(tall, modality="MR"), tmp_path / "tall.nrrd")
    path, back = tmp_path / "tall.ucv", tmp_path / "back.nrrd"
    run("compress", tmp_path / "tall.nrrd", path, "--lossless", "--speed", "fast")
    damage(path)
    saved = run("recover", path, back)
    lost = np.flatnonzero(io.load(tmp_path / "back-lost.nrrd").voxels.any(axis=(1, 2)))
    place = f"slices {lost[0]}:{lost[-1] + 1}"
    assert 0 < len(lost) < len(tall)
    assert f"in {place}\n" in saved.out
    refused = run("decompress", path, tmp_path / "none.nrrd")
    assert (refused.status, f"lost: {place}\n" in refused.err) == (6, True)
    assert not (tmp_path / "none.nrrd").exists()
    assert f"lost: {place}\n" in run("inspect", path, "--verify").err


def test_a_recovery_in_part_is_status_seven_and_says_what_was_written(
    run: Callable, damaged: Path, tmp_path: Path
) -> None:
    saved = run("recover", damaged, tmp_path / "back.nrrd", "--json")
    assert saved.status == 7
    assert saved.json["ok"] is False
    assert saved.json["error"]["code"] == "incomplete"
    assert saved.json["outputs"] == {
        "output": str(tmp_path / "back.nrrd"),
        "mask": str(tmp_path / "back-lost.nrrd"),
    }
    assert len(saved.json["report"]["lost"]) == 1
    assert io.load(tmp_path / "back.nrrd").shape == (12, 320, 324)
    mask = io.load(tmp_path / "back-lost.nrrd")
    assert (mask.modality, mask.shape) == ("SEG", (12, 320, 324))
    assert mask.voxels.sum() == saved.json["report"]["lost_voxels"]


def damage(path: Path, place: int | None = None) -> None:
    """Turn over a byte, by default in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 0xFF
    path.write_bytes(bytes(data))
