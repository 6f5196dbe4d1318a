"""Each byte of a file of each mode, one after the other: damage is found, the rest is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.unicompress import decompress, recover
from MedEnhanceLib.unicompress.blocks import Grid
from MedEnhanceLib.unicompress.container import Container

from .conftest import Write
from .fuzzing import light
from .test_round_trip import same_bits

PROLOGUE, SEAL = 64, 32
MODES: dict[str, dict[str, Any]] = {
    "lossless": {"lossless": True},
    "max_error": {"max_error": 2.0},
    "ratio": {"ratio": 6.0},  # small files of a fixed ratio hold header and table once
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_flip_in_any_byte_is_found_and_costs_its_block_only(
    mode: str, write: Write, small_blocks: None, tmp_path: Path
) -> None:
    j, i = np.mgrid[0:20, 0:12]
    smooth = 300 * np.sin(j / 9) * np.cos(i / 7) + 8 * np.arange(5)[:, None, None]
    noise = np.random.default_rng(3).normal(0, 3, smooth.shape)
    voxels = (smooth + noise).astype(np.int64 if mode == "ratio" else np.int16)
    path = write(Volume(voxels), speed="fast", **MODES[mode])
    whole, true = path.read_bytes(), decompress(path).voxels
    with Container(path) as opened:
        grid = Grid(true.shape, tuple(opened.header["blocks"]))
        owner = {
            byte: chunk.block
            for chunk in opened.chunks
            for byte in range(chunk.offset, chunk.offset + chunk.length)
        }
    start, end = min(owner), max(owner) + 1
    twice = len(whole) > end + PROLOGUE + SEAL
    assert twice == (mode != "ratio")
    assert len(grid) == 4

    with light():
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            path.write_bytes(damaged)
            found = _is_found(path, true)
            # What follows the payload is the second copy, which only `recover` reads, and the seal.
            assert found == (place < end), place
            if place in owner:
                volume, report = recover(path)
                assert [lost.block for lost in report.lost] == [owner[place]]
                box = grid.box(owner[place])
                kept = np.ones(true.shape, bool)
                box.of(kept)[...] = False
                assert np.array_equal(volume.voxels[kept], true[kept])
            elif place < start and (twice or place < PROLOGUE):
                volume, report = recover(path)
                assert same_bits(volume.voxels, true)
                assert report.proved
            elif place < start:
                with pytest.raises(CodecError):
                    recover(path)


def _is_found(path: Path, true: Any) -> bool:
    try:
        back = decompress(path).voxels
    except CodecError as error:
        assert error.hint
        return True
    assert same_bits(back, true)
    return False
