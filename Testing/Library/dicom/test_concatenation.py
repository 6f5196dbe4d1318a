"""Frames that are spread over several files are one volume once all of them are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from Library.dicom.images import enhanced_mr, written

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import load_dicom
from MedEnhanceLib.runtime.progress import Monitor

FRAMES = np.arange(6 * 5 * 7, dtype=np.uint16).reshape(6, 5, 7)


def concatenation(
    tmp_path: Path, numbers: list[int], total: int | list[int] | None, uid: str = "1.2.99"
) -> Path:
    """Two frames a file, in the order of their number."""
    for index, place in enumerate(numbers):
        z = [4.0 * index, 4.0 * index + 2]
        dataset = enhanced_mr(FRAMES[2 * index : 2 * index + 2], z, ConcatenationUID=uid)
        dataset.InConcatenationNumber = place
        if total is not None:
            dataset.InConcatenationTotalNumber = total if isinstance(total, int) else total[index]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{uid}.{index}"
        (tmp_path / f"{index}.dcm").write_bytes(written(dataset))
    return tmp_path


@pytest.mark.parametrize("total", [3, None])
def test_complete_concatenation_is_one_volume(total: int | None, tmp_path: Path) -> None:
    volume = load_dicom(concatenation(tmp_path, [1, 2, 3], total), monitor=Monitor())
    expected = FRAMES.astype(int) + (np.arange(6) % 2)[:, None, None]
    assert np.array_equal(volume.voxels, expected)


@pytest.mark.parametrize(
    ("numbers", "total", "says"),
    [
        ([1, 2], 3, "of 3 these are missing: 3"),
        ([2, 3], 3, "of 3 these are missing: 1"),
        ([1, 3], None, "of 3 these are missing: 2"),
        ([1], 60000, "missing: 2, 3, 4, 5, 6, 7 and 59993 more"),
        ([1, 1], 2, "their numbers are 1, 1"),
        ([0, 1], 2, "their numbers are 0, 1"),
        ([1, 3], 2, "their numbers are 1, 3"),
        ([1, 2], [2, 3], "their total numbers differ: 2 or 3"),
    ],
)
def test_part_of_a_concatenation_is_no_volume(
    numbers: list[int], total: int | list[int] | None, says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_dicom(concatenation(tmp_path, numbers, total), monitor=Monitor())
    assert caught.value.hint
