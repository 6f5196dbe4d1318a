"""Geometry and voxels as SimpleITK, GDCM and the volumes beside the project have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from Library.conftest import Make
from Library.dicom.reading import read_with_itk
from Library.dicom.test_stack import turned

from MedEnhanceLib.io import load

STORED = np.random.default_rng(5).integers(0, 2000, (8, 4, 6)).astype(np.uint16)


def along(orientation: Any, distances: Any) -> list[tuple[float, float, float]]:
    normal = np.cross(orientation[:3], orientation[3:])
    return [tuple((np.array([7, -80, 900]) + mm * normal).tolist()) for mm in distances]


AGREED = {
    "axial": ((1, 0, 0, 0, 1, 0), 2.5 * np.arange(8)),
    "descending": ((1, 0, 0, 0, 1, 0), -2.5 * np.arange(8)),
    "feet first, prone": ((-1, 0, 0, 0, -1, 0), 2.5 * np.arange(8)),
    "coronal": ((1, 0, 0, 0, 0, -1), 3.0 * np.arange(8)),
    "sagittal": ((0, 1, 0, 0, 0, -1), 3.0 * np.arange(8)),
    "oblique": (turned((0.3, 0, 0)), 1.1 * np.arange(8)),
    "double oblique": (turned((0.4, -0.7, 1.9)), 0.7 * np.arange(8)),
    "rounded to hundredths": ((1, 0, 0, 0, 1, 0), np.round(0.625 * np.arange(8), 2)),
}


@pytest.mark.parametrize("name", AGREED)
def test_a_plain_series_is_what_simpleitk_reads(make_series: Make, name: str) -> None:
    orientation, distances = AGREED[name]
    folder = make_series(STORED, positions=along(orientation, distances), orientation=orientation)
    volume, (voxels, geometry) = load(folder), read_with_itk(folder)
    assert volume.geometry.is_close(geometry, tolerance=1e-4)
    assert np.allclose(volume.voxels, voxels, rtol=1e-6, atol=1e-6)
