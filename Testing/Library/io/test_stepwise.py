"""NRRD files that are written and read in steps: read by every reader, and back, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.errors import InputError, OutputError
from MedEnhanceLib.io import stepwise

GEOMETRY = Geometry((0.7, 1.1, 3.3), (12.3, -45.6, 7.8))
TAGS = {"modality": "MR", "units": "", "DERIVED": ['by "Ä" in C:\\new\\table']}


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("frames", [1, 3])
def test_a_written_file_is_read_by_the_library_and_in_steps(
    tmp_path: Path, dtype: str, frames: int
) -> None:
    path = tmp_path / "volume.nrrd"
    arrays = [np.arange(210).reshape(5, 6, 7).astype(dtype) + at for at in range(frames)]
    list(stepwise.write(path, [each.astype(dtype) for each in arrays], GEOMETRY, TAGS))
    volume, file = io.load(path), stepwise.NrrdFile(path)
    expected = arrays[0] if frames == 1 else np.stack(arrays)
    assert np.array_equal(volume.voxels, expected)
    assert np.array_equal(file.voxels, expected)
    assert len(file.frames) == frames
    assert file.geometry == volume.geometry == GEOMETRY
    assert tuple(file.tags["DERIVED"]) == volume.history == tuple(TAGS["DERIVED"])


def test_steps_are_short_and_cover_everything() -> None:
    array = np.zeros((300, 512, 512), np.int16)
    slabs = list(stepwise.steps(array))
    assert max(array[slab].nbytes for slab in slabs) <= 4 << 20
    assert sum(len(array[slab]) for slab in slabs) == 300


def test_frames_of_other_sizes_and_files_cut_short_are_errors(tmp_path: Path) -> None:
    path, array = tmp_path / "volume.nrrd", np.zeros((2, 3, 4), np.int16)
    with pytest.raises(InputError, match="frame 1 differs"):
        list(stepwise.write(path, [array, array[:1]], GEOMETRY, TAGS))
    list(stepwise.write(path, [array], GEOMETRY, TAGS))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(OutputError, match="damaged or cut short"):
        stepwise.NrrdFile(path)
