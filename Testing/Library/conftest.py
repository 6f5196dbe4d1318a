"""What all library tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.geometry import Geometry
from MedEnhanceLib.volume import Volume

_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The open volumes kept beside the project; a fresh clone has none and skips."""
    folder = _REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the open volumes beside the project (../shared/data) are not here")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


@pytest.fixture
def oblique_geometry() -> Geometry:
    """Anisotropic spacing and a direction that no axis is parallel to."""
    angle, tilt = 0.3, -0.2
    about_z = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    )
    return Geometry((0.7, 0.9, 3.3), (-12.5, 80.25, 1e3), tuple(map(tuple, about_z @ about_x)))


@pytest.fixture
def head(rng: np.random.Generator, oblique_geometry: Geometry) -> Volume:
    """A small smooth object with an edge and texture, int16, that looks like an MR."""
    k, j, i = np.mgrid[-1:1:12j, -1:1:40j, -1:1:36j]
    inside = (k**2 + j**2 + i**2) < 0.8
    smooth = 600 + 200 * np.sin(4 * i) * np.cos(3 * j)
    voxels = inside * smooth + rng.normal(0, 8, inside.shape)
    return Volume(voxels.astype(np.int16), oblique_geometry, modality="MR", source="head")
