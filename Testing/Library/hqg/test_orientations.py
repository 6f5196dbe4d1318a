"""Three orientations are the mean of a run along each axis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.hqg import EnhanceConfig, enhance


@pytest.fixture
def cube() -> Volume:
    rng = np.random.default_rng(3)
    voxels = 400 + 80 * rng.standard_normal((24, 32, 40)).astype(np.float32)
    return Volume(voxels, Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), modality="MR")


def test_three_orientations_are_the_mean_of_a_run_along_each_axis(cube: Volume, model: str) -> None:
    one = EnhanceConfig(model=model, device="cpu", orientations=1)
    runs = []
    for axes in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        turned = replace(cube, voxels=np.ascontiguousarray(cube.voxels.transpose(axes)))
        runs.append(enhance(turned, one).volume.voxels.transpose(np.argsort(axes)))
    whole = enhance(cube, replace(one, orientations=3))
    # What the network starts from is that along the slices in all three.
    far = [np.abs(whole.volume.voxels - run).mean() for run in runs]
    assert np.abs(whole.volume.voxels - np.mean(runs, axis=0)).mean() < 0.3 * min(far)
    assert "3 orientations" in whole.volume.history[-1]


def test_what_several_runs_start_from_is_what_a_single_one_finds(cube: Volume, model: str) -> None:
    one = EnhanceConfig(model=model, device="cpu", orientations=1)
    with_samples = enhance(cube, replace(one, uncertainty=2))
    assert np.array_equal(with_samples.volume.voxels, enhance(cube, one).volume.voxels)
    part, whole = (
        enhance(cube, replace(one, uncertainty=2), slices=slices) for slices in ((9, 13), None)
    )
    assert part.uncertainty is not None
    assert whole.uncertainty is not None
    assert np.array_equal(part.uncertainty.voxels, whole.uncertainty.voxels[9:13])


def test_tiles_are_the_same_with_and_without_samples(model: str) -> None:
    rng = np.random.default_rng(4)
    voxels = 400 + 80 * rng.standard_normal((4, 48, 320)).astype(np.float32)
    wide = Volume(voxels, Geometry((1.0, 1.0, 3.0), (0.0, 0.0, 0.0)), modality="MR")
    config = EnhanceConfig(model=model, device="cpu", tile=256)
    alone, sampled = (enhance(wide, replace(config, uncertainty=n)).volume for n in (0, 2))
    assert np.array_equal(alone.voxels, sampled.voxels)


def test_the_uncertainty_comes_from_all_orientations(cube: Volume, model: str) -> None:
    requested = EnhanceConfig(model=model, device="cpu", orientations=3, uncertainty=1)
    result = enhance(cube, requested)
    assert result.uncertainty is not None
    assert result.uncertainty.shape == cube.shape
    assert (result.uncertainty.voxels > 0).all()


def test_other_counts_are_refused() -> None:
    with pytest.raises(ConfigError, match="orientations"):
        EnhanceConfig(orientations=2)
