"""A scan has one enhancement, however its voxel axes are ordered and directed in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.storages import SOME, STORAGES, Storage, restored, stored

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import VolumeCache, enhance
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.io import load, save
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder

#: Slices are rows here, in the other direction.
SAGITTAL: Storage = ((2, 0, 1), (1, -1, 1))


def noisy(volume: Volume, seed: int = 0) -> Volume:
    noise = np.random.default_rng(seed).normal(0, 15, (2, *volume.shape))
    return volume.with_voxels(np.hypot(volume.voxels + noise[0], noise[1]).astype(np.float32))


@pytest.fixture(scope="module")
def part() -> Volume:
    """Some of the template, with voxels that are no cubes but nearly so."""
    whole = load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    voxels = whole.voxels[80:100, 90:118, 70:102].copy()
    return Volume(voxels, Geometry((1.0, 1.0, 1.1), (3, 5, -7)), modality="MR")


@pytest.fixture(scope="module")
def first(part: Volume) -> Enhanced:
    """What the noisy part of the template gives."""
    return me.enhance(noisy(part), uncertainty=True)


@pytest.mark.parametrize("storage", [STORAGES[14], SAGITTAL, STORAGES[46]])
def test_enhanced_voxels_and_maps_are_those_of_any_other_storage(
    part: Volume, first: Enhanced, storage: Storage
) -> None:
    other = stored(noisy(part), storage)
    result = me.enhance(other, uncertainty=True)
    assert result.volume.geometry == other.geometry
    assert _without_places(result.measured) == _without_places(first.measured)
    points, same_points = (
        [r.volume.geometry.affine_lps @ [*reversed(at), 1] for at in r.measured["noise"]["places"]]
        for r in (first, result)
    )
    assert len(points) > 0 and np.allclose(points, same_points)
    for one, two in (
        (first.volume, result.volume),
        (first.uncertainty, result.uncertainty),
        (first.noise, result.noise),
    ):
        assert one is not None and two is not None
        assert np.array_equal(restored(two.voxels, storage), one.voxels)
        assert two.voxels.flags.c_contiguous


def _without_places(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out voxels that are proposed for measuring, as their indices are those of a storage."""
    noise = {name: value for name, value in measured["noise"].items() if name != "places"}
    return {**measured, "noise": noise}


@pytest.mark.slow
def test_storages_of_ct_are_enhanced_alike(part: Volume) -> None:
    scan = replace(noisy(part), modality="CT")
    first = me.enhance(scan, device="cpu").volume.voxels
    for storage in SOME:
        result = me.enhance(stored(scan, storage), device="cpu").volume.voxels
        assert np.array_equal(restored(result, storage), first)


def test_frames_of_a_sequence_are_enhanced_in_the_same_order(part: Volume) -> None:
    frames = [noisy(part.crop(k=slice(0, 10)), seed).voxels for seed in range(3)]
    scan = replace(part.crop(k=slice(0, 10)), voxels=np.stack(frames))
    first = me.enhance(scan, device="cpu").volume.voxels
    result = me.enhance(stored(scan, SAGITTAL), device="cpu").volume.voxels
    assert np.array_equal(restored(result, SAGITTAL), first)


def test_a_map_of_the_noise_is_read_in_the_order_of_the_volume(
    part: Volume, tmp_path: Path
) -> None:
    scan = noisy(part)
    sigma = part.with_voxels(np.linspace(5, 25, part.voxels.size).reshape(part.shape))
    save(stored(sigma, SAGITTAL), tmp_path / "sigma.nrrd")
    save(sigma, tmp_path / "axial.nrrd")
    first = me.enhance(scan, noise=str(tmp_path / "axial.nrrd"), device="cpu").volume.voxels
    other = stored(scan, SAGITTAL)
    result = me.enhance(other, noise=str(tmp_path / "sigma.nrrd"), device="cpu").volume.voxels
    assert np.array_equal(restored(result, SAGITTAL), first)


def test_previews_in_any_storage_leave_the_whole_run_as_it_is(
    part: Volume,
) -> None:
    config, scan = EnhanceConfig(device="cpu"), noisy(part)
    flipped = stored(scan, STORAGES[7])
    whole = enhance(flipped, config)
    preview = enhance(flipped, config, slices=(3, 5))
    assert np.array_equal(preview.volume.voxels, whole.volume.voxels[3:5])
    assert preview.noise is not None and whole.noise is not None
    assert np.array_equal(preview.noise.voxels, whole.noise.voxels[3:5])
    sagittal, cache = stored(scan, SAGITTAL), VolumeCache()
    preview = enhance(sagittal, config, slices=(3, 5), cache=cache)
    assert preview.volume.geometry == sagittal.crop(k=slice(3, 5)).geometry
    after = enhance(sagittal, config, cache=cache).volume.voxels
    assert np.array_equal(restored(after, SAGITTAL), enhance(scan, config).volume.voxels)
    difference = preview.volume.voxels - after[3:5]
    assert np.sqrt(np.square(difference).mean()) < 0.15 * 15


@pytest.mark.training
def test_trainings_read_volumes_as_they_are_enhanced_in_use(part: Volume, tmp_path: Path) -> None:
    from MedEnhanceLib.training.hqg.config import TrainConfig
    from MedEnhanceLib.training.hqg.training_data import high_quality_volumes
    from MedEnhanceLib.training.slices.slice_training import read_planes

    scans = [part, stored(part, SAGITTAL)]
    volumes, planes = [], []
    for number, scan in enumerate(scans):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("scan.nrrd", "other.nrrd"):  # one is held out
            save(scan, folder / name)
        config = TrainConfig.from_json({"preset": "smoke", "high_quality": ["*.nrrd"]})
        volumes.append(high_quality_volumes(config, folder, Monitor())[0][0].voxels)
        planes.append(read_planes([], "MR", Monitor(), noiseless=[folder / "scan.nrrd"])[0].pixels)
    assert np.array_equal(*volumes)
    assert np.array_equal(*planes)
