"""A container as an array on the disk: NumPy's indices, and no more decoded than they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.unicompress import StoredVolume

from .conftest import Write


@pytest.fixture
def stored(file: Path) -> StoredVolume:
    return me.open(file)


@pytest.mark.parametrize(
    "key",
    [
        5,
        slice(4, 6),
        (..., slice(30, 2, -7)),
        (-1, ..., -2),
        (2, 3, 4),
        (slice(5, 5),),
        (slice(3, 9, 2), slice(39, None, -5), np.int64(4)),
        (),
        slice(4, 999),
        slice(40, 60),
    ],
)
def test_indices_mean_what_they_mean_in_numpy(key: Any, stored: StoredVolume, scan: Volume) -> None:
    found = stored[key]
    assert found.dtype == scan.dtype
    assert np.array_equal(found, scan.voxels[key])


@pytest.mark.parametrize("key", [[1, 2], True, None, np.arange(3), np.ones((9, 9), bool)])
def test_other_keys_are_refused(key: Any, stored: StoredVolume) -> None:
    with pytest.raises(me.InputError, match=f"index of type {type(key).__name__}"):
        stored[key]
    with pytest.raises(IndexError):
        stored[40]


def test_a_file_that_changes_is_noticed(stored: StoredVolume, scan: Volume, write: Write) -> None:
    write(scan.with_voxels(scan.voxels[:, :, ::-1]), max_error=3)
    with pytest.raises(me.CodecError, match="changed since it was opened"):
        stored[0]
    stored.path.unlink()
    with pytest.raises(me.InputError, match="cannot be read"):
        stored[0]


def test_dask_computes_on_it(stored: StoredVolume, scan: Volume) -> None:
    dask_array = pytest.importorskip("dask.array")
    array = dask_array.from_array(stored, chunks=(4, -1, -1))
    assert np.array_equal(array[3:5].compute(scheduler="sync"), scan.voxels[3:5])
