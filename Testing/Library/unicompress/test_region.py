"""A part of a volume is read from its chunks alone."""

from __future__ import annotations

from pathlib import Path
from types import EllipsisType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.unicompress import decompress
from MedEnhanceLib.unicompress.blocks import Grid, coding_grid, implicit_grid, video_grid
from MedEnhanceLib.unicompress.container import ChunkInfo, Container

Region = tuple[slice | EllipsisType, ...]


@pytest.mark.parametrize(
    ("region", "first"),
    [
        ((slice(4, 6), ...), (4, 0, 0)),
        ((..., slice(4, 6)), (0, 0, 4)),
        ((slice(None), slice(-3, None)), (0, 37, 0)),
        ((), (0, 0, 0)),
        ((slice(2, None), ..., slice(None, -30)), (2, 0, 0)),
        ((slice(9, 10), slice(15, 33), slice(35, 36)), (9, 15, 35)),
    ],
    ids=str,
)
def test_a_region_is_the_crop_that_numpy_takes_with_its_geometry(
    region: Region, first: tuple[int, int, int], file: Path, scan: Volume
) -> None:
    part = decompress(file, region=region)
    assert np.array_equal(part.voxels, scan.voxels[region])
    assert part.geometry == scan.geometry.cropped(first)


@pytest.mark.parametrize(
    "region",
    [
        (slice(0, 4, 2),),
        (slice(5, 5),),
        (slice(7, 3),),
        (1, 2, 3),
        (..., ...),
        (slice(None),) * 4,
        (slice(-999, None),),
        (slice(None), slice(3, 999)),
    ],
    ids=str,
)
def test_a_region_that_is_none_is_refused(region: Region, file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        decompress(file, region=region)
    assert caught.value.hint


def test_only_the_chunks_that_are_needed_are_read(
    file: Path, scan: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read, bytes_at = [], Container.read, Container.bytes_at
    taken = 0

    def reading(container: Container, chunk: ChunkInfo) -> bytes:
        asked.append(chunk)
        return read(container, chunk)

    def counted(container: Container, offset: int, length: int) -> bytes:
        nonlocal taken
        data = bytes_at(container, offset, length)
        taken += len(data)
        return data

    with Container(file) as whole:
        grid, front = Grid(scan.shape, tuple(whole.header["blocks"])), whole.chunks[0].offset
    monkeypatch.setattr(Container, "read", reading)
    monkeypatch.setattr(Container, "bytes_at", counted)
    decompress(file, region=(slice(5, 7), slice(0, 13), slice(0, 20)))
    boxes = [grid.box(chunk.block) for chunk in asked]
    assert len(boxes) == 4  # two along k, one along j, two along i
    assert all(box.k[0] < 7 and box.k[1] > 5 and box.j[0] < 13 and box.i[0] < 20 for box in boxes)
    assert taken == front + sum(chunk.length for chunk in asked)


@given(shape=st.lists(st.integers(1, 700), min_size=3, max_size=3).map(tuple))
def test_grids_cover_every_voxel_once(shape: tuple[int, ...]) -> None:
    for grid in (coding_grid(shape), implicit_grid(shape), video_grid(shape)):
        boxes = [grid.box(block) for block in range(len(grid))]
        assert sum(int(np.prod(box.shape)) for box in boxes) == np.prod(shape)
        assert max(int(np.prod(box.shape)) for box in boxes) <= grid.largest_block <= 1 << 24
        ends = {(box.k[1], box.j[1], box.i[1]) for box in boxes}
        assert tuple(shape) in ends
        assert len(ends) == len(boxes)
