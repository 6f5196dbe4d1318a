"""Geometry: two frames, exact equality, closeness in voxels, what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from Library.conftest import rotation
from Library.storages import STORAGES, stored

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError


def test_affine_maps_indices_to_millimeters(oblique_geometry: Geometry) -> None:
    i, j, k = 3, 5, 7
    direction = np.array(oblique_geometry.direction)
    expected = np.array(oblique_geometry.origin) + direction @ (
        np.array(oblique_geometry.spacing) * (i, j, k)
    )
    assert np.allclose((oblique_geometry.affine_lps @ [i, j, k, 1])[:3], expected)


@settings(deadline=None, max_examples=50)
@given(
    spacing=st.tuples(*[st.floats(1e-6, 1e3)] * 3),
    origin=st.tuples(*[st.floats(-1e5, 1e5)] * 3),
    handed=st.sampled_from([1.0, -1.0]),
)
def test_affine_ras_there_and_back(
    spacing: tuple[float, float, float], origin: tuple[float, float, float], handed: float
) -> None:
    turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, handed]])
    geometry = Geometry(spacing, origin, turn.tolist())
    back = Geometry.from_affine_ras(geometry.affine_ras)
    assert np.allclose(back.spacing, spacing, rtol=1e-14, atol=0)
    assert np.allclose(back.direction, turn, rtol=0, atol=1e-15)
    assert back.origin == geometry.origin
    assert back.is_right_handed == (handed > 0)


def test_crop_begins_at_its_first_voxel(oblique_geometry: Geometry) -> None:
    part = oblique_geometry.cropped((7, 5, 3))
    assert np.allclose(part.origin, (oblique_geometry.affine_lps @ [3, 5, 7, 1])[:3])
    assert (part.spacing, part.direction) == (
        oblique_geometry.spacing,
        oblique_geometry.direction,
    )
    assert oblique_geometry.cropped((0, 0, 0)) is oblique_geometry


def test_json_keeps_every_bit(oblique_geometry: Geometry) -> None:
    text = json.dumps(oblique_geometry.to_json())
    assert Geometry.from_json(json.loads(text)) == oblique_geometry


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("spacing", (0.0, 1.0, 1.0)),
        ("spacing", (np.nan, 1.0, 1.0)),
        ("spacing", (1.0, 1.0)),
        ("spacing", "abc"),
        ("origin", (np.nan, 0.0, 0.0)),
        ("direction", np.zeros((3, 3)).tolist()),
        ("direction", [[1, 0.1, 0], [0, 1, 0], [0, 0, 1]]),
        ("direction", [[1, 0], [0, 1, 0], [0, 0, 1]]),
    ],
)
def test_impossible_geometry_is_refused_by_field(field: str, value: Any) -> None:
    with pytest.raises(GeometryError, match=field) as caught:
        Geometry(**{field: value})
    assert caught.value.hint
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    "affine", [np.zeros((4, 4)), np.eye(3), np.eye(4) * np.nan, "abc", [[1, 2], [3]]]
)
def test_impossible_affine_is_refused(affine: Any) -> None:
    with pytest.raises(GeometryError, match="affine"):
        Geometry.from_affine_ras(affine)


def test_with_a_shape_closeness_holds_for_the_far_corners() -> None:
    """A turn by 0.01° hardly moves neighbors, and the far corner of 512 voxels by 0.13."""
    turned = Geometry(direction=rotation(np.radians(0.01)).tolist())
    assert turned.is_close(Geometry(), 0.05)
    assert turned.is_close(Geometry(), 0.05, shape=(4, 200, 200))
    assert not turned.is_close(Geometry(), 0.05, shape=(4, 512, 512))
    assert not turned.is_close(Geometry(), 0.05, shape=(2, 4, 512, 512))


def test_the_canonical_order_is_that_of_axial_images_and_turns_back() -> None:
    voxels = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    axial = Volume(voxels, Geometry((1.0, 0.9, 1.1), (3.0, 5.0, -7.0)), modality="MR")
    for storage in STORAGES:
        other = stored(axial, storage)
        seen = other.canonical()
        assert np.array_equal(seen.voxels, voxels)
        assert np.shares_memory(seen.voxels, other.voxels)
        assert seen.geometry.is_close(axial.geometry, 1e-12, shape=axial.shape)
        assert np.array_equal(other.geometry.turn.undo(seen.voxels), other.voxels)
    assert axial.canonical().geometry == axial.geometry


@pytest.mark.parametrize("angle", [0.3, np.pi / 4, np.pi / 2])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 1, 4), (4, 1, 1)])
def test_storages_of_an_oblique_volume_share_one_order(
    angle: float, spacing: tuple[float, float, float]
) -> None:
    tilted = np.roll(rotation(angle), 1, axis=(0, 1)) @ rotation(angle)
    geometry = Geometry(spacing, (1.0, 2.0, 3.0), tilted.tolist())
    volume = Volume(np.arange(60).reshape(3, 4, 5), geometry, modality="MR")
    first, upright = volume.canonical(), volume.upright()
    assert first.geometry.spacing[2] == max(spacing)
    assert np.trace(upright.geometry.direction) >= np.trace(first.geometry.direction)
    for storage in STORAGES:
        # Of a file, an affine is known to some digits.
        other = stored(volume, storage)
        affine = other.geometry.affine_ras.round(9)
        other = Volume(other.voxels, Geometry.from_affine_ras(affine), modality="MR")
        assert np.array_equal(other.canonical().voxels, first.voxels)
        assert np.array_equal(other.upright().voxels, upright.voxels)
