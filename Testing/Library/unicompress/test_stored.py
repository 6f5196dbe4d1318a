"""A container as an array on the disk: NumPy's indices, and no more decoded than they need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.unicompress import StoredVolume, decode

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
    assert type(found) is type(np.array(scan.voxels)[key])
    assert found.dtype == scan.dtype
    assert np.array_equal(found, scan.voxels[key])


@pytest.mark.parametrize("key", [[1, 2], True, None, np.arange(3), np.ones((9, 9), bool)])
def test_other_keys_are_refused(key: Any, stored: StoredVolume) -> None:
    with pytest.raises(me.InputError, match=f"index of type {type(key).__name__}"):
        stored[key]
    with pytest.raises(IndexError):
        stored[40]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks that were decoded."""
    blocks, decode_chunk = [], decode._decode_chunk

    def counted(container: Any, header: Any, context: Any, chunk: Any, data: bytes) -> Any:
        blocks.append(chunk.block)
        return decode_chunk(container, header, context, chunk, data)

    monkeypatch.setattr(decode, "_decode_chunk", counted)
    return blocks


@pytest.mark.parametrize(
    "take",
    [
        np.asarray,
        np.array,
        lambda stored: np.asarray(stored, np.int16),
        list,
        lambda stored: [part for part in stored],  # noqa: C416 - as somebody would write it
        torch.as_tensor,
        torch.tensor,
    ],
)
def test_taking_all_of_it_decodes_each_block_once(
    take: Any, stored: StoredVolume, scan: Volume, decoded: list[int]
) -> None:
    for _ in range(2):
        assert np.array_equal(np.asarray(take(stored)), scan.voxels)
    assert sorted(decoded) == list(range(27))


def test_slices_in_turn_decode_each_block_once_until_it_is_closed(
    stored: StoredVolume, scan: Volume, decoded: list[int]
) -> None:
    with stored as scanned:
        for number in range(len(scanned)):
            assert np.array_equal(scanned[number], scan.voxels[number])
    assert sorted(decoded) == list(range(27))
    scanned[0, 0, 0]
    assert len(decoded) == 28


def test_blocks_beyond_what_may_be_kept_are_decoded_again(
    stored: StoredVolume, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "_KEPT_BYTES", 1)
    stored[0], stored[0]
    assert len(decoded) == 2 * 9 - 1  # the last one is kept
    decoded.clear()
    np.asarray(stored), np.asarray(stored)
    assert len(decoded) == 2 * (27 - 1)  # that one stays, and no other is kept


def test_it_says_of_itself_what_arrays_say(stored: StoredVolume, scan: Volume) -> None:
    assert (stored.size, stored.nbytes) == (scan.voxels.size, scan.voxels.nbytes)
    assert np.array_equal(stored.affine, scan.geometry.affine_ras)
    assert np.prod([len(sides) for sides in stored.chunks]) == 27
    assert tuple(map(sum, stored.chunks)) == stored.shape


def test_a_loop_over_a_sequence_has_its_frames(
    scan: Volume, write: Write, small_blocks: None, decoded: list[int]
) -> None:
    frames = np.stack([scan.voxels, scan.voxels + 1])
    stored = me.open(write(me.Volume(frames, scan.geometry), lossless=True))
    decoded.clear()
    first = next(iter(stored))
    assert np.array_equal(first, frames[0])
    assert sorted(decoded) == list(range(27))
    assert np.array_equal(list(stored), frames)


def test_an_array_of_it_has_the_type_that_is_asked_for_and_may_be_changed(
    stored: StoredVolume, scan: Volume
) -> None:
    array = np.array(stored, dtype=np.float32)
    assert array.dtype == np.float32
    array[0, 0, 0] = torch.as_tensor(stored)[0, 0, 0] = 5
    assert stored[0, 0, 0] == scan.voxels[0, 0, 0]
    with pytest.raises(ValueError, match="decoded into a new array"):
        np.array(stored, copy=False)


def test_a_file_that_changes_is_noticed(stored: StoredVolume, scan: Volume, write: Write) -> None:
    write(scan.with_voxels(scan.voxels[:, :, ::-1]), max_error=3)
    with pytest.raises(me.CodecError, match="changed since it was opened"):
        stored[0]
    stored.path.unlink()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        stored[0]


def test_it_stays_the_same_file_where_the_working_folder_changes(
    file: Path, scan: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    stored = me.open(file.name)
    monkeypatch.chdir("/")
    assert np.array_equal(stored[3], scan.voxels[3])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_reads_though_another_thread_was_reading(
    stored: StoredVolume, scan: Volume
) -> None:
    with decode._kept._lock:  # as in a thread that is not in the child
        child = os.fork()
        if child == 0:
            os._exit(not np.array_equal(stored[3], scan.voxels[3]))
    assert os.waitpid(child, 0)[1] == 0
