"""Cuts lie as a radiologist expects them, whatever the axes of the volume are."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from Library.conftest import rotation

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.report.orthogonal import PLANES, PlaneName, busiest_point, cut

EXPECTED = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}
#: Every way of laying voxel axes along the patient's: 48, half of them left-handed.
SIGNED_PERMUTATIONS = [
    np.array([[sign * (row == axis) for axis in order] for row, sign in enumerate(signs)], float)
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
SPACING = (0.5, 2.0, 3.0)


def geometry_of(direction: np.ndarray) -> Geometry:
    return Geometry(SPACING, (5.0, -7.0, 11.0), tuple(map(tuple, direction)))


def marked(direction: np.ndarray, towards: np.ndarray) -> tuple[Volume, tuple[int, int, int]]:
    """A volume with one bright voxel, some voxels from its middle in an LPS direction."""
    voxels = np.zeros((9, 11, 13), np.int16)
    middle = np.array([6, 5, 4])  # i, j, k
    place = middle + np.rint(direction.T @ towards).astype(int) * 3
    voxels[place[2], place[1], place[0]] = 100
    return Volume(voxels, geometry_of(direction), modality="MR"), (4, 5, 6)


@pytest.mark.parametrize("direction", SIGNED_PERMUTATIONS)
def test_letters_are_radiological_for_every_axis_order(direction: np.ndarray) -> None:
    volume = Volume(np.zeros((9, 11, 13), np.int16), geometry_of(direction), modality="MR")
    for name in PLANES:
        assert cut(volume, name, (4, 5, 6)).letters == EXPECTED[name]


@pytest.mark.parametrize(
    ("towards", "plane", "side"),
    [
        ((1, 0, 0), "axial", "right"),
        ((1, 0, 0), "coronal", "right"),
        ((0, -1, 0), "axial", "top"),
        ((0, -1, 0), "sagittal", "left"),
        ((0, 0, 1), "coronal", "top"),
        ((0, 0, 1), "sagittal", "top"),
    ],
)
def test_patients_sides_are_drawn_where_the_letters_say(
    towards: tuple[int, int, int], plane: PlaneName, side: str
) -> None:
    for direction in SIGNED_PERMUTATIONS:
        volume, point = marked(direction, np.array(towards, float))
        pixels = cut(volume, plane, point).pixels
        row, column = np.argwhere(pixels == 100)[0]
        height, width = pixels.shape
        where = {
            "right": column > width / 2,
            "left": column < width / 2 - 1,
            "top": row < height / 2 - 1,
        }
        assert where[side], direction


def test_oblique_grid_has_two_letters_beyond_fifteen_degrees() -> None:
    nearly = Volume(np.zeros((4, 4, 4)), geometry_of(rotation(np.radians(10))), modality="MR")
    oblique = Volume(np.zeros((4, 4, 4)), geometry_of(rotation(np.radians(30))), modality="MR")
    assert cut(nearly, "axial", (1, 1, 1)).letters == ("R", "L", "A", "P")
    assert cut(oblique, "axial", (1, 1, 1)).letters == ("RA", "LP", "AL", "PR")


def test_microscopy_has_no_patient_and_no_letters() -> None:
    volume = Volume(np.zeros((4, 4, 4)), Geometry((1e-5,) * 3), modality="EM")
    assert cut(volume, "axial", (1, 1, 1)).letters == ("", "", "", "")


def test_busiest_point_lies_in_the_object_not_in_the_air(rng: np.random.Generator) -> None:
    voxels = rng.normal(0, 2, (20, 40, 60)).astype(np.float32)
    voxels[12:18, 5:15, 40:55] += 500
    k, j, i = busiest_point(Volume(voxels, modality="MR"))
    assert 12 <= k < 18
    assert 5 <= j < 15
    assert 40 <= i < 55
