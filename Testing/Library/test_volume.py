"""Volume: immutable, keeps what it is through every step, compares to the last bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from MedEnhanceLib.core.origin import DicomOrigin, Instance
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.errors import InputError, MedEnhanceError


def test_voxels_cannot_be_changed_through_the_volume(head: Volume) -> None:
    with pytest.raises(ValueError, match="read-only"):
        head.voxels[0, 0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        head.modality = "CT"  # type: ignore[misc]


def test_numpy_is_a_copy_and_array_is_not(head: Volume) -> None:
    copied = head.numpy()
    copied[0, 0, 0] += 1
    assert copied[0, 0, 0] != head.voxels[0, 0, 0]
    assert np.shares_memory(head.array, head.voxels)
    with pytest.raises(ValueError, match="read-only"):
        head.array[0, 0, 0] = 1
    assert (head.ndim, Volume(np.zeros((2, 1, 1, 1))).ndim) == (3, 4)


@pytest.mark.parametrize("shape", [(4,), (4, 5), (1, 2, 3, 4, 5)])
def test_wrong_number_of_axes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=f"{len(shape)} axes") as caught:
        Volume(np.zeros(shape), source="scan.nii")
    assert "scan.nii" in caught.value.message
    assert caught.value.hint


def test_new_voxels_keep_everything_else(head: Volume) -> None:
    brighter = head.with_voxels(head.voxels + 1.5, did="brighten")
    assert brighter.geometry is head.geometry
    assert (brighter.modality, brighter.source) == (head.modality, head.source)
    assert brighter.history == ("brighten",)
    assert brighter.dtype == np.float64
    assert head.history == ()
    assert repr(brighter).startswith("<Volume from 'head': MR") and "mm, brighten>" in repr(
        brighter
    )
    assert head.with_voxels(head.voxels).history == ()
    with pytest.raises(InputError, match="shape"):
        head.with_voxels(head.voxels[1:])


def test_frames_are_volumes_of_their_own_with_their_images() -> None:
    images = tuple((Instance(f"{t}.dcm", "1.2", f"1.2.{t}"),) * 2 for t in range(3))
    sequence = Volume(
        np.arange(24).reshape(3, 2, 2, 2),
        frame_interval_s=0.5,
        history=("a",),
        dicom_origin=DicomOrigin("1.1", "1.3", images),
    )
    frames = sequence.frames()
    assert [frame.shape for frame in frames] == [(2, 2, 2)] * 3
    assert np.array_equal(frames[1].voxels, sequence.voxels[1])
    assert (frames[1].frame_interval_s, frames[1].history) == (None, ("a",))
    assert (frames[1].dicom_origin.instances, frames[1].dicom_origin.series) == (images[1:2], "1.3")


def test_equal_means_the_same_bits(head: Volume) -> None:
    assert head.is_equal(head.with_voxels(head.voxels.copy()))
    other = head.voxels.copy()
    other[3, 4, 5] += 1
    assert not head.is_equal(head.with_voxels(other))
    assert not head.is_equal(head.with_voxels(head.voxels.astype(np.int32)))
    moved = dataclasses.replace(head.geometry, origin=(0.0, 0.0, 0.0))
    assert not head.is_equal(dataclasses.replace(head, geometry=moved))


@pytest.mark.parametrize("kind", ["int8", "uint16", "int32", "uint64"])
def test_results_beyond_the_type_stop_at_its_ends(kind: str) -> None:
    limits = np.iinfo(kind)
    values = np.array([-1e30, float(limits.min), 0.0, float(limits.max), 1e30])
    restored = restore_dtype(values, np.dtype(kind))
    assert restored.dtype == kind
    assert restored.tolist() == [limits.min, limits.min, 0, limits.max, limits.max]


def test_results_are_rounded_to_nearest_even() -> None:
    values = np.float32([0.5, 1.5, 2.5, -0.5, 2.4999, 2.5001])
    assert restore_dtype(values, np.dtype(np.int16)).tolist() == [0, 2, 2, 0, 2, 3]


@pytest.mark.parametrize("kind", ["uint8", "int64", "bool"])
def test_nan_never_becomes_a_number(kind: str) -> None:
    with pytest.raises(MedEnhanceError, match="NaN"):
        restore_dtype(np.array([1.0, np.nan]), np.dtype(kind))
