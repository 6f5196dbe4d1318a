"""Heads to learn from and to enhance, and the enhancer that ships for MR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.bundles import open_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import save


def make_head(seed: int, shape: tuple[int, int, int] = (10, 48, 56)) -> Volume:
    """A ball with texture and an edge, int16."""
    rng = np.random.default_rng(seed)
    k, j, i = np.mgrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    inside = k**2 + j**2 + i**2 < 0.9
    smooth = 500 + 150 * np.sin(5 * i + seed) * np.cos(4 * j)
    voxels = inside * smooth + rng.normal(0, 3, shape)
    geometry = Geometry((0.8, 0.8, 1.0), (5.0, -7.5, 11.25))
    return Volume(np.abs(voxels).astype(np.int16), geometry, modality="MR", source=f"head {seed}")


@pytest.fixture(scope="session")
def training_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for pool, seeds in (("hq", (0, 1)), ("lq", (2,))):
        (folder / pool).mkdir()
        for seed in seeds:
            save(make_head(seed), folder / pool / f"{seed}.nii.gz")
    return folder


@pytest.fixture(scope="session")
def model() -> str:
    """Its folder, as users name a model of their own."""
    return str(open_bundle("auto", kind="enhancer", modality="MR").folder)
