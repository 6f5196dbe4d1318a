"""inspect_container(verify=True) reads all of a file and names each damaged chunk."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress import blocks, container, inspect_container
from MedEnhanceLib.unicompress.container import Chunk

from .conftest import Write
from .test_damage import chunks_of, rebuild


@pytest.fixture
def file(scan: Volume, write: Write, small_blocks: None) -> Path:
    return write(scan, lossless=True, speed="fast")


def test_an_intact_file_is_intact(file: Path) -> None:
    assert inspect_container(file)["check"] is None
    check = inspect_container(file, verify=True)["check"]
    assert check == {"intact": True, "chunks": 27, "damaged": [], "sealed": True}


def test_every_damaged_chunk_is_told_with_its_block_and_place(file: Path) -> None:
    with container.Container(file) as opened:
        chunks = [opened.chunks[4], opened.chunks[20]]
    raw = bytearray(file.read_bytes())
    for chunk in chunks:
        raw[chunk.offset + chunk.length - 1] ^= 1
    file.write_bytes(raw)
    check = inspect_container(file, verify=True)["check"]
    assert (check["intact"], check["sealed"]) == (False, False)
    assert [one["chunk"] for one in check["damaged"]] == [4, 20]
    first = check["damaged"][0]
    assert (first["block"], first["offset"]) == (chunks[0].block, chunks[0].offset)
    box = blocks.Grid((10, 40, 36), (3, 3, 3)).box(chunks[0].block)
    assert first["start"] == [box.k[0], box.j[0], box.i[0]]
    assert first["stop"] == [box.k[1], box.j[1], box.i[1]]


def test_a_chunk_without_voxels_is_verified_too(file: Path) -> None:
    rebuild(file, chunks=[*chunks_of(file), Chunk(container.NO_BLOCK, 99, b"a model")])
    raw = file.read_bytes()
    file.write_bytes(raw.replace(b"a model", b"a Model"))
    (found,) = inspect_container(file, verify=True)["check"]["damaged"]
    assert (found["chunk"], found["block"], found["start"]) == (27, None, None)


@pytest.mark.parametrize("place", [-1, -60, -100])
def test_damage_behind_the_chunks_is_found_by_the_seal(place: int, file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[place] ^= 1
    file.write_bytes(raw)
    check = inspect_container(file, verify=True)["check"]
    assert (check["intact"], check["damaged"], check["sealed"]) == (False, [], False)


def test_it_tells_how_far_it_is_and_can_be_stopped(file: Path) -> None:
    fractions: list[float] = []
    monitor = Monitor(lambda event: fractions.append(event.fields["fraction"]))
    inspect_container(file, verify=True, monitor=monitor)
    assert fractions == sorted(fractions)
    assert len(fractions) > 27
    with pytest.raises(Cancelled):
        inspect_container(file, verify=True, monitor=Monitor(cancel=lambda: True))
