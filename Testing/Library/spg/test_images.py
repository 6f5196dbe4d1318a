"""Volumes become axial images of one size, spacing and window, whatever their own are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.spg.config import ImageConfig
from MedEnhanceLib.spg.images import axial_slices, spread_over

from .conftest import phantom

SCALING = ImageConfig(size=32, spacing_mm=3.0)


def test_pixels_of_the_right_size_are_not_touched() -> None:
    volume = phantom(2)
    images = axial_slices(volume, SCALING)
    assert images.shape == (8, 32, 32)
    top = np.percentile(volume.voxels[volume.voxels > volume.voxels.mean()], 99.5)
    wanted = np.clip(volume.voxels[:, 1:33, :] / top, 0, 1)
    assert np.allclose(images[:, :, 1:31], wanted, atol=1e-6)
    assert np.array_equal(images[:, :, [0, 31]], images[:, :, [1, 30]])


@pytest.mark.parametrize("shape", [(32, 20), (7, 5)])
def test_a_small_field_of_view_leaves_no_edge_where_it_ends(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    voxels = (rng.random((2, *shape)) * 100 + 900).astype(np.float32)
    images = axial_slices(Volume(voxels, Geometry((3.0, 3.0, 5.0)), "MR"), SCALING)
    assert images.shape == (2, 32, 32)
    assert images.min() >= images.max() * 0.85
    assert images.mean() == pytest.approx(voxels.mean() / voxels.max(), rel=0.02)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_other_pixels_are_resampled_around_the_same_middle(factor: float) -> None:
    spacing = SCALING.spacing_mm * factor
    size = int(32 / factor)
    images = axial_slices(phantom(3), SCALING)
    others = axial_slices(phantom(3), replace(SCALING, size=size, spacing_mm=spacing))
    assert others.shape == (len(images), size, size)
    for image, other in zip(images, others, strict=True):
        # An odd number of pixels cannot lie in the middle of an even one: half a pixel is lost.
        assert np.abs(centroid(image) * 3.0 - centroid(other) * spacing).max() < 0.6 * max(
            spacing, 3
        )
        assert other.sum() * spacing**2 == pytest.approx(image.sum() * 9, rel=0.05)


def centroid(image: np.ndarray) -> np.ndarray:
    """In pixels from the middle of the frame."""
    places = np.indices(image.shape) - (np.array(image.shape) - 1)[:, None, None] / 2
    return (places * image).sum(axis=(1, 2)) / image.sum()


def test_slices_become_axial_and_go_from_foot_to_head() -> None:
    volume = phantom(4)
    wanted = axial_slices(volume, SCALING)
    upside_down = Volume(
        volume.voxels[::-1],
        Geometry((3.0, 3.0, 5.0), direction=((1, 0, 0), (0, 1, 0), (0, 0, -1))),
        "MR",
    )
    assert np.allclose(axial_slices(upside_down, SCALING), wanted, atol=1e-6)
    # Stored as sagittal slices: k along x, j along z, i along y.
    sagittal = Volume(
        volume.voxels.transpose(2, 0, 1),
        Geometry((3.0, 5.0, 3.0), direction=((0, 0, 1), (1, 0, 0), (0, 1, 0))),
        "MR",
    )
    assert np.allclose(axial_slices(sagittal, SCALING), wanted, atol=1e-6)


def test_slices_that_show_nothing_are_left_out() -> None:
    volume = phantom(5)
    voxels = volume.voxels.copy()
    voxels[[0, 7]] = 0
    assert len(axial_slices(volume.with_voxels(voxels), SCALING)) == 6
    empty = Volume(np.zeros((4, 30, 30), np.int16), modality="MR", source="empty.nii")
    with pytest.raises(InputError, match=r"empty\.nii"):
        axial_slices(empty, SCALING)


def test_images_are_spread_over_the_volume() -> None:
    images = np.arange(20, dtype=np.float32)[:, None, None]
    assert spread_over(images, 4).ravel().tolist() == [2, 7, 12, 17]
    assert spread_over(images[:2], 4).ravel().tolist() == [0, 0, 1, 1]
